//! The rotor's configuration.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use millrace_event::frame::Limits;
use millrace_event::topic::Topics;
use millrace_kafka::{Connection, group};
use millrace_service::config::{
    Admin, ByteSize, Configuration as Checked, Faults, Kafka, Postgres, ProcessConfiguration, Redis, Secret,
    Shutdown, Telemetry,
};
use serde::{Deserialize, Serialize};

use crate::outside::config::{FetchSection, GeoSection, SecretsSection, StoreSection};
use crate::{logs, pool, quarantine};

/// The port of the functions API, health, readiness, version and metrics.
pub const DEFAULT_PORT: u16 = 3401;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Configuration {
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[postgres]`
    pub postgres: Postgres,
    /// `[redis]`
    pub redis: Redis,
    /// `[topics]`
    pub topics: Topics,
    /// `[consumer]`
    pub consumer: group::Config,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[registry]`
    pub registry: Registry,
    /// `[workers]`
    pub workers: Workers,
    /// `[limits]`
    pub limits: EventLimits,
    /// `[quarantine]`
    pub quarantine: quarantine::Config,
    /// `[logs]`
    pub logs: logs::Config,
    /// `[functions]`
    pub functions: FunctionsApi,
    /// `[secrets]`
    pub secrets: SecretsSection,
    /// `[store]`
    pub store: StoreSection,
    /// `[fetch]`
    pub fetch: FetchSection,
    /// `[geo]`
    pub geo: GeoSection,
    /// `[admin]`
    pub admin: Admin,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[shutdown]`
    pub shutdown: Shutdown,
}

/// `[ingest]`: how records of producers without a journal get their identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Set anew whenever the ingest topic was deleted and made again: offsets start over then, and without this
    /// new records would carry the identities of old ones.
    pub incarnation: String,
}

/// `[registry]`: which functions run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// How often Postgres is asked whether something changed.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How long an event waits for the configuration of its source before it is set aside, and for another version of
    /// functions that do not load.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

/// Whether workers install their sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// A worker that cannot does not run.
    On,
    /// For hosts without seccomp: functions are held by the engine alone.
    Off,
}

/// Whether workers have control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlGroups {
    /// Where the system lets the rotor make some.
    Auto,
    /// Their memory is looked at, and that is all.
    Off,
}

/// `[workers]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Worker processes; absent: one per core.
    pub count: Option<NonZeroUsize>,
    /// `on` or `off`
    pub sandbox: Sandbox,
    /// Chain versions that one worker keeps ready.
    pub chains: NonZeroUsize,
    /// How long a worker keeps one that nobody uses; whole seconds.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// Resident memory at which a worker is killed.
    pub rss_limit: ByteSize,
    /// `auto` or `off`
    pub cgroup: ControlGroups,
    /// What a worker gets on top of an event's own limit before it is killed.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// `[limits]`: what one event may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventLimits {
    /// Wall time, through the whole chain.
    #[serde(with = "humantime_serde")]
    pub wall: Duration,
    /// Processor time, through the whole chain.
    #[serde(with = "humantime_serde")]
    pub cpu: Duration,
    /// What a workspace may make others on its partition wait at once, beyond the usual.
    #[serde(with = "humantime_serde")]
    pub batch_wall: Duration,
    /// How long it takes until a workspace that did has that again.
    #[serde(with = "humantime_serde")]
    pub batch_refill: Duration,
    /// Heap of the chain's isolate.
    pub heap: ByteSize,
    /// JSON text of everything that the event became.
    pub output: ByteSize,
    /// Events that it may become.
    pub outputs: usize,
    /// Log lines kept.
    pub log_lines: usize,
    /// Promises that may be pending at once.
    pub promises: usize,
}

