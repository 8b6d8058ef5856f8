//! What a group has committed, seen and set from outside: for the operator's commands.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::bounds;
use crate::config::Connection;
use crate::error::Error;
use crate::group::Committed;
use crate::topics::blocking;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Between two tries while a group is becoming empty.
const EMPTYING_PAUSE: Duration = Duration::from_millis(250);

/// What a group holds for a topic, by partition; partitions without a commit are left out.
///
/// # Errors
/// The cluster cannot be reached, or there is no such topic.
pub async fn held(
    connection: &Connection,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<u32, Committed>, Error> {
    let (connection, group, topic) = (connection.clone(), group.to_owned(), topic.to_owned());
    let count = bounds::partitions(&connection, &topic).await?;
    blocking(move || {
        let consumer = client(&connection, &group)?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            asked.add_partition(&topic, partition);
        }
        let held = consumer
            .committed_offsets(asked, TIMEOUT)
            .map_err(cluster("a group's offsets"))?;
        let known = held.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else {
                return None;
            };
            let committed = Committed {
                offset: u64::try_from(offset).ok()?,
                metadata: element.metadata().to_owned(),
            };
            Some((u32::try_from(element.partition()).ok()?, committed))
        });
        Ok(known.collect())
    })
    .await
}

/// Sets what a group holds for one partition. The group must have no members: the broker refuses an outsider's commit
/// while it has, and for a moment after the last one left, which is waited for.
///
/// # Errors
/// The cluster cannot be reached or refuses, or the group still has members after 20 s.
///
/// # Cancellation
/// The commit may be carried out all the same.
pub async fn set(
    connection: &Connection,
    group: &str,
    topic: &str,
    partition: u32,
    committed: Committed,
) -> Result<(), Error> {
    let (connection, group, topic) = (connection.clone(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = client(&connection, &group)?;
        let mut list = TopicPartitionList::new();
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let offset = Offset::Offset(i64::try_from(committed.offset).unwrap_or(i64::MAX));
        let mut element = list.add_partition(&topic, number);
        element.set_offset(offset).map_err(cluster("a commit"))?;
        element.set_metadata(&committed.metadata);
        let mut waited = Duration::ZERO;
        loop {
            match consumer.commit(&list, CommitMode::Sync) {
                Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)) if waited < TIMEOUT => {
                    std::thread::sleep(EMPTYING_PAUSE);
                    waited += EMPTYING_PAUSE;
                }
                answer => return answer.map_err(cluster("a commit from outside the group")),
            }
        }
    })
    .await
}

fn client(connection: &Connection, group: &str) -> Result<BaseConsumer, Error> {
    let mut config = connection.librdkafka();
    config.set("group.id", group).set("enable.auto.commit", "false");
    config.create().map_err(Error::Configuration)
}

fn cluster(request: &'static str) -> impl Fn(KafkaError) -> Error {
    move |source| Error::Cluster { request, source }
}
