//! The events of a batch through their chains, in portions, within what their workspaces may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use millrace_event::frame::payload::Records;
use millrace_event::frame::{self, Fault, Outcome, Resume};
use millrace_event::{FunctionCode, Identity};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use super::Shared;
use crate::geo::{Geo, Place};
use crate::incoming::{Content, Incoming, Resumed};
use crate::logs::About;
use crate::pool::{Chain, Closed, Ran, is_past_budget};
use crate::quarantine::{self, Held};
use crate::registry::Ways;

/// Events handed to a worker at once; a larger batch is shared between workers.
const PORTION: usize = 250;

/// Why the events of a workspace come back that overdrew its account.
const SITS_OUT: &str = "not run: its workspace took more time lately than it has beside others";

/// What functions read about an event.
#[derive(Serialize)]
struct Context<'a, H> {
    attempt: u32,
    #[serde(rename = "receivedAt")]
    received_at: millrace_event::Timestamp,
    headers: &'a H,
    #[serde(rename = "idempotencyKey")]
    idempotency_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    geo: Option<Place>,
}

/// An event and one of its ways, by their places.
pub(super) type Spot = (usize, usize);

/// What one chain has to run.
struct Work<'a> {
    chain: &'a Arc<Chain>,
    spots: Vec<Spot>,
}

impl<'a> Work<'a> {
    fn size(&self) -> (&'a Arc<Chain>, usize) {
        (self.chain, self.spots.len())
    }
}

/// A part of it that one worker runs.
struct Portion<'a> {
    chain: &'a Arc<Chain>,
    spots: &'a [Spot],
    /// Wall time for all of it.
    budget: Option<Duration>,
}

