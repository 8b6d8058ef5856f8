//! Events of one kind have the same keys in the same order, and what stands between their values is the same text. A
//! batch remembers these texts of the events it has seen, as a tree: what stands before a value, what becomes of the
//! value, and what may come next. An event that follows a path of it to its end is taken apart without looking at a
//! single key: one comparison for each value instead.
//!
//! The tree only knows events in which no two fields want one column, and gives up where a value asks for anything but
//! its column or `extra`: a column that is not there, an error. Then the event is read key by key, which is what says
//! what becomes of it. So both ways make the same of an event, and which one it goes does not show.

use std::collections::HashSet;
use std::ops::Range;

use millrace_event::flatten::{self, Flattener};
use millrace_event::json::{Kind, Value, quote_or_backslash};

use super::event::{CONTEXT, FIELDS, FLATTENED, Staging, takes};
use crate::column_type::{ColumnType, Scalar};
use crate::layout;
use crate::native::Cell;
use crate::schema::Dialect;
use crate::value::{self, DateTime, Fit};

/// Most values in the tree of one batch: some hundred kinds of events. Others are read key by key.
const MOST_EDGES: usize = 8192;
/// After so many events it must have paid: otherwise the batch goes without.
const TRIAL: u32 = 256;

/// The texts between values that a batch has seen.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// What may follow each value, the first one for the beginning.
    nodes: Vec<Vec<Edge>>,
    edges: usize,
    known: u32,
    unknown: u32,
    /// What a row that is being read has put into `extra`: its rank, and where it lies.
    kept: Vec<(usize, Range<usize>)>,
    #[cfg(test)]
    pub(super) off: bool,
}

#[derive(Debug)]
struct Edge {
    /// What stands before the value, or behind the last one.
    text: Box<str>,
    /// The value; nothing at the event's end.
    step: Option<Step>,
    next: usize,
}

/// What becomes of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    what: What,
    /// The column's name.
    name: Box<str>,
    /// Its position, where it has one.
    position: Option<usize>,
    /// The form that the column takes without a second look.
    form: Form,
    /// Where it belongs among what goes to `extra`.
    rank: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A field of the event itself that has a column.
    Field { is_time: bool },
    /// One that has none.
    Keep,
    /// A leaf of `properties`, `traits` or `context`.
    Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Time,
    Number,
    Any,
}

/// Ranks of what goes to `extra`: fields without a column, then those of the event itself, then leaves by their object.
const RANKS: usize = 1 << 20;

impl Shapes {
    fn is_worth_it(&self) -> bool {
        #[cfg(test)]
        if self.off {
            return false;
        }
        self.known + self.unknown < TRIAL || self.known > self.unknown
    }

    fn add(&mut self, steps: Vec<(Range<usize>, Step)>, text: &str) {
        if self.nodes.is_empty() {
            self.nodes.push(Vec::new());
        }
        let (mut node, mut before) = (0, 0);
        let end = (text.len()..text.len(), None);
        let all = steps.into_iter().map(|(place, step)| (place, Some(step)));
        for (place, step) in all.chain([end]) {
            let Some(between) = text.get(before..place.start) else {
                return;
            };
            before = place.end;
            let next = self.nodes.len();
            let Some(edges) = self.nodes.get_mut(node) else {
                return;
            };
            let same = |edge: &Edge| &*edge.text == between && edge.step.is_some() == step.is_some();
            if let Some(edge) = edges.iter_mut().find(|edge| same(edge)) {
                // It may have a column by now.
                edge.step = step;
                node = edge.next;
                continue;
            }
            if self.edges >= MOST_EDGES {
                return;
            }
            self.edges += 1;
            let text = between.into();
            edges.push(Edge { text, step, next });
            self.nodes.push(Vec::new());
            node = next;
        }
    }
}

