//! From the journal to Kafka.
//!
//! Each lane has one batch in flight, in order, for as long as it takes: there is no deadline, for what was
//! answered 200 must arrive. A batch whose fate is unknown is sent again, and readers remove the copies by
//! their identity. A record that Kafka refuses for good is set aside and harms no other.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::Duration;

use millrace_event::header;
use millrace_event::topic::{DEFAULT_PARTITIONS, MAX_RECORD_BYTES, Topics};
use millrace_kafka::edge::{self, Producer, Records};
use millrace_kafka::error::ProduceError;
use millrace_service::config::{ByteSize, Faults};
use millrace_service::{Causes, failpoint};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Batch, Lane, Limits, Reader, Shipped, Topic};

/// Between attempts, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Between two rounds of storing positions and deleting segments.
const TIDY: Duration = Duration::from_millis(500);
/// Between two looks whether the last record is acknowledged.
const DRAIN: Duration = Duration::from_millis(20);

/// `[ship]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most bytes of one batch; below the topic's `max.message.bytes`.
    pub batch: ByteSize,
    /// Most records of one batch.
    pub batch_records: usize,
    /// Least time between two batches of a partition that are not full. Records that come meanwhile share a batch,
    /// which is what most of the cost of shipping is for; one that comes alone does not wait.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// When a request without an answer is given up and its batch sent again.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How many partitions the topics are taken to have until Kafka was reached once.
    pub partitions: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch: ByteSize::bytes(900_000),
            batch_records: 5_000,
            linger: Duration::from_millis(50),
            request_timeout: Duration::from_secs(10),
            partitions: DEFAULT_PARTITIONS,
        }
    }
}

impl Config {
    /// Reports batches that no topic takes.
    pub fn check(&self, faults: &mut Faults) {
        if self.batch.as_usize() > MAX_RECORD_BYTES || self.batch < ByteSize::kib(1) {
            faults.add(
                "ship.batch",
                format!("must lie between 1KiB and {MAX_RECORD_BYTES}B"),
            );
        }
        if self.batch_records == 0 {
            faults.add("ship.batch_records", "must be 1 at least");
        }
        if self.partitions == 0 {
            faults.add("ship.partitions", "must be 1 at least");
        }
        if self.linger > Duration::from_secs(10) {
            faults.add("ship.linger", "must be 10s at most");
        }
        if self.request_timeout < Duration::from_millis(100) {
            faults.add("ship.request_timeout", "must be 100ms at least");
        }
    }
}

/// Who is told how it goes: counters, readiness, a line of progress. Called on the shipper's own tasks, so it
/// must not block.
pub trait Observer: Send + Sync + Debug {
    /// Kafka acknowledged so many records.
    fn shipped(&self, records: u64);
    /// An attempt did not succeed and is made again.
    fn failed(&self, reason: &str);
    /// A record that Kafka refuses for good was set aside.
    fn set_aside(&self);
}

