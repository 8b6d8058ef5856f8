//! Types of fields: names are flattened as the warehouse will flatten them, and a value must be what the
//! workspace knows the field to be. Nothing is converted.
//!
//! What a workspace knows is in memory; a request asks Postgres only for fields that it does not know, once for
//! all of them. While Postgres is away unknown fields pass unchecked: the type of a field is no reason for an
//! outage.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::flatten::Flattener;
use millrace_event::json::{Kind, Value};
use millrace_event::{IngestCode, KeyKind, Timestamp};
use millrace_service::Clock;
use millrace_store::fields::{FieldType, Guest, Learned, Learning, Sighting};
use millrace_store::keys::Key;
use millrace_store::{Fields as Store, Notice, WorkspaceId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Refusal;
use crate::metrics::Metrics;

/// Most workspaces in memory.
const WORKSPACES: usize = 10_000;
/// Most things that one workspace's guests are remembered to have said.
const SAID: usize = 10_000;
/// How often guests are heard about one field before it is known.
const HEARD: usize = 8;
/// Calls to Postgres at a time.
const CALLS: usize = 4;
/// How long Postgres is left alone after it did not answer.
const REST: Duration = Duration::from_secs(1);
/// Names that a table has for itself: a property of such a name goes by its place in front.
const RESERVED: [&str; 16] = [
    "message_id",
    "type",
    "event",
    "anonymous_id",
    "user_id",
    "group_id",
    "previous_id",
    "name",
    "category",
    "timestamp",
    "original_timestamp",
    "sent_at",
    "received_at",
    "ingested_at",
    "source",
    "extra",
];
/// Names of a row's identity, which no browser has any business with.
const IDENTITY: [&str; 4] = ["_journal", "_partition", "_seq", "_sub"];

/// `[fields]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Most fields of one workspace.
    pub limit: u32,
    /// Most proposals of browser keys that wait for agreement, in one workspace.
    pub proposals: u32,
    /// How many anonymous ids must agree before a browser key fixes a type.
    pub agreement: u32,
    /// How long fields are believed before they are read again.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            limit: 5_000,
            proposals: 5_000,
            agreement: 3,
            ttl: Duration::from_secs(60),
        }
    }
}

/// Fields by name. Every field of every event is looked up here, so the hash is a quick one; it is seeded anew in
/// every process, and its keys are at most [`Fields::limit`].
pub(super) type Fixed = HashMap<String, FieldType, foldhash::fast::RandomState>;

/// What an event says about its fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The fields that nothing is known about.
    unknown: Vec<(String, FieldType)>,
    /// What is wrong with one that is known.
    fault: Option<Refusal>,
    /// Who speaks.
    guest: Guest,
}

impl Said {
    /// The fields that nothing is known about.
    pub(super) fn into_unknown(self) -> Vec<(String, FieldType)> {
        self.unknown
    }

    /// Whether every field is known and of its type.
    pub(super) fn fits(&self) -> bool {
        self.unknown.is_empty() && self.fault.is_none()
    }
}

/// The types of fields, with all that they need.
#[derive(Debug)]
pub(crate) struct Types {
    store: Store,
    learning: Learning,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    calls: Semaphore,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    workspaces: HashMap<WorkspaceId, Workspace>,
    away_until: Option<Instant>,
}

#[derive(Debug)]
struct Workspace {
    fixed: Arc<Fixed>,
    /// Fields without room.
    refused: HashSet<String>,
    /// What guests said that Postgres has heard.
    heard: HashMap<String, Vec<(Guest, FieldType)>>,
    until: Instant,
}