impl<'a> Staging<'_, 'a> {
    /// Takes an event apart along a path that is known. False where there is none, or where it must be read key by key
    /// for another reason: then nothing has happened.
    pub(super) fn along_a_known_path(&mut self, event: Value<'a>) -> bool {
        let mut shapes = std::mem::take(&mut self.batch.scratch.shapes);
        let mut known = false;
        if shapes.is_worth_it() {
            shapes.kept.clear();
            known = self.follow(&shapes.nodes, event, &mut shapes.kept) == Some(()) && self.error.is_none();
            match known {
                true => shapes.known += 1,
                false => shapes.unknown += 1,
            }
        }
        if known {
            self.sort_extra(&mut shapes.kept);
        } else {
            self.error = None;
            self.extra.clear();
            self.cells.clear();
            self.before = self.batch.core.extra;
            self.batch.scratch.row += 1;
        }
        self.batch.scratch.shapes = shapes;
        known
    }

    fn follow(
        &mut self,
        nodes: &[Vec<Edge>],
        event: Value<'a>,
        kept: &mut Vec<(usize, Range<usize>)>,
    ) -> Option<()> {
        let text = event.text();
        let bytes = text.as_bytes();
        let (mut node, mut at) = (0, 0);
        loop {
            let rest = bytes.get(at..)?;
            let edge = nodes.get(node)?.iter().find(|edge| edge.stands_before(rest))?;
            at += edge.text.len();
            let Some(step) = &edge.step else {
                return (at == bytes.len()).then_some(());
            };
            node = edge.next;
            at = match self.quickly(step, text, at) {
                Some(end) => end,
                None => {
                    let value = event.part_at(at)?;
                    let before = self.extra.len();
                    self.slowly(step, value)?;
                    if self.extra.len() > before {
                        kept.push((step.rank, before..self.extra.len()));
                    }
                    at + value.text().len()
                }
            };
        }
    }

    /// A value of the form that its column has, straight from the text: where it ends. Nothing for any other value.
    #[inline]
    fn quickly(&mut self, step: &Step, text: &'a str, at: usize) -> Option<usize> {
        let position = step.position?;
        let bytes = text.as_bytes();
        match step.form {
            Form::Text => {
                let (inner, end) = plain_string(text, at)?;
                self.put(position, Cell::Text(inner.into()));
                Some(end)
            }
            Form::Time => {
                let (inner, end) = plain_string(text, at)?;
                let time = DateTime::parse(inner).filter(|time| time.exact)?;
                self.put(position, Cell::Bits(time.bits()));
                Some(end)
            }
            Form::Number => {
                let (number, end) = short_number(bytes, at)?;
                self.put(position, Cell::Bits(number.to_bits()));
                Some(end)
            }
            Form::Any => None,
        }
    }

    /// Any value, by the rules that hold for every event; nothing where they ask for more than its column or `extra`.
    fn slowly(&mut self, step: &Step, value: Value<'a>) -> Option<()> {
        match step.what {
            What::Keep => self.keep(&step.name, value),
            What::Field { .. } if value.kind() == Kind::Null => self.keep(&step.name, value),
            What::Field { is_time: true } => self.time(&step.name, step.position?, value),
            What::Field { is_time: false } => self.text(&step.name, step.position?, value),
            What::Leaf => {
                let Some(position) = step.position.or_else(|| self.position(&step.name)) else {
                    // It may make a column.
                    let makes_none = value::type_for(value).is_none();
                    return makes_none.then(|| self.keep(&step.name, value));
                };
                let spec = self.spec(position)?;
                match value::fit(&spec.column_type, value) {
                    Fit::Column { cell, keep_source } if takes(self.dialect(), &cell) => {
                        if keep_source {
                            self.keep(&step.name, value);
                        }
                        self.put(position, cell);
                    }
                    Fit::Column { .. } | Fit::Extra => self.keep(&step.name, value),
                    Fit::Conflict => return None,
                }
            }
        }
        Some(())
    }

    /// What goes to `extra` stands there in an order of its own, not in that of the event.
    fn sort_extra(&mut self, kept: &mut [(usize, Range<usize>)]) {
        if kept.is_sorted_by_key(|(rank, _)| *rank) {
            return;
        }
        kept.sort_by_key(|(rank, _)| *rank);
        let unsorted = std::mem::take(&mut self.extra);
        for (_, place) in kept {
            self.extra.push(if self.extra.is_empty() { '{' } else { ',' });
            let entry = unsorted.get(place.start + 1..place.end);
            self.extra.push_str(entry.unwrap_or_default());
        }
    }

    /// Remembers the path of an event that was read key by key and taken.
    pub(super) fn remember(&mut self, event: Value<'a>) {
        let mut shapes = std::mem::take(&mut self.batch.scratch.shapes);
        if shapes.is_worth_it()
            && shapes.edges < MOST_EDGES
            && let Some(steps) = self.steps_of(event)
        {
            shapes.add(steps, event.text());
        }
        self.batch.scratch.shapes = shapes;
    }

    /// The values of an event in the order of its text; nothing where two of them want one name.
    fn steps_of(&mut self, event: Value<'a>) -> Option<Vec<(Range<usize>, Step)>> {
        let base = event.text().as_ptr().addr();
        let place = |value: Value<'_>| {
            let start = value.text().as_ptr().addr() - base;
            start..start + value.text().len()
        };
        let mut flattener = Flattener::new();
        let mut found = Vec::new();
        let mut objects = [false; FLATTENED.len()];
        let mut entries = event.entries();
        while let Some(key) = entries.key() {
            let key = key.unescape().text;
            let object = FLATTENED.iter().position(|name| *name == key);
            let Some(object) = object else {
                let value = entries.value()?;
                let field = FIELDS.iter().position(|field| field.key == key);
                let (what, name) = match field.and_then(|field| FIELDS.get(field)) {
                    Some(field) => (
                        What::Field {
                            is_time: field.is_time,
                        },
                        field.column.to_owned(),
                    ),
                    None => (What::Keep, flatten::name_of(&key)),
                };
                let rank = field.map_or(0, |field| (1 << 10) + field) * RANKS;
                found.push((place(value), what, name, rank));
                continue;
            };
            let twice = std::mem::replace(objects.get_mut(object)?, true);
            if twice || entries.kind() != Kind::Object {
                return None;
            }
            let source = *FLATTENED.get(object)?;
            let prefix = if source == CONTEXT { CONTEXT } else { "" };
            let mut leaf = |name: &str, value: Value<'a>| {
                let name = match source == CONTEXT || !layout::is_reserved(name) {
                    true => name.to_owned(),
                    false => format!("{source}_{name}"),
                };
                let rank = ((2 << 10) + object) * RANKS;
                found.push((place(value), What::Leaf, name, rank));
            };
            flattener.walk_value(prefix, &mut entries, &mut leaf)?;
        }
        let mut names = HashSet::new();
        let columns = found.iter().filter(|(_, what, ..)| *what != What::Keep);
        let distinct = columns
            .map(|(_, _, name, _)| name)
            .all(|name| names.insert(name.clone()));
        distinct.then_some(())?;
        let mut steps = Vec::with_capacity(found.len());
        for (index, (place, what, name, rank)) in found.into_iter().enumerate() {
            let position = match what {
                What::Keep => None,
                _ => self.position(&name),
            };
            let step = Step {
                what,
                form: position.map_or(Form::Any, |position| self.form_of(position, what)),
                name: name.into(),
                position,
                rank: rank + index,
            };
            steps.push((place, step));
        }
        Some(steps)
    }

    fn form_of(&self, position: usize, what: What) -> Form {
        let Some(spec) = self
            .spec(position)
            .filter(|_| self.dialect() == Dialect::ClickHouse)
        else {
            return Form::Any;
        };
        match spec.column_type {
            ColumnType::Plain(Scalar::String)
            | ColumnType::Nullable(Scalar::String)
            | ColumnType::LowCardinality
            | ColumnType::LowCardinalityNullable
                if what != (What::Field { is_time: true }) =>
            {
                Form::Text
            }
            ColumnType::Plain(Scalar::DateTime64) | ColumnType::Nullable(Scalar::DateTime64)
                if what != (What::Field { is_time: false }) =>
            {
                Form::Time
            }
            ColumnType::Plain(Scalar::Float64) | ColumnType::Nullable(Scalar::Float64)
                if what == What::Leaf =>
            {
                Form::Number
            }
            _ => Form::Any,
        }
    }
}

