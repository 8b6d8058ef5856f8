//! Why a partition's work ends before the partition does.

use millrace_kafka::group::CommitError;
use millrace_ledger::MetadataError;
use millrace_warehouse::TableName;

use crate::sort::Unlearned;

/// The end of a partition's task.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The partition is being taken away; what was begun is recovered by its next owner.
    #[error("the partition was revoked")]
    Revoked,
    /// The process was stopped, or its consumer held up, for longer than the session timeout: somebody else may own
    /// the partition.
    #[error("the session may have ended while the process was stopped")]
    Lapsed,
    /// A commit was not confirmed, and what the group holds is not what was committed.
    #[error("a commit was not carried out")]
    Commit(#[source] CommitError),
    /// A copy could not be delivered: the producer's session is over.
    #[error("a copy could not be delivered")]
    Copy(#[source] millrace_kafka::Error),
    /// The plan does not fit into a commit.
    #[error("the plan does not fit into a commit")]
    Metadata(#[from] MetadataError),
    /// A record was met whose journal had not been looked up: nothing of its chunk was written.
    #[error("a chunk was not prepared")]
    Unlearned(#[from] Unlearned),
    /// What the table `journals` holds of a journal contradicts itself.
    #[error("the written watermark of journal {0} contradicts itself")]
    Watermark(millrace_event::JournalId),
    /// A table cannot be written although its server answers; its rows are to be handed over.
    #[error("table {0} cannot be written")]
    TableFailing(TableName),
}

impl Error {
    /// A short label for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Lapsed => "lapsed",
            Self::Commit(_) => "commit",
            Self::Copy(_) => "copy",
            Self::Metadata(_) => "metadata",
            Self::Unlearned(_) => "unlearned",
            Self::Watermark(_) => "watermark",
            Self::TableFailing(_) => "table_failing",
        }
    }
}
