//! How many bytes of records a member may hold at once, over all its partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A bound on the records that were read and not yet [released](Share::release), in bytes of keys, values and
/// headers. Clones share it.
///
/// Each assigned partition has an equal share. One whose share is used up, or any once the whole is used up, is
/// paused, and goes on when half of its share is free again. So a partition never waits for another, and one that is
/// stuck cannot take the others' room. What is held is over the bound by one record of each partition at most, and
/// by what partitions took that had to go on: see [`Share::must_go_on`].
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    held: AtomicUsize,
    most: AtomicUsize,
    shares: AtomicUsize,
}

/// What one assignment of one partition holds. What is left is released when the last handle is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    held: AtomicUsize,
    must_go_on: AtomicBool,
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            held: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            shares: AtomicUsize::new(0),
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

    /// What each partition may hold, by how many there are now.
    pub fn share_bytes(&self) -> usize {
        self.0.limit / self.0.shares.load(Ordering::Relaxed).max(1)
    }

    /// The share of one more partition.
    pub(super) fn share(&self) -> Arc<Share> {
        self.0.shares.fetch_add(1, Ordering::Relaxed);
        Arc::new(Share {
            budget: self.clone(),
            held: AtomicUsize::new(0),
            must_go_on: AtomicBool::new(false),
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

    /// What this partition may hold now.
    pub fn bytes(&self) -> usize {
        self.budget.share_bytes()
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
        let budget = Budget::new(200);
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
        let budget = Budget::new(300);
        let (one, two) = (budget.share(), budget.share());
        one.charge(120);
        two.charge(10);
        two.release(1000);
        assert_eq!(budget.held(), 120);
        drop(one);
        assert_eq!((budget.held(), two.bytes()), (0, 300));
    }

    #[test]
    fn without_a_bound_nothing_is_ever_full() {
        let share = Budget::unlimited().share();
        share.charge(1 << 40);
        assert!(!share.is_full(false));
    }
}
