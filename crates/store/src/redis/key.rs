//! The names of all keys, in one place.
//!
//! A name in braces decides the slot in a cluster: what one script touches has the same braces.

use millrace_event::JournalId;

use crate::{KeyId, WorkspaceId};

/// `dedup:{<workspace>}:<fingerprint>`: what is known about one `message_id`.
pub(crate) fn message(prefix: &str, workspace: &WorkspaceId) -> String {
    format!("{prefix}dedup:{{{workspace}}}:")
}

/// `dedup:{<workspace>}:pending:<owner>`: sorted set of the fingerprints that one run of a process reserved in
/// a workspace, by the time in ms.
pub(crate) fn pending(prefix: &str, workspace: &WorkspaceId, owner: &str) -> String {
    format!("{prefix}dedup:{{{workspace}}}:pending:{owner}")
}

/// `dedup:runs:<journal>`: set of `<run>:<workspace>`, where the runs of a journal's process reserved anything.
pub(crate) fn runs(prefix: &str, journal: JournalId) -> String {
    format!("{prefix}dedup:runs:{journal}")
}

/// `key:<id>`: a write key as Postgres had it, or that it was revoked.
pub(crate) fn write_key(prefix: &str, id: &KeyId) -> String {
    format!("{prefix}key:{id}")
}

/// `notices`: the channel on which changes are told to every process.
pub(crate) fn notices(prefix: &str) -> String {
    format!("{prefix}notices")
}

/// `values:{<workspace>}`: what functions of a workspace keep. What is due when has `:due` behind it.
pub(crate) fn values(prefix: &str, workspace: &str) -> String {
    format!("{prefix}values:{{{workspace}}}")
}

/// `rate:{<workspace>}`: what a workspace has sent in its windows. Counters of its guests have this in front.
pub(crate) fn rate(prefix: &str, workspace: &WorkspaceId) -> String {
    format!("{prefix}rate:{{{workspace}}}")
}
