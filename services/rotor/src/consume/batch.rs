//! The records of one partition through their functions: one record out for each record in, in the same order.

use std::collections::HashMap;
use std::time::Instant;

use millrace_event::frame::{Fault, Outcome};
use millrace_event::{FunctionCode, Verdict, header};
use millrace_kafka::{Outgoing, Record};
use millrace_service::Traceparent;
use tracing::Span;

use super::Shared;
use super::run::{Spot, run};
use crate::budget::Lately;
use crate::incoming::{Content, Incoming, Place};
use crate::pool::{Chain, Closed};
use crate::registry::Ways;
use crate::route::{self, Taken, Wrapping};

/// What is to be written for a batch.
pub(super) struct Transformed {
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) verdicts: Vec<Verdict>,
    /// Open until the records are acknowledged.
    pub(super) spans: Vec<Span>,
}

/// Reads, runs and routes. `lately`: whose events came on the partition.
///
/// # Errors
/// When the pool is closed: the process is ending.
///
/// # Cancellation
/// Safe: nothing is written here.
pub(super) async fn transform(
    shared: &Shared,
    place: Place<'_>,
    records: &[Record],
    lately: &mut Lately,
) -> Result<Transformed, Closed> {
    let incoming: Vec<_> = records
        .iter()
        .map(|record| Incoming::read(record, place))
        .collect();
    let beside = beside(&incoming, lately, shared.clock.instant());
    let traces: Vec<_> = records.iter().map(|record| Trace::of(record, place)).collect();
    let (ways, mut outcomes) = loop {
        let ways = ways(shared, &incoming).await;
        let outcomes = run(shared, &incoming, &ways, beside).await?;
        if !mended(shared, &incoming, &ways, &outcomes).await {
            break (ways, outcomes);
        }
    };

    let tables = shared.registry.tables();
    let mut outgoing = Vec::with_capacity(records.len());
    let mut verdicts = Vec::with_capacity(records.len());
    for (index, (incoming, record)) in incoming.iter().zip(records).enumerate() {
        let traceparent = traces.get(index).and_then(Trace::onward);
        let wrapping = Wrapping {
            key: record.key.as_deref(),
            traceparent: traceparent.as_deref(),
        };
        let (verdict, made) = match (&incoming.content, ways.get(index).and_then(Option::as_ref)) {
            (Content::Event { .. }, Some(ways)) => {
                let taken: Vec<_> = ways
                    .iter()
                    .enumerate()
                    .map(|(way, known)| Taken {
                        way: known,
                        outcome: outcomes.remove(&(index, way)),
                    })
                    .collect();
                route::ran(incoming, &taken, &tables, &wrapping)
            }
            (Content::Event { ingest, .. }, None) => {
                let text = format!("no destination is known for source {}", ingest.source);
                route::aside(
                    incoming,
                    &Fault::new(FunctionCode::Configuration, text),
                    &wrapping,
                )
            }
            (Content::Row { .. } | Content::Unreadable { .. }, _) => route::settled(incoming, &wrapping),
        };
        if let Some(trace) = traces.get(index) {
            trace.decided(verdict);
        }
        outgoing.push(made);
        verdicts.push(verdict);
    }
    let spans = traces.into_iter().filter_map(|trace| trace.span).collect();
    Ok(Transformed {
        outgoing,
        verdicts,
        spans,
    })
}

/// Whether others wait for these events: some are among them, or came on the same partition lately.
fn beside(incoming: &[Incoming<'_>], lately: &mut Lately, now: Instant) -> bool {
    let workspaces = incoming.iter().filter_map(|incoming| match &incoming.content {
        Content::Event { ingest, .. } => Some(ingest.workspace.as_str()),
        Content::Row { row, .. } => Some(row.origin.workspace.as_str()),
        Content::Unreadable { .. } => None,
    });
    workspaces.for_each(|workspace| lately.came(workspace, now));
    lately.several(now)
}

/// The ways of each event; `None` for what is no event and for sources that nobody knows.
async fn ways(shared: &Shared, incoming: &[Incoming<'_>]) -> Vec<Option<Ways>> {
    let mut known: HashMap<&str, Option<Ways>> = HashMap::new();
    let mut ways = Vec::with_capacity(incoming.len());
    for incoming in incoming {
        let Content::Event { ingest, .. } = &incoming.content else {
            ways.push(None);
            continue;
        };
        let source = ingest.source.as_str();
        let found = match known.get(source) {
            Some(found) => found.clone(),
            None => {
                let found = shared.registry.ways(source).await;
                known.insert(source, found.clone());
                found
            }
        };
        ways.push(found);
    }
    ways
}

/// Waits for other versions of those chains whose code does not load, each once; says whether there is one: then the batch
/// runs again.
async fn mended(
    shared: &Shared,
    incoming: &[Incoming<'_>],
    ways: &[Option<Ways>],
    outcomes: &HashMap<Spot, Outcome>,
) -> bool {
    let mut broken: HashMap<(&str, u64), (&str, &Chain)> = HashMap::new();
    for ((index, at), outcome) in outcomes {
        if outcome.fault.as_ref().map(|fault| fault.code) != Some(FunctionCode::CompileError) {
            continue;
        }
        let way = ways
            .get(*index)
            .and_then(Option::as_ref)
            .and_then(|ways| ways.get(*at));
        if let Some(Content::Event { ingest, .. }) = incoming.get(*index).map(|incoming| &incoming.content)
            && let Some(chain) = way.and_then(|way| way.chain.as_deref())
        {
            let load = chain.load();
            broken.insert((&load.chain, load.version), (ingest.source.as_str(), chain));
        }
    }
    let mut mended = false;
    for (source, chain) in broken.into_values() {
        mended |= shared.registry.mended(source, chain).await;
    }
    mended
}

/// The trace of one record: the request's, carried on.
struct Trace {
    /// As it came, for where no spans are recorded.
    came: Option<String>,
    span: Option<Span>,
}

impl Trace {
    fn of(record: &Record, place: Place<'_>) -> Self {
        let came = record.headers.text(header::TRACEPARENT).map(ToOwned::to_owned);
        let span = came
            .as_ref()
            .and_then(|text| text.parse::<Traceparent>().ok())
            .map(|parent| {
                let span = tracing::info_span!(
                    "transform",
                    topic = place.topic,
                    partition = place.partition,
                    offset = record.offset,
                    verdict = tracing::field::Empty
                );
                parent.adopt(&span);
                span
            });
        Self { came, span }
    }

    fn onward(&self) -> Option<String> {
        let own = self
            .span
            .as_ref()
            .and_then(Traceparent::of)
            .map(|own| own.to_string());
        own.or_else(|| self.came.clone())
    }

    fn decided(&self, verdict: Verdict) {
        if let Some(span) = &self.span {
            span.record("verdict", verdict.as_str());
        }
    }
}
