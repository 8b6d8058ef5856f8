//! Cutting a partition's records into chunks.

use std::collections::VecDeque;
use std::convert::Infallible;

use millrace_kafka::Record;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::Chunk;

/// Collects records until a limit closes the chunk.
///
/// Holds at most one chunk and one batch of the queue beyond it. What the partition may hold at all is bounded by
/// its share of the memory budget, in which the queue is counted as well.
#[derive(Debug)]
pub struct Gatherer {
    queue: mpsc::Receiver<Vec<Record>>,
    limits: Chunk,
    bytes_limit: usize,
    held: VecDeque<Record>,
    /// Bytes of the records that belong to the open chunk.
    bytes: usize,
    /// How many of `held` belong to the open chunk; the rest came in the same batch and waits for the next.
    inside: usize,
    opened: Option<Instant>,
}

/// Why [`Gatherer::fill`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// A chunk is ready to be taken.
    Closed,
    /// No more records will come: the partition is being taken away.
    Ended,
}

impl Gatherer {
    /// A gatherer over a partition's queue.
    pub fn new(queue: mpsc::Receiver<Vec<Record>>, limits: Chunk) -> Self {
        Self {
            queue,
            bytes_limit: limits.bytes.as_usize(),
            limits,
            held: VecDeque::new(),
            bytes: 0,
            inside: 0,
            opened: None,
        }
    }

    /// Waits until a chunk is closed by rows, bytes or time.
    ///
    /// # Cancellation
    /// Nothing is lost: what was gathered stays.
    pub async fn fill(&mut self) -> Filled {
        loop {
            if self.count_in() || self.is_due() {
                return Filled::Closed;
            }
            let batch = match self.opened {
                None => self.queue.recv().await,
                Some(opened) => {
                    tokio::select! {
                        biased;
                        batch = self.queue.recv() => batch,
                        () = sleep_until(opened + self.limits.time) => return Filled::Closed,
                    }
                }
            };
            let Some(batch) = batch else { return Filled::Ended };
            self.held.extend(batch);
        }
    }