/// Runs each event through the chain of each of its ways. `beside`: others wait for these events.
pub(super) async fn run(
    shared: &Shared,
    incoming: &[Incoming<'_>],
    ways: &[Option<Ways>],
    beside: bool,
) -> Result<HashMap<Spot, Outcome>, Closed> {
    let mut chains: HashMap<(&str, u64), Work<'_>> = HashMap::new();
    let mut outcomes = HashMap::new();
    for (index, ways) in ways.iter().enumerate() {
        for (at, way) in ways.iter().flat_map(|ways| ways.iter()).enumerate() {
            let Some(chain) = &way.chain else { continue };
            if let Some(held) = shared.quarantine.held(&way.id, way.version) {
                shared.quarantine.metrics.held_events.inc();
                let incoming = incoming.get(index);
                let outcome = incoming.map(|incoming| held_back(shared, incoming, chain, &held));
                outcomes.extend(outcome.map(|outcome| ((index, at), outcome)));
                continue;
            }
            let work = chains.entry((&way.id, way.version)).or_insert_with(|| Work {
                chain,
                spots: Vec::new(),
            });
            work.spots.push((index, at));
        }
    }
    let contexts: Vec<_> = incoming
        .iter()
        .map(|incoming| context(&shared.geo, incoming))
        .collect();
    let returning = incoming.first().is_some_and(|incoming| incoming.place.retry);
    let budgets = beside.then(|| budgets(shared, chains.values().map(Work::size), returning));
    if let Some(budgets) = &budgets {
        chains.retain(|_, Work { chain, spots }| {
            let sits_out = budgets
                .get(chain.load().workspace.as_str())
                .is_some_and(|mine| mine.time.is_none());
            if sits_out {
                shared
                    .metrics
                    .sat_out
                    .inc_by(u64::try_from(spots.len()).unwrap_or(u64::MAX));
                outcomes.extend(spots.drain(..).filter_map(|spot| {
                    let fault = Fault::new(FunctionCode::WallLimit, SITS_OUT);
                    Some((spot, comes_back(incoming.get(spot.0)?, chain, fault, None)))
                }));
            }
            !sits_out
        });
    }
    let portions = portions(&chains, budgets.as_ref(), returning);
    let running = portions.iter().map(async |portion| {
        // Dropped after the portion: the next one that comes back takes its turn.
        let _turn = match returning {
            true => shared.returning.acquire().await.ok(),
            false => None,
        };
        let record = |(index, _): &Spot| {
            let context: &RawValue = contexts.get(*index)?.as_deref()?;
            record(incoming.get(*index)?, portion.chain, context)
        };
        let records: Vec<_> = portion.spots.iter().filter_map(record).collect();
        let bytes = records.iter().map(Records::size_of).sum();
        let mut events = Records::with_capacity(records.len(), bytes);
        records.into_iter().for_each(|record| events.push(record));
        let ran = shared
            .pool
            .account_within(Arc::clone(portion.chain), events, portion.budget)
            .await?;
        Ok::<_, Closed>((portion, ran))
    });
    let mut took: HashMap<&str, (Duration, bool)> = HashMap::new();
    for (portion, ran) in try_join_all(running).await? {
        let load = portion.chain.load();
        shared.quarantine.killed(load, &ran.kills);
        let (time, cut) = took.entry(&load.workspace).or_default();
        *time += ran.took;
        *cut |= ran.cut;
        let Ran {
            outcomes: came,
            lines,
            discarded,
            ..
        } = ran;
        shared.logs.note(portion.chain, lines, discarded, |at| {
            let (index, _) = portion.spots.get(at)?;
            about(incoming.get(*index)?)
        });
        outcomes.extend(portion.spots.iter().copied().zip(came).map(|(spot, outcome)| {
            if is_past_budget(&outcome)
                && let (Some(incoming), Some(fault)) = (incoming.get(spot.0), &outcome.fault)
            {
                return (spot, comes_back(incoming, portion.chain, fault.clone(), None));
            }
            (spot, outcome)
        }));
    }
    if !returning {
        let now = shared.clock.instant();
        for (workspace, mine) in budgets.iter().flatten() {
            let (time, cut) = took.get(workspace).copied().unwrap_or_default();
            shared.budgets.took(workspace, mine.events, time, cut, now);
        }
    }
    Ok(outcomes)
}

/// What the events of one workspace may take of a batch.
struct Budget {
    /// Those that go through a chain, counted once for each.
    events: usize,
    portions: u32,
    /// `None`: the workspace sits out.
    time: Option<Duration>,
}

/// What each workspace may take of the batch.
fn budgets<'a>(
    shared: &Shared,
    chains: impl Iterator<Item = (&'a Arc<Chain>, usize)>,
    returning: bool,
) -> HashMap<&'a str, Budget> {
    let now = shared.clock.instant();
    let mut budgets: HashMap<&str, Budget> = HashMap::new();
    for (chain, events) in chains {
        let mine = budgets.entry(&chain.load().workspace).or_insert(Budget {
            events: 0,
            portions: 0,
            time: None,
        });
        mine.events += events;
        mine.portions += u32::try_from(events.div_ceil(PORTION)).unwrap_or(u32::MAX);
    }
    for (workspace, mine) in &mut budgets {
        mine.time = match returning {
            true => Some(shared.budgets.returning(mine.events)),
            false => shared.budgets.of(workspace, mine.events, now),
        };
    }
    budgets
}

/// The work in portions; what a workspace may take is shared out evenly among its own.
fn portions<'a>(
    chains: &'a HashMap<(&str, u64), Work<'a>>,
    budgets: Option<&HashMap<&str, Budget>>,
    returning: bool,
) -> Vec<Portion<'a>> {
    let mut portions = Vec::new();
    for Work { chain, spots } in chains.values() {
        let load = chain.load();
        let mine = budgets.and_then(|budgets| budgets.get(load.workspace.as_str()));
        let mut budget = mine.and_then(|mine| Some(mine.time? / mine.portions.max(1)));
        if returning {
            // Here every portion runs at least one event to its own limit: what came back for want of time gets ahead.
            let wall = Duration::from_millis(load.limits.wall_ms);
            budget = budget.map(|budget| budget.max(wall));
        }
        portions.extend(
            spots
                .chunks(PORTION)
                .map(|spots| Portion { chain, spots, budget }),
        );
    }
    portions
}

