//! How many inserts a second one server gets, over all partitions and all bulkers.
//!
//! An insert costs the server about the same whether it brings one row or thousands, and each makes a part that has
//! to be merged. With many active tables a second's records are too many inserts. Then inserts wait for their turn,
//! a chunk takes as long as its inserts do, and the next one gathers meanwhile: chunks become as long as the budget
//! needs them to be, and events that much older.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Turns for inserts: the generic cell rate algorithm, with a second's worth of turns at once.
#[derive(Debug)]
pub struct Pace {
    /// Inserts a second for all partitions of the topic.
    per_second: u32,
    partitions: u32,
    assigned: AtomicU32,
    next: Mutex<Instant>,
}

/// Turns that may be taken at once after a quiet time.
const BURST: Duration = Duration::from_secs(1);

impl Pace {
    /// A pace of `per_second` inserts for a topic of that many partitions; each bulker has the part of it that its
    /// partitions are of all.
    pub fn new(per_second: u32, partitions: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            partitions: partitions.max(1),
            assigned: AtomicU32::new(0),
            next: Mutex::new(Instant::now()),
        }
    }

    /// One more partition is ours.
    pub fn assigned(&self) {
        self.assigned.fetch_add(1, Ordering::Relaxed);
    }

    /// A partition is ours no more.
    pub fn released(&self) {
        self.assigned.fetch_sub(1, Ordering::Relaxed);
    }

    /// Between two turns, on the average.
    fn interval(&self) -> Duration {
        let assigned = self.assigned.load(Ordering::Relaxed).max(1);
        Duration::from_secs(1) * self.partitions / self.per_second / assigned.min(self.partitions)
    }

    /// Takes the next turn; how long it is off.
    pub fn take(&self) -> Duration {
        let interval = self.interval();
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *next = (*next).max(earliest) + interval;
        next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seconds_turns_are_taken_at_once_and_the_rest_at_the_pace() {
        let pace = Pace::new(10, 1);
        pace.assigned();
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..10 {
            assert_eq!(pace.take(), Duration::ZERO);
        }
        assert_eq!(pace.take(), Duration::from_millis(100));
        assert_eq!(pace.take(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bulker_has_the_part_of_the_budget_that_its_partitions_are_of_all() {
        let pace = Pace::new(10, 4);
        pace.assigned();
        assert_eq!(pace.interval(), Duration::from_millis(400));
        pace.assigned();
        assert_eq!(pace.interval(), Duration::from_millis(200));
        pace.released();
        pace.released();
        assert_eq!(pace.interval(), Duration::from_millis(400), "as if one were");
    }
}