impl Types {
    pub(crate) fn new(store: Store, config: &Fields, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            store,
            learning: Learning {
                fields: config.limit,
                proposals: config.proposals,
                agreement: config.agreement,
            },
            ttl: config.ttl,
            clock,
            metrics,
            calls: Semaphore::new(CALLS),
            known: Mutex::default(),
        }
    }

    /// What the workspace knows, read where it is not in memory; nothing while Postgres is away.
    pub(super) async fn known(&self, workspace: &WorkspaceId) -> Arc<Fixed> {
        match self.fresh(workspace) {
            Some(fixed) => fixed,
            // Rare and large: the way of every other request is not to carry it.
            None => Box::pin(self.read(workspace)).await,
        }
    }

    fn fresh(&self, workspace: &WorkspaceId) -> Option<Arc<Fixed>> {
        let now = self.clock.instant();
        let known = self.lock();
        let entry = known.workspaces.get(workspace);
        let rests = known.away_until.is_some_and(|until| now < until);
        entry
            .filter(|entry| rests || now < entry.until)
            .map(|entry| Arc::clone(&entry.fixed))
            .or_else(|| rests.then(Arc::default))
    }

    async fn read(&self, workspace: &WorkspaceId) -> Arc<Fixed> {
        let Ok(_permit) = self.calls.acquire().await else {
            return Arc::default();
        };
        // Somebody else may have read them meanwhile.
        if let Some(fixed) = self.fresh(workspace) {
            return fixed;
        }
        let read = self.store.all(workspace).await;
        let now = self.clock.instant();
        let mut known = self.lock();
        match read {
            Ok(fixed) => {
                let fixed: Arc<Fixed> = Arc::new(fixed.into_iter().collect());
                if known.workspaces.len() >= WORKSPACES {
                    known.workspaces.clear();
                }
                let entry = Workspace {
                    fixed: Arc::clone(&fixed),
                    refused: HashSet::new(),
                    heard: HashMap::new(),
                    until: now + self.ttl,
                };
                known.workspaces.insert(workspace.clone(), entry);
                fixed
            }
            Err(error) => {
                tracing::warn!(error = %millrace_service::Causes(&error), "fields could not be read, types are not checked");
                known.away_until = Some(now + REST);
                let stale = known.workspaces.get(workspace);
                stale.map(|entry| Arc::clone(&entry.fixed)).unwrap_or_default()
            }
        }
    }

    /// Settles what events of one request say, in their order: for each what is wrong with it, if anything is.
    /// Asks Postgres once at most.
    pub(super) async fn settle(&self, key: &Key, said: Vec<Said>) -> Vec<Option<Refusal>> {
        if said.iter().all(|said| said.unknown.is_empty()) {
            return said.into_iter().map(|said| said.fault).collect();
        }
        let by_guests = key.kind == KeyKind::Browser;
        let seen = self.unheard(&key.workspace, &said, by_guests);
        let learned = if seen.is_empty() {
            Learned::default()
        } else {
            Box::pin(self.learn(&key.workspace, &seen, by_guests)).await
        };
        let fixed: HashMap<_, _> = learned.fixed.into_iter().collect();
        let known = self.lock();
        let held = known.workspaces.get(&key.workspace);
        let judge = |said: Said| {
            if said.fault.is_some() {
                return said.fault;
            }
            said.unknown.into_iter().find_map(|(name, found)| {
                let refused = held.is_some_and(|held| held.refused.contains(&name));
                let wanted = fixed
                    .get(&name)
                    .or_else(|| held.and_then(|held| held.fixed.get(&name)));
                match wanted {
                    Some(wanted) => conflict(&name, *wanted, found),
                    None if refused || learned.refused.contains(&name) => Some(Refusal::of_field(
                        IngestCode::TooManyFields,
                        name,
                        "the workspace has no room for another field",
                    )),
                    None => None,
                }
            })
        };
        said.into_iter().map(judge).collect()
    }

    /// The fields to ask Postgres about, each once.
    fn unheard(&self, workspace: &WorkspaceId, said: &[Said], by_guests: bool) -> Vec<Sighting> {
        let known = self.lock();
        let held = known.workspaces.get(workspace);
        let mut once = HashSet::new();
        let mut seen = Vec::new();
        for said in said.iter().filter(|said| said.fault.is_none()) {
            for (name, field_type) in &said.unknown {
                let sighting = Sighting {
                    name: name.clone(),
                    field_type: *field_type,
                    guest: said.guest,
                };
                let heard = held.is_some_and(|held| {
                    let heard = held.heard.get(name);
                    let enough = |heard: &Vec<(Guest, FieldType)>| {
                        heard.len() >= HEARD || heard.contains(&(said.guest, *field_type))
                    };
                    held.refused.contains(name)
                        || held.fixed.contains_key(name)
                        || (by_guests && heard.is_some_and(enough))
                });
                if !heard && once.insert(sighting.clone()) {
                    seen.push(sighting);
                }
            }
        }
        seen
    }

    async fn learn(&self, workspace: &WorkspaceId, seen: &[Sighting], by_guests: bool) -> Learned {
        let unchecked = u64::try_from(seen.len()).unwrap_or(u64::MAX);
        let rests = {
            let now = self.clock.instant();
            self.lock().away_until.is_some_and(|until| now < until)
        };
        let Ok(_permit) = self.calls.acquire().await else {
            return Learned::default();
        };
        if rests {
            self.metrics.fields_unchecked.inc_by(unchecked);
            return Learned::default();
        }
        let learned = self.store.learn(workspace, seen, by_guests, self.learning).await;
        let mut known = self.lock();
        let learned = match learned {
            Ok(learned) => learned,
            Err(error) => {
                tracing::warn!(error = %millrace_service::Causes(&error), "new fields could not be learned, they pass unchecked");
                known.away_until = Some(self.clock.instant() + REST);
                self.metrics.fields_unchecked.inc_by(unchecked);
                return Learned::default();
            }
        };
        if let Some(held) = known.workspaces.get_mut(workspace) {
            if !learned.fixed.is_empty() {
                Arc::make_mut(&mut held.fixed).extend(learned.fixed.iter().cloned());
            }
            if held.refused.len() + learned.refused.len() <= SAID {
                held.refused.extend(learned.refused.iter().cloned());
            }
            if by_guests && held.heard.len() < SAID {
                for sighting in seen {
                    let heard = held.heard.entry(sighting.name.clone()).or_default();
                    heard.push((sighting.guest, sighting.field_type));
                }
            }
        }
        learned
    }

    /// Takes a notice: what it is about is read again.
    pub(crate) fn hear(&self, notice: &Notice) {
        let mut known = self.lock();
        match notice {
            Notice::WorkspaceChanged(workspace) => {
                known.workspaces.remove(workspace);
            }
            Notice::Missed => known.workspaces.clear(),
            Notice::KeyRevoked(_) | Notice::ConfigurationChanged => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conflict(name: &str, wanted: FieldType, found: FieldType) -> Option<Refusal> {
    (!wanted.takes(found)).then(|| {
        Refusal::of_field(
            IngestCode::TypeConflict,
            name.to_owned(),
            format!("the field is known as {wanted} and was sent as {found}"),
        )
    })
}

thread_local! {
    /// Knows how the keys of past events are written in names; large, so it is kept.
    static FLATTENER: RefCell<Flattener> = RefCell::new(Flattener::new());
}

/// The parts of an event that are checked, each with what stands in front of its fields' names.
pub(super) const PARTS: [(&str, &str); 3] = [("properties", ""), ("traits", ""), ("context", "context")];

/// Reads the fields of an event against what is known.
pub(super) fn read(event: Value<'_>, person: Option<&str>, kind: KeyKind, fixed: &Fixed) -> Said {
    let mut reading = Reading {
        said: Said {
            guest: person.map(Guest::of).unwrap_or_default(),
            ..Said::default()
        },
        is_stranger: kind == KeyKind::Browser,
        fixed,
        full: String::new(),
    };
    FLATTENER.with_borrow_mut(|flattener| {
        let mut entries = event.entries();
        let mut met = [false; PARTS.len()];
        while let Some(key) = entries.key() {
            let name = key.unescape().text;
            let part = PARTS.iter().zip(&mut met).find(|((part, _), _)| *part == name);
            let Some(((source, prefix), met)) = part else {
                entries.value();
                continue;
            };
            if std::mem::replace(met, true) {
                // Of equal names the last one counts.
                return reading.again(flattener, event);
            }
            flattener.walk_value(prefix, &mut entries, &mut |name, value| {
                reading.leaf(source, prefix, name, value);
            });
        }
    });
    reading.said
}

struct Reading<'f> {
    said: Said,
    is_stranger: bool,
    fixed: &'f Fixed,
    full: String,
}

impl Reading<'_> {
    /// From the start, each part by its last entry.
    fn again(&mut self, flattener: &mut Flattener, event: Value<'_>) {
        self.said.unknown.clear();
        self.said.fault = None;
        for (source, prefix) in PARTS {
            if let Some(part) = event.get(source) {
                flattener.walk(prefix, part, &mut |name, value| {
                    self.leaf(source, prefix, name, value);
                });
            }
        }
    }

    fn leaf(&mut self, source: &str, prefix: &str, name: &str, value: Value<'_>) {
        let said = &mut self.said;
        if said.fault.is_some() {
            return;
        }
        if self.is_stranger && is_identity(name) {
            said.fault = Some(Refusal::of_field(
                IngestCode::ReservedField,
                name.to_owned(),
                "the name is kept for the gateway's own use",
            ));
            return;
        }
        let Some(found) = type_of(value) else { return };
        let name = field_name((source, prefix), name, &mut self.full);
        match self.fixed.get(name) {
            Some(wanted) => said.fault = conflict(name, *wanted, found),
            None => said.unknown.push((name.to_owned(), found)),
        }
    }
}

