//! The sections of the services' configuration that commands need.

use std::path::PathBuf;

use millrace_event::topic::Topics;
use millrace_service::config::{ClickHouse, Configuration, Faults, Kafka, Postgres, Redis, Secret};
use serde::{Deserialize, Serialize};

/// Where everything is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The brokers.
    pub(crate) kafka: Kafka,
    /// The configuration's store.
    pub(crate) postgres: Postgres,
    /// Where running services are told of changes.
    pub(crate) redis: Redis,
    /// The warehouse.
    pub(crate) clickhouse: ClickHouse,
    /// The topics' names.
    pub(crate) topics: Topics,
    /// What secrets are sealed under.
    pub(crate) secrets: Secrets,
    /// Where functions are compiled and run.
    pub(crate) rotor: Rotor,
}

/// `[secrets]`, as the rotor's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Secrets {
    /// The file with the keys.
    pub(crate) key_file: Option<PathBuf>,
}

/// `[rotor]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rotor {
    /// One that is running, such as `http://rotor:3401`; empty: one is started when it is needed.
    pub(crate) url: String,
    /// A service token for it.
    pub(crate) token: Secret<String>,
    /// The program to start; empty: `millrace-rotor` beside this one, else of the path.
    pub(crate) program: PathBuf,
}

impl Configuration for Config {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.clickhouse.check(faults);
    }
}
