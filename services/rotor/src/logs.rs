//! What functions log, for people: to a topic of its own, beside the events.
//!
//! No event waits for it. Debug lines are kept only of workspaces whose switch is on; of everything else so many a second
//! for each workspace. What the buffer cannot hold is dropped and counted. A batch of lines whose fate is unknown is sent
//! again, so a line may stand in the topic twice.

mod record;
mod sample;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use millrace_event::frame::{LogLevel, LogLine};
use millrace_event::{Identity, Timestamp, partition};
use millrace_kafka::Outgoing;
use millrace_kafka::edge::Producer;
use millrace_kafka::error::ProduceError;
use millrace_service::config::Faults;
use millrace_service::{Causes, Clock};
use millrace_store::FunctionDebug;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::pool::Chain;
use sample::Sampler;

/// Between attempts to send, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// `[logs]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most lines that wait to be sent; more are dropped.
    pub buffer: usize,
    /// How many are sent at once.
    pub batch: usize,
    /// How long the first of them waits for the others.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Lines kept of one workspace in a second; twice as many at once after a quiet time.
    pub lines_per_second: u32,
    /// The same while the workspace's debug switch is on.
    pub debug_lines_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffer: 4_000,
            batch: 500,
            interval: Duration::from_millis(250),
            lines_per_second: 50,
            debug_lines_per_second: 500,
        }
    }
}

impl Config {
    /// Reports a buffer that holds no batch.
    pub fn check(&self, faults: &mut Faults) {
        if self.batch == 0 || self.batch > self.buffer {
            faults.add("logs.batch", "must lie between 1 and logs.buffer");
        }
        if self.buffer > 1_000_000 {
            faults.add("logs.buffer", "must be 1000000 at most");
        }
    }
}

/// Handles to the metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    sent: Counter,
    sampled_out: Counter,
    dropped: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            sent: Counter::default(),
            sampled_out: Counter::default(),
            dropped: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("function_logs");
        registry.register("sent", "Lines that are in the topic", metrics.sent.clone());
        registry.register(
            "sampled_out",
            "Lines over what is kept of one workspace in a second",
            metrics.sampled_out.clone(),
        );
        registry.register(
            "dropped",
            "Lines that the buffer could not hold or Kafka did not take",
            metrics.dropped.clone(),
        );
        metrics
    }
}

/// The event that a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) identity: Identity,
    pub(crate) message_id: String,
    pub(crate) attempt: u32,
}

/// A line to be sent.
#[derive(Debug)]
struct Line {
    chain: Arc<Chain>,
    about: Option<About>,
    line: LogLine,
    at: Timestamp,
    discarded: u64,
}

/// Takes lines.
#[derive(Debug)]
pub struct Logs {
    sender: mpsc::Sender<Line>,
    sampler: Mutex<Sampler>,
    debug: Arc<RwLock<HashSet<String>>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

/// Sends what was taken.
#[derive(Debug)]
pub struct Reporter {
    receiver: mpsc::Receiver<Line>,
    producer: Producer,
    topic: String,
    config: Config,
    metrics: Metrics,
    partitions: Option<u32>,
    /// Drops that the log has.
    told: u64,
}

impl Logs {
    /// Both ends of the buffer.
    pub fn new(
        config: &Config,
        producer: Producer,
        topic: String,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> (Self, Reporter) {
        let (sender, receiver) = mpsc::channel(config.buffer);
        let reporter = Reporter {
            receiver,
            producer,
            topic,
            config: config.clone(),
            metrics: metrics.clone(),
            partitions: None,
            told: 0,
        };
        let logs = Self {
            sender,
            sampler: Mutex::new(Sampler::new(
                config.lines_per_second,
                config.debug_lines_per_second,
            )),
            debug: Arc::default(),
            metrics,
            clock,
        };
        (logs, reporter)
    }

    /// Asks every `poll` whose debug lines are wanted, until `ended`. Without an answer it stays as it was.
    pub fn follow(&self, switches: FunctionDebug, poll: Duration, ended: CancellationToken) {
        let debug = Arc::clone(&self.debug);
        tokio::spawn(async move {
            let following = async {
                loop {
                    match switches.all().await {
                        Ok(on) => *debug.write().unwrap_or_else(PoisonError::into_inner) = on,
                        Err(error) => tracing::debug!(%error, "debug switches cannot be asked for"),
                    }
                    tokio::time::sleep(poll).await;
                }
            };
            ended.run_until_cancelled(following).await;
        });
    }

    /// Takes the lines of one batch; `about` gives the event at a place of it.
    pub(crate) fn note(
        &self,
        chain: &Arc<Chain>,
        lines: Vec<LogLine>,
        discarded: u64,
        about: impl Fn(usize) -> Option<About>,
    ) {
        if lines.is_empty() {
            return;
        }
        let workspace = chain.load().workspace.as_str();
        let debug = self
            .debug
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(workspace);
        let mut kept: Vec<LogLine> = lines
            .into_iter()
            .filter(|line| debug || line.level != LogLevel::Debug)
            .collect();
        let room = {
            let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
            sampler.take(workspace, kept.len(), debug, self.clock.instant())
        };
        let over = u64::try_from(kept.len() - room).unwrap_or(u64::MAX);
        self.metrics.sampled_out.inc_by(over);
        kept.truncate(room);
        let at = Timestamp::clamped_from_millis(self.clock.now().as_millisecond());
        let last = kept.len().saturating_sub(1);
        for (place, line) in kept.into_iter().enumerate() {
            let line = Line {
                chain: Arc::clone(chain),
                about: line.index.and_then(&about),
                line,
                at,
                discarded: if place == last { discarded + over } else { 0 },
            };
            if self.sender.try_send(line).is_err() {
                self.metrics.dropped.inc();
            }
        }
    }
}

impl Reporter {
    /// Sends until `end`, and then once more what is left.
    ///
    /// # Cancellation
    /// What was not sent is lost; what was being sent may be.
    pub async fn run(mut self, end: CancellationToken) {
        let mut batch = Vec::with_capacity(self.config.batch);
        loop {
            let ending = tokio::select! {
                biased;
                ending = self.gather(&mut batch) => ending,
                () = end.cancelled() => {
                    self.receiver.close();
                    while let Ok(line) = self.receiver.try_recv() {
                        batch.push(line);
                    }
                    true
                }
            };
            if !batch.is_empty() {
                self.send(&batch, &end).await;
                batch.clear();
            }
            self.tell();
            if ending {
                return;
            }
        }
    }

