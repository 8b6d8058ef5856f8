//! Reading a topic from its beginning to its present end, outside any group: for people and for audits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::bounds::Bounds;
use crate::config::Connection;
use crate::error::Error;
use crate::group::Committed;
use crate::record::Record;
use crate::slab::{REUSABLE_BYTES, Shelf, Slabs};
use crate::topics::blocking;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Records that are handed out at once at most.
const MOST_LAID: usize = 1000;

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
    let ranges = Bounds::new(connection, topic).ranges(None).await?;
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
    let ranges = Bounds::new(connection, topic).ranges(None).await?;
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

    let mut laid = Laid::new();
    while !ends.is_empty() {
        let polled = match consumer.poll(Duration::ZERO) {
            None if laid.partitions.is_empty() => consumer.poll(TIMEOUT),
            polled => polled,
        };
        let message = match polled {
            Some(Ok(message)) => message,
            Some(Err(source)) => {
                return Err(Error::Cluster {
                    request: "a fetch",
                    source,
                });
            }
            // Nothing is there at the moment: time to hand out what is.
            None if laid.hand_out(visit) => continue,
            None if laid.stopped => return Ok(laid.count),
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
            laid.add(&message);
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
        if laid.partitions.len() >= MOST_LAID {
            laid.hand_out(visit);
        }
        if laid.stopped {
            return Ok(laid.count);
        }
    }
    laid.hand_out(visit);
    Ok(laid.count)
}

/// Records that were read and not yet handed out, in the order in which they came.
struct Laid {
    shelf: Shelf,
    batch: Vec<Record>,
    partitions: Vec<u32>,
    /// How many were handed out.
    count: u64,
    /// Whether nobody wants more.
    stopped: bool,
}

impl Laid {
    fn new() -> Self {
        Self {
            shelf: Shelf::new(Slabs::new(REUSABLE_BYTES)),
            batch: Vec::new(),
            partitions: Vec::new(),
            count: 0,
            stopped: false,
        }
    }

    fn add(&mut self, message: &BorrowedMessage<'_>) {
        Record::lay(message, &mut self.shelf, &mut self.batch);
        self.partitions
            .push(u32::try_from(message.partition()).unwrap_or(0));
    }

    /// Calls `visit` with them until it wants no more. Whether there were any and more are wanted.
    fn hand_out(&mut self, visit: &mut dyn FnMut(u32, Record) -> bool) -> bool {
        self.shelf.finish(&mut self.batch);
        let any = !self.batch.is_empty();
        for (partition, record) in self.partitions.drain(..).zip(self.batch.drain(..)) {
            if self.stopped {
                break;
            }
            self.count += 1;
            self.stopped = !visit(partition, record);
        }
        any && !self.stopped
    }
}
