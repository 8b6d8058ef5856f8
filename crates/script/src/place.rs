//! Where a batch is, for whoever watches it from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// The index of the event and the position of the function that run, together: one is never seen with another's other.
#[derive(Debug)]
pub(crate) struct Place(AtomicU64);

/// Stands for no function.
const NOWHERE: u32 = u32::MAX;

/// Stands for no event any more.
const DONE: u64 = u64::MAX;

impl Place {
    /// At the beginning, where nothing runs yet.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(packed(0, NOWHERE)))
    }

    /// An event is next; none of its functions runs yet.
    pub(crate) fn event(&self, index: usize) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.0.store(packed(index, NOWHERE), Ordering::Release);
    }

    /// No event is left for whoever is here.
    pub(crate) fn done(&self) {
        self.0.store(DONE, Ordering::Release);
    }

    /// Whether no event is left.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == DONE
    }

    /// A function of the chain is entered.
    pub(crate) fn function(&self, position: usize) {
        let position = u32::try_from(position).unwrap_or(NOWHERE);
        let (index, _) = unpacked(self.0.load(Ordering::Acquire));
        self.0.store(packed(index, position), Ordering::Release);
    }

    /// The event and the function.
    pub(crate) fn get(&self) -> (usize, Option<u32>) {
        let (index, position) = unpacked(self.0.load(Ordering::Acquire));
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        (index, (position != NOWHERE).then_some(position))
    }
}

const fn packed(index: u32, position: u32) -> u64 {
    (index as u64) << 32 | position as u64
}

#[expect(clippy::cast_possible_truncation, reason = "each half is cut out on purpose")]
const fn unpacked(both: u64) -> (u32, u32) {
    ((both >> 32) as u32, both as u32)
}
