//! What time an event is of, by clocks that are not ours.
//!
//! The server's clock is right. A client's is taken as it is while it is near; where the time that it sent at is
//! further off than a threshold, its clock is wrong by that much, and so is the time of its events. What the
//! client said stays in the event.

use std::time::Duration;

use millrace_event::Timestamp;
use serde::{Deserialize, Serialize};

/// The clock was corrected.
pub(super) const SKEWED: &str = "clock_skew";
/// The time was in the future.
pub(super) const FUTURE: &str = "future_timestamp";

/// `[time]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clocks {
    /// An event that was sent longer ago is late, unless it is an import.
    #[serde(with = "humantime_serde")]
    pub late: Duration,
    /// How far the clock of a client may be off, either way, before the time of its events is corrected. What is
    /// in the future by more than this is of now.
    #[serde(with = "humantime_serde")]
    pub skew: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            late: Duration::from_secs(24 * 60 * 60),
            skew: Duration::from_secs(60),
        }
    }
}

/// When an event was taken, and what its client says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) received_at: Timestamp,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) timestamp: Option<Timestamp>,
    /// Times of imports are as they are meant.
    pub(super) is_import: bool,
}

impl Clocks {
    pub(super) fn is_late(&self, told: Told) -> bool {
        let age = told.sent_at.map(|sent_at| told.received_at.millis_since(sent_at));
        !told.is_import && age.is_some_and(|age| age > millis(self.late))
    }

    /// The time that the event gets instead of its own, with the reason.
    pub(super) fn correct(&self, told: Told) -> Option<(Timestamp, &'static str)> {
        let Told {
            received_at,
            sent_at,
            timestamp,
            is_import,
        } = told;
        let (said, threshold) = (timestamp?, millis(self.skew));
        if is_import {
            return None;
        }
        let off = sent_at.map_or(0, |sent_at| received_at.millis_since(sent_at));
        let corrected = if off.abs() > threshold {
            Timestamp::clamped_from_millis(said.as_millis().saturating_add(off))
        } else {
            said
        };
        if corrected.millis_since(received_at) > threshold {
            Some((received_at, FUTURE))
        } else {
            (corrected != said).then_some((corrected, SKEWED))
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const MINUTE: i64 = 60_000;

    fn told(sent: Option<i64>, timestamp: Option<i64>) -> Told {
        let at = |offset: i64| Timestamp::from_millis(NOW + offset).unwrap();
        Told {
            received_at: at(0),
            sent_at: sent.map(at),
            timestamp: timestamp.map(at),
            is_import: false,
        }
    }

    #[test]
    fn a_clock_is_corrected_past_the_threshold_only_and_the_future_is_now() {
        for (sent, timestamp, expected) in [
            (Some(-MINUTE), Some(-3 * MINUTE), None),
            (Some(MINUTE), Some(-3 * MINUTE), None),
            (
                Some(-10 * MINUTE),
                Some(-12 * MINUTE),
                Some((-2 * MINUTE, SKEWED)),
            ),
            (Some(10 * MINUTE), Some(9 * MINUTE), Some((-MINUTE, SKEWED))),
            (None, Some(-10 * MINUTE), None),
            (None, Some(MINUTE), None),
            (None, Some(2 * MINUTE), Some((0, FUTURE))),
            // The event is later than its own sending.
            (Some(-10 * MINUTE), Some(0), Some((0, FUTURE))),
            (Some(-10 * MINUTE), None, None),
        ] {
            let corrected = Clocks::default().correct(told(sent, timestamp));
            let corrected = corrected.map(|(time, why)| (time.as_millis() - NOW, why));
            assert_eq!(corrected, expected, "{sent:?} {timestamp:?}");
        }
        let mut import = told(Some(-10 * MINUTE), Some(-12 * MINUTE));
        import.is_import = true;
        assert_eq!(Clocks::default().correct(import), None);
    }

    #[test]
    fn late_is_what_was_sent_more_than_a_day_ago_unless_it_is_an_import() {
        let day = 24 * 60 * MINUTE;
        let late = |told| Clocks::default().is_late(told);
        assert!(!late(told(Some(-day), None)));
        assert!(late(told(Some(-day - 1), None)));
        assert!(
            !late(told(None, Some(-2 * day))),
            "what is old was not late when it was sent"
        );
        let mut import = told(Some(-2 * day), None);
        import.is_import = true;
        assert!(!late(import));
    }
}
