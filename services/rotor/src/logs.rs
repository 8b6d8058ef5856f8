//! What functions log, for people: to a topic of its own, beside the events.
//!
//! No event waits for it. Debug lines are kept only of workspaces whose switch is on; of everything else so many a second
//! for each workspace.

mod record;
mod sample;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use millrace_event::frame::{LogLevel, LogLine};
use millrace_event::{Identity, Timestamp};
use millrace_kafka::Outgoing;
use millrace_kafka::edge::Producer;
use millrace_kafka::notes::{Gathering, Note, Notes, Reporter, Tally, notes};
use millrace_service::Clock;
use millrace_service::config::Faults;
use millrace_store::FunctionDebug;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::pool::Chain;
use sample::Sampler;

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
    tally: Tally,
    sampled_out: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            tally: Tally::default(),
            sampled_out: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("function_logs");
        registry.register("sent", "Lines that are in the topic", metrics.tally.sent.clone());
        registry.register(
            "sampled_out",
            "Lines over what is kept of one workspace in a second",
            metrics.sampled_out.clone(),
        );
        registry.register(
            "dropped",
            "Lines that the buffer could not hold or Kafka did not take",
            metrics.tally.dropped.clone(),
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
    notes: Notes<Line>,
    sampler: Mutex<Sampler>,
    debug: Arc<RwLock<HashSet<String>>>,
    sampled_out: Counter,
    clock: Arc<dyn Clock>,
}

impl Logs {
    /// Both ends of the buffer.
    pub fn new(
        config: &Config,
        producer: Producer,
        topic: String,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> (Self, Reporter<impl Note>) {
        let gathering = Gathering {
            buffer: config.buffer,
            batch: config.batch,
            interval: config.interval,
        };
        let (notes, reporter) = notes(gathering, producer, topic, metrics.tally);
        let logs = Self {
            notes,
            sampler: Mutex::new(Sampler::new(
                config.lines_per_second,
                config.debug_lines_per_second,
            )),
            debug: Arc::default(),
            sampled_out: metrics.sampled_out,
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
        self.sampled_out.inc_by(over);
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
            self.notes.note(line);
        }
    }
}

impl Note for Line {
    const MANY: &'static str = "log lines of functions";

    fn spread(&self) -> &[u8] {
        self.chain.load().workspace.as_bytes()
    }

    fn outgoing(&self) -> Outgoing {
        self.record()
    }
}
