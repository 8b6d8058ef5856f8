//! The end of a plan: which journals stay in the metadata, and which leave it for the table `journals`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use millrace_event::JournalId;

use super::{Commit, Ledger};
use crate::metadata::{MetadataError, watermark_bytes};
use crate::watermark::Watermark;

/// How much the metadata keeps of journals. What is over it lives in the table `journals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most journals.
    pub journals: usize,
    /// Most holes of one journal.
    pub holes: usize,
    /// Most bytes of all of them, before base64. The rest of the metadata is the plan's: its bad rows and the
    /// tables it gives up.
    pub bytes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            journals: 200,
            holes: 32,
            bytes: 2300,
        }
    }
}

/// A watermark that the next commit leaves out. A row with it must be in the table before that commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The journal.
    pub journal: JournalId,
    /// Its watermark once everything below `position` is settled.
    pub watermark: Watermark,
    /// The offset that the commit will name.
    pub position: u64,
}

/// The end of the current plan: what stays in the metadata and what must be written down elsewhere first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a plan is settled by `Ledger::settled`"]
pub struct Settlement {
    position: u64,
    staying: BTreeMap<JournalId, Watermark>,
    leaving: Vec<Leaving>,
}

impl Settlement {
    /// What must be written, and answered for, before the settlement is committed. Not earlier than everything
    /// else of the plan: a crash in between would make the plan's own records duplicates.
    pub fn leaving(&self) -> &[Leaving] {
        &self.leaving
    }
}

impl Ledger {
    /// How the current plan ends, once everything it wrote was answered.
    pub fn settlement(&self) -> Settlement {
        let position = self
            .metadata
            .plan
            .as_ref()
            .map_or(self.settled, |plan| plan.last + 1);
        let mut journals: Vec<_> = self.decided.iter().collect();
        journals.sort_by_key(|(journal, _)| (Reverse(self.heard.get(journal)), **journal));
        let mut settlement = Settlement {
            position,
            staying: BTreeMap::new(),
            leaving: Vec::new(),
        };
        let mut bytes = 0;
        for (journal, watermark) in journals {
            let size = watermark_bytes(*journal, watermark);
            let fits = watermark.holes().len() <= self.capacity.holes
                && settlement.staying.len() < self.capacity.journals
                && bytes + size <= self.capacity.bytes;
            if fits {
                bytes += size;
                settlement.staying.insert(*journal, watermark.clone());
            } else if self.learned.get(journal) != Some(watermark) {
                settlement.leaving.push(Leaving {
                    journal: *journal,
                    watermark: watermark.clone(),
                    position,
                });
            }
        }
        settlement
    }

    /// The plan is carried out, everything it wrote was answered, and so was what the settlement has leave.
    /// `next` is the last offset of the chunk that follows, if it is already known: its plan then shares the
    /// commit.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`].
    pub fn settled(&mut self, settlement: Settlement, next: Option<u64>) -> Result<Commit, MetadataError> {
        self.metadata.plan = None;
        self.settled = settlement.position;
        self.metadata.watermarks = settlement.staying;
        if self.settled >= self.metadata.ask_until {
            self.metadata.ask_until = 0;
        }
        self.learned.clear();
        self.heard
            .retain(|journal, _| self.metadata.watermarks.contains_key(journal));
        self.decide_again();
        match next {
            Some(last) => self.plan(last),
            None => self.commit(),
        }
    }
}
