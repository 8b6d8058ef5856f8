//! Events that look alike are judged alike. Those of one kind have the same keys in the same order, so the text between
//! their values is the same; what was found out about one of them, which values are the event's own fields and which type
//! each leaf must have, holds for every other that follows the same path.
//!
//! What is remembered is a tree for each workspace: the text that stands before a value, what the value is, and what may
//! come next. An event that follows a path to its end, with values of the types that are known, fits: its fields need not be
//! named, flattened and looked up again. Whatever is in doubt, a new text, another type, an object where there was none,
//! leaves the path, and the event goes the way of all others. So both ways judge alike, and which one an event goes does
//! not show.
//!
//! A tree belongs to the types it was learned under and outlives only a change that adds some. Every thread has a memory of
//! its own, with [`WORKSPACES`] trees of [`EDGES`] values and [`TEXT`] bytes at most, some 16 MiB. Learning is rationed:
//! events that never look alike cost little more than without.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use millrace_event::flatten::Flattener;
use millrace_event::json::{Kind, Value};
use millrace_store::WorkspaceId;
use millrace_store::fields::FieldType;

use super::event::{Field, Known};
use super::types::{self, Fixed, PARTS};

/// Most workspaces that a thread remembers; the one that was not asked about for longest goes first.
const WORKSPACES: usize = 64;
/// Most values in one tree: many dozen kinds of events.
const EDGES: usize = 2048;
/// Most bytes of text in one tree.
const TEXT: usize = 64 << 10;
/// Most texts that may follow one value; they are compared in turn.
const BRANCHES: usize = 16;
/// A tree is begun anew when it had no room for so many events.
const PATIENCE: u32 = 64;
/// How many events learning one costs: each adds one to the savings of its thread.
const PRICE: u32 = 8;
/// Most savings.
const SAVINGS: u32 = 256 * PRICE;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::default());
}

/// Works with what this thread remembers of a workspace under those types.
pub(super) fn with<T>(
    workspace: &WorkspaceId,
    fixed: &Arc<Fixed>,
    work: impl FnOnce(&mut Shapes<'_>) -> T,
) -> T {
    MEMORY.with_borrow_mut(|memory| work(&mut memory.of(workspace, fixed)))
}

/// Everything that one thread remembers.
#[derive(Debug)]
struct Memory {
    workspaces: HashMap<WorkspaceId, Held, foldhash::fast::RandomState>,
    /// Counts the requests.
    now: u64,
    savings: u32,
}

/// What is remembered of one workspace.
#[derive(Debug)]
struct Held {
    fixed: Arc<Fixed>,
    tree: Tree,
    asked: u64,
}

/// The shapes of one workspace, as its requests use them.
#[derive(Debug)]
pub(super) struct Shapes<'m> {
    fixed: &'m Fixed,
    tree: &'m mut Tree,
    savings: &'m mut u32,
}

/// Texts between values, and what the values are.
#[derive(Debug, Default)]
struct Tree {
    /// What may follow each value, the first one for the beginning; longer texts before shorter ones, which they may start
    /// with.
    nodes: Vec<Vec<Edge>>,
    edges: usize,
    text: usize,
    /// Events that it had no room for.
    missed: u32,
}

#[derive(Debug)]
struct Edge {
    /// What stands before the value, or behind the last one.
    text: Box<str>,
    /// The objects that begin or end in it.
    bounds: Box<[Bound]>,
    /// The value; nothing at the event's end.
    step: Option<Step>,
    next: usize,
}

/// The place in a text where an object begins, or behind which it has ended.
#[derive(Clone, Copy, Debug)]
struct Bound {
    at: usize,
    object: Field,
    begins: bool,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// One of the event's own fields, or nothing that matters here.
    Own(Option<Field>),
    /// In the place of an object with leaves something that has none.
    Bare(Option<Field>),
    /// A leaf whose type is known, or one that was null.
    Leaf(Option<FieldType>),
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            workspaces: HashMap::default(),
            now: 0,
            savings: SAVINGS,
        }
    }
}

impl Memory {
    fn of(&mut self, workspace: &WorkspaceId, fixed: &Arc<Fixed>) -> Shapes<'_> {
        self.now += 1;
        if self.workspaces.len() >= WORKSPACES && !self.workspaces.contains_key(workspace) {
            let oldest = self.workspaces.iter().min_by_key(|(_, held)| held.asked);
            if let Some(oldest) = oldest.map(|(workspace, _)| workspace.clone()) {
                self.workspaces.remove(&oldest);
            }
        }
        let held = self.workspaces.entry(workspace.clone()).or_insert_with(|| Held {
            fixed: Arc::clone(fixed),
            tree: Tree::default(),
            asked: 0,
        });
        held.asked = self.now;
        if !Arc::ptr_eq(&held.fixed, fixed) {
            // What was known and still is stays so, whatever is new.
            if !held
                .fixed
                .iter()
                .all(|(name, known)| fixed.get(name) == Some(known))
            {
                held.tree = Tree::default();
            }
            held.fixed = Arc::clone(fixed);
        }
        Shapes {
            fixed: &held.fixed,
            tree: &mut held.tree,
            savings: &mut self.savings,
        }
    }
}

impl Shapes<'_> {
    /// The fields of an event that follows a known path, every one of its leaves of the type that is known; nothing for any
    /// other.
    pub(super) fn known<'a>(&mut self, event: Value<'a>) -> Option<Known<'a>> {
        *self.savings = (*self.savings + 1).min(SAVINGS);
        self.tree.follow(event)
    }

    /// Remembers an event whose fields all fit.
    pub(super) fn learn(&mut self, event: Value<'_>) {
        if *self.savings < PRICE {
            return;
        }
        *self.savings -= PRICE;
        if let Some(path) = Path::of(event, self.fixed)
            && !self.tree.add(path, event.text())
        {
            self.tree.missed += 1;
            if self.tree.missed >= PATIENCE {
                *self.tree = Tree::default();
            }
        }
    }
}

