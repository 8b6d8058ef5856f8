//! The clock of a process in a development build: a test may step its wall time while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::{Clock, SystemClock};
use crate::failpoint::CLOCK;

/// The machine's clock, off by as many milliseconds as a file says at that moment; right where it says nothing.
#[derive(Debug)]
struct SteppedClock {
    file: PathBuf,
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        let step = std::fs::read_to_string(&self.file).unwrap_or_default();
        let step = SignedDuration::from_millis(step.trim().parse().unwrap_or(0));
        let now = SystemClock.now();
        now.checked_add(step).unwrap_or(now)
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

/// The clock that this process goes by.
pub(crate) fn of_this_process() -> Arc<dyn Clock> {
    match std::env::var_os(CLOCK) {
        Some(file) => Arc::new(SteppedClock { file: file.into() }),
        None => Arc::new(SystemClock),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn its_wall_time_follows_the_file_in_either_direction_and_its_durations_do_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("clock");
        let clock = SteppedClock { file: file.clone() };
        let off = || clock.now().duration_since(SystemClock.now()).as_secs();
        assert_eq!(off(), 0, "nothing is said");
        for seconds in [3600_i64, -7200] {
            let before = clock.instant();
            std::fs::write(&file, (seconds * 1000).to_string()).expect("written");
            assert!((off() - seconds).abs() <= 60, "{}", off());
            assert!(clock.instant() - before < Duration::from_secs(3600));
        }
    }
}
