//! Reading a topic from its beginning to its present end, outside any group: for people and for audits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Connection;
use crate::error::Error;
use crate::group::Committed;
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
    let ranges = ranges(connection, topic, None).await?;
    let visit = move |partition, record| {
        visit(partition, record);
        true
    };
    read_ranges(connection, topic, ranges, visit).await
}

/// As [`read_all`], gathered: the records of each partition. For topics known to be small.
///
/// # Errors
/// As [`read_all`].
pub async fn gather(connection: &Connection, topic: &str) -> Result<BTreeMap<u32, Vec<Record>>, Error> {
    let ranges = ranges(connection, topic, None).await?;
    let (connection, topic) = (connection.clone(), topic.to_owned());
    blocking(move || {
        let mut gathered: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        read(&connection, &topic, &ranges, &mut |partition, record| {
            gathered.entry(partition).or_default().push(record);
            true
        })?;
        Ok(gathered)
    })
    .await
}

/// The offsets that a topic holds now, by partition, empty partitions included; with `since_ms` (milliseconds since
/// the epoch) from the first record of that time on.
///
/// # Errors
/// The cluster cannot be reached, or there is no such topic.
pub async fn ranges(
    connection: &Connection,
    topic: &str,
    since_ms: Option<i64>,
) -> Result<BTreeMap<u32, Range<u64>>, Error> {
    let (connection, topic) = (connection.clone(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&connection)?;
        let mut ranges = BTreeMap::new();
        for partition in partitions(&consumer, &topic)? {
            let (low, high) = consumer
                .fetch_watermarks(&topic, partition, TIMEOUT)
                .map_err(cluster("a partition's end"))?;
            ranges.insert(partition, low..high);
        }
        if let Some(since_ms) = since_ms {
            let mut asked = TopicPartitionList::new();
            for partition in ranges.keys() {
                asked
                    .add_partition_offset(&topic, *partition, Offset::Offset(since_ms.max(0)))
                    .map_err(cluster("an offset by time"))?;
            }
            let found = consumer
                .offsets_for_times(asked, TIMEOUT)
                .map_err(cluster("an offset by time"))?;
            for element in found.elements() {
                if let Some(range) = ranges.get_mut(&element.partition()) {
                    range.start = match element.offset() {
                        Offset::Offset(offset) => offset.clamp(range.start, range.end),
                        // Nothing is as late as that.
                        _ => range.end,
                    };
                }
            }
        }
        let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
        let range = |(partition, range): (i32, Range<i64>)| {
            Some((
                u32::try_from(partition).ok()?,
                unsigned(range.start)..unsigned(range.end),
            ))
        };
        Ok(ranges.into_iter().filter_map(range).collect())
    })
    .await
}

/// Calls `visit` with every record of these ranges, each partition in the order of its offsets, until it returns
/// false; returns how many records it was called with.
///
/// # Errors
/// The cluster cannot be reached, or a partition gives nothing for 20 s.
///
/// # Cancellation
/// A dropped future leaves the reading thread running until its end, or until `visit` returns false.
pub async fn read_ranges(
    connection: &Connection,
    topic: &str,
    ranges: BTreeMap<u32, Range<u64>>,
    mut visit: impl FnMut(u32, Record) -> bool + Send + 'static,
) -> Result<u64, Error> {
    let (connection, topic) = (connection.clone(), topic.to_owned());
    blocking(move || read(&connection, &topic, &ranges, &mut visit)).await
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
    let held = crate::offsets::held(connection, group, topic).await?;
    let offset = |(partition, committed): (u32, Committed)| (partition, committed.offset);
    Ok(held.into_iter().map(offset).collect())
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

fn cluster(request: &'static str) -> impl Fn(KafkaError) -> Error {
    move |source| Error::Cluster { request, source }
}

/// A client that joins no group, though librdkafka asks for a group's name.
fn consumer(connection: &Connection) -> Result<BaseConsumer, Error> {
    let mut config = connection.librdkafka();
    config
        .set("group.id", "millrace-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false");
    config.create().map_err(Error::Configuration)
}

/// The numbers of a topic's partitions.
pub(crate) fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, Error> {
    let metadata = consumer
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(cluster("a metadata request"))?;
    let found = metadata.topics().iter().flat_map(|found| found.partitions());
    let numbers: Vec<i32> = found.map(|partition| partition.id()).collect();
    if numbers.is_empty() {
        return Err(Error::NoSuchTopic {
            topic: topic.to_owned(),
        });
    }
    Ok(numbers)
}

fn read(
    connection: &Connection,
    topic: &str,
    ranges: &BTreeMap<u32, Range<u64>>,
    visit: &mut dyn FnMut(u32, Record) -> bool,
) -> Result<u64, Error> {
    let consumer = consumer(connection)?;
    // What is left to read: the partition and the offset at which to stop.
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for (partition, range) in ranges.iter().filter(|(_, range)| !range.is_empty()) {
        let signed = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
        let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
        ends.insert(partition, signed(range.end));
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(signed(range.start)))
            .map_err(cluster("an assignment"))?;
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
            count += 1;
            let partition = u32::try_from(message.partition()).unwrap_or(0);
            if !visit(partition, Record::copied_from(&message)) {
                return Ok(count);
            }
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(count)
}
