//! `millctl dlq replay`: which letters have a point, the trail of what was sent, and the sending.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_event::Timestamp;
use millrace_kafka::producer::Producer;
use millrace_store::{Functions, Workspaces};
use millrace_warehouse::replays::{self, Replay};
use millrace_warehouse::{Batch, Insert, Limits, Outcome, Schema, TableName, Warehouse};
use serde_json::json;
use tokio::sync::mpsc;

use super::letter::{Letter, Unfit};
use crate::cli::Letters;
use crate::output::{Answer, Bar};
use crate::parts::Parts;

/// Most letters that are sent and acknowledged together.
const BATCH: usize = 100;
/// Letters that were read and wait to be judged: what is held of a topic at any time.
const WAITING: usize = 200;
/// How often an entry of the trail is tried, and the pause between.
const TRAIL_ATTEMPTS: usize = 5;
const TRAIL_PAUSE: Duration = Duration::from_secs(1);
const TRAIL_DEADLINE: Duration = Duration::from_secs(15);

/// How letters are to be sent.
pub(super) struct Orders {
    pub(super) dry_run: bool,
    /// Most letters a second.
    pub(super) rate: u32,
    /// Also those that would fail again.
    pub(super) force: bool,
    /// Who the trail says it was.
    pub(super) by: String,
}

pub(super) async fn run(parts: &Parts, mut wanted: Letters, orders: Orders) -> Result<Answer> {
    let now = parts.now();
    // What fails from now on, these letters again included, is for another time.
    wanted.until = Some(wanted.until.map_or(now, |until| until.min(now)));
    let topic = parts
        .topics()
        .retry
        .first()
        .context("no retry topic is configured")?;
    let replay = Replay {
        id: format!("rpl_{}", uuid::Uuid::now_v7().simple()),
        by: orders.by.clone(),
        at: now,
        filter: filter(&wanted).to_string(),
        forced: orders.force,
        topic: topic.topic.clone(),
    };
    let mut judge = Judge {
        parts,
        warehouse: parts.warehouse(),
        force: orders.force,
        now,
        versions: None,
        schemas: HashMap::new(),
    };
    let mut post = match orders.dry_run {
        true => None,
        false => Some(Post::open(parts, replay.clone(), orders.rate)?),
    };
    let bar = Bar::new("dead letters");
    let (found, mut letters) = mpsc::channel(WAITING);
    let reading = super::each(parts, wanted, bar, move |letter| {
        found.blocking_send(letter).is_ok()
    });
    let sending = async {
        let mut counts = Counts::default();
        while let Some(letter) = letters.recv().await {
            match judge.copy(&letter).await? {
                Err(why) => *counts.left.entry(why).or_default() += 1,
                Ok(copy) => {
                    counts.sent += 1;
                    if let Some(post) = &mut post {
                        post.add(&letter, copy).await?;
                    }
                }
            }
        }
        if let Some(post) = post {
            post.finish().await?;
        }
        anyhow::Ok(counts)
    };
    // Where sending fails its channel is closed, and the reading ends too.
    let (read, sent) = tokio::join!(reading, sending);
    let counts = sent?;
    read?;
    counts.answer(&replay, orders.dry_run)
}

fn filter(wanted: &Letters) -> serde_json::Value {
    let mut filter = serde_json::Map::new();
    let texts = [
        ("workspace", wanted.workspace.clone()),
        ("code", wanted.code.clone()),
        ("function", wanted.function.clone()),
        ("since", wanted.since.map(|since| since.to_string())),
        ("until", wanted.until.map(|until| until.to_string())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            filter.insert(name.to_owned(), text.into());
        }
    }
    if !wanted.places.is_empty() {
        let places: Vec<_> = wanted.places.iter().map(ToString::to_string).collect();
        filter.insert("at".to_owned(), places.into());
    }
    filter.into()
}

#[derive(Default)]
struct Counts {
    sent: u64,
    left: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn answer(&self, replay: &Replay, dry_run: bool) -> Result<Answer> {
        let did = if dry_run { "would be sent" } else { "sent" };
        let mut lines = vec![format!("{} dead letters {did} to {}", self.sent, replay.topic)];
        for (why, count) in &self.left {
            let why = match *why {
                "pointless" => "would fail again, as nothing changed that they failed on; --force sends them",
                "no_envelope" => "hold nothing that can go round",
                _ => "have no identity",
            };
            lines.push(format!("{count} left: they {why}"));
        }
        if self.sent > 0 && !dry_run {
            lines.push(format!("`millctl dlq replays` has it as {}", replay.id));
        }
        let object = json!({
            "replayed": self.sent, "topic": replay.topic, "left": self.left,
            "replay": (self.sent > 0 && !dry_run).then_some(&replay.id),
        });
        Answer::lines(object, lines)
    }
}

/// Says of each letter whether sending it has a point.
struct Judge<'p> {
    parts: &'p Parts,
    warehouse: Warehouse,
    force: bool,
    now: Timestamp,
    /// The versions in force of every function, by its id; looked up for the first letter that has one.
    versions: Option<HashMap<String, Vec<u32>>>,
    /// Tables as they are; nothing for those that do not exist yet.
    schemas: HashMap<TableName, Option<Arc<Schema>>>,
}

