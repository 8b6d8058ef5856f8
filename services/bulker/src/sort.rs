//! From records to work: what each record decided, whether it counts, and what has to be written for it.
//!
//! Pure but for the answers it is given about copies that went round: the same records, ledger and answers
//! give the same work, which is what lets a successor finish a plan.

mod names;
mod tally;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_event::JournalId;
use millrace_event::code::RowCode;
use millrace_event::envelope::{Envelope as _, Ingest, Output, Reason, RowPayload, Stage, Transformed, V1};
use millrace_event::header;
use millrace_event::topic::Topics;
use millrace_event::{Timestamp, Verdict};
use millrace_kafka::Record;
use millrace_ledger::metadata::table_hash;
use millrace_ledger::{Arrival, BadRow, Decision, Fate, Ledger, Place};
use millrace_store::destinations::{Configured, InvalidSetting};
use millrace_warehouse::outcomes::{self, Decider, Key};
use millrace_warehouse::{AsRow, Row, RowId, TableName};

use crate::copies::{self, Copy, Failed};
use crate::destinations::Targets;
use names::Names;
pub use tally::Tally;

/// Most traces that one chunk's insert is shown in.
const MOST_TRACES: usize = 32;

/// A record with its envelope, borrowed from its value.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The record.
    pub record: &'a Record,
    /// What it says; nothing where it is no transformed envelope of a known version.
    pub envelope: Option<Transformed<'a>>,
}

/// What a chunk's records ask for.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    /// Rows by table.
    pub tables: BTreeMap<TableName, TableRows<'a>>,
    /// What must be known of later attempts.
    pub decisions: Vec<outcomes::Decision>,
    /// Copies and dead letters that follow from verdicts.
    pub copies: Vec<Copy>,
    /// The traces of its first records.
    pub traces: Vec<&'a str>,
    /// What its records were, to be counted once they are settled: a chunk may be sorted more than once.
    pub tally: Tally,
}

/// What the records ask of one table.
#[derive(Debug, Default)]
pub struct TableRows<'a> {
    /// The destination that it is kept for, where that has a row of its own.
    pub destination: Option<Result<Arc<Configured>, InvalidSetting>>,
    /// Rows to be in it, in the order of the log.
    pub rows: Vec<PendingRow<'a>>,
    /// Whether some of them came back from it, and may be there already.
    pub came_back: bool,
    /// Rows that the plan names: dead letters.
    pub dead: Vec<PendingRow<'a>>,
    /// Rows to be handed over: the plan gives the table up.
    pub handed_over: Vec<PendingRow<'a>>,
}

/// A record cannot be decided before its journal was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal {0} was not looked up")]
pub struct Unlearned(pub JournalId);

/// A row that a record asks for.
#[derive(Clone, Copy, Debug)]
pub struct PendingRow<'a> {
    /// The record.
    pub record: &'a Record,
    /// Its envelope.
    pub envelope: &'a Transformed<'a>,
    /// Which of its outputs.
    pub output: &'a Output<'a>,
    /// Which row of the event.
    pub id: RowId,
}

impl AsRow for &PendingRow<'_> {
    fn as_row(&self) -> Row<'_> {
        let origin = &self.envelope.origin;
        Row {
            id: self.id,
            received_at: origin.received_at,
            sent_at: origin.sent_at,
            source: origin.source.as_str(),
            workspace: origin.workspace.as_str(),
            message_id: origin.message_id.as_str(),
            event: self.output.event,
        }
    }
}

