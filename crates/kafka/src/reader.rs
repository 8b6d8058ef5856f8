//! Reading a topic from its beginning to its present end, outside any group: for people and for audits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Connection;
use crate::error::Error;
use crate::record::Record;
use crate::topics::blocking;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Calls `visit` with every record that a topic holds at the time of the call, partition by partition in no
/// fixed order, each partition in the order of its offsets; returns how many there were.
///
/// # Errors
/// The cluster cannot be reached, or a partition gives nothing for 20 s.
///
/// # Cancellation
/// A dropped future leaves the reading thread running until the end it had noted.
pub async fn read_all(
    connection: &Connection,
    topic: &str,
    mut visit: impl FnMut(u32, Record) + Send + 'static,
) -> Result<u64, Error> {
    let connection = connection.clone();
    let topic = topic.to_owned();
    blocking(move || read(&connection, &topic, &mut visit)).await
}

/// As [`read_all`], gathered: the records of each partition. For topics known to be small.
///
/// # Errors
/// As [`read_all`].
pub async fn gather(connection: &Connection, topic: &str) -> Result<BTreeMap<u32, Vec<Record>>, Error> {
    let connection = connection.clone();
    let topic = topic.to_owned();
    blocking(move || {
        let mut gathered: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        read(&connection, &topic, &mut |partition, record| {
            gathered.entry(partition).or_default().push(record)
        })?;
        Ok(gathered)
    })
    .await
}

/// What a group has committed for a topic, by partition, seen from outside; partitions without a commit are left
/// out.
///
/// # Errors
/// The cluster cannot be reached, or there is no such topic.
pub async fn committed(
    connection: &Connection,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<u32, u64>, Error> {
    let (connection, group, topic) = (connection.clone(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let cluster = |request| move |source| Error::Cluster { request, source };
        let mut config = connection.librdkafka();
        config.set("group.id", &group).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(Error::Configuration)?;
        let metadata = consumer
            .fetch_metadata(Some(&topic), TIMEOUT)
            .map_err(cluster("a metadata request"))?;
        let mut asked = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|found| found.partitions()) {
            asked.add_partition(&topic, partition.id());
        }
        if asked.count() == 0 {
            return Err(Error::NoSuchTopic { topic });
        }
        let held = consumer
            .committed_offsets(asked, TIMEOUT)
            .map_err(cluster("a group's offsets"))?;
        let offset = |offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let known = held.elements().into_iter().filter_map(|element| {
            let partition = u32::try_from(element.partition()).ok()?;
            Some((partition, offset(element.offset())?))
        });
        Ok(known.collect())
    })
    .await
}

/// Asks where the log of a topic ends, over one connection of its own.
pub struct LogEnds {
    consumer: Arc<BaseConsumer>,
    topic: String,
}

impl LogEnds {
    /// For `topic`. Connects when it is asked.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn new(connection: &Connection, topic: &str) -> Result<Self, Error> {
        let mut config = connection.librdkafka();
        config
            .set("group.id", "millrace-reader")
            .set("enable.auto.commit", "false");
        Ok(Self {
            consumer: Arc::new(config.create().map_err(Error::Configuration)?),
            topic: topic.to_owned(),
        })
    }

    /// The offset that the next record of each partition will get.
    ///
    /// # Errors
    /// The cluster does not answer within 20 s for one of them.
    ///
    /// # Cancellation
    /// The question goes on until it is answered or late.
    pub async fn of(&self, partitions: Vec<u32>) -> Result<BTreeMap<u32, u64>, Error> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        blocking(move || {
            let mut ends = BTreeMap::new();
            for partition in partitions {
                let number = i32::try_from(partition).unwrap_or(i32::MAX);
                let (_, end) = consumer
                    .fetch_watermarks(&topic, number, TIMEOUT)
                    .map_err(|source| Error::Cluster {
                        request: "a partition's end",
                        source,
                    })?;
                ends.insert(partition, u64::try_from(end).unwrap_or(0));
            }
            Ok(ends)
        })
        .await
    }
}

impl std::fmt::Debug for LogEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEnds")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn read(connection: &Connection, topic: &str, visit: &mut dyn FnMut(u32, Record)) -> Result<u64, Error> {
    let cluster = |request| move |source| Error::Cluster { request, source };
    let mut config = connection.librdkafka();
    // librdkafka asks for a group name even where no group is joined.
    config
        .set("group.id", "millrace-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false");
    let consumer: BaseConsumer = config.create().map_err(Error::Configuration)?;
    let metadata = consumer
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(cluster("a metadata request"))?;
    let partitions = metadata
        .topics()
        .first()
        .map(|found| found.partitions())
        .unwrap_or_default();
    if partitions.is_empty() {
        return Err(Error::NoSuchTopic {
            topic: topic.to_owned(),
        });
    }

    // What is left to read: the partition and the offset at which to stop.
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), TIMEOUT)
            .map_err(cluster("a partition's end"))?;
        if low < high {
            ends.insert(partition.id(), high);
            assignment
                .add_partition_offset(topic, partition.id(), Offset::Offset(low))
                .map_err(cluster("an assignment"))?;
        }
    }
    consumer.assign(&assignment).map_err(cluster("an assignment"))?;

    let mut count = 0;
    while !ends.is_empty() {
        let message = match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => message,
            Some(Err(source)) => {
                return Err(Error::Cluster {
                    request: "a fetch",
                    source,
                });
            }
            None => {
                return Err(Error::Timeout {
                    request: "a fetch",
                    seconds: TIMEOUT.as_secs(),
                });
            }
        };
        let Some(end) = ends.get(&message.partition()).copied() else {
            continue;
        };
        if message.offset() < end {
            visit(
                u32::try_from(message.partition()).unwrap_or(0),
                Record::copied_from(&message),
            );
            count += 1;
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(count)
}