    /// Gathers the next chunk beside other work, until that ends this. Time does not close it: what comes while the
    /// other work goes on belongs to one chunk, until it is full.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn ahead(&mut self) -> Infallible {
        while !self.count_in() {
            let Some(batch) = self.queue.recv().await else {
                break;
            };
            self.held.extend(batch);
        }
        std::future::pending().await
    }

    /// From now on a chunk has at most `bytes`, or what is configured where that is less.
    pub fn limit_bytes(&mut self, bytes: usize) {
        self.bytes_limit = self.limits.bytes.as_usize().min(bytes);
    }

    /// Whether the open chunk is closed by less bytes than are configured.
    pub fn is_cut_short(&self) -> bool {
        let next = self.held.get(self.inside).map_or(0, Record::size);
        self.inside < self.limits.rows
            && self.bytes + next > self.bytes_limit
            && self.bytes_limit < self.limits.bytes.as_usize()
    }

    /// The open chunk may have that many bytes after all, and its time begins anew.
    pub fn widen(&mut self, bytes: usize) {
        self.limit_bytes(bytes);
        self.opened = self.opened.map(|_| Instant::now());
    }

    /// Waits until the record at `last`, or a later one, is there; limits do not apply. For a plan that a
    /// predecessor cut.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn fill_to(&mut self, last: u64) -> Filled {
        while self.held.back().is_none_or(|record| record.offset < last) {
            let Some(batch) = self.queue.recv().await else {
                return Filled::Ended;
            };
            self.held.extend(batch);
        }
        Filled::Closed
    }

    /// Counts held records into the open chunk; true where it has no room for more.
    fn count_in(&mut self) -> bool {
        while self.inside < self.limits.rows {
            let Some(record) = self.held.get(self.inside) else {
                break;
            };
            let bytes = self.bytes + record.size();
            if self.inside > 0 && bytes > self.bytes_limit {
                return true;
            }
            self.bytes = bytes;
            self.inside += 1;
            self.opened.get_or_insert_with(Instant::now);
        }
        self.inside >= self.limits.rows
    }

    fn is_due(&self) -> bool {
        self.opened
            .is_some_and(|opened| opened + self.limits.time <= Instant::now())
    }

    /// The open chunk, which may be empty; a new one opens with the next record.
    pub fn take(&mut self) -> Vec<Record> {
        let chunk = self.held.drain(..self.inside).collect();
        self.reset();
        chunk
    }

    /// The records up to and including offset `last`.
    pub fn take_to(&mut self, last: u64) -> Vec<Record> {
        let count = self
            .held
            .iter()
            .take_while(|record| record.offset <= last)
            .count();
        let chunk = self.held.drain(..count).collect();
        self.reset();
        chunk
    }

    /// Puts records back in front: they open the next chunk.
    pub fn put_back(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            self.held.push_front(record);
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.inside = 0;
        self.bytes = 0;
        self.opened = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_event::header::Headers;
    use millrace_service::config::ByteSize;
    use std::time::Duration;

    fn record(offset: u64) -> Record {
        Record {
            offset,
            timestamp_ms: 0,
            key: None,
            value: vec![b'x'; 10].into(),
            headers: Headers::new(),
        }
    }

    fn records(range: std::ops::Range<u64>) -> Vec<Record> {
        range.map(record).collect()
    }

    fn offsets(chunk: &[Record]) -> Vec<u64> {
        chunk.iter().map(|record| record.offset).collect()
    }

    fn gatherer(rows: usize, bytes: u64) -> (mpsc::Sender<Vec<Record>>, Gatherer) {
        let (queue, receiver) = mpsc::channel(10);
        let limits = Chunk {
            rows,
            bytes: ByteSize::bytes(bytes),
            time: Duration::from_secs(1),
        };
        (queue, Gatherer::new(receiver, limits))
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_is_closed_by_rows_and_the_rest_of_the_batch_opens_the_next() {
        let (queue, mut gatherer) = gatherer(3, 1000);
        queue.send(records(0..7)).await.expect("room");
        for expected in [vec![0, 1, 2], vec![3, 4, 5]] {
            assert_eq!(gatherer.fill().await, Filled::Closed);
            assert_eq!(offsets(&gatherer.take()), expected);
        }
        assert_eq!(gatherer.fill().await, Filled::Closed, "time closes the rest");
        assert_eq!(offsets(&gatherer.take()), [6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_is_closed_by_bytes_but_holds_at_least_one_record() {
        let (queue, mut gatherer) = gatherer(100, 25);
        queue.send(records(0..3)).await.expect("room");
        gatherer.fill().await;
        assert_eq!(offsets(&gatherer.take()), [0, 1]);
        let (queue, mut tight) = gatherer_of_one_byte();
        queue.send(records(0..2)).await.expect("room");
        tight.fill().await;
        assert_eq!(offsets(&tight.take()), [0]);
    }

    fn gatherer_of_one_byte() -> (mpsc::Sender<Vec<Record>>, Gatherer) {
        gatherer(100, 1)
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_first_record_and_an_interrupted_wait_loses_nothing() {
        let (queue, mut gatherer) = gatherer(100, 1000);
        queue.send(records(0..1)).await.expect("room");
        let started = Instant::now();
        assert!(
            tokio::time::timeout(Duration::from_millis(600), gatherer.fill())
                .await
                .is_err()
        );
        queue.send(records(1..2)).await.expect("room");
        assert_eq!(gatherer.fill().await, Filled::Closed);
        assert_eq!(started.elapsed().as_millis(), 1000);
        assert_eq!(offsets(&gatherer.take()), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_chunk_is_written_is_one_chunk_however_long_that_takes_until_it_is_full() {
        let (queue, mut gatherer) = gatherer(5, 1000);
        queue.send(records(0..2)).await.expect("room");
        let writing = Duration::from_secs(60);
        assert!(tokio::time::timeout(writing, gatherer.ahead()).await.is_err());
        queue.send(records(2..9)).await.expect("room");
        queue.send(records(9..10)).await.expect("room");
        assert!(tokio::time::timeout(writing, gatherer.ahead()).await.is_err());
        assert_eq!(queue.capacity(), queue.max_capacity() - 1, "the chunk is full");
        gatherer.fill().await;
        assert_eq!(offsets(&gatherer.take()), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_with_a_small_share_has_small_chunks() {
        let (queue, mut gatherer) = gatherer(100, 1000);
        gatherer.limit_bytes(25);
        queue.send(records(0..3)).await.expect("room");
        gatherer.fill().await;
        assert_eq!(offsets(&gatherer.take()), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_a_small_share_closed_goes_on_with_more_room_for_as_long_as_a_chunk_may_wait() {
        let (queue, mut gatherer) = gatherer(100, 1000);
        gatherer.limit_bytes(25);
        queue.send(records(0..3)).await.expect("room");
        gatherer.fill().await;
        assert!(gatherer.is_cut_short());
        tokio::time::advance(Duration::from_secs(5)).await;
        gatherer.widen(50);
        queue.send(records(3..5)).await.expect("room");
        let started = Instant::now();
        assert_eq!(gatherer.fill().await, Filled::Closed);
        assert_eq!(started.elapsed().as_millis(), 1000, "time closes it");
        assert!(!gatherer.is_cut_short());
        assert_eq!(offsets(&gatherer.take()), [0, 1, 2, 3, 4]);
        gatherer.limit_bytes(2000);
        queue.send(records(5..107)).await.expect("room");
        gatherer.fill().await;
        assert!(
            !gatherer.is_cut_short(),
            "it has all the bytes and rows that a chunk may have"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_predecessors_plan_is_gathered_to_its_end_whatever_the_limits_are() {
        let (queue, mut gatherer) = gatherer(1, 1);
        queue.send(records(5..8)).await.expect("room");
        queue.send(records(8..12)).await.expect("room");
        assert_eq!(gatherer.fill_to(9).await, Filled::Closed);
        assert_eq!(offsets(&gatherer.take_to(9)), [5, 6, 7, 8, 9]);
        gatherer.fill().await;
        assert_eq!(offsets(&gatherer.take()), [10]);
    }

    #[tokio::test(start_paused = true)]
    async fn records_put_back_come_first() {
        let (queue, mut gatherer) = gatherer(2, 1000);
        queue.send(records(0..4)).await.expect("room");
        gatherer.fill().await;
        let mut chunk = gatherer.take();
        gatherer.put_back(chunk.split_off(1));
        gatherer.fill().await;
        assert_eq!(offsets(&gatherer.take()), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_queue_is_told() {
        let (queue, mut gatherer) = gatherer(2, 1000);
        drop(queue);
        assert_eq!(gatherer.fill().await, Filled::Ended);
    }
}