/// Whether it is a name of a row's identity, which no browser has any business with.
pub(super) fn is_identity(name: &str) -> bool {
    IDENTITY.contains(&name)
}

/// The name of the field that the leaf `name` of a part of [`PARTS`] is; `full` is room for it.
pub(super) fn field_name<'n>((source, prefix): (&str, &str), name: &'n str, full: &'n mut String) -> &'n str {
    if !prefix.is_empty() || !(name.starts_with('_') || RESERVED.contains(&name)) {
        return name;
    }
    full.clear();
    full.push_str(source);
    full.push('_');
    full.push_str(name);
    full
}

/// What a value is; a null is nothing.
pub(super) fn type_of(value: Value<'_>) -> Option<FieldType> {
    Some(match value.kind() {
        Kind::Null => return None,
        Kind::Number => FieldType::Number,
        Kind::Bool => FieldType::Boolean,
        Kind::Array => FieldType::Array,
        Kind::Object => FieldType::Object,
        Kind::String if is_date_time(value.text()) => FieldType::DateTime,
        Kind::String => FieldType::String,
    })
}

/// `text` has its quotes. Only the full form with an offset is a date-time: a day alone may be a name.
fn is_date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shaped = matches!(bytes.len(), 22..=37)
        && bytes.get(5) == Some(&b'-')
        && bytes.get(8) == Some(&b'-')
        && matches!(bytes.get(11), Some(b'T' | b't' | b' '));
    let inner = || text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    shaped && inner().is_some_and(|inner| inner.parse::<Timestamp>().is_ok())
}

#[cfg(test)]
mod tests;
