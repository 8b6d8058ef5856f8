//! Charge and reserve, judge types, journal, done: of one request by itself. Most go through these steps with others, in
//! [`groups`](super::groups); here is what the steps are, and the way of those for whom others must not wait.
//!
//! The memory of message ids makes copies rare; it never stands between an event and the journal. Where it is
//! away events are accepted and counted.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::header::{self, Headers, TRACEPARENT, connect};
use millrace_event::{IngestCode, Timestamp};
use millrace_service::failpoint;
use millrace_store::dedup::{Fingerprint, Reservation, Window};
use millrace_store::keys::Key;
use millrace_store::{Dedup, WorkspaceId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::types::{Said, Types};
use super::{RateLimits, Refusal, Rejected};
use crate::journal::{AppendError, Entry, Journal, Topic};
use crate::metrics::Metrics;

/// Between two looks at an id that this process is about to accept.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pauses before marking ids as done is tried again.
const MARK_AGAIN: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// An event on its way into the journal.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its place in the submission.
    pub(super) index: usize,
    pub(super) message_id: String,
    /// Of the message id.
    pub(super) fingerprint: Fingerprint,
    pub(super) received_at: Timestamp,
    /// What it says about its fields.
    pub(super) said: Said,
    pub(super) entry: Entry,
}

/// What became of the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accepted: usize,
    pub(super) duplicates: usize,
    /// Those whose fields do not fit.
    pub(super) rejected: Vec<Rejected>,
}

/// One request's events on their way.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) key: Arc<Key>,
    pub(super) window: Window,
    pub(super) candidates: Vec<Candidate>,
    /// With how many events the workspace is still to be charged.
    pub(super) charge: Option<usize>,
    pub(super) reply: Reply,
}

/// Where the outcome of a request is told.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) sender: oneshot::Sender<Result<Counts, Refusal>>,
    /// Its share of what may be on the way; given back with the answer.
    pub(super) room: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn send(self, result: Result<Counts, Refusal>) {
        if self.sender.send(result).is_err() {
            tracing::debug!("the client went away before its answer");
        }
    }
}

/// The last steps of the pipeline.
#[derive(Debug)]
pub(crate) struct Acceptance {
    pub(crate) journal: Arc<Journal>,
    pub(crate) dedup: Dedup,
    pub(crate) types: Arc<Types>,
    pub(crate) rates: Arc<RateLimits>,
    /// How long a copy waits for an event that is being accepted.
    pub(crate) wait: Duration,
    /// Where an answer waits for Kafka.
    pub(crate) kafka: Option<KafkaFirst>,
    pub(crate) metrics: Metrics,
}

/// An answer of 200 says that Kafka has the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KafkaFirst {
    /// How long it waits for that.
    pub(crate) timeout: Duration,
    /// How many records may wait.
    pub(crate) backlog: u64,
}

impl Acceptance {
    /// Charges the workspace where that is left to do, accepts candidates and answers; goes on after the answer until the
    /// ids are marked.
    ///
    /// # Cancellation
    /// Must not be dropped before its end, or ids stay reserved until they expire.
    pub(super) async fn accept(self: Arc<Self>, work: Work) {
        let Work {
            key,
            window,
            candidates,
            charge,
            reply,
        } = work;
        let all = candidates.len();
        if let Some(kafka) = self.kafka
            && self.journal.depth().records >= kafka.backlog
        {
            return reply.send(Err(unacknowledged(
                "too many events wait for kafka, nothing was kept",
            )));
        }
        let charge = async {
            match charge {
                Some(events) => self.rates.charge(&key, None, events, std::iter::empty()).await,
                None => Ok(None),
            }
        };
        let fresh = match tokio::join!(charge, self.fresh(&key.workspace, candidates, None)) {
            (Ok(_), Ok(fresh)) => fresh,
            (Err(refusal), Ok(fresh)) => {
                let ids: Vec<_> = fresh.iter().map(|candidate| candidate.fingerprint).collect();
                self.release(&key.workspace, &ids).await;
                return reply.send(Err(refusal));
            }
            (Err(refusal), Err(_)) | (Ok(_), Err(refusal)) => return reply.send(Err(refusal)),
        };
        self.accept_fresh(&key, window, all, fresh, reply).await;
    }

    /// The rest of [`Self::accept`] for a request that was charged, of whose ids `known` is known.
    ///
    /// # Cancellation
    /// As there.
    pub(super) async fn accept_known(self: Arc<Self>, work: Work, known: Vec<Reservation>) {
        let (key, all) = (work.key, work.candidates.len());
        match self.fresh(&key.workspace, work.candidates, Some(known)).await {
            Ok(fresh) => self.accept_fresh(&key, work.window, all, fresh, work.reply).await,
            Err(refusal) => work.reply.send(Err(refusal)),
        }
    }

