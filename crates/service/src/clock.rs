//! The one place that reads the time.
//!
//! Everything else takes a [`Clock`], so that a test moves time by hand instead of waiting for it.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

#[cfg(all(feature = "failpoints", debug_assertions))]
pub(crate) mod stepped;

/// Wall time for what is written down, monotonic time for what is measured.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Wall-clock time. May step in either direction.
    fn now(&self) -> Timestamp;
    /// Monotonic time, for durations and deadlines. Never steps back.
    fn instant(&self) -> Instant;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else takes")]
    fn now(&self) -> Timestamp {
        // A machine set beyond year 9999 is the only failure, and the largest timestamp is then the truth.
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else takes")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    inner: Mutex<Manual>,
}

#[derive(Debug)]
struct Manual {
    wall: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock showing `wall`.
    pub fn at(wall: Timestamp) -> Self {
        Self {
            started: SystemClock.instant(),
            inner: Mutex::new(Manual {
                wall,
                elapsed: Duration::ZERO,
            }),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.elapsed += by;
        inner.wall = inner.wall.checked_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Steps the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, wall: Timestamp) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).wall = wall;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).wall
    }

    fn instant(&self) -> Instant {
        self.started + self.inner.lock().unwrap_or_else(PoisonError::into_inner).elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_wall_may_step_back() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let clock = ManualClock::at(noon);
        let before = clock.instant();
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.instant() - before, Duration::from_secs(90));
        assert_eq!(clock.now().to_string(), "2026-01-02T12:01:30Z");
        clock.set_wall(noon);
        assert_eq!(clock.now(), noon);
        assert_eq!(clock.instant() - before, Duration::from_secs(90));
    }
}
