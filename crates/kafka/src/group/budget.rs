//! How many bytes of records a member may hold at once, over all its partitions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::slab::REUSABLE_BYTES;

/// How many partitions have a turn at the common room at once: one fills it while the other's is written.
const TURNS: usize = 2;
/// What of the whole is common room, in quarters. The larger it is, the larger are the chunks of partitions that are
/// behind; the rest must only do for what comes meanwhile.
const COMMON_QUARTERS: usize = 3;

/// A bound on the records that were read and not yet [released](Share::release), in bytes of keys, values and
/// headers. Clones share it.
///
/// A quarter of it belongs to the assigned partitions in equal shares. The rest is common room, in two equal parts:
/// a partition with much to read [takes a turn](Share::turn) at one of them. Of a partition whose room is used up, or
/// any once the whole is used up, nothing more is read until half of its room is free again. So one that is stuck
/// cannot take the others' shares. What is held is over the bound by one record of each partition at most, and by
/// what partitions took that had to go on: see [`Share::must_go_on`].
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    held: AtomicUsize,
    most: AtomicUsize,
    shares: AtomicUsize,
    turns: Arc<Semaphore>,
    /// When a turn was taken last.
    taken: Mutex<Instant>,
}

/// What one assignment of one partition holds. What is left is released when the last handle is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    held: AtomicUsize,
    must_go_on: AtomicBool,
    has_turn: AtomicBool,
}