/// The event as a log line names it.
fn about(incoming: &Incoming<'_>) -> Option<About> {
    let Content::Event { ingest, .. } = &incoming.content else {
        return None;
    };
    Some(About {
        identity: incoming.identity,
        message_id: ingest.message_id.as_str().to_owned(),
        attempt: incoming.attempt,
    })
}

/// What becomes of an event whose chain is held back: it comes back later, at the place where it stood; past the last
/// tier there is no later.
fn held_back(shared: &Shared, incoming: &Incoming<'_>, chain: &Chain, held: &Held) -> Outcome {
    let mut fault = Fault::new(quarantine::CODE, quarantine::message(held));
    (fault.function, fault.function_version) = held.function.clone().unzip();
    if usize::try_from(incoming.attempt).unwrap_or(usize::MAX) >= shared.topics.retry.len() {
        return Outcome::dead_letter(fault);
    }
    let wait = u64::try_from(held.left.as_millis()).unwrap_or(u64::MAX);
    comes_back(incoming, chain, fault, Some(wait))
}

/// An event that was not run and comes back later, after so many milliseconds or in the first tier: at the place where it
/// stood.
fn comes_back(incoming: &Incoming<'_>, chain: &Chain, mut fault: Fault, wait: Option<u64>) -> Outcome {
    let stands = match &incoming.content {
        Content::Event { resume, .. } => resume.as_ref().filter(|resumed| goes_on(resumed, chain)),
        Content::Row { .. } | Content::Unreadable { .. } => None,
    };
    let resume = stands.map(|resumed| Resume {
        position: resumed.at.position,
        event: resumed.at.event.to_owned(),
    });
    if let Some(resumed) = stands {
        // The next attempt finds the place by the function that the reason names.
        let place = usize::try_from(resumed.at.position).ok();
        let there = place.and_then(|place| chain.load().functions.get(place));
        fault.function = there.map(|there| there.id.clone());
        fault.function_version = there.map(|there| there.version);
    }
    Outcome {
        resume,
        ..Outcome::retry(fault, wait)
    }
}

/// What functions read about an event; `None` for what is no event.
fn context(geo: &Geo, incoming: &Incoming<'_>) -> Option<Box<RawValue>> {
    let Content::Event { ingest, .. } = &incoming.content else {
        return None;
    };
    let context = Context {
        attempt: incoming.attempt,
        received_at: ingest.received_at,
        headers: &ingest.headers,
        idempotency_key: idempotency_key(incoming.identity),
        geo: ingest.ip.as_ref().and_then(|ip| geo.place(ip.as_str())),
    };
    to_raw_value(&context).ok()
}

/// The same for every run of an event, repetitions and later attempts included, and another for every other event.
/// Not the identity itself: that is the pipeline's own.
fn idempotency_key(identity: Identity) -> String {
    let digest = Sha256::digest(format!("millrace event {identity}"));
    let first = digest.first_chunk().copied().unwrap_or_default();
    format!("{:032x}", u128::from_be_bytes(first))
}

/// An event as one chain gets it: as it was sent, or where the chain stopped the last time.
fn record<'a>(incoming: &'a Incoming<'_>, chain: &Chain, context: &'a RawValue) -> Option<frame::Record<'a>> {
    let Content::Event { ingest, resume, .. } = &incoming.content else {
        return None;
    };
    let resumed = resume.as_ref().filter(|resumed| goes_on(resumed, chain));
    let (event, position) = resumed.map_or((ingest.event, 0), |resumed| {
        (resumed.at.event, resumed.at.position)
    });
    Some(frame::Record {
        context: context.get(),
        event: event.get(),
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
