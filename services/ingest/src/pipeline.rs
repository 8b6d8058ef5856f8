//! The rules: what becomes of a submission, from its bytes to the journal. No HTTP here.
//!
//! The steps, in their order, and where each one is:
//!
//! | Step | Refuses | Module |
//! |---|---|---|
//! | decode | the request: not JSON, too many events | `decode`, `mend` |
//! | 1 auth | the request: unknown key, origin | `keys` |
//! | 2 size, form | the event | `event`, `shapes` |
//! | 3 rate limit | the request | `groups`, and `limit` for guests |
//! | 4 time | nothing: corrects and marks | `time` |
//! | 5 late | the event | `time` |
//! | names that were changed, required fields | the event | `rules` |
//! | 6 dedup | nothing: a duplicate is answered 200 | `groups`, `acceptance` |
//! | 7 flatten | the event: reserved names | `types`, called by `seal` |
//! | 8 types | the event, with a copy for the dead letters | `types` |
//! | 9 journal | the request: full | `groups`, `acceptance` |
//! | 10 answer, then the ids are marked | | `groups`, `acceptance` |
//!
//! A fault of the submission refuses all of it; a fault of one event refuses that event. What needs no store is
//! judged of all events before the request is charged, so 4 and 5 are reckoned while an event is read. Under a server's
//! key 3 and 6 are one question to Redis, for all requests that wait together; one beyond its limit reserves no ids.

mod acceptance;
mod decode;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod groups;
mod keys;
mod limit;
mod mend;
mod outcome;
mod rules;
mod seal;
mod settle;
mod shapes;
mod snapshot;
#[doc(hidden)]
pub mod steps;
mod time;
mod types;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use millrace_event::json::Value;
use millrace_event::{IngestCode, KeyKind, Timestamp};
use millrace_store::dedup::Window;
use millrace_store::keys::{Key, Presented};

use crate::metrics::Metrics;

pub use event::{EventLimits, Kind};
pub use keys::KeyCache;
pub use limit::{Guests, Steps};
pub use outcome::{Accepted, Refusal, Rejected, Trail};
pub use time::Clocks;
pub use types::Fields;

pub(crate) use acceptance::{Acceptance, KafkaFirst};
pub(crate) use groups::Groups;
pub(crate) use keys::Keys;
pub(crate) use limit::RateLimits;
pub(crate) use settle::settle;
pub(crate) use types::Types;

use acceptance::Candidate;
use event::Terms;
use seal::Sealer;