impl PendingRow<'_> {
    /// How a plan names it.
    pub const fn as_bad_row(&self) -> BadRow {
        BadRow {
            journal: self.id.identity.journal,
            seq: self.id.identity.seq,
            sub: self.id.sub,
        }
    }

    /// What goes round for it while its table fails: a copy, or a dead letter once that has lasted too long.
    pub fn hand_over(&self, context: &Context<'_>) -> Copy {
        let attempt = self.envelope.attempt;
        let why = |code, message: &str| copies::reason(code, message.to_owned(), None);
        let Some(tier) = copies::row_tier(context.topics, attempt) else {
            let reason = why(
                RowCode::TableFailing,
                "the table failed for longer than rows wait for it",
            );
            return self.dead_letter(context, &reason);
        };
        let reason = why(RowCode::TableFailing, "the table cannot be written");
        let payload = RowPayload {
            version: V1,
            origin: self.envelope.origin.clone(),
            output: self.output.clone(),
        };
        let failed = context.failed(self.record, Some(self.envelope), Stage::Bulker, &reason);
        copies::row_retry(&failed, tier, &payload, self.id.sub).unwrap_or_else(|| {
            let reason = why(
                RowCode::CopyTooLarge,
                "the table cannot be written, and a copy would be too large",
            );
            self.dead_letter(context, &reason)
        })
    }

    /// Its dead letter.
    pub fn dead_letter(&self, context: &Context<'_>, reason: &Reason<'_>) -> Copy {
        let payload = RowPayload {
            version: V1,
            origin: self.envelope.origin.clone(),
            output: self.output.clone(),
        };
        let failed = context.failed(self.record, Some(self.envelope), Stage::Bulker, reason);
        copies::dead_row(context.topics, &failed, &payload, self.id.sub)
    }
}

/// What sorting needs to know besides the records.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The topics' names.
    pub topics: &'a Topics,
    /// The partition.
    pub partition: u32,
    /// Now, the same for the whole chunk.
    pub at: Timestamp,
}

impl<'a> Context<'a> {
    fn failed(
        &self,
        record: &'a Record,
        envelope: Option<&'a Transformed<'a>>,
        stage: Stage,
        reason: &'a Reason<'a>,
    ) -> Failed<'a> {
        Failed {
            record,
            topic: &self.topics.transformed,
            partition: self.partition,
            identity: envelope.map(|envelope| envelope.id),
            attempt: envelope.map_or(0, |envelope| envelope.attempt),
            workspace: envelope.map_or("", |envelope| envelope.origin.workspace.as_str()),
            stage,
            reason,
            at: self.at,
        }
    }
}

/// Reads the envelopes.
pub fn parse(records: &[Record]) -> Vec<Parsed<'_>> {
    records
        .iter()
        .map(|record| {
            let envelope = Transformed::read(&record.value);
            if let Err(error) = &envelope {
                tracing::error!(offset = record.offset, error = %error, "a record is no transformed envelope");
            }
            Parsed { record, envelope: envelope.ok() }
        })
        .collect()
}

