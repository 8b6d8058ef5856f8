//! A queue of the client's for each partition.
//!
//! librdkafka brings all partitions over one queue unless it is told otherwise. A partition that has no room would then
//! have to be paused, and everything that was fetched ahead of it would be thrown away and fetched again when it goes
//! on. From a queue of its own nothing is taken meanwhile, and what was fetched stays.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;

use super::context::Membership;
use super::thread::judge;
use crate::error::Error;
use crate::record::Record;

/// The queue of one assignment of one partition.
pub(super) struct Lane {
    epoch: u64,
    queue: PartitionQueue<Membership>,
}

impl Lane {
    /// Opens the queue of a partition that is about to be assigned, so that nothing of it ever comes another way. Records
    /// that come wake the calling thread. Nothing where the client does not know the partition.
    pub(super) fn open(
        consumer: &Arc<BaseConsumer<Membership>>,
        (topic, number): (&str, u32),
        epoch: u64,
    ) -> Option<Self> {
        let number = i32::try_from(number).ok()?;
        let mut queue = consumer.split_partition_queue(topic, number)?;
        let thread = std::thread::current();
        queue.set_nonempty_callback(move || thread.unpark());
        Some(Self { epoch, queue })
    }

    /// Polls up to `most` records into `batch`, while there is room for them. They count as held.
    fn poll(&self, membership: &Membership, batch: &mut Vec<Record>, most: usize) -> Result<(), Error> {
        let Some(share) = membership.room(self.epoch) else {
            return Ok(());
        };
        while batch.len() < most && !share.is_full(false) {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let record = Record::copied_from(&message);
                    share.charge(record.size());
                    batch.push(record);
                }
                Some(Err(error)) => judge(error)?,
            }
        }
        Ok(())
    }
}

/// The queues of all partitions that are held. Belongs to the consumer thread.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Where batches are gathered; each leaves at its own size.
    batch: Vec<Record>,
}

impl Lanes {
    /// Takes up to a batch from each partition that has room. Whether there was anything.
    ///
    /// # Errors
    /// The member cannot go on.
    pub(super) fn poll(&mut self, membership: &Membership) -> Result<bool, Error> {
        membership.follow(&mut self.lanes);
        let most = membership.config().batch_records.max(1);
        let mut any = false;
        for lane in &self.lanes {
            lane.poll(membership, &mut self.batch, most)?;
            if !self.batch.is_empty() {
                any = true;
                membership.take(lane.epoch, self.batch.drain(..).collect());
            }
        }
        Ok(any)
    }
}

impl Membership {
    /// Adds the lanes of partitions that came, and drops those of partitions that went.
    fn follow(&self, lanes: &mut Vec<Lane>) {
        lanes.append(&mut self.arrived());
        lanes.retain(|lane| self.holds(lane.epoch));
    }
}
