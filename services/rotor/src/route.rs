//! From outcomes to the one record that is written for each record read. Pure.
//!
//! An event with several destinations has one verdict. A row is only written when every chain let the event
//! through or dropped it: a dead letter anywhere sets the whole event aside, else a retry anywhere sends the whole
//! event round again. Nothing is written twice then, and nothing is lost.

use std::borrow::Cow;

use millrace_event::code::RowCode;
use millrace_event::envelope::{Envelope as _, Origin, Output, Reason, Resume, Text, Transformed, V1};
use millrace_event::frame::{EventText, Fault, Outcome};
use millrace_event::header::{self, Headers};
use millrace_event::topic::MAX_WRAPPED_BYTES;
use millrace_event::{FunctionCode, KeyKind, Verdict};
use millrace_kafka::Outgoing;
use serde_json::value::RawValue;

use crate::incoming::{Content, Incoming};
use crate::registry::{Tables, Way};
use crate::table::taken_out;

/// What the copy for a retry topic may add to the record that asks for it: its reason stands in headers too.
const COPY_BYTES: usize = 8 << 10;

/// What came of one way of an event.
#[derive(Debug)]
pub struct Taken<'a> {
    /// The way.
    pub way: &'a Way,
    /// `None` where nothing runs and the event passes as it is.
    pub outcome: Option<Outcome>,
}

/// What surrounds the value of a record.
#[derive(Debug)]
pub struct Wrapping<'a> {
    /// The key of the record that was read.
    pub key: Option<&'a [u8]>,
    /// The trace, carried on.
    pub traceparent: Option<&'a str>,
}

#[derive(Debug)]
struct Decision<'a> {
    verdict: Verdict,
    outputs: Vec<Output<'a>>,
    reason: Option<Reason<'a>>,
    retry_after_ms: Option<u64>,
    resume: Option<Resume<'a>>,
}

impl Decision<'_> {
    const fn bare(verdict: Verdict) -> Self {
        Self {
            verdict,
            outputs: Vec::new(),
            reason: None,
            retry_after_ms: None,
            resume: None,
        }
    }
}

/// The record for an event whose source has ways. `tables` are those that belong to somebody.
pub fn ran(
    incoming: &Incoming<'_>,
    taken: &[Taken<'_>],
    tables: &Tables,
    wrapping: &Wrapping<'_>,
) -> (Verdict, Outgoing) {
    let Content::Event { ingest, .. } = &incoming.content else {
        return settled(incoming, wrapping);
    };
    let rows = match rows(ingest.event, ingest.key_kind, taken, tables) {
        Ok(rows) => rows,
        Err(fault) => return aside(incoming, &fault, wrapping),
    };
    let decision = decide(&rows, taken);
    let size = match written(incoming, decision, wrapping) {
        Ok(done) => return done,
        Err(size) => size,
    };
    let decision = decide(&rows, taken);
    if decision.resume.is_some() {
        // Going on in the middle saves work; beginning again is as right.
        let anew = Decision {
            resume: None,
            ..decision
        };
        if let Ok(done) = written(incoming, anew, wrapping) {
            return done;
        }
    }
    let text = format!("everything the event became is {size} bytes, {MAX_WRAPPED_BYTES} fit in a record");
    aside(incoming, &Fault::new(FunctionCode::OutputLimit, text), wrapping)
}

/// The record for an event that cannot be run.
pub fn aside(incoming: &Incoming<'_>, fault: &Fault, wrapping: &Wrapping<'_>) -> (Verdict, Outgoing) {
    let decision = Decision {
        reason: Some(reason(fault)),
        ..Decision::bare(Verdict::DeadLetter)
    };
    refused(incoming, decision, wrapping)
}

/// The record for what no function sees: rows on their second way, and values that are no envelopes.
pub fn settled(incoming: &Incoming<'_>, wrapping: &Wrapping<'_>) -> (Verdict, Outgoing) {
    match &incoming.content {
        Content::Row { row, .. } => {
            let decision = Decision {
                outputs: vec![row.output.clone()],
                ..Decision::bare(Verdict::Forward)
            };
            match written(incoming, decision, wrapping) {
                Ok(done) => done,
                Err(_) => {
                    let fault = Fault::new(
                        FunctionCode::OutputLimit,
                        "a row that came back does not fit in a record",
                    );
                    // Its table stays, so that the bulker knows which row it decides about; the event stays where it
                    // was read.
                    let named = Output {
                        event: RawValue::NULL,
                        ..row.output.clone()
                    };
                    let mut reason = reason(&fault);
                    reason.message =
                        Text::from(format!("{}; it is at {}", fault.message, incoming.whereabouts()));
                    let decision = Decision {
                        outputs: vec![named],
                        reason: Some(reason),
                        ..Decision::bare(Verdict::DeadLetter)
                    };
                    refused(incoming, decision, wrapping)
                }
            }
        }
        Content::Unreadable { message, .. } => {
            let reason = Reason {
                code: Text::from(RowCode::InvalidRecord.as_str()),
                message: Text::from(format!("{message}, at {}", incoming.whereabouts())),
                field: None,
                function: None,
                function_version: None,
                stack: None,
            };
            refused(
                incoming,
                Decision {
                    reason: Some(reason),
                    ..Decision::bare(Verdict::DeadLetter)
                },
                wrapping,
            )
        }
        Content::Event { .. } => aside(
            incoming,
            &Fault::new(FunctionCode::Configuration, "nothing is known to be done with it"),
            wrapping,
        ),
    }
}

/// A row to write.
struct Row<'a> {
    way: &'a Way,
    table: String,
    event: Cow<'a, RawValue>,
}

