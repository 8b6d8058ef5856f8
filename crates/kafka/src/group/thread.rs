use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::sync::oneshot;

use super::context::Membership;
use super::{Event, POLL};
use crate::error::Error;
use crate::record::Record;

/// Most events waiting for the service.
pub(super) const MOST_EVENTS: usize = 1024;

/// The consumer thread: polls, hands out, obeys, until it is told to leave. Returns who waits for its end.
pub(super) fn run(consumer: &BaseConsumer<Membership>) -> Option<oneshot::Sender<()>> {
    let membership = consumer.context();
    while !membership.is_leaving() {
        membership.beat();
        if let Err(error) = poll_once(consumer, membership) {
            membership.announce(Event::Failed(error));
            break;
        }
        membership.hand_out(consumer);
        membership.obey_all(consumer);
    }
    leave(consumer, membership);
    membership.has_left()
}

/// Polls until nothing is ready or a batch is full.
fn poll_once(consumer: &BaseConsumer<Membership>, membership: &Membership) -> Result<(), Error> {
    let mut wait = POLL;
    for _ in 0..membership.config().batch_records {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                let partition = u32::try_from(message.partition()).unwrap_or(0);
                if membership.take(message.topic(), partition, Record::copied_from(&message)) {
                    break;
                }
            }
            Some(Err(error)) => judge(error)?,
        }
        wait = Duration::ZERO;
    }
    Ok(())
}

/// librdkafka reports every passing trouble through the poll; only some mean that the member cannot go on.
fn judge(error: KafkaError) -> Result<(), Error> {
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
