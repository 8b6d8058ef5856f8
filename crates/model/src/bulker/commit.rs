//! Commits: by whom they are taken, and what is done where the answer is not known.

use millrace_ledger::ledger::Commit;

use super::shell::{End, Shell};
use crate::control::Control;
use crate::executor::turn;

const ATTEMPTS: usize = 5;
/// How long a commit may wait for its turn on the consumer's thread.
const LONGEST_WAIT: u64 = 100;

impl Shell {
    /// Commits, and where the answer is not known asks what the group holds.
    pub(super) async fn commit(&self, commit: &Commit) -> Result<(), End> {
        for _ in 0..ATTEMPTS {
            for _ in 0..self.waits() {
                turn().await;
            }
            if self.try_commit(commit)? {
                return Ok(());
            }
            turn().await;
            let mut state = self.world.get();
            if state.fault(100) {
                continue;
            }
            let held = state.group.of(self.partition).committed.as_ref();
            if held.is_some_and(|(offset, text)| (*offset, text) == (commit.offset, &commit.metadata)) {
                return Ok(());
            }
        }
        Err(End::Session)
    }

    fn waits(&self) -> u64 {
        let mut state = self.world.get();
        match state.fault(60) {
            true => state.random.below(LONGEST_WAIT),
            false => 1,
        }
    }

    /// True where it was confirmed, false where nothing is known. Check and send are one step: no poll lies between.
    fn try_commit(&self, commit: &Commit) -> Result<bool, End> {
        let owner = self.owns() || self.control(Control::Epoch);
        let mut state = self.world.get();
        // The broker refuses members that it has put out. A live former owner it takes at its word.
        if !owner || state.group.fenced.contains(&self.epoch) {
            return Err(End::Revoked);
        }
        let (arrives, answers) = (!state.fault(30), !state.fault(60));
        if arrives {
            state.group.of_mut(self.partition).committed = Some((commit.offset, commit.metadata.clone()));
        }
        Ok(arrives && answers)
    }
}
