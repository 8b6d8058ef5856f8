//! `[journal]`

use std::path::PathBuf;
use std::time::Duration;

use millrace_service::config::{ByteSize, Faults};
use serde::{Deserialize, Serialize};

/// What survives what. Under every setting an answered event survives the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// An answered event survives a loss of power: the answer waits for the disk. One sync serves all
    /// requests that wait.
    Always,
    /// A loss of power costs at most the interval.
    Interval,
    /// A loss of power costs what the system had not written yet.
    Os,
}

/// What an answer of 200 waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// The journal has the event.
    Journal,
    /// Kafka has it too, on all in-sync replicas: it survives the loss of this machine's disk.
    Kafka,
}

/// Where the journal is and what it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory, for one process alone.
    pub dir: PathBuf,
    /// What an answer promises.
    pub sync: Sync,
    /// What an answer waits for.
    pub accept: Accept,
    /// How long an answer waits for Kafka, where `accept` is `kafka`; then it is 429.
    #[serde(with = "humantime_serde")]
    pub accept_timeout: Duration,
    /// How many records may wait for Kafka, where `accept` is `kafka`; beyond that requests are answered 429 at
    /// once and nothing of them is kept. Bounds the memory of those that wait.
    pub accept_backlog: u64,
    /// Between two syncs, where `sync` is `interval`.
    #[serde(with = "humantime_serde")]
    pub sync_interval: Duration,
    /// When a segment is full.
    pub segment: ByteSize,
    /// When the journal is full and requests are answered 429.
    pub limit: ByteSize,
    /// How much of what was appended last stays in memory, so that it is shipped without being read again.
    pub recent: ByteSize,
    /// How long a segment stays after all of it is acknowledged. Long enough for the memory of message ids to
    /// be told: a process that dies before that finds the ids here again.
    #[serde(with = "humantime_serde")]
    pub retain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("journal"),
            sync: Sync::Interval,
            accept: Accept::Journal,
            accept_timeout: Duration::from_secs(5),
            accept_backlog: 20_000,
            sync_interval: Duration::from_millis(50),
            segment: ByteSize::mib(64),
            limit: ByteSize::mib(10 << 10),
            recent: ByteSize::mib(16),
            retain: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Reports sizes that contradict each other.
    pub fn check(&self, faults: &mut Faults) {
        if self.segment < ByteSize::kib(64) || self.segment > ByteSize::mib(1 << 10) {
            faults.add("journal.segment", "must lie between 64KiB and 1GiB");
        }
        if self.limit.get() < self.segment.get().saturating_mul(2) {
            faults.add("journal.limit", "must hold two segments at least");
        }
        if self.recent > ByteSize::mib(1 << 10) {
            faults.add("journal.recent", "must be 1GiB at most");
        }
        if self.accept_timeout.is_zero() {
            faults.add("journal.accept_timeout", "must be 1ms at least");
        }
        if self.accept_backlog == 0 {
            faults.add("journal.accept_backlog", "must be 1 at least");
        }
        if self.sync_interval.is_zero() || self.sync_interval > Duration::from_secs(10) {
            faults.add("journal.sync_interval", "must lie between 1ms and 10s");
        }
    }
}
