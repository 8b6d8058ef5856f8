//! `journal.json`: whose journal this is.

use std::io;
use std::path::{Path, PathBuf};

use millrace_event::JournalId;
use serde::{Deserialize, Serialize};

use super::{Sync, Topic, disk};

const FILE: &str = "journal.json";
const VERSION: u8 = 1;

/// One journal id per topic, so that a refused event and an accepted one never share an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ids {
    pub(super) ingest: JournalId,
    pub(super) dlq: JournalId,
}

impl Ids {
    /// Draws both.
    pub(super) fn mint() -> io::Result<Self> {
        Ok(Self {
            ingest: JournalId(random_u64()?),
            dlq: JournalId(random_u64()?),
        })
    }

    pub(super) const fn of(&self, topic: Topic) -> JournalId {
        match topic {
            Topic::Ingest => self.ingest,
            Topic::Dlq => self.dlq,
        }
    }
}

/// Everything about the journal that is not in its segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    version: u8,
    /// Every pair of ids that this directory had, the last one in use.
    pub(super) epochs: Vec<Ids>,
    /// How many partitions the topics have, once Kafka has said so.
    pub(super) partitions: Option<u32>,
    /// The last process that opened the directory.
    pub(super) run: Run,
}

/// How a process used the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) sync: Sync,
    /// The boot of the machine; within one, what was written is there even when it was never synced.
    pub(super) boot: Option<String>,
    /// Whether it closed the journal itself.
    pub(super) clean: bool,
}

impl Meta {
    pub(super) fn new(ids: Ids, run: Run) -> Self {
        Self {
            version: VERSION,
            epochs: vec![ids],
            partitions: None,
            run,
        }
    }

    /// The file of `dir`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is of another version.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read(dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta: Self = serde_json::from_slice(&text)?;
        if meta.version != VERSION || meta.epochs.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a journal of another version",
            ));
        }
        Ok(Some(meta))
    }

    /// The pair of ids in use.
    pub(super) fn ids(&self) -> Ids {
        self.epochs[self.epochs.len() - 1]
    }

    /// Which pair of ids is in use.
    pub(super) fn epoch(&self) -> u32 {
        u32::try_from(self.epochs.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn store(&self, dir: &Path) -> io::Result<()> {
        disk::replace(&Self::path(dir), &serde_json::to_vec_pretty(self)?)
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// True when the last run may have lost bytes that it had shipped: it never synced them, it did not
    /// close the journal, and the machine was started anew since.
    pub(super) fn may_have_lost_shipped_bytes(&self, boot: Option<&str>) -> bool {
        let same_boot = self.run.boot.is_some() && self.run.boot.as_deref() == boot;
        self.run.sync == Sync::Os && !self.run.clean && !same_boot
    }
}

/// Which boot of the machine this is, where the system says.
pub(super) fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn random_u64() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}

/// Where the checksums of a new segment start.
pub(super) fn random_seed() -> io::Result<u32> {
    getrandom::u32().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unclean_end_without_syncs_before_another_boot_costs_the_id() {
        let lost = |sync, clean, before: Option<&str>, now| {
            let ids = Ids {
                ingest: JournalId(1),
                dlq: JournalId(2),
            };
            Meta::new(
                ids,
                Run {
                    sync,
                    boot: before.map(str::to_owned),
                    clean,
                },
            )
            .may_have_lost_shipped_bytes(now)
        };
        assert!(lost(Sync::Os, false, Some("a"), Some("b")));
        assert!(
            lost(Sync::Os, false, None, None),
            "an unknown boot is another one"
        );
        assert!(
            !lost(Sync::Os, false, Some("a"), Some("a")),
            "killed, but the page cache lives"
        );
        assert!(!lost(Sync::Os, true, Some("a"), Some("b")));
        assert!(
            !lost(Sync::Interval, false, Some("a"), Some("b")),
            "nothing unsynced was shipped"
        );
    }
}