/// What the ledger is told of the records, one after another.
pub fn arrivals(parsed: &[Parsed<'_>]) -> impl Iterator<Item = Arrival> {
    let envelopes = parsed
        .iter()
        .filter_map(|parsed| Some((parsed, parsed.envelope.as_ref()?)));
    envelopes.filter_map(|(parsed, envelope)| arrival(parsed, envelope))
}

/// None for a row that came back to a table without a name.
fn arrival(parsed: &Parsed<'_>, envelope: &Transformed<'_>) -> Option<Arrival> {
    let row = key(envelope)?.row;
    let row = row.map(|(table, sub)| (table_hash(&table.to_string()), sub));
    Some(Arrival {
        offset: parsed.record.offset,
        identity: envelope.id,
        attempt: envelope.attempt,
        row,
    })
}

/// What the store of outcomes must be asked before [`sort`]: every attempt after the first.
pub fn questions(parsed: &[Parsed<'_>]) -> Vec<Key> {
    parsed
        .iter()
        .filter_map(|parsed| parsed.envelope.as_ref())
        .filter(|envelope| envelope.attempt > 0)
        .filter_map(key)
        .collect()
}

/// Under which key an attempt is decided; none for a row whose table has no name.
fn key(envelope: &Transformed<'_>) -> Option<Key> {
    let row = match envelope.sub {
        None => None,
        Some(sub) => Some((envelope.outputs.first()?.table.as_str().parse().ok()?, sub)),
    };
    Some(Key {
        identity: envelope.id,
        attempt: envelope.attempt,
        row,
    })
}

/// Decides each record in order, and gathers what those that count ask for.
///
/// # Errors
/// [`Unlearned`]: nothing may be written of a chunk with such a record.
pub fn sort<'a>(
    context: &Context<'a>,
    ledger: &mut Ledger,
    parsed: &'a [Parsed<'a>],
    (answers, targets): (&HashMap<Key, Decider>, &'a Targets<'a>),
) -> Result<Sorted<'a>, Unlearned> {
    let mut sorted = Sorted::default();
    let mut names = Names::new(targets);
    for parsed in parsed {
        let Some(envelope) = &parsed.envelope else {
            let message = "the record is no transformed envelope of a known version";
            invalid(context, &mut sorted, parsed, message);
            continue;
        };
        if sorted.traces.len() < MOST_TRACES
            && let Some(trace) = parsed.record.headers.text(header::TRACEPARENT)
        {
            sorted.traces.push(trace);
        }
        let Some(arrival) = arrival(parsed, envelope) else {
            let message = "a row that came back names no table";
            invalid(context, &mut sorted, parsed, message);
            continue;
        };
        let decided_by = key(envelope)
            .and_then(|key| answers.get(&key))
            .map(|decider| Place {
                partition: decider.partition,
                offset: decider.offset,
            });
        let taken = match ledger.decide(&arrival, decided_by) {
            Decision::Take => true,
            Decision::TakeAhead { journal, missing } => {
                sorted.tally.skipped += missing.end - missing.start;
                tracing::warn!(%journal, from = missing.start, to = missing.end, "journal numbers were skipped");
                true
            }
            Decision::Duplicate => false,
            Decision::Foreign => {
                invalid(
                    context,
                    &mut sorted,
                    parsed,
                    "the identity belongs to another partition",
                );
                continue;
            }
            Decision::Unknown(journal) => return Err(Unlearned(journal)),
        };
        if taken {
            if envelope.verdict == Verdict::Forward {
                forward(
                    context,
                    ledger,
                    &mut sorted,
                    &mut names,
                    parsed,
                    (envelope, &arrival),
                );
            }
            carry_out(context, &mut sorted, parsed, envelope);
        } else {
            sorted.tally.record("duplicate");
        }
    }
    Ok(sorted)
}

fn invalid<'a>(context: &Context<'a>, sorted: &mut Sorted<'a>, parsed: &'a Parsed<'a>, message: &str) {
    sorted.tally.record("invalid");
    let reason = copies::reason(RowCode::InvalidRecord, message.to_owned(), None);
    let failed = context.failed(parsed.record, parsed.envelope.as_ref(), Stage::Bulker, &reason);
    sorted.copies.push(copies::dead_letter(
        context.topics,
        &failed,
        parsed.record.value.to_vec(),
    ));
}

/// What a record that counts asks for besides its rows.
fn carry_out<'a>(
    context: &Context<'a>,
    sorted: &mut Sorted<'a>,
    parsed: &'a Parsed<'a>,
    envelope: &'a Transformed<'a>,
) {
    let mut verdict = envelope.verdict;
    let mut code = envelope
        .reason
        .as_ref()
        .map_or(String::new(), |reason| reason.code.to_string());
    match verdict {
        Verdict::Forward | Verdict::Drop => {}
        Verdict::Retry => match retry(context, parsed, envelope) {
            Ok(copy) => sorted.copies.push(copy),
            Err(row_code) => {
                verdict = Verdict::DeadLetter;
                code = row_code.to_string();
                sorted
                    .copies
                    .push(dead_event(context, parsed, envelope, Some(row_code)));
            }
        },
        Verdict::DeadLetter => sorted.copies.push(dead_event(context, parsed, envelope, None)),
    }
    sorted.tally.record(match verdict {
        Verdict::Forward => "row",
        other => other.as_str(),
    });
    if verdict == Verdict::Forward && envelope.attempt == 0 {
        return;
    }
    let Some(key) = key(envelope) else { return };
    let function = envelope
        .reason
        .as_ref()
        .and_then(|reason| reason.function.as_ref());
    sorted.decisions.push(outcomes::Decision {
        key,
        decider: Decider {
            partition: context.partition,
            offset: parsed.record.offset,
        },
        received_at: envelope.origin.received_at,
        workspace: envelope.origin.workspace.to_string(),
        verdict,
        function: function.map_or(String::new(), ToString::to_string),
        code,
    });
}

