//! The sections that several processes have in common: plain structs, nothing connects here.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Faults, Secret, ServiceUrl};

/// `[kafka]`: where the brokers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port` of the brokers to ask first; from the environment separated by commas.
    #[serde(deserialize_with = "list")]
    pub brokers: Vec<String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
        }
    }
}

impl Kafka {
    /// Reports an empty list and addresses without a port.
    pub fn check(&self, faults: &mut Faults) {
        if self.brokers.is_empty() {
            faults.add("kafka.brokers", "at least one broker is needed");
        }
        for broker in &self.brokers {
            let port = broker.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                faults.add("kafka.brokers", format!("`{broker}` is not host:port"));
            }
        }
    }
}

/// `[postgres]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`
    pub url: ServiceUrl,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: ServiceUrl::new("postgres://millrace@127.0.0.1:5432/millrace"),
        }
    }
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://:password@host:port/database`
    pub url: ServiceUrl,
    /// In front of the name of every key, so that installations can share a server.
    pub key_prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: ServiceUrl::new("redis://127.0.0.1:6379/0"),
            key_prefix: String::new(),
        }
    }
}

/// `[clickhouse]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouse {
    /// `http://host:port` of the HTTP interface.
    pub url: ServiceUrl,
    /// The user that inserts and creates tables.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
    /// The database of Millrace's own tables.
    pub database: String,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: ServiceUrl::new("http://127.0.0.1:8123"),
            user: "default".to_owned(),
            password: Secret::default(),
            database: "millrace".to_owned(),
        }
    }
}

impl ClickHouse {
    /// Reports an address that is none of an HTTP interface.
    pub fn check(&self, faults: &mut Faults) {
        let url = self.url.expose();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            faults.add(
                "clickhouse.url",
                "must begin with http:// or https://, as http://127.0.0.1:8123 does",
            );
        }
    }
}

/// `[admin]`: the port of health, readiness, version and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where to listen. Absent: the process serves these routes elsewhere, or not at all.
    pub listen: Option<SocketAddr>,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP/gRPC receiver of spans, such as `http://collector:4317`. Absent: no spans are recorded.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces that are recorded; a trace that arrives with a decision keeps it.
    pub sample_ratio: f64,
    /// Form of the log lines on standard error.
    pub log_format: LogFormat,
    /// `info`, or directives such as `info,millrace_ingest=debug`.
    pub log_level: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
            log_format: LogFormat::Json,
            // The client that asks for the ends of logs tells every attempt to reach a broker that is away.
            log_level: "info,rskafka=error".to_owned(),
        }
    }
}

impl Telemetry {
    /// Reports a log level that is no filter and a ratio outside 0 to 1.
    pub fn check(&self, faults: &mut Faults) {
        if let Err(error) = self.log_level.parse::<tracing_subscriber::EnvFilter>() {
            faults.add("telemetry.log_level", error.to_string());
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            faults.add("telemetry.sample_ratio", "must lie between 0 and 1");
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a person at a terminal.
    Text,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// From the signal to the end of the process, at most.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
        }
    }
}

/// Every shared section: a process that lacks one ignores its keys, so that processes can share a file
/// and an environment.
#[derive(Default, Serialize)]
pub(super) struct All {
    kafka: Kafka,
    postgres: Postgres,
    redis: Redis,
    clickhouse: ClickHouse,
    admin: Admin,
    telemetry: Telemetry,
    shutdown: Shutdown,
}

/// A list, or its items in one string separated by commas, which is all that an environment can hold.
///
/// # Errors
/// When it is neither.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, or items separated by commas")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(List)
}
