//! Creating topics and growing them, and the check that partition counts agree.

use std::time::Duration;

use millrace_event::topic::Topics;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::bounds::counts;
use crate::config::Connection;
use crate::error::Error;

const TIMEOUT: Duration = Duration::from_secs(20);

/// How topics are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Replicas of every partition.
    pub replication: u16,
}

/// What [`apply`] did, or would do, with one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The topic.
    pub topic: String,
    /// What became of it.
    pub change: Change,
}

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// It had fewer partitions. Order per key breaks at the switch.
    Grown {
        /// How many it had.
        from: u32,
    },
    /// It was as wanted, or larger.
    Unchanged,
}

/// Makes every topic of `topics` exist with at least `shape.partitions` partitions, readers' outputs before
/// what they read. With `dry_run` nothing is changed.
///
/// # Errors
/// The cluster cannot be reached, or refuses a change.
pub async fn apply(
    connection: &Connection,
    topics: &Topics,
    shape: Shape,
    dry_run: bool,
) -> Result<Vec<Applied>, Error> {
    let existing = counts(connection).await?;
    let admin: AdminClient<DefaultClientContext> =
        connection.librdkafka().create().map_err(Error::Configuration)?;
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT));
    let mut applied = Vec::new();
    for spec in topics.specs() {
        let change = match existing.get(spec.name) {
            None => Change::Created,
            Some(count) if *count < shape.partitions => Change::Grown { from: *count },
            Some(_) => Change::Unchanged,
        };
        if !dry_run {
            match change {
                Change::Created => create(&admin, &options, spec.name, spec.retention, shape).await?,
                Change::Grown { .. } => grow(&admin, &options, spec.name, shape.partitions).await?,
                Change::Unchanged => {}
            }
        }
        applied.push(Applied {
            topic: spec.name.to_owned(),
            change,
        });
    }
    Ok(applied)
}

/// Deletes topics with all that is in them. Those that are not there are none to speak of.
///
/// # Errors
/// The cluster cannot be reached, or refuses.
pub async fn delete(connection: &Connection, names: &[&str]) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> =
        connection.librdkafka().create().map_err(Error::Configuration)?;
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT));
    let results = admin
        .delete_topics(names, &options)
        .await
        .map_err(|source| Error::Cluster {
            request: "the deletion of topics",
            source,
        })?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => {
                return Err(Error::Topic {
                    operation: "deletion",
                    topic,
                    code,
                });
            }
        }
    }
    Ok(())
}

/// Deletes the records of a partition before `offset`, as retention does.
///
/// # Errors
/// The cluster cannot be reached, or refuses: the partition has no such offset yet.
pub async fn delete_records(
    connection: &Connection,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<(), Error> {
    let cluster = |source| Error::Cluster {
        request: "the deletion of records",
        source,
    };
    let invalid = || cluster(KafkaError::AdminOp(RDKafkaErrorCode::InvalidArgument));
    let admin: AdminClient<DefaultClientContext> =
        connection.librdkafka().create().map_err(Error::Configuration)?;
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT));
    let partition = i32::try_from(partition).map_err(|_| invalid())?;
    let before = Offset::Offset(i64::try_from(offset).map_err(|_| invalid())?);
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(topic, partition, before)
        .map_err(cluster)?;
    let deleted = admin.delete_records(&offsets, &options).await.map_err(cluster)?;
    deleted
        .elements()
        .iter()
        .try_for_each(|element| element.error().map_err(cluster))
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    name: &str,
    retention: Duration,
    shape: Shape,
) -> Result<(), Error> {
    const OPERATION: &str = "creation";
    let retention_ms = retention.as_millis().to_string();
    let too_large = || Error::Topic {
        operation: OPERATION,
        topic: name.into(),
        code: RDKafkaErrorCode::InvalidPartitions,
    };
    let partitions = i32::try_from(shape.partitions).map_err(|_| too_large())?;
    let topic = NewTopic::new(
        name,
        partitions,
        TopicReplication::Fixed(i32::from(shape.replication)),
    )
    .set("retention.ms", &retention_ms)
    .set("cleanup.policy", "delete");
    let results = admin
        .create_topics([&topic], options)
        .await
        .map_err(|source| Error::Cluster {
            request: "a topic's creation",
            source,
        })?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Error::Topic {
                    operation: OPERATION,
                    topic,
                    code,
                });
            }
        }
    }
    Ok(())
}

async fn grow(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    name: &str,
    partitions: u32,
) -> Result<(), Error> {
    let wanted = NewPartitions::new(name, usize::try_from(partitions).unwrap_or(usize::MAX));
    let results = admin
        .create_partitions([&wanted], options)
        .await
        .map_err(|source| Error::Cluster {
            request: "a topic's growth",
            source,
        })?;
    for result in results {
        if let Err((topic, code)) = result {
            return Err(Error::Topic {
                operation: "growth",
                topic,
                code,
            });
        }
    }
    Ok(())
}

/// Checks that the topics of an event's way exist and have one partition count; returns it.
///
/// # Errors
/// [`Error::NoSuchTopic`], [`Error::UnequalPartitions`], or the cluster cannot be reached.
pub async fn check(connection: &Connection, topics: &Topics) -> Result<u32, Error> {
    let existing = counts(connection).await?;
    let mut found = Vec::new();
    for name in topics.of_one_partition_count() {
        let count = existing.get(name).ok_or_else(|| Error::NoSuchTopic {
            topic: name.to_owned(),
        })?;
        found.push((name, *count));
    }
    let first = found.first().map_or(0, |(_, count)| *count);
    if found.iter().any(|(_, count)| *count != first) {
        let counts: Vec<_> = found
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        return Err(Error::UnequalPartitions {
            counts: counts.join(", "),
        });
    }
    Ok(first)
}

/// Runs a blocking call of librdkafka beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}
