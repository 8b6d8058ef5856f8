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
use crate::slab::{Shelf, Slabs};

/// Looks that found nothing, one after another, before memory that is free is given back: a second of them.
const IDLE_TURNS: u32 = 200;

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

    /// Polls up to `most` records while there is room for them. They count as held.
    fn poll(&self, membership: &Membership, shelf: &mut Shelf, most: usize) -> Result<Vec<Record>, Error> {
        let mut batch = Vec::new();
        let Some(share) = membership.room(self.epoch) else {
            return Ok(batch);
        };
        while batch.len() + shelf.len() < most && !share.is_full(false) {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => share.charge(Record::lay(&message, shelf, &mut batch)),
                Some(Err(error)) => judge(error)?,
            }
        }
        shelf.finish(&mut batch);
        Ok(batch)
    }
}

/// The queues of all partitions that are held. Belongs to the consumer thread.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    slabs: Slabs,
    /// Where records are laid while a batch is gathered.
    shelf: Shelf,
    /// How often in a row there was nothing.
    idle: u32,
}

impl Lanes {
    /// No lanes yet. Their records' memory is used again, up to `bytes` of it.
    pub(super) fn new(bytes: usize) -> Self {
        let slabs = Slabs::new(bytes);
        Self {
            lanes: Vec::new(),
            shelf: Shelf::new(slabs.clone()),
            slabs,
            idle: 0,
        }
    }

    /// Takes up to a batch from each partition that has room. Whether there was anything.
    ///
    /// # Errors
    /// The member cannot go on.
    pub(super) fn poll(&mut self, membership: &Membership) -> Result<bool, Error> {
        membership.follow(&mut self.lanes);
        let most = membership.config().batch_records.max(1);
        let mut any = false;
        for lane in &self.lanes {
            let batch = lane.poll(membership, &mut self.shelf, most)?;
            if !batch.is_empty() {
                any = true;
                membership.take(lane.epoch, batch);
            }
        }
        self.idle = if any { 0 } else { self.idle.saturating_add(1) };
        if self.idle == IDLE_TURNS {
            self.slabs.give_back();
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