impl Judge<'_> {
    /// The copy that goes round, or why the letter stays.
    async fn copy(&mut self, letter: &Letter) -> Result<Result<millrace_kafka::Outgoing, &'static str>> {
        if !self.force && self.is_pointless(letter).await? {
            return Ok(Err("pointless"));
        }
        Ok(letter.copy(self.now).map_err(|unfit| match unfit {
            Unfit::NoIdentity => "without_identity",
            Unfit::NoEnvelope => "no_envelope",
        }))
    }

    /// Whether it would fail again: the version that failed is in force, or the row does not fit its table.
    async fn is_pointless(&mut self, letter: &Letter) -> Result<bool> {
        if letter.is_never_fit() {
            return Ok(true);
        }
        if let Some((function, failed)) = letter.function() {
            if self.versions.is_none() {
                self.versions = Some(versions(self.parts).await?);
            }
            let in_force = self.versions.as_ref().and_then(|versions| versions.get(function));
            return Ok(in_force.is_some_and(|versions| versions.contains(&failed)));
        }
        if !letter.is_about_types() {
            return Ok(false);
        }
        let Some(table) = self.table(letter).await? else {
            return Ok(false);
        };
        if !self.schemas.contains_key(&table) {
            let schema = match Schema::read(&self.warehouse, &table).await {
                Ok(schema) => Some(Arc::new(schema)),
                Err(millrace_warehouse::Error::UnfitTable { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            self.schemas.insert(table.clone(), schema);
        }
        let Some(Some(schema)) = self.schemas.get(&table) else {
            return Ok(false);
        };
        let batch = Batch::new(Arc::clone(schema), Limits::default(), self.now);
        // A table that takes no rows at all is somebody else's trouble: its rows go round until it is mended.
        let Ok(mut batch) = batch else { return Ok(false) };
        Ok(letter.with_row(|row| batch.push(row).is_err()).unwrap_or(false))
    }

    /// The table that the letter's row would go to.
    async fn table(&self, letter: &Letter) -> Result<Option<TableName>> {
        if let Some(table) = letter.table() {
            return Ok(table.parse().ok());
        }
        let workspaces = Workspaces::new(self.parts.postgres()?);
        let Ok(workspace) = workspaces.find(letter.workspace()).await else {
            return Ok(None);
        };
        let destination = workspaces.destination(&workspace.id, "default").await?;
        Ok(format!("{}.{}", destination.database, destination.table)
            .parse()
            .ok())
    }
}

/// The versions in force of every function, by its id.
async fn versions(parts: &Parts) -> Result<HashMap<String, Vec<u32>>> {
    let postgres = parts.postgres()?;
    let (functions, workspaces) = (Functions::new(postgres.clone()), Workspaces::new(postgres));
    let mut versions = HashMap::new();
    for workspace in workspaces.list().await? {
        for listed in functions.list(&workspace.id).await? {
            let promoted = listed.promoted.iter().map(|promoted| promoted.version).collect();
            versions.insert(listed.id.as_str().to_owned(), promoted);
        }
    }
    Ok(versions)
}

/// Writes the trail and sends.
struct Post {
    producer: Producer,
    warehouse: Warehouse,
    trail: TableName,
    replay: Replay,
    rate: u32,
    /// By partition; at most a batch in each.
    waiting: BTreeMap<u32, (Vec<replays::Letter>, Vec<millrace_kafka::Outgoing>)>,
    entries: u64,
}

impl Post {
    fn open(parts: &Parts, replay: Replay, rate: u32) -> Result<Self> {
        Ok(Self {
            producer: Producer::new(&parts.kafka())?,
            warehouse: parts.warehouse(),
            trail: replays::table(parts.system_database()?)?,
            replay,
            rate,
            waiting: BTreeMap::new(),
            entries: 0,
        })
    }

    async fn add(&mut self, letter: &Letter, copy: millrace_kafka::Outgoing) -> Result<()> {
        let (named, copies) = self.waiting.entry(letter.place().partition).or_default();
        named.push(letter.entry());
        copies.push(copy);
        // Small batches at low rates, so that the rate is kept within each second too.
        let full = usize::try_from(self.rate).unwrap_or(BATCH).clamp(1, BATCH);
        if copies.len() >= full {
            self.send(letter.place().partition).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        while let Some(partition) = self.waiting.keys().next().copied() {
            self.send(partition).await?;
        }
        Ok(())
    }

    /// First the trail, then the letters.
    async fn send(&mut self, partition: u32) -> Result<()> {
        let Some((named, copies)) = self.waiting.remove(&partition) else {
            return Ok(());
        };
        self.record(&named).await?;
        let sent = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        self.producer.send(&self.replay.topic, partition, copies).await?;
        tokio::time::sleep(Duration::from_secs(1) * sent / self.rate).await;
        Ok(())
    }

    async fn record(&mut self, letters: &[replays::Letter]) -> Result<()> {
        self.entries += 1;
        let block = replays::encode(&self.replay, letters);
        let token = format!("{}-{}", self.replay.id, self.entries);
        let mut last = None;
        for attempt in 0..TRAIL_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(TRAIL_PAUSE).await;
            }
            let query_id = format!("millctl-{token}-{attempt}");
            let insert = Insert {
                table: &self.trail,
                block: &block,
                token: &token,
                query_id: &query_id,
                deadline: TRAIL_DEADLINE,
            };
            match self.warehouse.insert(insert).await {
                Outcome::Applied => return Ok(()),
                Outcome::Definite(error) | Outcome::Ambiguous(error) => last = Some(error),
            }
        }
        let trail = &self.trail;
        match last {
            Some(error) => Err(error).with_context(|| {
                format!("the audit trail {trail} cannot be written, so no more letters are sent; those that went are in it")
            }),
            None => bail!("the audit trail {trail} cannot be written"),
        }
    }
}
