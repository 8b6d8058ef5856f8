//! What can go wrong with the journal.

use std::io;
use std::path::PathBuf;

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses the journal in {}", .0.display())]
    Locked(PathBuf),
    /// There are segments, but nobody knows whose.
    #[error("{} holds segments without a journal.json; an identity minted anew could meet an old one", .0.display())]
    Orphaned(PathBuf),
    /// The disk refused.
    #[error("{} failed", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Events were not taken. Nothing of the request is in the journal, except where [`AppendError::Failed`]
/// says that it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal or the disk is full: try again when Kafka has taken some.
    #[error("the journal is full")]
    Full,
    /// A write did not succeed; the next may.
    #[error("the journal could not be written")]
    Write,
    /// A sync failed, and what the disk holds is not known: the journal takes nothing more until the process
    /// is started anew. What was just written may be found there then.
    #[error("the journal failed to reach the disk")]
    Failed,
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
    /// One entry is larger than a record can be.
    #[error("an entry is too large for the journal")]
    TooLarge,
}

/// Records could not be read.
#[derive(Debug, thiserror::Error)]
#[error("segment {segment} could not be read")]
pub struct ReadError {
    pub(super) segment: u64,
    pub(super) source: io::Error,
}
