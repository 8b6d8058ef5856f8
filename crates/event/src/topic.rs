//! The topics of an event's way: their default names, retention and who shares a partition count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many partitions a topic gets unless configured otherwise.
pub const DEFAULT_PARTITIONS: u32 = 6;

/// Largest record that enters the pipeline, in bytes of key, value and headers: small enough that a dead letter
/// which wraps it whole is still below [`MAX_WRAPPED_BYTES`].
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// Largest record that a later stage writes around one of [`MAX_RECORD_BYTES`], with room for Kafka's framing.
pub const MAX_WRAPPED_BYTES: usize = 1_040_000;

/// The broker's default `max.message.bytes`, which the producers do not stay below by themselves.
pub const BROKER_RECORD_BYTES: usize = 1_048_588;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The names in use; the defaults are those of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// Accepted events: ingest → rotor.
    pub ingest: String,
    /// Decisions: rotor → bulker, one record per record read, same partition.
    pub transformed: String,
    /// Copies that go round again, shortest delay first.
    pub retry: Vec<RetryTier>,
    /// Events set aside: ingest and bulker → people.
    pub dlq: String,
    /// One record per API request.
    pub usage: String,
    /// Log lines of functions.
    pub functions_log: String,
}

/// One retry topic and how long its records wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryTier {
    /// The topic's name.
    pub topic: String,
    /// How long after the failure a record is due, in seconds.
    pub delay_seconds: u64,
}

/// What `topics apply` makes true of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// The topic's name.
    pub name: &'a str,
    /// How long the broker keeps its records.
    pub retention: Duration,
}

impl Default for Topics {
    fn default() -> Self {
        let tier = |name: &str, delay_seconds| RetryTier {
            topic: format!("events.retry-{name}.v1"),
            delay_seconds,
        };
        Self {
            ingest: "events.ingest.v1".into(),
            transformed: "events.transformed.v1".into(),
            retry: vec![tier("10s", 10), tier("1m", 60), tier("5m", 300), tier("1h", 3600)],
            dlq: "events.dlq.v1".into(),
            usage: "usage.requests.v1".into(),
            functions_log: "functions.log.v1".into(),
        }
    }
}

impl Topics {
    /// Every topic, in the order in which partitions must grow: readers' outputs before what they read, so
    /// that no record is read whose partition does not exist yet downstream.
    pub fn specs(&self) -> Vec<Spec<'_>> {
        let spec = |name, days| Spec {
            name,
            retention: DAY * days,
        };
        let mut specs = vec![spec(self.transformed.as_str(), 14)];
        specs.extend(self.retry.iter().map(|tier| spec(tier.topic.as_str(), 7)));
        specs.push(spec(&self.dlq, 30));
        specs.push(spec(&self.ingest, 30));
        specs.push(spec(&self.usage, 30));
        specs.push(spec(&self.functions_log, 3));
        specs
    }

    /// The topics that must have one partition count: a record stays in its partition all the way.
    pub fn of_one_partition_count(&self) -> Vec<&str> {
        let retry = self.retry.iter().map(|tier| tier.topic.as_str());
        [self.transformed.as_str()]
            .into_iter()
            .chain(retry)
            .chain([self.ingest.as_str()])
            .collect()
    }

    /// The same topics with `prefix` in front of every name, so that two pipelines share one cluster.
    pub fn prefixed(&self, prefix: &str) -> Self {
        let name = |topic: &String| format!("{prefix}{topic}");
        Self {
            ingest: name(&self.ingest),
            transformed: name(&self.transformed),
            retry: self
                .retry
                .iter()
                .map(|tier| RetryTier {
                    topic: name(&tier.topic),
                    delay_seconds: tier.delay_seconds,
                })
                .collect(),
            dlq: name(&self.dlq),
            usage: name(&self.usage),
            functions_log: name(&self.functions_log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_are_those_of_the_contract() {
        let topics = Topics::default();
        let names: Vec<_> = topics.specs().iter().map(|spec| spec.name.to_owned()).collect();
        assert_eq!(
            names,
            [
                "events.transformed.v1",
                "events.retry-10s.v1",
                "events.retry-1m.v1",
                "events.retry-5m.v1",
                "events.retry-1h.v1",
                "events.dlq.v1",
                "events.ingest.v1",
                "usage.requests.v1",
                "functions.log.v1",
            ]
        );
    }

    #[test]
    fn what_the_rotor_reads_has_the_partition_count_of_what_it_writes() {
        let topics = Topics::default().prefixed("t1.");
        assert_eq!(topics.of_one_partition_count().len(), 6);
        assert!(
            topics
                .of_one_partition_count()
                .iter()
                .all(|name| name.starts_with("t1.events."))
        );
    }
}