/// `[functions]`: the functions API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionsApi {
    /// A token that opens it beside the service tokens in Postgres; empty for none.
    pub token: Secret<String>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            kafka: Kafka::default(),
            postgres: Postgres::default(),
            redis: Redis::default(),
            topics: Topics::default(),
            consumer: group::Config {
                group: "millrace-rotor".into(),
                batch_records: 500,
                ..group::Config::default()
            },
            ingest: Ingest::default(),
            registry: Registry::default(),
            workers: Workers::default(),
            limits: EventLimits::default(),
            quarantine: quarantine::Config::default(),
            logs: logs::Config::default(),
            functions: FunctionsApi::default(),
            secrets: SecretsSection::default(),
            store: StoreSection::default(),
            fetch: FetchSection::default(),
            geo: GeoSection::default(),
            admin: Admin {
                listen: Some(SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT))),
            },
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            hold: Duration::from_secs(30),
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        let pool = pool::Config::default();
        Self {
            count: None,
            sandbox: Sandbox::On,
            chains: pool.chains,
            idle: pool.idle,
            rss_limit: ByteSize::bytes(pool.rss_limit),
            cgroup: ControlGroups::Auto,
            grace: pool.grace,
        }
    }
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(1),
            cpu: Duration::from_millis(500),
            batch_wall: Duration::from_millis(100),
            batch_refill: Duration::from_secs(20),
            heap: ByteSize::mib(128),
            output: ByteSize::kib(900),
            outputs: 100,
            log_lines: 100,
            promises: 10_000,
        }
    }
}

impl Configuration {
    /// How to reach the cluster.
    pub fn connection(&self) -> Connection {
        Connection::new(self.kafka.brokers.join(","), "millrace-rotor")
    }
}

impl Workers {
    /// The pool's own configuration; a batch may kill as many workers as it takes to be held back.
    pub fn pool(&self, quarantine: &quarantine::Config) -> pool::Config {
        let kills = usize::try_from(quarantine.kills).ok().and_then(NonZeroUsize::new);
        let defaults = pool::Config::default();
        pool::Config {
            workers: self.count.unwrap_or(defaults.workers),
            sandbox: self.sandbox == Sandbox::On,
            chains: self.chains,
            idle: self.idle,
            rss_limit: self.rss_limit.get(),
            cgroups: self.cgroup == ControlGroups::Auto,
            grace: self.grace,
            kills: kills.unwrap_or(defaults.kills),
            ..defaults
        }
    }
}

impl EventLimits {
    /// As workers are told.
    pub fn frame(&self) -> Limits {
        Limits {
            wall_ms: u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX),
            cpu_ms: (self.cpu < self.wall).then(|| u64::try_from(self.cpu.as_millis()).unwrap_or(u64::MAX)),
            heap_bytes: self.heap.as_usize(),
            output_bytes: self.output.as_usize(),
            outputs: self.outputs,
            log_lines: self.log_lines,
            promises: Some(self.promises),
        }
    }
}

impl Checked for Configuration {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.telemetry.check(faults);
        self.fetch.check(faults);
        self.quarantine.check(faults);
        self.logs.check(faults);
        if self.limits.wall.as_millis() == 0 {
            faults.add("limits.wall", "at least one millisecond is needed");
        }
        if self.limits.cpu.as_millis() == 0 {
            faults.add("limits.cpu", "at least one millisecond is needed");
        }
        if self.limits.batch_wall.as_millis() == 0 {
            faults.add("limits.batch_wall", "at least one millisecond is needed");
        }
        if self.limits.heap < ByteSize::mib(16) {
            faults.add("limits.heap", "an isolate needs at least 16MiB");
        }
        if self.limits.outputs == 0 || self.limits.outputs > 1000 {
            faults.add("limits.outputs", "must lie between 1 and 1000");
        }
        if self.workers.rss_limit.get() < self.limits.heap.get().saturating_add(64 << 20) {
            faults.add(
                "workers.rss_limit",
                "must be at least 64MiB above limits.heap, or no isolate reaches its own limit",
            );
        }
        if self.consumer.batch_records == 0 {
            faults.add("consumer.batch_records", "at least one record is needed");
        }
        if self.registry.poll.is_zero() {
            faults.add("registry.poll", "must be longer than nothing");
        }
    }
}

impl ProcessConfiguration for Configuration {
    /// None: the rotor serves the admin routes itself, beside its own.
    fn admin(&self) -> &Admin {
        const NONE: &Admin = &Admin { listen: None };
        NONE
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