impl Edge {
    /// Whether it is the one that `rest` goes on with.
    #[inline]
    fn stands_before(&self, rest: &[u8]) -> bool {
        let Some(behind) = rest.strip_prefix(self.text.as_bytes()) else {
            return false;
        };
        match (&self.step, behind) {
            (None, behind) => behind.is_empty(),
            // What is kept whatever it is, is kept whole; any other object has leaves of its own, but for an empty one.
            (Some(step), [b'{', next, ..]) => step.what == What::Keep || *next == b'}',
            (Some(_), [b' ' | b'\n' | b'\r' | b'\t' | b'"' | b'}' | b']', ..]) => {
                behind.first() == Some(&b'"')
            }
            (Some(_), _) => true,
        }
    }
}

/// The inside of the string without escapes whose quote is at `at`, and where the string ends.
#[inline]
fn plain_string(text: &str, at: usize) -> Option<(&str, usize)> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let end = quote_or_backslash(bytes, at + 1);
    let inner = text.get(at + 1..end)?;
    (bytes.get(end) == Some(&b'"')).then_some((inner, end + 1))
}

/// Digits that a number may have to be read by one division: its digits are below 2^53, and the power of ten is exact.
const MOST_DIGITS: usize = 15;

/// A number of few digits without exponent, and where it ends.
#[inline]
fn short_number(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    const POWERS: [f64; MOST_DIGITS + 1] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(negative);
    let (mut at, mut digits, mut point) = (start, 0_u64, None);
    loop {
        match bytes.get(at) {
            Some(byte @ b'0'..=b'9') => digits = digits.wrapping_mul(10) + u64::from(byte - b'0'),
            Some(b'.') => point = Some(at),
            Some(b'e' | b'E') => return None,
            _ => break,
        }
        at += 1;
        if at - start > MOST_DIGITS {
            return None;
        }
    }
    let fraction = point.map_or(0, |point| at - point - 1);
    if at == start {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "fifteen digits are below 2^53")]
    let number = digits as f64 / POWERS.get(fraction)?;
    Some((if negative { -number } else { number }, at))
}

#[cfg(test)]
mod tests;
