//! Notes: records beside the events that nobody waits for, such as counts for a bill or lines of a log.
//!
//! What the buffer cannot hold is dropped, counted and logged: a lost note is borne, a slow answer is not. A batch whose
//! fate is unknown is sent again, so a note may stand in its topic twice.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use millrace_event::partition;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Outgoing;
use crate::edge::{self, Batch, Producer, Records};
use crate::error::{Error, ProduceError};

/// Between attempts, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Something noted, to become a record.
pub trait Note: Send + 'static {
    /// What several are called in the log, such as `usage events`.
    const MANY: &'static str;

    /// What chooses the partition.
    fn spread(&self) -> &[u8];

    /// The record.
    fn outgoing(&self) -> Outgoing;
}

/// How notes are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathering {
    /// Most notes that wait; more are dropped. At least 1.
    pub buffer: usize,
    /// How many are sent at once.
    pub batch: usize,
    /// How long the first of them waits for the others.
    pub interval: Duration,
}

/// What became of the notes.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Notes that are in the topic.
    pub sent: Counter,
    /// Notes that the buffer could not hold or Kafka did not take.
    pub dropped: Counter,
}

/// Takes notes.
#[derive(Debug)]
pub struct Notes<T> {
    sender: mpsc::Sender<T>,
    dropped: Counter,
}

/// Sends what was noted.
#[derive(Debug)]
pub struct Reporter<T> {
    receiver: mpsc::Receiver<T>,
    gathering: Gathering,
    producer: Producer,
    topic: String,
    tally: Tally,
    partitions: Option<u32>,
    /// Drops that the log has.
    told: u64,
}

/// What is not sent yet, by partition.
type Lanes = BTreeMap<u32, Batch>;

/// Both ends of a buffer in front of `topic`.
pub fn notes<T: Note>(
    gathering: Gathering,
    producer: Producer,
    topic: String,
    tally: Tally,
) -> (Notes<T>, Reporter<T>) {
    let (sender, receiver) = mpsc::channel(gathering.buffer);
    let notes = Notes {
        sender,
        dropped: tally.dropped.clone(),
    };
    let reporter = Reporter {
        receiver,
        gathering,
        producer,
        topic,
        tally,
        partitions: None,
        told: 0,
    };
    (notes, reporter)
}

impl<T> Notes<T> {
    /// Notes something, or drops it where the buffer is full.
    pub fn note(&self, note: T) {
        if self.sender.try_send(note).is_err() {
            self.dropped.inc();
        }
    }
}

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl<T: Note> Reporter<T> {
    /// Sends until `end`, and then once more what is left.
    ///
    /// # Cancellation
    /// What was not sent is lost; what was being sent may be.
    pub async fn run(mut self, end: CancellationToken) {
        let mut batch = Vec::with_capacity(self.gathering.batch);
        loop {
            let ending = tokio::select! {
                biased;
                ending = self.gather(&mut batch) => ending,
                () = end.cancelled() => {
                    self.receiver.close();
                    while let Ok(note) = self.receiver.try_recv() {
                        batch.push(note);
                    }
                    true
                }
            };
            if !batch.is_empty() {
                self.send(&batch, &end).await;
                batch.clear();
            }
            self.tell();
            if ending {
                return;
            }
        }
    }

    /// Fills the batch; true when nothing will come any more. Loses nothing when dropped: what has come is in the batch.
    async fn gather(&mut self, batch: &mut Vec<T>) -> bool {
        let limit = self.gathering.batch;
        if self.receiver.recv_many(batch, limit).await == 0 {
            return true;
        }
        let deadline = Instant::now() + self.gathering.interval;
        while batch.len() < limit {
            match timeout_at(deadline, self.receiver.recv_many(batch, limit - batch.len())).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        false
    }

    /// Sends a batch until Kafka has it, or, once the process ends, tries to.
    async fn send(&mut self, batch: &[T], end: &CancellationToken) {
        let mut left: Option<Lanes> = None;
        let mut pause = BACKOFF.0;
        loop {
            let error = match self.attempt(batch, &mut left).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if end.is_cancelled() {
                let count = match left {
                    Some(left) => left.values().map(|batch| u64::from(batch.count())).sum(),
                    None => u64::try_from(batch.len()).unwrap_or(u64::MAX),
                };
                self.drop_for(count, &error);
                return;
            }
            tracing::debug!(notes = T::MANY, error = &error as &dyn StdError, "not sent yet");
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn attempt(&mut self, batch: &[T], left: &mut Option<Lanes>) -> Result<(), Error> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => *self
                .partitions
                .insert(self.producer.partitions(&self.topic).await?),
        };
        let left = left.get_or_insert_with(|| {
            let mut lanes: BTreeMap<u32, Records> = BTreeMap::new();
            for note in batch {
                let partition = partition::of_key(note.spread(), partitions);
                lanes.entry(partition).or_default().extend([note.outgoing()]);
            }
            let now = edge::now_ms();
            let encoded = |(partition, records): (u32, Records)| (partition, records.into_batch(now));
            lanes.into_iter().map(encoded).collect()
        });
        while let Some(entry) = left.first_entry() {
            let batch = entry.get();
            let count = u64::from(batch.count());
            match self
                .producer
                .produce_batch(&self.topic, *entry.key(), batch)
                .await
            {
                Ok(()) => {
                    self.tally.sent.inc_by(count);
                }
                Err(error @ ProduceError::Refused { .. }) => self.drop_for(count, &error),
                Err(ProduceError::Ambiguous { source, .. }) => return Err(source),
            }
            left.pop_first();
        }
        Ok(())
    }

    fn drop_for(&mut self, dropped: u64, error: &(dyn StdError + 'static)) {
        self.tally.dropped.inc_by(dropped);
        self.told += dropped;
        tracing::warn!(
            notes = T::MANY,
            count = dropped,
            error,
            "dropped: they could not be sent"
        );
    }

    fn tell(&mut self) {
        let dropped = self.tally.dropped.get();
        if dropped > self.told {
            let count = dropped - self.told;
            self.told = dropped;
            tracing::warn!(notes = T::MANY, count, "dropped: the buffer was full");
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_event::header::Headers;

    use super::*;
    use crate::Connection;

    struct Number(u8);

    impl Note for Number {
        const MANY: &'static str = "numbers";

        fn spread(&self) -> &[u8] {
            std::slice::from_ref(&self.0)
        }

        fn outgoing(&self) -> Outgoing {
            Outgoing {
                key: None,
                value: vec![self.0],
                headers: Headers::new(),
            }
        }
    }

    #[test]
    fn what_the_buffer_cannot_hold_is_dropped_and_counted() {
        let gathering = Gathering {
            buffer: 2,
            batch: 2,
            interval: Duration::from_millis(500),
        };
        let nowhere = Producer::new(Connection::new("127.0.0.1:1", "test"), Duration::from_secs(1));
        let tally = Tally::default();
        let (notes, _reporter) = notes(gathering, nowhere, "t".to_owned(), tally.clone());
        (0..5).map(Number).for_each(|number| notes.note(number));
        assert_eq!(tally.dropped.get(), 3);
    }
}
