//! What the events of a batch may take, one after the other.

use std::time::{Duration, Instant};

use millrace_event::frame::Limits;

use crate::watchdog::now;

/// A batch's account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// When the event at hand began: when the one before it was done.
    pub(crate) clock: Instant,
    /// Wall time that is left.
    pub(crate) left: Option<Duration>,
}

impl Account {
    /// What one event may take: its own limit, or what is left.
    pub(crate) fn wall(&self, limits: &Limits) -> Duration {
        let wall = Duration::from_millis(limits.wall_ms);
        self.left.map_or(wall, |left| left.min(wall))
    }

    /// Whether it ends before an event's own limit does.
    pub(crate) fn cuts_short(&self, limits: &Limits) -> bool {
        self.left
            .is_some_and(|left| left < Duration::from_millis(limits.wall_ms))
    }

    /// Settles the event that is done now.
    pub(crate) fn settle(&mut self) {
        let done = now();
        self.left = self.left.map(|left| left.saturating_sub(done - self.clock));
        self.clock = done;
    }

    /// Whether nothing may run any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_some_and(|left| left.is_zero())
    }
}
