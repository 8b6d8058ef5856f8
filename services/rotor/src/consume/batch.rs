//! The records of one partition through their functions: one record out for each record in, in the same order.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use millrace_event::frame::{Fault, Outcome};
use millrace_event::{FunctionCode, Identity, Verdict, header};
use millrace_kafka::{Outgoing, Record};
use millrace_service::Traceparent;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};
use tracing::Span;

use super::Shared;
use crate::incoming::{Content, Incoming, Place, Resumed};
use crate::pool::{Chain, Closed, EventInput};
use crate::registry::Ways;
use crate::route::{self, Taken, Wrapping};

/// Events handed to a worker at once; a larger batch is shared between workers.
const PORTION: usize = 250;

/// What is to be written for a batch.
pub(super) struct Transformed {
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) verdicts: Vec<Verdict>,
    /// Open until the records are acknowledged.
    pub(super) spans: Vec<Span>,
}

/// What functions read about an event.
#[derive(Serialize)]
struct Context<'a, H> {
    attempt: u32,
    #[serde(rename = "receivedAt")]
    received_at: millrace_event::Timestamp,
    headers: &'a H,
    #[serde(rename = "idempotencyKey")]
    idempotency_key: String,
}

/// Reads, runs and routes.
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
) -> Result<Transformed, Closed> {
    let incoming: Vec<_> = records
        .iter()
        .map(|record| Incoming::read(record, place))
        .collect();
    let traces: Vec<_> = records.iter().map(|record| Trace::of(record, place)).collect();
    let ways = ways(shared, &incoming).await;
    let mut outcomes = run(shared, &incoming, &ways).await?;

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

/// An event and one of its ways, by their places.
type Spot = (usize, usize);

/// What one chain has to run.
struct Work<'a> {
    chain: &'a Arc<Chain>,
    spots: Vec<Spot>,
}

/// Runs each event through the chain of each of its ways.
async fn run(
    shared: &Shared,
    incoming: &[Incoming<'_>],
    ways: &[Option<Ways>],
) -> Result<HashMap<Spot, Outcome>, Closed> {
    let mut chains: HashMap<(&str, u64), Work<'_>> = HashMap::new();
    for (index, ways) in ways.iter().enumerate() {
        for (at, way) in ways.iter().flat_map(|ways| ways.iter()).enumerate() {
            if let Some(chain) = &way.chain {
                let work = chains.entry((&way.id, way.version)).or_insert_with(|| Work {
                    chain,
                    spots: Vec::new(),
                });
                work.spots.push((index, at));
            }
        }
    }
    let contexts: Vec<_> = incoming.iter().map(context).collect();
    let mut portions = Vec::new();
    for Work { chain, spots } in chains.values() {
        for spots in spots.chunks(PORTION) {
            portions.push(async {
                let events = spots
                    .iter()
                    .filter_map(|(index, _)| {
                        input(incoming.get(*index)?, chain, contexts.get(*index)?.as_deref()?)
                    })
                    .collect();
                let outcomes = shared.pool.run(Arc::clone(chain), events).await?;
                Ok(spots.iter().copied().zip(outcomes))
            });
        }
    }
    Ok(try_join_all(portions).await?.into_iter().flatten().collect())
}

/// What functions read about an event; `None` for what is no event.
fn context(incoming: &Incoming<'_>) -> Option<Box<RawValue>> {
    let Content::Event { ingest, .. } = &incoming.content else {
        return None;
    };
    let context = Context {
        attempt: incoming.attempt,
        received_at: ingest.received_at,
        headers: &ingest.headers,
        idempotency_key: idempotency_key(incoming.identity),
    };
    to_raw_value(&context).ok()
}

/// The same for every run of an event, repetitions and later attempts included, and another for every other event.
/// Not the identity itself: that is the pipeline's own.
fn idempotency_key(identity: Identity) -> String {
    let digest = Sha256::digest(format!("millrace event {identity}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// An event as one chain gets it: as it was sent, or where the chain stopped the last time.
fn input(incoming: &Incoming<'_>, chain: &Chain, context: &RawValue) -> Option<EventInput> {
    let Content::Event { ingest, resume, .. } = &incoming.content else {
        return None;
    };
    let resumed = resume.as_ref().filter(|resumed| goes_on(resumed, chain));
    let (event, position) = resumed.map_or((ingest.event, 0), |resumed| {
        (resumed.at.event, resumed.at.position)
    });
    Some(EventInput {
        context: context.to_owned(),
        event: event.to_owned(),
        position,
    })
}

/// Whether the function that asked for another try still has its place in the chain. A chain that was changed in
/// front of it begins anew: the event may be another one by now.
fn goes_on(resumed: &Resumed<'_>, chain: &Chain) -> bool {
    let load = chain.load();
    let place = usize::try_from(resumed.at.position).ok();
    let there = place.and_then(|place| load.functions.get(place));
    resumed.at.chain.as_str() == load.chain
        && there.is_some_and(|there| {
            resumed
                .function
                .as_ref()
                .is_some_and(|asked| asked.as_str() == there.id)
        })
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