    /// Fills the batch; true when nothing will come any more. Loses nothing when dropped: what has come is in the batch.
    async fn gather(&mut self, batch: &mut Vec<Line>) -> bool {
        let limit = self.config.batch;
        if self.receiver.recv_many(batch, limit).await == 0 {
            return true;
        }
        let deadline = Instant::now() + self.config.interval;
        while batch.len() < limit {
            match timeout_at(deadline, self.receiver.recv_many(batch, limit - batch.len())).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        false
    }

    /// Sends a batch until Kafka has it, or, once the process ends, tries to.
    async fn send(&mut self, batch: &[Line], end: &CancellationToken) {
        let mut lanes: Option<BTreeMap<u32, Vec<Outgoing>>> = None;
        let mut pause = BACKOFF.0;
        loop {
            let error = match self.attempt(batch, &mut lanes).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if end.is_cancelled() {
                let count = lanes.map_or(batch.len(), |lanes| lanes.values().map(Vec::len).sum());
                self.drop_for(count, &error);
                return;
            }
            tracing::debug!(error, "log lines of functions are not sent yet");
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn attempt(
        &mut self,
        batch: &[Line],
        lanes: &mut Option<BTreeMap<u32, Vec<Outgoing>>>,
    ) -> Result<(), String> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => {
                let asked = self.producer.partitions(&self.topic).await;
                *self
                    .partitions
                    .insert(asked.map_err(|error| Causes(&error).to_string())?)
            }
        };
        let lanes = lanes.get_or_insert_with(|| {
            let mut lanes: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
            for line in batch {
                let key = line.chain.load().workspace.as_bytes();
                lanes
                    .entry(partition::of_key(key, partitions))
                    .or_default()
                    .push(line.outgoing());
            }
            lanes
        });
        while let Some(entry) = lanes.first_entry() {
            let records = entry.get().clone();
            let count = records.len();
            match self.producer.produce(&self.topic, *entry.key(), records).await {
                Ok(()) => {
                    self.metrics.sent.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error @ ProduceError::Refused { .. }) => {
                    self.drop_for(count, &Causes(&error).to_string())
                }
                Err(error) => return Err(Causes(&error).to_string()),
            }
            lanes.pop_first();
        }
        Ok(())
    }

    fn drop_for(&self, count: usize, error: &str) {
        self.metrics
            .dropped
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        tracing::warn!(count, error, "log lines of functions could not be sent");
    }

    fn tell(&mut self) {
        let dropped = self.metrics.dropped.get();
        if dropped > self.told {
            let count = dropped - self.told;
            self.told = dropped;
            tracing::warn!(count, "log lines of functions were dropped");
        }
    }
}
