//! The configuration of the gateway.

use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_service::config::{Admin, Faults, Kafka, Postgres, Redis, Shutdown, Telemetry};
use millrace_service::{Configuration, ProcessConfiguration};
use serde::{Deserialize, Serialize};

use crate::journal::{self, ship};
use crate::{http, pipeline, usage};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public port and its limits.
    pub http: http::Config,
    /// What an event may be.
    pub events: pipeline::EventLimits,
    /// What is made of the clocks of clients.
    pub time: pipeline::Clocks,
    /// How types of fields are learned.
    pub fields: pipeline::Fields,
    /// What may come under one public key.
    pub guests: pipeline::Guests,
    /// How long write keys are remembered.
    pub keys: pipeline::KeyCache,
    /// How long message ids are remembered.
    pub dedup: Dedup,
    /// Where events are kept until Kafka has them.
    pub journal: journal::Config,
    /// How they get there.
    pub ship: ship::Config,
    /// How requests are accounted for.
    pub usage: usage::Config,
    /// Names of topics.
    pub topics: Topics,
    /// Where Kafka is.
    pub kafka: Kafka,
    /// Where write keys are.
    pub postgres: Postgres,
    /// Where the memory of message ids is.
    pub redis: Redis,
    /// A second port for the admin routes, which the public port serves too.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// The way out.
    pub shutdown: Shutdown,
}

/// `[dedup]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dedup {
    /// How long after an event its copies are known as such.
    #[serde(with = "humantime_serde")]
    pub live: Duration,
    /// The same under import keys.
    #[serde(with = "humantime_serde")]
    pub import: Duration,
    /// How long an id stays reserved when the process that reserved it is gone. After that a client's repeat
    /// may become a second event.
    #[serde(with = "humantime_serde")]
    pub pending: Duration,
    /// How long a copy waits for the outcome of an event that is being accepted.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// How long Redis may take to answer. Beyond that events are accepted without the memory of message ids,
    /// so a short time buys latency with copies.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Dedup {
    fn default() -> Self {
        let store = millrace_store::dedup::Config::default();
        Self {
            live: store.live,
            import: store.import,
            pending: store.pending,
            wait: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Dedup {
    /// The part that the store needs.
    pub const fn store(&self) -> millrace_store::dedup::Config {
        millrace_store::dedup::Config {
            live: self.live,
            import: self.import,
            pending: self.pending,
        }
    }
}

impl Configuration for Config {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.telemetry.check(faults);
        self.journal.check(faults);
        self.http.check(faults);
        self.events.check(faults);
        self.guests.check(faults);
        self.ship.check(faults);
        self.usage.check(faults);
    }
}

impl ProcessConfiguration for Config {
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

#[cfg(test)]
mod tests {
    use millrace_service::config::{Sources, load, render};

    use super::*;

    #[test]
    fn the_defaults_are_without_fault_and_load_from_their_own_print() {
        let empty: [(&str, &str); 0] = [];
        let defaults: Config = load(&Sources::new(None).with_environment(empty)).unwrap();
        let printed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(printed.path(), render(&defaults).unwrap()).unwrap();
        let sources = Sources::new(Some(printed.path().to_owned())).with_environment(empty);
        assert_eq!(load::<Config>(&sources).unwrap(), defaults);
        assert_eq!(defaults.http.listen.port(), 3049);
    }

    #[test]
    fn limits_that_contradict_each_other_are_all_reported() {
        let environment = [
            ("MILLRACE__EVENTS__EVENT_LIMIT", "2MB"),
            ("MILLRACE__JOURNAL__LIMIT", "1MiB"),
            ("MILLRACE__SHIP__BATCH", "64MiB"),
            ("MILLRACE__HTTP__BODY_MEMORY", "1KiB"),
        ];
        let faults = load::<Config>(&Sources::new(None).with_environment(environment)).unwrap_err();
        assert_eq!(faults.iter().count(), 4, "{faults}");
    }
}
