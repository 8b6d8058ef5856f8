//! `millctl ledger …`: what the bulkers' group has committed, and the operator's way out where it cannot be gone on
//! from.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use millrace_kafka::bounds::Bounds;
use millrace_kafka::group::{self, Committed};
use millrace_kafka::offsets;
use millrace_ledger::{Assigned, Metadata, Recovery, Stop};
use serde_json::{Value, json};

use crate::cli::Ledger;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Ledger, parts: &Parts) -> Result<Answer> {
    match command {
        Ledger::Show { group } => show(parts, &group).await,
        Ledger::Adopt {
            partition,
            group,
            at,
            force,
        } => {
            let target = Target {
                parts,
                group: &group,
                partition,
            };
            target.adopt(at, parts.is_dry_run(), force).await
        }
    }
}

/// What a bulker that were given the partition would make of it.
fn assign(partition: u32, held: Option<&Committed>, log: Range<u64>) -> Result<Assigned, Stop> {
    let held = held.map(|held| (held.offset, held.metadata.as_str()));
    millrace_ledger::Ledger::assign(partition, held, log)
}

async fn show(parts: &Parts, group: &str) -> Result<Answer> {
    let (kafka, topic) = (parts.kafka(), &parts.topics().transformed);
    let ranges = Bounds::new(&kafka, topic).ranges(None).await?;
    let held = offsets::held(&kafka, group, topic).await?;
    let mut objects = Vec::new();
    let mut rows = Vec::new();
    let mut stopped = 0;
    for (partition, log) in ranges {
        let held = held.get(&partition);
        let state = assign(partition, held, log.clone());
        stopped += u32::from(state.is_err());
        let says = match &state {
            Err(stop) => format!("stops: {stop}"),
            Ok(assigned) => goes_on(assigned),
        };
        let offset = held.map(|held| held.offset);
        let journals = held
            .and_then(|held| Metadata::decode(&held.metadata).ok())
            .map(|metadata| metadata.watermarks.len());
        let cell = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        rows.push(vec![
            partition.to_string(),
            cell(offset),
            log.start.to_string(),
            log.end.to_string(),
            says.clone(),
        ]);
        objects.push(json!({
            "partition": partition, "offset": offset, "log_start": log.start, "log_end": log.end,
            "journals": journals, "stops": state.is_err(), "state": says,
        }));
    }
    let names = ["PARTITION", "OFFSET", "LOG_START", "LOG_END", "STATE"];
    let object = json!({ "group": group, "topic": topic, "stopped": stopped, "partitions": objects });
    Answer::table(object, &names, &rows)
}

fn goes_on(assigned: &Assigned) -> String {
    let mut says = match &assigned.recovery {
        Recovery::Clean => "goes on".to_owned(),
        Recovery::Finish(plan) => format!("finishes the plan {}-{}", plan.first, plan.last),
    };
    if let Some(until) = assigned.ledger.asks_until() {
        says.push_str(&format!(", asks its tables up to {until}"));
    }
    if assigned.lost > 0 {
        says.push_str(&format!(", {} records were deleted unread", assigned.lost));
    }
    says
}

struct Target<'a> {
    parts: &'a Parts,
    group: &'a str,
    partition: u32,
}

impl Target<'_> {
    async fn adopt(&self, at: Option<u64>, dry_run: bool, force: bool) -> Result<Answer> {
        let (kafka, topic) = (self.parts.kafka(), &self.parts.topics().transformed);
        let (group, partition) = (self.group, self.partition);
        let ranges = Bounds::new(&kafka, topic).ranges(None).await?;
        let log = ranges
            .get(&partition)
            .with_context(|| format!("topic {topic} has no partition {partition}"))?;
        let held = offsets::held(&kafka, group, topic).await?.remove(&partition);
        let why = match assign(partition, held.as_ref(), log.clone()) {
            Err(stop) => Some(stop.to_string()),
            Ok(assigned) if !force => bail!(
                "a bulker goes on with partition {partition} by itself ({}); --force adopts it all the same",
                goes_on(&assigned)
            ),
            Ok(_) => None,
        };
        let at = at.unwrap_or(log.start);
        if at < log.start || at > log.end {
            bail!(
                "offset {at} is not in the log, which goes from {} to {}",
                log.start,
                log.end
            );
        }
        let metadata = if at < log.end {
            Metadata::adopting(log.end)
        } else {
            Metadata::default()
        };
        if !dry_run {
            let members = group::members(&kafka, group).await?;
            if !members.is_empty() {
                bail!(
                    "group {group} has {} members: stop the bulkers first, and start them again afterwards",
                    members.len()
                );
            }
            let committed = Committed {
                offset: at,
                metadata: metadata.encode()?,
            };
            offsets::set(&kafka, group, topic, partition, committed).await?;
        }
        self.answer(held.as_ref(), at, log, why, dry_run)
    }

    fn answer(
        &self,
        held: Option<&Committed>,
        at: u64,
        log: &Range<u64>,
        why: Option<String>,
        dry_run: bool,
    ) -> Result<Answer> {
        let (asked, skipped) = (log.end - at, at - log.start);
        let did = if dry_run {
            "would be committed"
        } else {
            "is committed"
        };
        let mut lines = vec![format!(
            "partition {}: offset {at} {did}; the rows of {asked} records are asked for before they are inserted",
            self.partition
        )];
        if skipped > 0 {
            lines.push(format!(
                "{skipped} records before it are not read again: what of them is in no table stays out"
            ));
        }
        if let Some(why) = &why {
            lines.push(format!("it stopped because {why}"));
        }
        // What was there is said, so that it can be put back by hand.
        let before: Option<Value> =
            held.map(|held| json!({ "offset": held.offset, "metadata": held.metadata }));
        let object = json!({
            "group": self.group, "partition": self.partition, "offset": at, "asks_until": log.end, "asked": asked,
            "skipped": skipped, "before": before, "stopped_because": why,
        });
        Answer::lines(object, lines)
    }
}