/// The rows of an event that goes on, each with its table. Only what a server sent may name its table: a browser's
/// event could otherwise write anywhere.
fn rows<'a>(
    event: &'a RawValue,
    key_kind: KeyKind,
    taken: &'a [Taken<'a>],
    tables: &Tables,
) -> Result<Vec<Row<'a>>, Fault> {
    let mut rows = Vec::with_capacity(taken.len());
    for Taken { way, outcome } in taken {
        let events: Vec<&RawValue> = match outcome {
            None => vec![event],
            Some(outcome) => outcome.events.iter().map(EventText::raw).collect(),
        };
        for event in events {
            let (event, named) = match key_kind {
                KeyKind::Browser => (Cow::Borrowed(event), None),
                KeyKind::Server | KeyKind::Import => {
                    taken_out(event).map_err(|text| Fault::new(FunctionCode::InvalidReturn, text))?
                }
            };
            let table = way.full_name(named.as_deref().unwrap_or(&way.table));
            if named.is_some() && tables.get(&table).is_some_and(|owner| *owner != way.workspace) {
                let text = "event.table names a table of another workspace";
                return Err(Fault::new(FunctionCode::InvalidReturn, text));
            }
            rows.push(Row { way, table, event });
        }
    }
    Ok(rows)
}

fn decide<'a>(rows: &'a [Row<'a>], taken: &'a [Taken<'a>]) -> Decision<'a> {
    let outcomes = || taken.iter().filter_map(|taken| taken.outcome.as_ref());
    let with = |verdict| outcomes().find(|outcome| outcome.verdict == verdict);
    if let Some(outcome) = with(Verdict::DeadLetter) {
        return Decision {
            reason: outcome.fault.as_ref().map(reason),
            ..Decision::bare(Verdict::DeadLetter)
        };
    }
    if let Some(outcome) = with(Verdict::Retry) {
        // The longest wait that any chain asked for serves them all.
        let retries = outcomes().filter(|outcome| outcome.verdict == Verdict::Retry);
        let wait = retries.filter_map(|outcome| outcome.retry_after_ms).max();
        return Decision {
            reason: outcome.fault.as_ref().map(reason),
            retry_after_ms: wait,
            resume: resume(taken, outcome),
            ..Decision::bare(Verdict::Retry)
        };
    }
    let outputs: Vec<_> = rows
        .iter()
        .map(|row| Output {
            destination: Text::from(row.way.destination.as_str()),
            table: Text::from(row.table.as_str()),
            config_version: row.way.config_version,
            event: &row.event,
        })
        .collect();
    if !outputs.is_empty() {
        return Decision {
            outputs,
            ..Decision::bare(Verdict::Forward)
        };
    }
    Decision {
        reason: outcomes().find_map(|outcome| outcome.fault.as_ref()).map(reason),
        ..Decision::bare(Verdict::Drop)
    }
}

/// Where the chain that the reason is about goes on; the other chains of the event begin anew. The next attempt
/// finds the place by the function that the reason names, so that must be the one that stands there.
fn resume<'a>(taken: &'a [Taken<'a>], asked: &'a Outcome) -> Option<Resume<'a>> {
    let place = asked.resume.as_ref()?;
    let way = taken
        .iter()
        .find(|taken| {
            taken
                .outcome
                .as_ref()
                .is_some_and(|outcome| std::ptr::eq(outcome, asked))
        })?
        .way;
    let there = way
        .chain
        .as_ref()?
        .load()
        .functions
        .get(usize::try_from(place.position).ok()?)?;
    (asked.fault.as_ref()?.function.as_ref() == Some(&there.id)).then(|| Resume {
        chain: Text::from(way.id.as_str()),
        position: place.position,
        event: &place.event,
    })
}

fn reason(fault: &Fault) -> Reason<'_> {
    let place = match (fault.line, fault.column) {
        (Some(line), Some(column)) => Text::from(format!("{} (line {line}, column {column})", fault.message)),
        _ => Text::from(fault.message.as_str()),
    };
    Reason {
        code: Text::from(fault.code.as_str()),
        message: place,
        field: None,
        function: fault.function.as_deref().map(Text::from),
        function_version: fault.function_version,
        stack: fault.stack.as_deref().map(Text::from),
    }
}

