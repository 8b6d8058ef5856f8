//! The sections of the services' configuration that commands need.

use millrace_event::topic::Topics;
use millrace_service::config::{ClickHouse, Configuration, Faults, Kafka, Postgres, Redis};
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
}

impl Configuration for Config {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
    }
}
