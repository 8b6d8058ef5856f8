use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config;
use crate::error::Error;

const FIRST: Duration = Duration::from_millis(100);

/// The pauses between attempts at one thing: doubling, up to the configured longest.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    pub(super) fn new(limits: &config::Insert) -> Self {
        Self {
            next: FIRST.min(limits.longest_pause),
            longest: limits.longest_pause,
        }
    }

    /// Waits, unless the partition is being taken away: then nothing new is begun.
    pub(super) async fn wait(&mut self, revoked: &CancellationToken) -> Result<(), Error> {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        tokio::select! {
            biased;
            () = revoked.cancelled() => Err(Error::Revoked),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
