//! The bulker's shell without its clients: the same calls of the ledger in the same order.

mod commit;
mod shell;
mod sort;
mod write;

use std::collections::BTreeSet;

use millrace_ledger::ledger::Commit;
use millrace_ledger::{Capacity, Ledger, Metadata, MetadataError, Plan, Recovery};

use self::shell::{End, Shell};
use self::sort::{Record, without_holes};
use self::write::Written;
use crate::control::Control;
use crate::executor::turn;
use crate::world::{KEEP_ALIVE, World};

/// How long a recovered plan waits for late inserts: longer than the server keeps an idle connection.
const LATEST_ARRIVAL: u64 = KEEP_ALIVE + 5;
/// Little room, so that journals leave the metadata.
const CAPACITY: Capacity = Capacity {
    journals: 2,
    holes: 1,
    bytes: 2300,
};

/// Works on a partition as `member`, the owner of `epoch`, until it is somebody else's.
pub(crate) async fn run(world: World, partition: u32, member: usize, epoch: u64) {
    turn().await;
    let restored = {
        let mut state = world.get();
        let (forgets, end) = (state.control == Control::Holes, state.end(partition));
        let assignment = state.group.of_mut(partition);
        if assignment.epoch != epoch {
            return;
        }
        if forgets && let Some((_, metadata)) = &mut assignment.committed {
            *metadata = without_holes(metadata);
        }
        let committed = assignment.committed.as_ref();
        let committed = committed.map(|(offset, metadata)| (*offset, metadata.as_str()));
        Ledger::assign(partition, committed, 0..end)
    };
    let Ok(assigned) = restored else { return };
    let mut shell = Shell {
        world,
        partition,
        member,
        epoch,
        ledger: assigned.ledger.with_capacity(CAPACITY),
        unnamed_rows: BTreeSet::new(),
        unnamed_tables: BTreeSet::new(),
    };
    let Err(end) = shell.work(assigned.recovery).await;
    if end == End::Session {
        shell.world.get().group.left.insert(member);
    }
}

/// Whether a commit leaves a plan to be finished.
pub(crate) fn plans(metadata: &str) -> bool {
    Metadata::decode(metadata).is_ok_and(|metadata| metadata.plan.is_some())
}

impl Shell {
    async fn work(&mut self, recovery: Recovery) -> Result<std::convert::Infallible, End> {
        if let Recovery::Finish(plan) = recovery {
            self.finish(&plan).await?;
        }
        loop {
            self.pause().await?;
            let Some(last) = self.next_chunk() else { continue };
            let mut commit = self.ledger.plan(last).map_err(|_| End::Session)?;
            loop {
                if !self.control(Control::Plan) {
                    self.commit(&commit).await?;
                }
                self.write(false).await?;
                // The plan of a chunk that is ready shares the commit.
                let next = self.next_chunk_after_plan();
                commit = self.settle(next).await?;
                if next.is_none() || self.control(Control::Plan) {
                    self.commit(&commit).await?;
                }
                if next.is_none() {
                    break;
                }
            }
        }
    }

    /// The last offset of the next chunk, of some size.
    fn next_chunk(&self) -> Option<u64> {
        self.chunk_from(self.ledger.settled_offset())
    }

    fn next_chunk_after_plan(&self) -> Option<u64> {
        let shares = self.world.get().random.chance(500);
        let next = self.ledger.current_plan().map(|plan| plan.last + 1)?;
        shares.then(|| self.chunk_from(next)).flatten()
    }

    fn chunk_from(&self, from: u64) -> Option<u64> {
        let mut state = self.world.get();
        let end = state.end(self.partition);
        let count = 1 + state.random.below(6);
        (from < end).then(|| end.min(from + count) - 1)
    }

    async fn finish(&mut self, plan: &Plan) -> Result<(), End> {
        self.world.get().stats.recoveries += 1;
        debug_assert!(
            plan.first == self.ledger.settled_offset(),
            "checked when it was restored"
        );
        if !self.control(Control::Wait) && !self.control(Control::Token) {
            let assigned = self.check()?;
            while self.check()? < assigned + LATEST_ARRIVAL {
                self.pause().await?;
            }
        }
        self.kill().await?;
        self.write(true).await?;
        let commit = self.settle(None).await?;
        self.commit(&commit).await
    }

    fn records(&self) -> Vec<Record> {
        let state = self.world.get();
        let plan = self.ledger.current_plan();
        let offsets = plan.map_or(0..0, |plan| plan.first..plan.last + 1);
        let at = |offset: u64| {
            let index = usize::try_from(offset).ok()?;
            Some((offset, state.decided(self.partition).get(index)?.clone()))
        };
        offsets.filter_map(at).collect()
    }

    /// Writes the plan's records; where rows must be named or a table given up, commits that and writes again.
    async fn write(&mut self, mut uncertain: bool) -> Result<(), End> {
        self.unnamed_rows.clear();
        self.unnamed_tables.clear();
        if self.control(Control::CommitFirst) {
            return self.commit_and_write().await;
        }
        loop {
            let (commit, unnamed) = match self.write_once(&self.records(), uncertain).await? {
                Written::All => return Ok(()),
                // More than a plan can name: as nothing of it was sent, it may become shorter.
                Written::Refused(_, false) if self.cuts() => (self.cut(), false),
                Written::Refused(rows, now) => {
                    uncertain = now;
                    self.world.get().stats.bad_rows += 1;
                    let unnamed = self.control(Control::BadRows);
                    if unnamed {
                        self.unnamed_rows.extend(rows.iter().copied());
                    }
                    (self.ledger.name_bad_rows(rows), unnamed)
                }
                Written::Failing(table) => {
                    uncertain = true;
                    self.world.get().stats.given_up += 1;
                    self.kill().await?;
                    let unnamed = self.control(Control::GivenUp);
                    if unnamed {
                        self.unnamed_tables.insert(table);
                    }
                    (self.ledger.give_up(sort::hash(table)), unnamed)
                }
            };
            let commit = commit.map_err(|_| End::Session)?;
            if !unnamed {
                self.commit(&commit).await?;
            }
        }
    }

    /// Whether a plan of several records is cut now.
    fn cuts(&self) -> bool {
        let several = self
            .ledger
            .current_plan()
            .is_some_and(|plan| plan.last > plan.first);
        several && self.world.get().random.chance(300)
    }

    fn cut(&mut self) -> Result<Commit, MetadataError> {
        let plan = self.ledger.current_plan();
        let (first, last) = plan.map_or((0, 0), |plan| (plan.first, plan.last));
        let kept = {
            let mut state = self.world.get();
            state.stats.cuts += 1;
            state.random.below(last - first)
        };
        self.ledger.plan(first + kept)
    }

    /// The order that must not be.
    async fn commit_and_write(&mut self) -> Result<(), End> {
        let records = self.records();
        let before = self.ledger.clone();
        self.learn(&records).await?;
        let sorted = self.sort(&records, &self.deciders(&records).await?);
        drop(sorted);
        let settlement = self.ledger.settlement();
        let commit = self.ledger.settled(settlement, None).map_err(|_| End::Session)?;
        self.commit(&commit).await?;
        let after = std::mem::replace(&mut self.ledger, before);
        let written = self.write_once(&records, false).await;
        self.ledger = after;
        written.map(|_| ())
    }

    async fn settle(&mut self, next: Option<u64>) -> Result<Commit, End> {
        let settlement = self.ledger.settlement();
        if !self.control(Control::Journals) {
            self.write_journals(settlement.leaving()).await?;
        }
        self.ledger.settled(settlement, next).map_err(|_| End::Session)
    }
}