/// The rows of a record that counts.
fn forward<'a>(
    context: &Context<'a>,
    ledger: &mut Ledger,
    sorted: &mut Sorted<'a>,
    names: &mut Names<'a>,
    parsed: &'a Parsed<'a>,
    (envelope, arrival): (&'a Transformed<'a>, &Arrival),
) {
    for (index, output) in envelope.outputs.iter().enumerate() {
        let table = names.read(output);
        let sub = envelope.sub.or_else(|| u16::try_from(index).ok());
        let (Some((target, hash)), Some(sub)) = (table, sub) else {
            invalid(
                context,
                sorted,
                parsed,
                "an output has no usable table name or too high a number",
            );
            continue;
        };
        let id = RowId {
            identity: envelope.id,
            sub,
        };
        let row = PendingRow {
            record: parsed.record,
            envelope,
            output,
            id,
        };
        let fate = ledger.row(arrival, *hash, sub);
        let rows = match sorted.tables.get_mut(&target.table) {
            Some(rows) => rows,
            None => {
                let rows = sorted.tables.entry(target.table.clone()).or_default();
                rows.destination.clone_from(&target.destination);
                rows
            }
        };
        match fate {
            Fate::Insert => rows.rows.push(row),
            Fate::AskFirst => {
                rows.came_back = true;
                rows.rows.push(row);
            }
            Fate::Dead => rows.dead.push(row),
            Fate::HandOver => rows.handed_over.push(row),
            Fate::Repeated => sorted.tally.record("repeated_row"),
        }
    }
}

fn retry(context: &Context<'_>, parsed: &Parsed<'_>, envelope: &Transformed<'_>) -> Result<Copy, RowCode> {
    let tier = copies::tier(context.topics, envelope.attempt, envelope.retry_after_ms)
        .ok_or(RowCode::RetriesExhausted)?;
    let original = envelope.original.ok_or(RowCode::InvalidRecord)?;
    let fallback = copies::reason(
        RowCode::InvalidRecord,
        "the record gives no reason".to_owned(),
        None,
    );
    let reason = envelope.reason.as_ref().unwrap_or(&fallback);
    let failed = context.failed(parsed.record, Some(envelope), Stage::Rotor, reason);
    copies::retry(&failed, tier, envelope.resume.clone(), original).ok_or(RowCode::CopyTooLarge)
}

/// The dead letter of a whole event: the envelope it came into the pipeline with.
fn dead_event(
    context: &Context<'_>,
    parsed: &Parsed<'_>,
    envelope: &Transformed<'_>,
    because: Option<RowCode>,
) -> Copy {
    let own = |code: RowCode, message: String| copies::reason(code, message, None);
    let said = envelope.reason.clone();
    let reason = match because {
        None => said.unwrap_or_else(|| own(RowCode::InvalidRecord, "the record gives no reason".to_owned())),
        Some(code) => {
            let last = said.map_or(String::new(), |reason| {
                format!("{}: {}", reason.code, reason.message)
            });
            let message = match code {
                RowCode::RetriesExhausted => format!(
                    "still failing after {} attempts; last {last}",
                    envelope.attempt + 1
                ),
                RowCode::CopyTooLarge => format!("a retry copy would be too large; last {last}"),
                _ => format!("the record cannot go round again; last {last}"),
            };
            own(code, message)
        }
    };
    let failed = context.failed(parsed.record, Some(envelope), Stage::Rotor, &reason);
    let value = envelope.original.map_or_else(
        || parsed.record.value.to_vec(),
        |original| original.get().as_bytes().to_vec(),
    );
    debug_assert!(
        envelope.original.is_none() || Ingest::read(&value).is_ok(),
        "an original is an ingest envelope"
    );
    copies::dead_letter(context.topics, &failed, value)
}
