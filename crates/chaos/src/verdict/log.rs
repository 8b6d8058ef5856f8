//! What the topics say: every identity, how each was decided, and how often each thing was written.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result};
use millrace_event::envelope::{Envelope as _, Ingest, Transformed};
use millrace_event::{Identity, Verdict, header};
use millrace_kafka::{Connection, Record, reader};
use millrace_testkit::pipeline::Pipeline;

/// The retry topics of a pipeline of the testkit.
const RETRY: [&str; 3] = ["retry-1s", "retry-2s", "retry-4s"];

/// A record's event, attempt, and row where it is about one.
type Key = (Identity, u32, String);

/// The contents of all topics, as far as they matter.
#[derive(Debug, Default)]
pub(super) struct Logs {
    numbers: HashMap<Identity, u64>,
    identities: HashMap<u64, HashSet<Identity>>,
    decided: HashMap<Key, Verdict>,
    retried: HashSet<Identity>,
    dead: HashMap<Identity, HashSet<String>>,
    twice: BTreeMap<&'static str, u64>,
}

impl Logs {
    pub(super) async fn read(connection: &Connection, pipeline: &Pipeline) -> Result<Self> {
        let mut logs = Self::default();
        for record in records(connection, &pipeline.topic("ingest")).await? {
            let identity = identity(&record)?;
            let message = Ingest::read(&record.value)?.message_id;
            let n = message.as_str().strip_prefix("m-").and_then(|n| n.parse().ok());
            let n: u64 = n.with_context(|| format!("{} is no message of this run", message.as_str()))?;
            logs.identities.entry(n).or_default().insert(identity);
            if logs.numbers.insert(identity, n).is_some() {
                logs.again("shipped twice, removed by the bulker");
            }
        }
        // Where one topic has something twice, the next one has too: what it adds itself is counted.
        let shipped = logs.twice.values().sum::<u64>();
        for record in records(connection, &pipeline.topic("transformed")).await? {
            let read = Transformed::read(&record.value)?;
            let sub = read.sub.map(|sub| sub.to_string()).unwrap_or_default();
            match logs.decided.entry((read.id, read.attempt, sub)) {
                std::collections::hash_map::Entry::Vacant(first) => drop(first.insert(read.verdict)),
                std::collections::hash_map::Entry::Occupied(_) => {
                    logs.again("transformed twice, removed by the bulker")
                }
            }
        }
        if let Some(transformed) = logs.twice.get_mut("transformed twice, removed by the bulker") {
            *transformed = transformed.saturating_sub(shipped);
        }
        let mut copies = HashSet::new();
        for topic in RETRY {
            for record in records(connection, &pipeline.topic(topic)).await? {
                logs.retried.insert(identity(&record)?);
                if !copies.insert(key(&record)?) {
                    logs.again("retry copies twice, removed by the bulker");
                }
            }
        }
        let mut letters = HashSet::new();
        for record in records(connection, &pipeline.topic("dlq")).await? {
            let code = record
                .headers
                .text(header::ERROR_CODE)
                .unwrap_or_default()
                .to_owned();
            logs.dead.entry(identity(&record)?).or_default().insert(code);
            if !letters.insert(key(&record)?) {
                logs.again("dead letters twice, removed by their readers");
            }
        }
        Ok(logs)
    }

    fn again(&mut self, what: &'static str) {
        *self.twice.entry(what).or_default() += 1;
    }

    pub(super) fn twice(&self) -> BTreeMap<&'static str, u64> {
        self.twice.clone()
    }

    pub(super) fn accepted(&self, n: u64) -> bool {
        self.identities.contains_key(&n)
    }

    pub(super) fn doubled(&self) -> Vec<u64> {
        let several = self
            .identities
            .iter()
            .filter(|(_, identities)| identities.len() > 1);
        several.map(|(n, _)| *n).collect()
    }

    /// Events whose last decision was to drop them.
    fn drops(&self) -> impl Iterator<Item = u64> {
        let drops = self
            .decided
            .iter()
            .filter(|(_, verdict)| **verdict == Verdict::Drop);
        drops.filter_map(|((identity, ..), _)| self.numbers.get(identity).copied())
    }

    pub(super) fn dropped(&self) -> u64 {
        u64::try_from(self.drops().count()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_dropped(&self, n: u64) -> bool {
        let identities = self.identities.get(&n).into_iter().flatten();
        identities
            .into_iter()
            .any(|identity| self.decided.get(&(*identity, 0, String::new())) == Some(&Verdict::Drop))
    }

    pub(super) fn retried(&self) -> u64 {
        u64::try_from(self.retried.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn dead(&self) -> u64 {
        u64::try_from(self.dead.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_dead(&self, n: u64) -> bool {
        let identities = self.identities.get(&n).into_iter().flatten();
        identities
            .into_iter()
            .any(|identity| self.dead.contains_key(identity))
    }
}

/// Whether rotor and bulker have committed the ends of all that they read.
pub(super) async fn drained(connection: &Connection, pipeline: &Pipeline) -> Result<bool> {
    let read = RETRY.iter().map(|topic| ("rotor", *topic));
    for (service, topic) in read.chain([("rotor", "ingest"), ("bulker", "transformed")]) {
        let topic = pipeline.topic(topic);
        let held = reader::gather(connection, &topic).await?;
        let committed = reader::committed(connection, &pipeline.group(service), &topic).await?;
        let behind = held.iter().any(|(partition, records)| {
            let end = records.last().map_or(0, |record| record.offset + 1);
            committed.get(partition).copied().unwrap_or(0) < end
        });
        if behind {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn records(connection: &Connection, topic: &str) -> Result<Vec<Record>> {
    let gathered = reader::gather(connection, topic).await?;
    Ok(gathered.into_values().flatten().collect())
}

fn identity(record: &Record) -> Result<Identity> {
    let text = record
        .headers
        .text(header::ID)
        .context("a record without an identity")?;
    Ok(text.parse()?)
}

fn key(record: &Record) -> Result<Key> {
    let text = |name| record.headers.text(name).unwrap_or_default();
    let attempt = text(header::ATTEMPT).parse().unwrap_or(0);
    Ok((identity(record)?, attempt, text(header::SUB).to_owned()))
}
