//! Whether a member can still be one: when its thread last had a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The consumer thread's sign of life. A process that was stopped for longer than the session timeout may be
/// no member any more and learns that late: until then nothing else would tell it.
#[derive(Debug)]
pub(super) struct Pulse {
    started: Instant,
    session: Duration,
    /// Milliseconds since the start.
    last: AtomicU64,
    lapsed: AtomicBool,
}

impl Pulse {
    pub(super) fn new(session: Duration) -> Self {
        Self {
            started: Instant::now(),
            session,
            last: AtomicU64::new(0),
            lapsed: AtomicBool::new(false),
        }
    }

    /// The thread has a turn. One that comes too late does not mend what has lapsed.
    pub(super) fn beat(&self) {
        if self.since_last() >= self.session {
            self.lapsed.store(true, Ordering::SeqCst);
        }
        self.last.store(self.now(), Ordering::SeqCst);
    }

    fn beats(&self) -> bool {
        // In this order: a late beat sets `lapsed` before it sets `last`.
        let fresh = self.since_last() < self.session;
        fresh && !self.lapsed.load(Ordering::SeqCst)
    }

    fn since_last(&self) -> Duration {
        let last = self.last.load(Ordering::SeqCst);
        Duration::from_millis(self.now().saturating_sub(last))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether an assignment holds, as far as a process can know by itself.
#[derive(Clone, Debug)]
pub struct Ownership {
    pub(super) revoked: CancellationToken,
    pub(super) pulse: Arc<Pulse>,
}

/// Why nothing may be written for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is being taken away.
    Revoked,
    /// The process was stopped, or its consumer thread held up, for longer than the session timeout: somebody else
    /// may own it. The member must leave and join anew.
    Lapsed,
}

impl Ownership {
    /// Asked right before something is written outside of Kafka.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn check(&self) -> Result<(), Lost> {
        if !self.pulse.beats() {
            return Err(Lost::Lapsed);
        }
        if self.revoked.is_cancelled() {
            return Err(Lost::Revoked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ownership() -> Ownership {
        Ownership {
            revoked: CancellationToken::new(),
            pulse: Arc::new(Pulse::new(Duration::from_secs(10))),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_thread_had_no_turn_for_the_session_timeout_owns_nothing_also_when_it_goes_on() {
        let ownership = ownership();
        tokio::time::advance(Duration::from_secs(9)).await;
        ownership.pulse.beat();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(ownership.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ownership.check(), Err(Lost::Lapsed));
        ownership.pulse.beat();
        assert_eq!(ownership.check(), Err(Lost::Lapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_is_taken_away_is_not_owned() {
        let ownership = ownership();
        ownership.revoked.cancel();
        assert_eq!(ownership.check(), Err(Lost::Revoked));
    }
}