/// A turn at a part of the common room, given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    share: Arc<Share>,
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            held: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            shares: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(TURNS)),
            taken: Mutex::new(Instant::now()),
        }))
    }

    /// No bound: for services that bound what they hold by their queues alone, and release nothing.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most that were ever held at once.
    pub fn most_held(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    /// How much of records' memory is kept to be used again: as much as may be held, and little where that is not known.
    pub(super) fn reusable_bytes(&self) -> usize {
        match self.0.limit {
            usize::MAX => REUSABLE_BYTES,
            limit => limit,
        }
    }

    /// What each partition may always hold, by how many there are now.
    pub fn share_bytes(&self) -> usize {
        (self.0.limit - self.common_bytes()) / self.0.shares.load(Ordering::Relaxed).max(1)
    }

    /// What one with a turn may hold besides.
    pub fn turn_bytes(&self) -> usize {
        self.common_bytes() / TURNS
    }

    fn common_bytes(&self) -> usize {
        self.0.limit / 4 * COMMON_QUARTERS
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of one more partition.
    pub(super) fn share(&self) -> Arc<Share> {
        self.0.shares.fetch_add(1, Ordering::Relaxed);
        Arc::new(Share {
            budget: self.clone(),
            held: AtomicUsize::new(0),
            must_go_on: AtomicBool::new(false),
            has_turn: AtomicBool::new(false),
        })
    }
}

impl Share {
    /// Records that were held are gone.
    pub fn release(&self, bytes: usize) {
        let held = self.held.fetch_sub(bytes.min(self.held()), Ordering::Relaxed);
        let bytes = bytes.min(held);
        self.budget.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lifts the bound for this partition, or puts it back. For records without which nothing of what is held could
    /// be released: a plan that somebody else cut. At most one partition at a time, or the bound means nothing.
    pub fn must_go_on(&self, must: bool) {
        self.must_go_on.store(must, Ordering::Relaxed);
    }

    /// Waits for a turn at the common room; nothing once nobody has got one for `patience`, because those that have
    /// the turns are stuck: then the share must do. Turns are given in the order in which they were asked for.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn turn(self: &Arc<Self>, patience: Duration) -> Option<Turn> {
        let mut waiting = std::pin::pin!(Arc::clone(&self.budget.0.turns).acquire_owned());
        loop {
            let until = *self.budget.taken() + patience;
            match timeout_at(until, waiting.as_mut()).await {
                Ok(permit) => {
                    *self.budget.taken() = Instant::now();
                    self.has_turn.store(true, Ordering::Relaxed);
                    return Some(Turn {
                        share: Arc::clone(self),
                        _permit: permit.ok()?,
                    });
                }
                Err(_) if until <= Instant::now() && until >= *self.budget.taken() + patience => return None,
                Err(_) => {}
            }
        }
    }

    /// What this partition may hold without a turn.
    pub fn own_bytes(&self) -> usize {
        self.budget.share_bytes()
    }

    /// What a turn adds to it.
    pub fn turn_bytes(&self) -> usize {
        self.budget.turn_bytes()
    }

    /// What this partition may hold now.
    pub fn bytes(&self) -> usize {
        let turn = match self.has_turn.load(Ordering::Relaxed) {
            true => self.turn_bytes(),
            false => 0,
        };
        self.own_bytes() + turn
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn charge(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let held = self.budget.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.budget.0.most.fetch_max(held, Ordering::Relaxed);
    }

    /// Whether the partition is to be paused; `paused` says whether it is.
    pub(super) fn is_full(&self, paused: bool) -> bool {
        let (held, share) = (self.held(), self.bytes());
        if held == 0 || self.must_go_on.load(Ordering::Relaxed) {
            return false;
        }
        let most = if paused { share / 2 } else { share };
        held >= most.max(1) || self.budget.held() >= self.budget.0.limit
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.share.has_turn.store(false, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.shares.fetch_sub(1, Ordering::Relaxed);
        self.budget.0.held.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_used_its_share_up_waits_until_half_of_it_is_free() {
        let budget = Budget::new(800);
        let (share, other) = (budget.share(), budget.share());
        share.charge(99);
        assert!(!share.is_full(false));
        share.charge(1);
        assert!(share.is_full(false));
        share.release(49);
        assert!(share.is_full(true), "51 of 100");
        share.release(2);
        assert!(!share.is_full(true));
        assert!(!other.is_full(false));
        assert_eq!((budget.held(), budget.most_held()), (49, 100));
    }

    #[test]
    fn no_partition_takes_more_while_the_whole_is_used_up_but_the_one_that_must_go_on() {
        let budget = Budget::new(200);
        let (one, two) = (budget.share(), budget.share());
        one.must_go_on(true);
        one.charge(250);
        two.charge(10);
        assert!(!one.is_full(false));
        assert!(two.is_full(false));
        one.must_go_on(false);
        assert!(one.is_full(true));
    }

    #[test]
    fn a_partition_that_holds_nothing_always_takes_a_record() {
        let budget = Budget::new(1);
        let (one, two) = (budget.share(), budget.share());
        one.charge(1000);
        assert!(!two.is_full(true));
    }

    #[test]
    fn what_a_partition_leaves_behind_is_released_and_its_share_goes_to_the_others() {
        let budget = Budget::new(1200);
        let (one, two) = (budget.share(), budget.share());
        one.charge(120);
        two.charge(10);
        two.release(1000);
        assert_eq!(budget.held(), 120);
        drop(one);
        assert_eq!((budget.held(), two.bytes()), (0, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn two_partitions_at_a_time_have_a_turn_at_the_common_room_and_the_next_in_order_follows() {
        const PATIENCE: Duration = Duration::from_secs(5);
        let budget = Budget::new(1200);
        let shares: Vec<_> = (0..3).map(|_| budget.share()).collect();
        let first = shares[0].turn(PATIENCE).await.expect("free");
        let _second = shares[1].turn(PATIENCE).await.expect("free");
        assert_eq!(
            shares.iter().map(|share| share.bytes()).collect::<Vec<_>>(),
            [550, 550, 100]
        );
        shares[0].charge(549);
        assert!(!shares[0].is_full(false));
        let (third, ()) = tokio::join!(shares[2].turn(PATIENCE), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        });
        assert!(third.is_some());
        assert!(shares[0].is_full(false), "its turn is over: 549 of 100");
        assert_eq!(shares[2].bytes(), 550);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_does_not_wait_for_turns_that_are_stuck() {
        const PATIENCE: Duration = Duration::from_secs(5);
        let budget = Budget::new(600);
        let (stuck, other, third) = (budget.share(), budget.share(), budget.share());
        let began = Instant::now();
        let _one = stuck.turn(PATIENCE).await.expect("free");
        let two = other.turn(PATIENCE).await.expect("free");
        assert!(third.turn(PATIENCE).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(third.turn(PATIENCE).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE, "what is stuck is not waited for again");
        drop(two);
        assert!(
            third.turn(PATIENCE).await.is_some(),
            "a turn that is free is taken at once"
        );
    }

    #[test]
    fn without_a_bound_nothing_is_ever_full() {
        let share = Budget::unlimited().share();
        share.charge(1 << 40);
        assert!(!share.is_full(false));
    }
}
