//! One partition's decisions: which records count, what is committed, what a successor has to finish.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use foldhash::fast::RandomState;
use millrace_event::{Identity, JournalId};

use crate::metadata::{BadRow, MAX_BAD_ROWS, Metadata, MetadataError, Plan};
use crate::watermark::{Seen, Watermark};

mod assign;
mod settle;

pub use assign::{Assigned, Stop};
pub use settle::{Capacity, Leaving, Settlement};

/// A record of the transformed log, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Its offset.
    pub offset: u64,
    /// The event.
    pub identity: Identity,
    /// How often the event had gone round.
    pub attempt: u32,
    /// For a row that came back from the bulker: its table, as [`crate::metadata::table_hash`], and which of the
    /// event's rows it is.
    pub row: Option<(u64, u16)>,
}

/// A record's place in the transformed log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// What to do with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Carry it out.
    Take,
    /// Carry it out; numbers before it have not been seen. They may still come, and will be taken then.
    TakeAhead {
        /// The journal.
        journal: JournalId,
        /// The numbers that were skipped.
        missing: Range<u64>,
    },
    /// It was carried out before.
    Duplicate,
    /// Its identity belongs to another partition; it cannot have come here by any way of ours.
    Foreign,
    /// Its journal must be looked up and [learned](Ledger::learn) first; nothing was decided.
    Unknown(JournalId),
}

/// What to do with one row of a record that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Insert it.
    Insert,
    /// It may be there, as it came back from a table that could not be written, or as nobody knows how far an earlier
    /// owner came: ask first, insert if it is not.
    AskFirst,
    /// The plan names it: it goes to the dead letters and into no table, whatever the table would say now.
    Dead,
    /// Its table is given up in this plan: a copy goes round, and nothing is asked or inserted.
    HandOver,
    /// An earlier record of the chunk brought the same row.
    Repeated,
}

/// What an assignment starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was begun.
    Clean,
    /// A predecessor may have written part of this plan: finish exactly this before anything else.
    Finish(Plan),
}

/// What is decided once: an event, how often it had gone round, and for a row that came back its table and sub.
type Attempt = (Identity, u32, Option<(u64, u16)>);

/// The state machine of one assignment of one partition.
///
/// The order of calls: [`Self::restore`]; then for every chunk [`Self::plan`], commit its text; look up what
/// [`Self::unknown`] names and [`Self::learn`] it; [`Self::decide`] for each record in order and [`Self::row`] for
/// each row of those that are taken; write; [`Self::settlement`], write what leaves; [`Self::settled`], commit
/// its text.
#[derive(Clone, Debug)]
pub struct Ledger {
    partition: u32,
    capacity: Capacity,
    /// Everything below is settled.
    settled: u64,
    /// As of `settled`: what the last commit said.
    metadata: Metadata,
    /// As of `settled`: journals that are not in the metadata and were looked up for the current plan.
    learned: BTreeMap<JournalId, Watermark>,
    /// The watermarks with the plan's records taken, as far as they were decided.
    decided: BTreeMap<JournalId, Watermark>,
    /// Attempts after the first that the plan's records decided: each at most once.
    attempts: HashSet<Attempt>,
    /// Rows that the plan's records brought: each at most once.
    rows: HashSet<(Identity, u16), RandomState>,
    /// The commit in which a journal was last heard of, for those in the metadata: who leaves it is who was
    /// silent longest. A new assignment knows of nobody.
    heard: BTreeMap<JournalId, u64>,
}

/// What to hand to the group: an offset and its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Everything below is settled.
    pub offset: u64,
    /// The encoded [`Metadata`].
    pub metadata: String,
}