/// One request's worth of events, as the edge read it.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What the body is.
    pub shape: Shape,
    /// The write key as presented outside the body; wins over one inside.
    pub credential: Option<String>,
    /// The body.
    pub body: Bytes,
    /// When the request was read.
    pub received_at: Timestamp,
    /// Who sent it.
    pub ip: Option<IpAddr>,
    /// The page's origin, where a browser sent it.
    pub origin: Option<String>,
    /// Whether it came in at the door for events of the past.
    pub import: bool,
    /// Request headers that functions may read.
    pub headers: Vec<(String, String)>,
    /// The trace that the events belong to.
    pub traceparent: Option<String>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"batch": […], …}`
    Batch,
    /// One event, of this type where it does not say so itself.
    Single(Kind),
}

/// The rules with all that they need.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) limits: EventLimits,
    pub(crate) clocks: Clocks,
    pub(crate) keys: Arc<Keys>,
    pub(crate) rates: Arc<RateLimits>,
    pub(crate) types: Arc<Types>,
    pub(crate) groups: Groups,
    /// How many partitions the topics have.
    pub(crate) partitions: Arc<AtomicU32>,
    pub(crate) metrics: Metrics,
}

impl Pipeline {
    /// Takes a submission. Its events are in the journal when this returns.
    ///
    /// # Errors
    /// When the submission as a whole is refused; nothing of it was kept, or a repeat finds what was.
    ///
    /// # Cancellation
    /// Once its events are on their way to the journal they are taken, heard or unheard.
    pub async fn submit(&self, submission: Submission, trail: &mut Trail) -> Result<Accepted, Refusal> {
        let shape = submission.shape;
        let Judged {
            key,
            candidates,
            mut rejected,
            charge,
        } = self.prepare(&submission, trail).await?;
        let window = match is_import(&submission, &key) {
            true => Window::Import,
            false => Window::Live,
        };
        // What nothing is kept of is charged all the same, and a limit that is met is the first thing to say.
        if let (true, Some(events)) = (candidates.is_empty(), charge) {
            let charged = self.rates.charge(&key, None, events, std::iter::empty());
            Box::pin(charged).await?;
        }
        if let (Shape::Single(_), [_, ..]) = (shape, rejected.as_slice()) {
            return Err(rejected
                .into_iter()
                .next()
                .map_or_else(Refusal::empty, |rejected| rejected.refusal));
        }
        if candidates.is_empty() {
            self.count(&rejected);
            return Ok(Accepted {
                accepted: 0,
                duplicates: 0,
                rejected,
            });
        }
        let counts = self.groups.accept(key, window, candidates, charge).await?;
        if let (Shape::Single(_), Some(fault)) = (shape, counts.rejected.first()) {
            return Err(fault.refusal.clone());
        }
        rejected.extend(counts.rejected);
        rejected.sort_by_key(|rejected| rejected.index);
        self.count(&rejected);
        Ok(Accepted {
            accepted: counts.accepted,
            duplicates: counts.duplicates,
            rejected,
        })
    }

    fn count(&self, rejected: &[Rejected]) {
        for rejected in rejected {
            self.metrics.refuse(rejected.refusal.code, 1);
        }
    }

    async fn prepare(&self, submission: &Submission, trail: &mut Trail) -> Result<Judged, Refusal> {
        let mended;
        let envelope = match decode::decode(&submission.body, submission.shape, self.limits.batch) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                mended = mend::mended(&submission.body).ok_or(refusal)?;
                decode::decode(&mended, submission.shape, self.limits.batch)?
            }
        };
        let inside = match submission.credential {
            Some(_) => None,
            None => envelope.write_key(),
        };
        let presented = submission.credential.as_deref().or(inside.as_deref());
        let key = self.authenticate(presented, submission.origin.as_deref()).await?;
        trail.key = Some(Arc::clone(&key));
        let terms = Terms {
            limits: &self.limits,
            clocks: &self.clocks,
            aliases: &key.rules.aliases,
            received_at: submission.received_at,
            is_import: is_import(submission, &key),
            ip: key.ip_policy,
        };
        let fixed = self.types.known(&key.workspace).await;
        let (mut prepared, mut rejected) = (Vec::with_capacity(envelope.items().len()), Vec::new());
        shapes::with(&key.workspace, &fixed, |shapes| {
            for (index, item) in envelope.items().iter().copied().enumerate() {
                if index >= self.limits.batch {
                    return Err(Refusal::new(
                        IngestCode::TooManyEvents,
                        format!("more than {} events", self.limits.batch),
                    ));
                }
                trail.events = index + 1;
                let known = shapes.known(Value::from(item));
                match event::prepare(item, known, submission.shape, &envelope, terms) {
                    Ok(event) => {
                        if trail.kind.is_none() {
                            trail.kind = Some(event.kind);
                            trail.message_id = Some(event.message_id.to_string());
                        }
                        prepared.push((index, event));
                    }
                    Err(fault) => rejected.push(fault.at(index)),
                }
            }
            Ok(())
        })?;
        // A guest's events may get a mark; others are charged in the same breath as their ids are reserved.
        let (mark, charge) = match key.kind {
            KeyKind::Browser => {
                let people = prepared.iter().filter_map(|(_, event)| event.person.as_deref());
                let charged = self.rates.charge(&key, submission.ip, trail.events, people);
                (Box::pin(charged).await?, None)
            }
            KeyKind::Server | KeyKind::Import => {
                let mark = terms.is_import.then_some(settle::IMPORTED);
                (mark, Some(trail.events))
            }
        };
        let mut candidates = Vec::with_capacity(prepared.len());
        let partitions = self.partitions.load(Ordering::Relaxed);
        let sealer = Sealer::new(&key, &fixed, submission, partitions, mark);
        shapes::with(&key.workspace, &fixed, |shapes| {
            for (index, event) in &prepared {
                match sealer.seal(*index, event, shapes) {
                    Ok(candidate) => candidates.push(candidate),
                    Err(fault) => rejected.push(fault.at(*index)),
                }
            }
        });
        drop(sealer);
        drop(prepared);
        rejected.sort_by_key(|rejected| rejected.index);
        Ok(Judged {
            key,
            candidates,
            rejected,
            charge,
        })
    }

    async fn authenticate(&self, presented: Option<&str>, origin: Option<&str>) -> Result<Arc<Key>, Refusal> {
        let invalid = || Refusal::new(IngestCode::InvalidWriteKey, "the write key is not valid");
        let presented = presented.and_then(Presented::parse).ok_or_else(invalid)?;
        let key = self.keys.find(&presented.id).await?.ok_or_else(invalid)?;
        key.admit(presented.secret.as_ref()).map_err(|reason| {
            tracing::info!(key_id = %key.id, %reason, "a write key was refused");
            invalid()
        })?;
        if origin.is_some_and(|origin| !key.allows(origin)) {
            return Err(Refusal::new(
                IngestCode::OriginNotAllowed,
                "the write key may not be used from this origin",
            ));
        }
        Ok(key)
    }
}

/// A submission after all the steps that need no store but the key's.
struct Judged {
    key: Arc<Key>,
    candidates: Vec<Candidate>,
    rejected: Vec<Rejected>,
    /// How many events it is still to be charged with.
    charge: Option<usize>,
}

/// Whether events are history: under an import key, or at the door for it under a server's.
fn is_import(submission: &Submission, key: &Key) -> bool {
    key.kind == KeyKind::Import || (submission.import && key.kind == KeyKind::Server)
}
