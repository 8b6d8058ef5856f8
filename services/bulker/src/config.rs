//! The bulker's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::group;
use millrace_service::config::{
    Admin, ByteSize, ClickHouse, Configuration as Checked, Faults, Kafka, Postgres, ProcessConfiguration,
    Redis, Shutdown, Telemetry,
};
use serde::{Deserialize, Serialize};

use crate::{accounts, audit};

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
    /// `[postgres]`: what destinations want.
    pub postgres: Postgres,
    /// `[redis]`: where changes of that are told.
    pub redis: Redis,
    /// `[destinations]`
    pub destinations: Destinations,
    /// `[secrets]`
    pub secrets: Secrets,
    /// `[topics]`
    pub topics: Topics,
    /// `[consumer]`
    pub consumer: group::Config,
    /// `[chunk]`
    pub chunk: Chunk,
    /// `[insert]`
    pub insert: Insert,
    /// `[memory]`
    pub memory: Memory,
    /// `[stall]`
    pub stall: Stall,
    /// `[accounts]`
    pub accounts: accounts::Config,
    /// `[audit]`
    pub audit: audit::Config,
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
    /// How late after its owner was stopped an insert may still reach the server, and so how long a successor waits
    /// before it goes on with a plan. Inserts carry a lease that ends before; less than 3 s is taken as 3 s.
    #[serde(with = "humantime_serde")]
    pub latest_arrival: Duration,
    /// Longest pause between attempts while ClickHouse is away.
    #[serde(with = "humantime_serde")]
    pub longest_pause: Duration,
    /// How long inserts into one table may fail, while the server answers, before its rows are handed to the retry
    /// topics and the others go on without it.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// The same where the error is certainly the table's own: it is read-only, has too many parts, is not fit for
    /// events, or refuses what its clone takes. The other tables of the partition wait for this long, once.
    #[serde(with = "humantime_serde")]
    pub table_patience: Duration,
    /// Inserts a second that the server gets from all bulkers together. Where more tables are active than that,
    /// chunks take longer, and events are older when they arrive.
    pub per_second: u32,
    /// How many columns a table may get besides its core columns; fields beyond it go to `extra`.
    pub columns: usize,
}

/// `[destinations]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destinations {
    /// Between two looks at what destinations want, beside notices.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
        }
    }
}

/// `[secrets]`: how the addresses of destinations are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// The file with the keys, as `millctl secret init-key` makes it. Needed for PostgreSQL destinations alone.
    pub key_file: Option<PathBuf>,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Most bytes of records that were read and are not settled, over all partitions. What the client fetches ahead
    /// of each (`consumer.prefetch_kib`) and the blocks that are being encoded come on top.
    pub records: ByteSize,
}

/// `[stall]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stall {
    /// How long a partition with records left may stand still before the process is not ready.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            records: ByteSize::mib(256),
        }
    }
}

impl Default for Stall {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(120),
        }
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            kafka: Kafka::default(),
            clickhouse: ClickHouse::default(),
            postgres: Postgres::default(),
            redis: Redis::default(),
            destinations: Destinations::default(),
            secrets: Secrets::default(),
            topics: Topics::default(),
            consumer: group::Config {
                group: "millrace-bulker".into(),
                ..group::Config::default()
            },
            chunk: Chunk::default(),
            insert: Insert::default(),
            memory: Memory::default(),
            stall: Stall::default(),
            accounts: accounts::Config::default(),
            audit: audit::Config::default(),
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
            bytes: ByteSize::mib(128),
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
            table_patience: Duration::from_millis(500),
            per_second: 200,
            columns: millrace_warehouse::Limits::default().columns,
        }
    }
}

impl Checked for Configuration {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.clickhouse.check(faults);
        self.telemetry.check(faults);
        if self.chunk.rows == 0 {
            faults.add("chunk.rows", "at least one row is needed");
        }
        if self.destinations.poll.is_zero() {
            faults.add("destinations.poll", "must be longer than nothing");
        }
        if self.insert.per_second == 0 {
            faults.add("insert.per_second", "at least one insert a second is needed");
        }
        if self.accounts.rows == 0 {
            faults.add("accounts.rows", "at least one row is needed");
        }
        if self.stall.after.is_zero() {
            faults.add("stall.after", "must be longer than nothing");
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
