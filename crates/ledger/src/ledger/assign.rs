//! What a partition starts from when it is assigned, and when it must not start.

use std::ops::Range;

use super::{Ledger, Recovery};
use crate::metadata::MetadataError;

/// A partition that can be worked on.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Its ledger.
    pub ledger: Ledger,
    /// What a predecessor left to be finished.
    pub recovery: Recovery,
    /// Offsets that retention deleted before they were settled. They are gone; it must never be silent.
    pub lost: u64,
}

/// Why a partition must not be worked on until somebody has looked at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The topic was made anew, or the commit is from another cluster.
    #[error(
        "offset {offset} is committed but the log ends at {end}: the topic was made anew or the commit is from another cluster"
    )]
    BeyondTheLog {
        /// The committed offset.
        offset: u64,
        /// The log's end.
        end: u64,
    },
    /// What was planned is not in the log any more.
    #[error("a plan up to offset {last} is committed but the log ends at {end}")]
    PlanBeyondTheLog {
        /// The plan's last offset.
        last: u64,
        /// The log's end.
        end: u64,
    },
    /// Somebody else committed, or another version did.
    #[error("the commit at offset {offset} was not written by this version of the bulker: {source}")]
    Metadata {
        /// The committed offset.
        offset: u64,
        /// What is wrong with its metadata.
        source: MetadataError,
    },
}

impl Ledger {
    /// The ledger of a partition whose group holds `committed`, an offset and its metadata, and whose log holds
    /// the offsets `log`. Where nothing is committed it starts with the log, and asks for the rows of everything that
    /// is in it now: the group may be new, or Kafka may have forgotten what it had committed.
    ///
    /// # Errors
    /// [`Stop`]: going on would read records again that were settled, or skip some.
    pub fn assign(partition: u32, committed: Option<(u64, &str)>, log: Range<u64>) -> Result<Assigned, Stop> {
        let (offset, metadata) = committed.map_or((log.start, None), |(offset, text)| (offset, Some(text)));
        if offset > log.end {
            return Err(Stop::BeyondTheLog { offset, end: log.end });
        }
        let (mut ledger, recovery) =
            Self::restore(partition, offset, metadata).map_err(|source| Stop::Metadata { offset, source })?;
        if committed.is_none() && !log.is_empty() {
            ledger.metadata.ask_until = log.end;
        }
        if let Recovery::Finish(plan) = &recovery
            && plan.last >= log.end
        {
            return Err(Stop::PlanBeyondTheLog {
                last: plan.last,
                end: log.end,
            });
        }
        Ok(Assigned {
            ledger,
            recovery,
            lost: log.start.saturating_sub(offset),
        })
    }
}