    /// The rest of [`Self::accept`] for a request of which `fresh` are reserved, of `all` its events.
    ///
    /// # Cancellation
    /// As there.
    pub(super) async fn accept_fresh(
        &self,
        key: &Key,
        window: Window,
        all: usize,
        fresh: Vec<Candidate>,
        reply: Reply,
    ) {
        let Judged {
            ids,
            entries,
            refused,
            rejected,
        } = self.judge(key, fresh).await;
        let counts = Counts {
            accepted: ids.len(),
            duplicates: all - ids.len() - refused.len(),
            rejected,
        };
        let mut reply = Some(reply);
        if answers_first()
            && let Some(reply) = reply.take()
        {
            reply.send(Ok(counts.clone()));
        }
        let appended = match entries.is_empty() {
            true => Ok(Vec::new()),
            false => self.journal.append(entries).await,
        };
        // Free again for the event as it should be.
        self.release(&key.workspace, &refused).await;
        let identities = match appended {
            Ok(identities) => identities,
            Err(error) => {
                self.give_up(&key.workspace, &ids, error).await;
                if let Some(reply) = reply {
                    reply.send(Err(refusal_of(error)));
                }
                return;
            }
        };
        if let Some(KafkaFirst { timeout, .. }) = self.kafka {
            let mut acknowledged = pin!(self.journal.acknowledged(&identities));
            if tokio::time::timeout(timeout, &mut acknowledged).await.is_err() {
                // The journal has them and Kafka will: ids stay reserved meanwhile, a repeat after that is a
                // duplicate and answered 200.
                if let Some(reply) = reply.take() {
                    reply.send(Err(unacknowledged(
                        "kafka has not acknowledged the events yet, send them again",
                    )));
                }
                acknowledged.await;
            }
        }
        self.count(&counts);
        if let Some(reply) = reply {
            reply.send(Ok(counts));
        }
        failpoint!(async "ingest::before_mark");
        self.mark(&key.workspace, window, &ids).await;
    }

    pub(super) fn count(&self, counts: &Counts) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.accepted.inc_by(number(counts.accepted));
        if counts.duplicates > 0 {
            self.metrics.duplicates.inc_by(number(counts.duplicates));
        }
    }

    /// Frees ids whose events the journal did not take.
    pub(super) async fn give_up(&self, workspace: &WorkspaceId, ids: &[Fingerprint], error: AppendError) {
        // After a failed sync the events may be found in the journal: the next start settles their ids.
        if error != AppendError::Failed {
            self.release(workspace, ids).await;
        }
    }

    /// Those of a request that go on while nobody knows which of them were accepted before.
    pub(super) fn unreserved(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        // Nobody else says now which of them are copies of each other.
        let mut seen = HashSet::with_capacity(candidates.len());
        candidates.retain(|candidate| seen.insert(candidate.fingerprint));
        self.metrics
            .unreserved
            .inc_by(u64::try_from(candidates.len()).unwrap_or(u64::MAX));
        candidates
    }

    /// Parts the events that fit from those that do not, of which the journal gets copies for the dead letters. At once
    /// where every field is known.
    pub(super) async fn judge(&self, key: &Key, mut fresh: Vec<Candidate>) -> Judged {
        let said = fresh
            .iter_mut()
            .map(|candidate| std::mem::take(&mut candidate.said))
            .collect();
        let faults = self.types.settle(key, said).await;
        let mut judged = Judged::default();
        for (candidate, fault) in fresh.into_iter().zip(faults) {
            let Some(refusal) = fault else {
                judged.ids.push(candidate.fingerprint);
                judged.entries.push(candidate.entry);
                continue;
            };
            if matches!(refusal.code, IngestCode::TypeConflict | IngestCode::TooManyFields) {
                let letter = dead_letter(candidate.entry, &refusal, key, candidate.received_at);
                judged.entries.push(letter);
            }
            judged.refused.push(candidate.fingerprint);
            judged.rejected.push(Rejected {
                index: candidate.index,
                message_id: Some(candidate.message_id),
                refusal,
            });
        }
        judged
    }

    /// The candidates that nobody has accepted before, reserved; `known` is what is known of them already.
    async fn fresh(
        &self,
        workspace: &WorkspaceId,
        candidates: Vec<Candidate>,
        mut known: Option<Vec<Reservation>>,
    ) -> Result<Vec<Candidate>, Refusal> {
        let mut open = candidates;
        let deadline = Instant::now() + self.wait;
        let mut fresh = Vec::with_capacity(open.len());
        loop {
            let asked = match known.take() {
                Some(known) => Ok(known),
                None => {
                    let ids: Vec<_> = open.iter().map(|candidate| candidate.fingerprint).collect();
                    self.dedup.reserve(workspace, &ids).await
                }
            };
            let known = match asked {
                Ok(known) => known,
                Err(error) => {
                    tracing::debug!(%error, "message ids are not reserved");
                    fresh.append(&mut self.unreserved(open));
                    break;
                }
            };
            let mut waiting = Vec::new();
            let mut elsewhere = false;
            for (candidate, known) in open.into_iter().zip(known) {
                match known {
                    Reservation::Reserved => fresh.push(candidate),
                    Reservation::Done | Reservation::Repeated => {}
                    Reservation::PendingOwn => waiting.push(candidate),
                    Reservation::PendingOther(_) => elsewhere = true,
                }
            }
            if waiting.is_empty() && !elsewhere {
                break;
            }
            if elsewhere || Instant::now() >= deadline {
                let reserved = |candidate: &Candidate| candidate.fingerprint;
                let ids: Vec<_> = fresh.iter().map(reserved).collect();
                self.release(workspace, &ids).await;
                return Err(Refusal::of_field(
                    IngestCode::RateLimited,
                    "messageId",
                    "a copy of an event is being accepted at this moment, send it again",
                ));
            }
            open = waiting;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        fresh.sort_unstable_by_key(|candidate| candidate.index);
        Ok(fresh)
    }

    async fn release(&self, workspace: &WorkspaceId, ids: &[Fingerprint]) {
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.dedup.release(workspace, ids).await {
            tracing::warn!(%error, count = ids.len(), "message ids stay reserved until they expire");
        }
    }

    /// Marks ids as done, several times where Redis does not answer.
    pub(super) async fn mark(&self, workspace: &WorkspaceId, window: Window, ids: &[Fingerprint]) {
        if ids.is_empty() {
            return;
        }
        let mut pauses = MARK_AGAIN.iter();
        while let Err(error) = self.dedup.done(workspace, window, ids).await {
            let Some(pause) = pauses.next() else {
                self.metrics
                    .marks_lost
                    .inc_by(u64::try_from(ids.len()).unwrap_or(u64::MAX));
                return tracing::warn!(%error, count = ids.len(), "accepted events may be accepted twice");
            };
            tokio::time::sleep(*pause).await;
        }
    }
}

