//! The bulker's configuration.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::group;
use millrace_service::config::{
    Admin, ByteSize, ClickHouse, Configuration as Checked, Faults, Kafka, ProcessConfiguration, Shutdown,
    Telemetry,
};
use serde::{Deserialize, Serialize};

/// The port of health, readiness, version and metrics.
pub const DEFAULT_PORT: u16 = 3042;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Configuration {
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[clickhouse]`
    pub clickhouse: ClickHouse,
    /// `[topics]`
    pub topics: Topics,
    /// `[consumer]`
    pub consumer: group::Config,
    /// `[chunk]`
    pub chunk: Chunk,
    /// `[insert]`
    pub insert: Insert,
    /// `[admin]`
    pub admin: Admin,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[shutdown]`
    pub shutdown: Shutdown,
}

/// `[chunk]`: when the records of a partition are written together. The first limit reached closes a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chunk {
    /// Most records.
    pub rows: usize,
    /// Most bytes of keys, values and headers. A single record may be larger.
    pub bytes: ByteSize,
    /// How long the first record waits for others.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
}

/// `[insert]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Insert {
    /// How long one insert may take; below the consumer's drain budget, so that a partition that is taken away
    /// can wait for it.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How late after its owner's death an insert may still reach the server: its keep-alive plus a margin.
    #[serde(with = "humantime_serde")]
    pub latest_arrival: Duration,
    /// Longest pause between attempts while ClickHouse is away.
    #[serde(with = "humantime_serde")]
    pub longest_pause: Duration,
    /// How long one table may fail, while the server answers, before its rows are handed to the retry topics and
    /// the others go on without it.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// How many columns a table may get besides its core columns; fields beyond it go to `extra`.
    pub columns: usize,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            kafka: Kafka::default(),
            clickhouse: ClickHouse::default(),
            topics: Topics::default(),
            consumer: group::Config {
                group: "millrace-bulker".into(),
                ..group::Config::default()
            },
            chunk: Chunk::default(),
            insert: Insert::default(),
            admin: Admin {
                listen: Some(SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT))),
            },
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            rows: 100_000,
            bytes: ByteSize::mib(64),
            time: Duration::from_secs(1),
        }
    }
}

impl Default for Insert {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            latest_arrival: Duration::from_secs(5),
            longest_pause: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
            columns: millrace_warehouse::Limits::default().columns,
        }
    }
}

impl Checked for Configuration {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.telemetry.check(faults);
        if self.chunk.rows == 0 {
            faults.add("chunk.rows", "at least one row is needed");
        }
        if self.topics.retry.is_empty() {
            faults.add("topics.retry", "at least one tier is needed");
        }
        if self.insert.deadline >= self.consumer.drain {
            faults.add(
                "insert.deadline",
                "must be shorter than consumer.drain, or a revoked partition cannot wait for it",
            );
        }
    }
}

impl ProcessConfiguration for Configuration {
    fn admin(&self) -> &Admin {
        &self.admin
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