impl Tree {
    fn follow<'a>(&self, event: Value<'a>) -> Option<Known<'a>> {
        let text = event.text();
        let mut known = Known::default();
        let mut begun = [0; 2];
        let (mut node, mut at) = (0, 0);
        loop {
            let rest = text.as_bytes().get(at..)?;
            let goes_on = |edge: &&Edge| rest.starts_with(edge.text.as_bytes());
            let edge = self.nodes.get(node)?.iter().find(goes_on)?;
            for bound in &edge.bounds {
                let here = at + bound.at;
                let begun = begun.get_mut(usize::from(bound.object == Field::Context))?;
                match bound.begins {
                    true => *begun = here,
                    false => known.set(bound.object, event.part_in(*begun..here)?),
                }
            }
            at += edge.text.len();
            let Some(step) = edge.step else {
                return (at == text.len()).then_some(known);
            };
            let value = event.part_at(at)?;
            match step {
                Step::Bare(_) | Step::Leaf(_) if has_leaves(value) => return None,
                Step::Own(Some(field)) | Step::Bare(Some(field)) => known.set(field, value),
                Step::Own(None) | Step::Bare(None) => {}
                Step::Leaf(wanted) => fits(wanted, value).then_some(())?,
            }
            at += value.text().len();
            node = edge.next;
        }
    }

    /// Adds a path; false where there is no room for it.
    fn add(&mut self, path: Path, text: &str) -> bool {
        if self.nodes.is_empty() {
            self.nodes.push(Vec::new());
        }
        let Path { steps, bounds } = path;
        let mut bounds = bounds.into_iter().peekable();
        let (mut node, mut before) = (0, 0);
        let end = (text.len()..text.len(), None);
        let steps = steps.into_iter().map(|(place, step)| (place, Some(step)));
        for (place, step) in steps.chain([end]) {
            let Some(between) = text.get(before..place.start) else {
                return false;
            };
            let mut inside = Vec::new();
            while let Some(bound) = bounds.next_if(|bound| bound.at <= place.start) {
                inside.push(Bound {
                    at: bound.at - before,
                    ..bound
                });
            }
            before = place.end;
            let next = self.nodes.len();
            let Some(edges) = self.nodes.get_mut(node) else {
                return false;
            };
            let same = |edge: &&mut Edge| &*edge.text == between && edge.step.is_some() == step.is_some();
            if let Some(edge) = edges.iter_mut().find(same) {
                // A field may have a type by now.
                edge.step = step;
                node = edge.next;
                continue;
            }
            if self.edges >= EDGES || self.text + between.len() > TEXT || edges.len() >= BRANCHES {
                return false;
            }
            let place = edges.partition_point(|edge| edge.text.len() > between.len());
            edges.insert(
                place,
                Edge {
                    text: between.into(),
                    bounds: inside.into(),
                    step,
                    next,
                },
            );
            self.edges += 1;
            self.text += between.len();
            self.nodes.push(Vec::new());
            node = next;
        }
        true
    }
}

/// What an event is made of, in the order of its text.
struct Path {
    steps: Vec<(Range<usize>, Step)>,
    /// Places in all of the text.
    bounds: Vec<Bound>,
}

impl Path {
    /// Nothing where an event has a name twice, or one that not everybody may use.
    fn of(event: Value<'_>, fixed: &Fixed) -> Option<Self> {
        let base = event.text().as_ptr().addr();
        let place = |value: Value<'_>| {
            let start = value.text().as_ptr().addr() - base;
            start..start + value.text().len()
        };
        let mut path = Self {
            steps: Vec::new(),
            bounds: Vec::new(),
        };
        let mut names = HashSet::new();
        let mut flattener = Flattener::new();
        let mut full = String::new();
        let mut entries = event.entries();
        while let Some(key) = entries.key() {
            let name = key.unescape().text;
            let field = Field::of(&name);
            let part = PARTS.iter().find(|(part, _)| *part == name);
            if !names.insert(name.clone()) {
                return None;
            }
            let Some(part @ (_, prefix)) = part else {
                let value = entries.value()?;
                path.steps.push((place(value), Step::Own(field)));
                continue;
            };
            let before = path.steps.len();
            let mut is_reserved = false;
            let whole = flattener.walk_value(prefix, &mut entries, &mut |name, value| {
                is_reserved |= types::is_identity(name);
                let known = fixed.get(types::field_name(*part, name, &mut full));
                path.steps.push((place(value), Step::Leaf(known.copied())));
            })?;
            if is_reserved {
                return None;
            }
            if path.steps.len() == before {
                path.steps.push((place(whole), Step::Bare(field)));
            } else if let Some(object) = field {
                let Range { start, end } = place(whole);
                path.bounds.push(Bound {
                    at: start,
                    object,
                    begins: true,
                });
                path.bounds.push(Bound {
                    at: end,
                    object,
                    begins: false,
                });
            }
        }
        Some(path)
    }
}

/// Whether it may be an object with leaves of its own.
fn has_leaves(value: Value<'_>) -> bool {
    value.kind() == Kind::Object && value.text() != "{}"
}

fn fits(wanted: Option<FieldType>, value: Value<'_>) -> bool {
    if (wanted, value.kind()) == (Some(FieldType::String), Kind::String) {
        return true;
    }
    match types::type_of(value) {
        None => true,
        Some(found) => wanted.is_some_and(|wanted| wanted.takes(found)),
    }
}

#[cfg(test)]
mod tests;
