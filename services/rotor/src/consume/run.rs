//! The events of a batch through their chains, in portions, within what their workspaces may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use millrace_event::frame::payload::Records;
use millrace_event::frame::{self, Fault, Outcome, Resume};
use millrace_event::{FunctionCode, Identity, Verdict};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use super::Shared;
use crate::geo::{Geo, Place};
use crate::incoming::{Content, Incoming, Resumed};
use crate::logs::About;
use crate::pool::{Chain, Closed, Ran};
use crate::quarantine::{self, Held};
use crate::registry::Ways;

/// Events handed to a worker at once; a larger batch is shared between workers.
const PORTION: usize = 250;

/// How much more time than on the ingest topic a workspace has among events that come back.
const RETURNING: u32 = 10;

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

/// A part of it that one worker runs.
struct Portion<'a> {
    chain: &'a Arc<Chain>,
    spots: &'a [Spot],
    /// Wall time for all of it.
    budget: Option<Duration>,
}

/// Runs each event through the chain of each of its ways.
pub(super) async fn run(
    shared: &Shared,
    incoming: &[Incoming<'_>],
    ways: &[Option<Ways>],
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
    let portions = portions(shared, &chains, has_neighbours(incoming), returning);
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
    let mut used_up: HashMap<&str, bool> = HashMap::new();
    for (portion, ran) in try_join_all(running).await? {
        let load = portion.chain.load();
        shared.quarantine.killed(load, &ran.kills);
        if portion.budget.is_some() {
            *used_up.entry(&load.workspace).or_default() |= ran.outcomes.iter().any(is_past_budget);
        }
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
        outcomes.extend(portion.spots.iter().copied().zip(came));
    }
    for (workspace, used_up) in used_up {
        shared.budgets.settle(workspace, used_up);
    }
    Ok(outcomes)
}

/// Whether the batch holds events of several workspaces.
fn has_neighbours(incoming: &[Incoming<'_>]) -> bool {
    let mut workspaces = incoming.iter().filter_map(|incoming| match &incoming.content {
        Content::Event { ingest, .. } => Some(ingest.workspace.as_str()),
        Content::Row { row, .. } => Some(row.origin.workspace.as_str()),
        Content::Unreadable { .. } => None,
    });
    let first = workspaces.next();
    workspaces.any(|workspace| Some(workspace) != first)
}

/// The work in portions; what a workspace may take is shared out evenly among its own.
fn portions<'a>(
    shared: &Shared,
    chains: &'a HashMap<(&str, u64), Work<'a>>,
    has_neighbours: bool,
    returning: bool,
) -> Vec<Portion<'a>> {
    let mut portions: Vec<Portion<'a>> = Vec::new();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for Work { chain, spots } in chains.values() {
        for spots in spots.chunks(PORTION) {
            *counts.entry(&chain.load().workspace).or_default() += 1;
            portions.push(Portion {
                chain,
                spots,
                budget: None,
            });
        }
    }
    if !has_neighbours {
        return portions;
    }
    for portion in &mut portions {
        let load = portion.chain.load();
        let count = counts.get(load.workspace.as_str()).copied().unwrap_or(1);
        let mut budget = shared.budgets.of(&load.workspace) / count;
        if returning {
            // Here every batch runs at least one event to its own limit: what came back for want of time gets ahead.
            let wall = Duration::from_millis(load.limits.wall_ms);
            budget = budget.saturating_mul(RETURNING).max(wall);
        }
        portion.budget = Some(budget);
    }
    portions
}

/// Whether an event was not run, or not to its end, because the time of its workspace was used up. Nothing else sends an
/// event round again for a limit.
fn is_past_budget(outcome: &Outcome) -> bool {
    let code = outcome.fault.as_ref().map(|fault| fault.code);
    outcome.verdict == Verdict::Retry && code == Some(FunctionCode::WallLimit)
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
    let wait = u64::try_from(held.left.as_millis()).unwrap_or(u64::MAX);
    Outcome {
        resume,
        ..Outcome::retry(fault, Some(wait))
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
