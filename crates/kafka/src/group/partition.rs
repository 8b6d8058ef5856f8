use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::budget::Share;
use super::command::{Command, CommitError, Committed};
use super::pulse::{Ownership, Pulse};
use crate::record::Record;

/// One assignment of one partition.
///
/// Dropping it says that the service has finished with it. A service that drops one before it was revoked
/// must close the [`super::Consumer`]: the partition stays assigned, and what it still brings is discarded.
#[derive(Debug)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub number: u32,
    /// What the group had committed when the partition was assigned; `None` where it never had.
    pub committed: Option<Committed>,
    /// The first offset in the log at that time.
    pub log_start: u64,
    /// The offset that the next record written will get, at that time.
    pub log_end: u64,
    /// Batches in order, starting at the committed offset, or at the log's start where nothing is committed.
    pub records: mpsc::Receiver<Vec<Record>>,
    /// Cancelled when the partition is being taken away: begin nothing new, commit what is done, drop this.
    pub revoked: CancellationToken,
    /// What it holds of the member's budget: to be released as records are done with.
    pub share: Arc<Share>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) epoch: u64,
    pub(super) commands: SyncSender<Command>,
}

impl Partition {
    /// Whether this assignment holds, to be asked before something is written outside of Kafka.
    pub fn ownership(&self) -> Ownership {
        Ownership {
            revoked: self.revoked.clone(),
            pulse: Arc::clone(&self.pulse),
        }
    }

    /// Commits `offset` with `metadata` (at most 4,095 bytes), if this assignment still holds.
    ///
    /// # Errors
    /// [`CommitError`].
    ///
    /// # Cancellation
    /// The commit may be carried out all the same.
    pub async fn commit(&self, offset: u64, metadata: impl Into<String>) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Commit {
            topic: self.topic.clone(),
            partition: self.number,
            epoch: self.epoch,
            committed: Committed {
                offset,
                metadata: metadata.into(),
            },
            answer,
        };
        // The queue has room for one command of every partition many times over; a full one means a dead thread.
        self.commands
            .try_send(command)
            .map_err(|_| CommitError::NotOwned)?;
        answered.await.unwrap_or(Err(CommitError::NotOwned))
    }

    /// Asks the group what it holds for this partition.
    ///
    /// # Errors
    /// [`CommitError`], where the group does not answer.
    pub async fn fetch_committed(&self) -> Result<Option<Committed>, CommitError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Fetch {
            topic: self.topic.clone(),
            partition: self.number,
            answer,
        };
        self.commands
            .try_send(command)
            .map_err(|_| CommitError::NotOwned)?;
        answered.await.unwrap_or(Err(CommitError::NotOwned))
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let command = Command::Release {
            topic: std::mem::take(&mut self.topic),
            partition: self.number,
            epoch: self.epoch,
        };
        // A closed queue means that the thread has ended and nobody waits for this.
        drop(self.commands.try_send(command));
    }
}