/// Moves records until it is told to stop.
#[derive(Clone, Debug)]
pub struct Shipper {
    /// Where records come from.
    pub reader: Reader,
    /// How they leave.
    pub producer: Arc<Producer>,
    /// Where they go.
    pub topics: Topics,
    /// How many at once.
    pub config: Config,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

impl Shipper {
    /// Ships until `stop`, or, once `drain` is cancelled, until nothing is left. Everything that Kafka has
    /// acknowledged by then is noted.
    ///
    /// # Cancellation
    /// Batches in flight are sent again by the next process.
    pub async fn run(self, drain: CancellationToken, stop: CancellationToken) {
        let mut changed = self.reader.subscribe();
        let mut lanes: BTreeMap<Lane, ()> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lanes_end = stop.child_token();
        loop {
            changed.borrow_and_update();
            for lane in self.reader.lanes() {
                lanes.entry(lane).or_insert_with(|| {
                    tasks.spawn(self.clone().ship_lane(lane, lanes_end.clone()));
                });
            }
            if drain.is_cancelled() && self.reader.is_drained() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = drain.cancelled(), if !drain.is_cancelled() => {}
                _ = tidy.tick() => self.tidy().await,
                () = tokio::time::sleep(DRAIN), if drain.is_cancelled() => {}
                result = changed.changed(), if !drain.is_cancelled() => {
                    if result.is_err() {
                        break;
                    }
                    // Lanes hear of their records themselves; all that can be missed here is a new lane.
                    tokio::time::sleep(self.config.linger.min(DRAIN)).await;
                }
            }
        }
        lanes_end.cancel();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a lane's shipper ended by itself");
            }
        }
        self.tidy().await;
    }

    async fn ship_lane(self, lane: Lane, stop: CancellationToken) {
        let mut changed = self.reader.subscribe();
        let mut next = Instant::now();
        loop {
            // Not before the time, so that a lane that has to wait does not look at every change.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            changed.borrow_and_update();
            if !self.reader.has_next(lane) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    result = changed.changed() => if result.is_err() { return },
                }
                continue;
            }
            let start = Instant::now();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                is_full = self.ship_next(lane) => if !is_full { next = start + self.config.linger },
            }
        }
    }

    /// Ships the next batch of a lane, however long it takes; true when it had no room for more.
    async fn ship_next(&self, lane: Lane) -> bool {
        let limits = Limits {
            bytes: self.config.batch.as_usize(),
            records: self.config.batch_records,
        };
        let batch = match self.reader.take_recent(lane, limits) {
            Some(batch) => batch,
            None => match self.read(lane, limits).await {
                Some(batch) => batch,
                None => return false,
            },
        };
        self.deliver(lane, &batch).await;
        failpoint!(async "ingest::after_ship");
        self.reader.acknowledge(&batch);
        let bytes: usize = batch.records.iter().map(|record| record.value.len()).sum();
        batch.records.len() >= limits.records || bytes >= limits.bytes / 2
    }

    /// Reads the next batch from the disk; after a failure none, a while later.
    async fn read(&self, lane: Lane, limits: Limits) -> Option<Batch> {
        let reader = self.reader.clone();
        match spawn_blocking(move || reader.take(lane, limits)).await {
            Ok(Ok(batch)) => return batch,
            Ok(Err(error)) => {
                tracing::error!(error = %Causes(&error), "the journal cannot be read, trying again");
            }
            Err(error) => tracing::error!(%error, "reading the journal ended early, trying again"),
        }
        tokio::time::sleep(BACKOFF.1).await;
        None
    }

    async fn deliver(&self, lane: Lane, batch: &Batch) {
        let mut at_once = !batch.records.is_empty();
        if at_once {
            at_once = self.send(lane, &batch.records).await.is_ok();
        }
        if !at_once {
            // One record spoils a whole batch, and Kafka does not say which.
            for record in &batch.records {
                if let Err(reason) = self.send(lane, std::slice::from_ref(record)).await {
                    self.set_aside(lane, record, reason).await;
                }
            }
        }
    }

    /// Sends until Kafka answers.
    ///
    /// # Errors
    /// With Kafka's reason, when it refuses these records for good; none of them was taken then.
    async fn send(&self, lane: Lane, records: &[Shipped]) -> Result<(), String> {
        let topic = name(&self.topics, lane.topic);
        let mut wait = BACKOFF.0;
        // Encoded once: what is sent again is the same bytes.
        let batch = encoded(records);
        loop {
            match Box::pin(self.producer.produce_batch(topic, lane.partition, &batch)).await {
                Ok(()) => {
                    self.observer
                        .shipped(u64::try_from(records.len()).unwrap_or(u64::MAX));
                    return Ok(());
                }
                Err(ProduceError::Refused { code, .. }) => return Err(code),
                Err(error @ ProduceError::Ambiguous { .. }) => {
                    let partition = lane.partition;
                    tracing::debug!(error = %Causes(&error), topic, partition, "a batch is sent again");
                    self.observer.failed(&Causes(&error).to_string());
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Keeps a refused record where people find it. As long as even that fails it stays in the journal.
    async fn set_aside(&self, lane: Lane, record: &Shipped, reason: String) {
        loop {
            let (reader, record, reason) = (self.reader.clone(), record.clone(), reason.clone());
            let id = record.identity;
            let kept = spawn_blocking(move || reader.set_aside(lane, &record, &reason)).await;
            match kept {
                Ok(Ok(())) => {
                    self.observer.set_aside();
                    return tracing::error!(%id, "kafka refuses a record for good, it was set aside");
                }
                Ok(Err(error)) => tracing::error!(%error, %id, "a refused record cannot be set aside"),
                Err(error) => tracing::error!(%error, %id, "setting a refused record aside ended early"),
            }
            tokio::time::sleep(BACKOFF.1).await;
        }
    }

    async fn tidy(&self) {
        let reader = self.reader.clone();
        match spawn_blocking(move || reader.tidy()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the journal could not be tidied"),
            Err(error) => tracing::warn!(%error, "tidying the journal ended early"),
        }
    }
}

/// The name of a topic.
pub fn name(topics: &Topics, topic: Topic) -> &str {
    match topic {
        Topic::Ingest => &topics.ingest,
        Topic::Dlq => &topics.dlq,
    }
}

/// Bytes of a record beside its key and value, for room: its frame, its identity, a trace.
const AROUND: usize = 160;

/// The batch of `records`, each with its identity in front of its headers.
fn encoded(records: &[Shipped]) -> edge::Batch {
    let bytes = |record: &Shipped| record.key.len() + record.value.len() + AROUND;
    let mut batch = Records::with_capacity(records.iter().map(bytes).sum());
    let mut id = String::new();
    for record in records {
        id.clear();
        let written = write!(id, "{}", record.identity);
        debug_assert!(written.is_ok(), "a text takes every write");
        let headers = std::iter::once((header::ID, id.as_bytes())).chain(record.headers.iter());
        batch.push(Some(&record.key), &record.value, headers);
    }
    batch.into_batch(edge::now_ms())
}
