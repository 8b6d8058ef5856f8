//! `millctl journal …`

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_journal::inspect::{LaneState, Whose};
use millrace_journal::ship::{self, Observer, Shipper};
use millrace_journal::{Config, Inspection, Journal, Topic};
use millrace_kafka::edge::Producer;
use millrace_service::SystemClock;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::output::{self, Answer};
use crate::parts::Parts;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// The exit status where records were set aside.
const SET_ASIDE: u8 = 2;

pub(super) async fn run(command: cli::Journal, parts: &Parts) -> Result<Answer> {
    match command {
        cli::Journal::Inspect { dir } => answer(&inspect(dir).await?),
        cli::Journal::Ship { dir, brokers } => ship(dir, &brokers, parts).await,
    }
}

async fn inspect(dir: PathBuf) -> Result<Inspection> {
    if !dir.is_dir() {
        bail!("{} is not a directory", dir.display());
    }
    let found = spawn_blocking(move || Inspection::of(&dir)).await??;
    if found.identity.is_none() && found.segments.is_empty() {
        bail!(
            "{} holds no journal: name the directory with journal.json and *.journal in it, the gateway's `journal.dir`",
            found.dir.display()
        );
    }
    Ok(found)
}

fn answer(found: &Inspection) -> Result<Answer> {
    let mut lines = vec![format!(
        "{}: {}, {} segments, {} bytes, {} records to ship",
        found.dir.display(),
        if found.in_use { "in use" } else { "not in use" },
        found.segments.len(),
        found.bytes(),
        found.pending(),
    )];
    if let Some(whose) = &found.identity {
        lines.push(format!(
            "identity {} (ingest) {} (dlq), {}",
            whose.ingest,
            whose.dlq,
            match (found.in_use, whose.closed) {
                (true, _) => "open",
                (false, true) => "closed in order",
                (false, false) => "not closed in order",
            }
        ));
    }
    lines.extend(found.segments.iter().map(|segment| {
        format!(
            "segment {}: {} bytes, {} records, {} to ship",
            segment.number, segment.bytes, segment.records, segment.pending
        )
    }));
    lines.extend(found.lanes.iter().map(lane_line));
    lines.extend(
        found
            .aside
            .reasons
            .iter()
            .map(|(reason, count)| format!("set aside in aside.jsonl: {count} {reason}")),
    );
    lines.extend(
        found
            .damaged_files
            .iter()
            .map(|path| format!("set aside: {}", path.display())),
    );
    lines.extend(found.notes.iter().map(|note| format!("note: {note}")));
    let mut object = serde_json::to_value(found).context("the report has no JSON form")?;
    object["pending"] = json!(found.pending());
    object["bytes"] = json!(found.bytes());
    Answer::lines(object, lines)
}

fn lane_line(lane: &LaneState) -> String {
    format!(
        "{}/{}: next {}, shipped up to {}, {} records to ship, {} bytes",
        lane.topic.as_str(),
        lane.partition,
        lane.next,
        lane.shipped,
        lane.pending,
        lane.pending_bytes
    )
}

/// # Cancellation
/// As if the process had been killed: what Kafka took may be sent again the next time, under the same identities.
async fn ship(dir: PathBuf, brokers: &[String], parts: &Parts) -> Result<Answer> {
    let found = inspect(dir).await?;
    let dir = found.dir.clone();
    if found.in_use {
        bail!(
            "a process has the journal in {} open; it ships what is in it",
            dir.display()
        );
    }
    let Some(whose) = &found.identity else {
        bail!(
            "{} has no journal.json: without it nobody knows under which identities its records are",
            dir.display()
        );
    };
    if parts.is_dry_run() {
        let waiting = found.lanes.iter().filter(|lane| lane.pending > 0);
        let mut lines: Vec<_> = waiting.map(lane_line).collect();
        lines.push(format!("{} records are shipped", found.pending()));
        return Answer::lines(
            json!({ "pending": found.pending(), "lanes": found.lanes, "notes": found.notes }),
            lines,
        );
    }
    let settings = ship::Config::default();
    let producer = Arc::new(Producer::new(parts.kafka_at(brokers), settings.request_timeout));
    for topic in Topic::ALL {
        let wanted = found
            .lanes
            .iter()
            .filter(|lane| lane.topic == topic && lane.pending > 0);
        let name = ship::name(parts.topics(), topic);
        if let Some(highest) = wanted.map(|lane| lane.partition).max() {
            let there = producer.partitions(name).await?;
            if highest >= there {
                bail!(
                    "{name} has {there} partitions, and the journal has records for partition {highest}: grow it with `millctl topics apply --partitions {}`",
                    highest + 1
                );
            }
        }
    }
    emptied(&dir, whose, producer, settings, parts).await
}