/// Candidates after the last of the rules.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Of events that are accepted once they are in the journal.
    pub(super) ids: Vec<Fingerprint>,
    /// What the journal gets.
    pub(super) entries: Vec<Entry>,
    /// Of events that are not.
    pub(super) refused: Vec<Fingerprint>,
    pub(super) rejected: Vec<Rejected>,
}

/// The copy of a refused event: key and value as they would have been, the reason in headers.
fn dead_letter(entry: Entry, refusal: &Refusal, key: &Key, at: Timestamp) -> Entry {
    const STAGE: &str = "ingest";
    let code = refusal.code.as_str();
    let mut headers = Headers::new()
        .with(header::ATTEMPT, "0")
        .with(header::STAGE, STAGE)
        .with(header::WORKSPACE, key.workspace.as_str())
        .with(header::ERROR_CODE, code)
        .with(header::ERROR_MESSAGE, refusal.message.as_bytes());
    if let Some(field) = &refusal.field {
        headers.push(header::ERROR_FIELD, field.as_bytes());
    }
    headers.push(header::FAILED_AT, at.to_string());
    if let Some(traceparent) = entry.headers.get(TRACEPARENT) {
        headers.push(TRACEPARENT, traceparent);
    }
    headers.push(connect::STAGE, STAGE);
    headers.push(connect::CLASS_NAME, code);
    headers.push(connect::MESSAGE, refusal.message.as_bytes());
    Entry {
        topic: Topic::Dlq,
        headers,
        ..entry
    }
}

/// The negative control of the tests that kill the process: an answer that does not wait for the journal. Only a build
/// with failpoints can be made to give it.
pub(super) fn answers_first() -> bool {
    failpoint!("ingest::answer_first", return true);
    false
}

fn unacknowledged(message: &'static str) -> Refusal {
    Refusal::new(IngestCode::Unacknowledged, message)
}

pub(super) fn refusal_of(error: AppendError) -> Refusal {
    let code = match error {
        AppendError::Closed => return Refusal::draining(),
        AppendError::TooLarge => IngestCode::EventTooLarge,
        AppendError::Full | AppendError::Write | AppendError::Failed => IngestCode::JournalFull,
    };
    Refusal::new(code, error.to_string())
}
