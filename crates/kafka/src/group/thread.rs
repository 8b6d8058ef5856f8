use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::sync::oneshot;

use super::context::Membership;
use super::lanes::Lanes;
use super::{Event, POLL};
use crate::error::Error;

/// Most events waiting for the service.
pub(super) const MOST_EVENTS: usize = 1024;

/// The consumer thread: polls, hands out, obeys, until it is told to leave. Returns who waits for its end.
pub(super) fn run(consumer: &Arc<BaseConsumer<Membership>>) -> Option<oneshot::Sender<()>> {
    let membership = consumer.context();
    let mut lanes = Lanes::new(membership.reusable_bytes());
    while !membership.is_leaving() {
        membership.beat();
        match poll_once(consumer, membership, &mut lanes) {
            Ok(true) => {}
            // Records that come wake this thread.
            Ok(false) => std::thread::park_timeout(POLL),
            Err(error) => {
                membership.announce(Event::Failed(error));
                break;
            }
        }
        membership.hand_out();
        membership.obey_all(consumer);
    }
    leave(consumer, membership);
    drop(lanes);
    membership.has_left()
}

/// Serves the member's own queue until it is empty, then those of its partitions. Whether there were records.
fn poll_once(
    consumer: &BaseConsumer<Membership>,
    membership: &Membership,
    lanes: &mut Lanes,
) -> Result<bool, Error> {
    while let Some(served) = consumer.poll(Duration::ZERO) {
        match served {
            Err(error) => judge(error)?,
            Ok(message) => {
                // Each partition has a queue of its own before it is read. What came past it might be out of order.
                let (topic, partition) = (message.topic(), message.partition());
                tracing::error!(
                    topic,
                    partition,
                    "a record did not come over its partition's queue"
                );
                return Err(Error::Closed);
            }
        }
    }
    lanes.poll(membership)
}

/// librdkafka reports every passing trouble through the poll; only some mean that the member cannot go on.
pub(super) fn judge(error: KafkaError) -> Result<(), Error> {
    let code = error.rdkafka_error_code();
    match code {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            // The message names the topic; the code alone does not.
            Err(Error::Cluster {
                request: "a fetch from the committed offset",
                source: error,
            })
        }
        Some(
            RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        ) => Err(Error::Cluster {
            request: "membership in the group",
            source: error,
        }),
        _ => {
            tracing::debug!(%error, "the consumer reports a passing error");
            Ok(())
        }
    }
}

/// Leaves the group: the revocation that follows drains the partitions.
fn leave(consumer: &BaseConsumer<Membership>, membership: &Membership) {
    consumer.unsubscribe();
    let budget = membership.drain_budget() + Duration::from_secs(2);
    let turns = budget.as_millis() / POLL.as_millis().max(1);
    for _ in 0..turns {
        if membership.holds_nothing() {
            break;
        }
        // The revocation is served by a poll; messages that still come are not ours to give out any more.
        drop(consumer.poll(POLL));
        membership.beat();
        membership.obey_all(consumer);
    }
}