/// A dead letter must be written whatever its size: without its original where that does not fit, which is then in
/// the topic it was read from, and said loudly.
fn refused(incoming: &Incoming<'_>, decision: Decision<'_>, wrapping: &Wrapping<'_>) -> (Verdict, Outgoing) {
    let (verdict, reason) = (decision.verdict, decision.reason.clone());
    match written(incoming, decision, wrapping) {
        Ok(done) => done,
        Err(size) => {
            let id = incoming.identity;
            tracing::error!(%id, size, "a dead letter does not fit in a record, its original stays in the topic it came from");
            let reason = reason.map(|reason| Reason {
                message: Text::from(format!(
                    "{}; the event is at {}",
                    reason.message,
                    incoming.whereabouts()
                )),
                ..reason
            });
            let bare = Decision {
                reason,
                ..Decision::bare(verdict)
            };
            outgoing(incoming, bare, wrapping, None)
        }
    }
}

/// The record, or its size where it is too large.
fn written(
    incoming: &Incoming<'_>,
    decision: Decision<'_>,
    wrapping: &Wrapping<'_>,
) -> Result<(Verdict, Outgoing), usize> {
    let keeps = matches!(decision.verdict, Verdict::Retry | Verdict::DeadLetter);
    let original = match &incoming.content {
        Content::Event { original, .. } if keeps => serde_json::from_slice::<&RawValue>(original).ok(),
        _ => None,
    };
    // A place to go on doubles the event: the copy must fit in its topic as well.
    let most = match decision.resume {
        Some(_) => MAX_WRAPPED_BYTES - COPY_BYTES,
        None => MAX_WRAPPED_BYTES,
    };
    let (verdict, outgoing) = outgoing(incoming, decision, wrapping, original);
    if outgoing.size() > most {
        Err(outgoing.size())
    } else {
        Ok((verdict, outgoing))
    }
}

fn outgoing(
    incoming: &Incoming<'_>,
    decision: Decision<'_>,
    wrapping: &Wrapping<'_>,
    original: Option<&RawValue>,
) -> (Verdict, Outgoing) {
    let (origin, sub) = match &incoming.content {
        Content::Event { ingest, .. } => (Origin::from(ingest.as_ref()), None),
        Content::Row { row, sub } => (row.origin.clone(), *sub),
        Content::Unreadable { at, .. } => {
            let none = || Text(Cow::Borrowed(""));
            (
                Origin {
                    workspace: none(),
                    source: none(),
                    message_id: none(),
                    received_at: *at,
                    sent_at: None,
                },
                None,
            )
        }
    };
    let verdict = decision.verdict;
    let value = Transformed {
        version: V1,
        id: incoming.identity,
        attempt: incoming.attempt,
        origin,
        verdict,
        outputs: decision.outputs,
        sub,
        reason: decision.reason,
        resume: decision.resume,
        retry_after_ms: decision.retry_after_ms,
        original,
    }
    .to_bytes();
    let mut headers = Headers::new()
        .with(header::ID, incoming.identity.to_string())
        .with(header::ATTEMPT, incoming.attempt.to_string());
    if let Some(traceparent) = wrapping.traceparent {
        headers.push(header::TRACEPARENT, traceparent);
    }
    (
        verdict,
        Outgoing {
            key: wrapping.key.map(<[u8]>::to_vec),
            value,
            headers,
        },
    )
}
