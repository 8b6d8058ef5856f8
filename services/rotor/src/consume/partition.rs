//! One partition, from its assignment to its revocation: read, run, write, commit, one batch after the other.

use std::sync::Arc;
use std::time::Duration;

use millrace_event::Timestamp;
use millrace_kafka::group::{CommitError, Partition};
use millrace_kafka::producer::Producer;
use millrace_kafka::{Error, Record};
use millrace_ledger::Passage;
use millrace_ledger::passage::{Answer, Delivery, Step};
use millrace_service::failpoint;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::batch;
use crate::budget::Lately;
use crate::incoming::{Place, due_at};

/// Longest sleep towards a record that is not due: wall clocks may be set.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Why a partition's work stops without a fault.
struct Stop;

/// Serves a partition until it is revoked or the session is over. What is committed when is decided by [`Passage`].
///
/// # Errors
/// When a record was not delivered: the session is over.
pub(super) async fn serve(
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    mut partition: Partition,
    over: CancellationToken,
) -> Result<(), Error> {
    shared.metrics.partitions.inc();
    announce(&shared, &partition);
    let result = work(&shared, &producer, &mut partition, &over).await;
    shared.metrics.partitions.dec();
    result
}

fn announce(shared: &Shared, partition: &Partition) {
    let (topic, number) = (&partition.topic, partition.number);
    let (start, end) = (partition.log_start, partition.log_end);
    let committed = partition.committed.as_ref().map(|committed| committed.offset);
    tracing::info!(
        topic,
        partition = number,
        committed,
        start,
        end,
        "partition assigned"
    );
    match committed {
        Some(offset) if offset < start => {
            let lost = start - offset;
            shared.metrics.expired_records.inc_by(lost);
            tracing::error!(
                topic,
                partition = number,
                lost,
                "retention deleted records before they were read"
            );
        }
        Some(offset) if offset > end => {
            tracing::error!(
                topic,
                partition = number,
                offset,
                end,
                "the log ends before the committed offset"
            );
        }
        _ => {}
    }
}

async fn work(
    shared: &Shared,
    producer: &Producer,
    partition: &mut Partition,
    over: &CancellationToken,
) -> Result<(), Error> {
    let revoked = partition.revoked.clone();
    let retry = shared
        .topics
        .retry
        .iter()
        .any(|tier| tier.topic == partition.topic);
    let stopped = async || {
        tokio::select! {
            () = revoked.cancelled() => {}
            () = over.cancelled() => {}
        }
    };
    let mut passage = Passage::new(
        partition
            .committed
            .as_ref()
            .map_or(partition.log_start, |held| held.offset.min(partition.log_end)),
    );
    let mut lately = Lately::default();
    loop {
        let records = tokio::select! {
            biased;
            () = stopped() => return Ok(()),
            records = partition.records.recv() => records,
        };
        let Some(mut records) = records else { return Ok(()) };
        while !records.is_empty() {
            let due = tokio::select! {
                biased;
                () = stopped() => return Ok(()),
                due = due(shared, retry, &records) => due,
            };
            let rest = records.split_off(due);
            let place = Place {
                topic: &partition.topic,
                partition: partition.number,
                retry,
                incarnation: &shared.incarnation,
            };
            let began = shared.clock.instant();
            // Left in the middle, nothing was written: the next owner runs these records again.
            let transformed = tokio::select! {
                biased;
                () = stopped() => return Ok(()),
                transformed = batch::transform(shared, place, &records, &mut lately) => transformed,
            };
            let Ok(transformed) = transformed else {
                return Ok(());
            };
            let ran = shared.clock.instant();
            shared.metrics.batch_seconds.observe((ran - began).as_secs_f64());
            let offset = |record: Option<&Record>| record.map_or(0, |record| record.offset);
            if passage.read(offset(records.first()), offset(records.last())) != Step::Write {
                let (topic, number) = (&partition.topic, partition.number);
                tracing::error!(
                    topic,
                    partition = number,
                    "the log went backwards: the session ends"
                );
                return Err(Error::Closed);
            }
            match deliver(shared, producer, partition, transformed, &mut passage, over).await {
                Ok(Ok(())) => {}
                Ok(Err(Stop)) => return Ok(()),
                Err(error) => return Err(error),
            }
            records = rest;
        }
    }
}

/// Writes and commits. A revocation waits for this: what is on its way must be known before the partition goes.
async fn deliver(
    shared: &Shared,
    producer: &Producer,
    partition: &Partition,
    transformed: batch::Transformed,
    passage: &mut Passage,
    over: &CancellationToken,
) -> Result<Result<(), Stop>, Error> {
    let batch::Transformed {
        outgoing,
        verdicts,
        spans,
    } = transformed;
    let began = shared.clock.instant();
    failpoint!(async "rotor::before_produce");
    let sent = tokio::select! {
        biased;
        () = over.cancelled() => None,
        sent = producer.send(&shared.topics.transformed, partition.number, outgoing) => Some(sent),
    };
    let delivery = match &sent {
        Some(Ok(())) => Delivery::All,
        Some(Err(_)) => Delivery::Failed,
        None => Delivery::Abandoned,
    };
    let Step::Commit(next) = passage.delivered(delivery) else {
        return sent.unwrap_or(Ok(())).map(|()| Err(Stop));
    };
    failpoint!(async "rotor::after_produce");
    shared
        .metrics
        .produce_seconds
        .observe((shared.clock.instant() - began).as_secs_f64());
    drop(spans);
    shared
        .metrics
        .records
        .inc_by(u64::try_from(verdicts.len()).unwrap_or(u64::MAX));
    for verdict in verdicts {
        shared.metrics.decided(verdict);
    }
    let answer = match partition.commit(next, "").await {
        Ok(()) => Answer::Confirmed,
        Err(CommitError::NotOwned) => Answer::NotOwned,
        Err(error @ CommitError::Unknown(_)) => {
            shared.metrics.commit_failures.inc();
            let (topic, number) = (&partition.topic, partition.number);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(
                topic,
                partition = number,
                offset = next,
                cause,
                "a commit was not confirmed"
            );
            Answer::Unknown
        }
    };
    failpoint!(async "rotor::after_commit");
    match passage.committed(answer) {
        Step::Read => Ok(Ok(())),
        _ => Ok(Err(Stop)),
    }
}

/// How many records at the front are due; waits for the first one. The records of one retry topic wait equally
/// long, so they are due in the order in which they lie.
async fn due(shared: &Shared, retry: bool, records: &[Record]) -> usize {
    if !retry {
        return records.len();
    }
    loop {
        let now = Timestamp::clamped_from_millis(shared.clock.now().as_millisecond());
        let count = records
            .iter()
            .take_while(|record| due_at(record).is_none_or(|due| due <= now))
            .count();
        if count > 0 {
            return count;
        }
        let left = records
            .first()
            .and_then(due_at)
            .map_or(0, |due| due.millis_since(now));
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        tokio::time::sleep(left.clamp(Duration::from_millis(1), LONGEST_NAP)).await;
    }
}