impl Ledger {
    /// The state that a commit left behind; `metadata` is empty where nothing was ever committed.
    ///
    /// # Errors
    /// The metadata is not ours, or of another version: such a partition must stop.
    pub fn restore(
        partition: u32,
        offset: u64,
        metadata: Option<&str>,
    ) -> Result<(Self, Recovery), MetadataError> {
        let metadata = metadata.map_or_else(|| Ok(Metadata::default()), Metadata::decode)?;
        let recovery = metadata.plan.clone().map_or(Recovery::Clean, Recovery::Finish);
        if let Recovery::Finish(plan) = &recovery
            && plan.first != offset
        {
            return Err(MetadataError::Malformed(
                "its plan does not start at the committed offset",
            ));
        }
        let decided = metadata.watermarks.clone();
        let ledger = Self {
            partition,
            capacity: Capacity::default(),
            settled: offset,
            metadata,
            learned: BTreeMap::new(),
            decided,
            attempts: HashSet::new(),
            rows: HashSet::default(),
            heard: BTreeMap::new(),
        };
        Ok((ledger, recovery))
    }

    /// The same ledger with another capacity.
    #[must_use]
    pub const fn with_capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// Everything below this offset is settled.
    pub const fn settled_offset(&self) -> u64 {
        self.settled
    }

    /// Below which offset rows are asked for before they are inserted, if anywhere from here on.
    pub fn asks_until(&self) -> Option<u64> {
        Some(self.metadata.ask_until).filter(|until| *until > self.settled)
    }

    /// How many numbers have not come of the journals in the metadata, though later ones have.
    pub fn missing_numbers(&self) -> u64 {
        let holes = self.metadata.watermarks.values().flat_map(|mark| mark.holes());
        holes.fold(0, |sum, hole| sum.saturating_add(hole.end - hole.start))
    }

    /// The plan that is being carried out.
    pub const fn current_plan(&self) -> Option<&Plan> {
        self.metadata.plan.as_ref()
    }

    /// Plans the records from the settled offset up to `last`, or plans them anew: decisions made for an
    /// earlier plan of the same records are forgotten, and so is what it named. Commit the result before
    /// anything is written.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`].
    pub fn plan(&mut self, last: u64) -> Result<Commit, MetadataError> {
        self.metadata.plan = Some(Plan::new(self.settled, last.max(self.settled)));
        self.decide_again();
        self.commit()
    }

    /// Starts deciding the plan's records over again, as a successor does.
    pub fn decide_again(&mut self) {
        self.decided.clone_from(&self.metadata.watermarks);
        self.decided.extend(
            self.learned
                .iter()
                .map(|(journal, mark)| (*journal, mark.clone())),
        );
        self.attempts.clear();
        self.rows.clear();
    }

    /// The journals of these records that are neither in the metadata nor looked up yet. They are looked up at
    /// [`Self::settled_offset`].
    pub fn unknown(&self, arrivals: impl IntoIterator<Item: Borrow<Arrival>>) -> BTreeSet<JournalId> {
        arrivals
            .into_iter()
            .filter(|arrival| {
                let arrival = arrival.borrow();
                arrival.attempt == 0 && arrival.identity.partition == self.partition
            })
            .map(|arrival| arrival.borrow().identity.journal)
            .filter(|journal| !self.decided.contains_key(journal))
            .collect()
    }

    /// What was written about a journal when it left the metadata; nothing where it never did. Then it is new:
    /// everything below its first number is a hole.
    pub fn learn(&mut self, journal: JournalId, written: Option<Watermark>) {
        if self.decided.contains_key(&journal) {
            return;
        }
        let watermark = written.unwrap_or_default();
        self.learned.insert(journal, watermark.clone());
        self.decided.insert(journal, watermark);
    }

    /// Names rows that no table takes in the plan. Commit the result before any of them is handed to the dead
    /// letters; from then on they are never inserted, whatever the table would say.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`], also for more than [`MAX_BAD_ROWS`]; nothing is named then.
    pub fn name_bad_rows(&mut self, rows: impl IntoIterator<Item = BadRow>) -> Result<Commit, MetadataError> {
        self.amend(|plan| {
            for row in rows {
                if !plan.bad_rows.contains(&row) {
                    plan.bad_rows.push(row);
                }
            }
            match plan.bad_rows.len() {
                count if count > MAX_BAD_ROWS => Err(MetadataError::TooManyBadRows(count)),
                _ => Ok(()),
            }
        })
    }