async fn emptied(
    dir: &Path,
    whose: &Whose,
    producer: Arc<Producer>,
    config: ship::Config,
    parts: &Parts,
) -> Result<Answer> {
    let opening = Config {
        dir: dir.to_owned(),
        // What the next gateway concludes from it must stay what its last one meant.
        sync: whose.sync,
        retain: Duration::ZERO,
        ..Config::default()
    };
    let (journal, _) = spawn_blocking(move || Journal::open(&opening, Arc::new(SystemClock))).await??;
    let all = journal.depth().records;
    let told = Arc::new(Told::default());
    let shipper = Shipper {
        reader: journal.reader(),
        producer,
        topics: parts.topics().clone(),
        config,
        observer: Arc::clone(&told) as Arc<dyn Observer>,
    };
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    drain.cancel();
    let mut shipping = tokio::spawn(shipper.run(drain, stop.clone()));
    let mut progress = tokio::time::interval(PROGRESS);
    progress.tick().await;
    loop {
        tokio::select! {
            ended = &mut shipping => break ended?,
            _ = progress.tick() => output::progress(&told.line(journal.depth().records, all)),
            interrupted = tokio::signal::ctrl_c(), if !stop.is_cancelled() => {
                interrupted?;
                stop.cancel();
            }
        }
    }
    let left = journal.depth().records;
    journal
        .close()
        .await
        .context("the journal was not closed in order")?;
    let (shipped, aside) = (all - left, told.aside.load(Ordering::Relaxed));
    if left > 0 {
        bail!("interrupted: {shipped} of {all} records were shipped; run the command again for the rest");
    }
    let mut lines = vec![format!(
        "{shipped} records are shipped, {} is empty",
        dir.display()
    )];
    if aside > 0 {
        lines.push(format!(
            "{aside} of them Kafka refuses for good: they are in {}",
            dir.join("aside.jsonl").display()
        ));
    }
    let answer = Answer::lines(json!({ "shipped": shipped - aside, "set_aside": aside }), lines)?;
    Ok(if aside > 0 {
        answer.with_exit(SET_ASIDE)
    } else {
        answer
    })
}

/// How it goes.
#[derive(Debug, Default)]
struct Told {
    aside: AtomicU64,
    /// Why the last attempt did not succeed, where none has since.
    reason: Mutex<Option<String>>,
}

impl Told {
    fn line(&self, left: u64, all: u64) -> String {
        let done = all.saturating_sub(left);
        match &*self.reason.lock().unwrap_or_else(PoisonError::into_inner) {
            None => format!("{done} of {all} records shipped"),
            Some(reason) => format!("{done} of {all} records shipped; trying again: {reason}"),
        }
    }

    fn remember(&self, reason: Option<&str>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.map(str::to_owned);
    }
}

impl Observer for Told {
    fn shipped(&self, _: u64) {
        self.remember(None);
    }

    fn failed(&self, reason: &str) {
        self.remember(Some(reason));
    }

    fn set_aside(&self) {
        self.aside.fetch_add(1, Ordering::Relaxed);
    }
}
