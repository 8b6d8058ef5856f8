//! What the service asks of the consumer thread, and what it is answered.

use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

/// Most commands waiting for the thread: each partition has at most one commit, one question and one release.
pub(super) const MOST_COMMANDS: usize = 4096;
/// What the service asks of the consumer thread.
#[derive(Debug)]
pub(super) enum Command {
    Commit {
        topic: String,
        partition: u32,
        epoch: u64,
        committed: Committed,
        answer: oneshot::Sender<Result<(), CommitError>>,
    },
    Fetch {
        topic: String,
        partition: u32,
        answer: oneshot::Sender<Result<Option<Committed>, CommitError>>,
    },
    Release {
        topic: String,
        partition: u32,
        epoch: u64,
    },
    Leave {
        done: Option<oneshot::Sender<()>>,
    },
}

/// What an offset commit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything below is settled.
    pub offset: u64,
    /// What the group's last commit said beside it.
    pub metadata: String,
}

/// A commit was not carried out, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The partition belongs to another assignment by now; nothing was sent.
    #[error("the partition is not ours any more")]
    NotOwned,
    /// The broker did not confirm it: fetch back, never assume.
    #[error("the broker did not confirm the commit")]
    Unknown(#[source] KafkaError),
}