    /// Names a table whose rows are handed over in the plan. Commit the result before any copy is written; from
    /// then on none of its rows in this plan is inserted, whether the table mends or not.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`]; nothing is named then.
    pub fn give_up(&mut self, table: u64) -> Result<Commit, MetadataError> {
        self.amend(|plan| {
            if !plan.given_up.contains(&table) {
                plan.given_up.push(table);
            }
            Ok(())
        })
    }

    fn amend(
        &mut self,
        change: impl FnOnce(&mut Plan) -> Result<(), MetadataError>,
    ) -> Result<Commit, MetadataError> {
        let before = self.metadata.plan.clone();
        let changed = self.metadata.plan.as_mut().map_or(Ok(()), change);
        let commit = changed.and_then(|()| self.commit());
        if commit.is_err() {
            self.metadata.plan = before;
        }
        commit
    }

    /// What to do with the next record of the plan. Records of attempt 0 move the watermark. For later attempts
    /// `decided_by` is the record that the store of outcomes names for it, if it names one.
    pub fn decide(&mut self, arrival: &Arrival, decided_by: Option<Place>) -> Decision {
        let Identity {
            journal,
            partition,
            seq,
        } = arrival.identity;
        if partition != self.partition {
            return Decision::Foreign;
        }
        if arrival.attempt > 0 {
            let here = Place {
                partition,
                offset: arrival.offset,
            };
            let elsewhere = decided_by.is_some_and(|place| place != here);
            let key = (arrival.identity, arrival.attempt, arrival.row);
            if elsewhere || !self.attempts.insert(key) {
                return Decision::Duplicate;
            }
            return Decision::Take;
        }
        let Some(watermark) = self.decided.get_mut(&journal) else {
            return Decision::Unknown(journal);
        };
        self.heard.insert(journal, self.metadata.commit_no);
        match watermark.take(seq) {
            Seen::Next | Seen::InHole => Decision::Take,
            Seen::Ahead { missing } => Decision::TakeAhead { journal, missing },
            Seen::Before => Decision::Duplicate,
        }
    }

    /// What to do with a row of a record that is carried out.
    ///
    /// After a rewind a plan may hold an event and copies of its rows that went round. A row that is handed over is left
    /// to the later of them: a copy of the first would carry an attempt that the later record has decided already, and
    /// would be taken as its duplicate.
    pub fn row(&mut self, arrival: &Arrival, table: u64, sub: u16) -> Fate {
        let row = (arrival.identity, sub);
        let name = BadRow {
            journal: arrival.identity.journal,
            seq: arrival.identity.seq,
            sub,
        };
        let plan = self.metadata.plan.as_ref();
        let named = plan.is_some_and(|plan| plan.bad_rows.contains(&name));
        let handed_over = !named && plan.is_some_and(|plan| plan.given_up.contains(&table));
        let repeated = match handed_over {
            true => self.rows.contains(&row),
            false => !self.rows.insert(row),
        };
        if repeated {
            return Fate::Repeated;
        }
        if named {
            return Fate::Dead;
        }
        if handed_over {
            return Fate::HandOver;
        }
        match arrival.row {
            None if arrival.offset >= self.metadata.ask_until => Fate::Insert,
            _ => Fate::AskFirst,
        }
    }

    fn commit(&mut self) -> Result<Commit, MetadataError> {
        self.metadata.commit_no += 1;
        Ok(Commit {
            offset: self.settled,
            metadata: self.metadata.encode()?,
        })
    }
}

#[cfg(test)]
mod tests;
