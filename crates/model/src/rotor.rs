//! The rotor: sessions that read the ingest topic and the retry topics of every partition, write one record for each one
//! read, and commit as [`Passage`] says; functions that answer differently each time.

use millrace_ledger::Passage;
use millrace_ledger::passage::{Answer, Delivery, Step};

use crate::control::Control;
use crate::executor::turn;
use crate::record::{Incoming, LOGS, LOGS_EACH, TABLES, Transformed, Verdict};
use crate::world::{State, World};

/// The attempt that goes round no more.
const LAST_ATTEMPT: u32 = 3;

/// Sessions, one after the other; each goes on at what is committed.
pub(crate) async fn run(world: World) {
    loop {
        turn().await;
        session(&world).await;
    }
}

/// One membership: every log from what is committed, until something ends it.
async fn session(world: &World) {
    let mut passages = world.get().rotor_committed.map(Passage::new);
    let mut positions = world.get().rotor_committed;
    loop {
        turn().await;
        let Some((log, records)) = world.get().next_batch(&positions) else {
            continue;
        };
        let (passage, position) = (&mut passages[log], &mut positions[log]);
        let end = *position + u64::try_from(records.len()).unwrap_or(0);
        if passage.read(*position, end - 1) != Step::Write {
            return;
        }
        if world.control(Control::RotorCommitsFirst) {
            world.get().rotor_committed[log] = end;
        }
        let delivery = match produce(world, log / LOGS_EACH, records).await {
            true => Delivery::All,
            false => Delivery::Failed,
        };
        let Step::Commit(offset) = passage.delivered(delivery) else {
            return;
        };
        turn().await;
        let answer = commit(&mut world.get(), log, offset);
        match passage.committed(answer) {
            Step::Read => *position = end,
            Step::Leave => {
                // It comes back, some time.
                turn().await;
                *position = world.get().rotor_committed[log];
                *passage = Passage::new(*position);
            }
            _ => return,
        }
    }
}

/// What the group makes of a commit. That of a former owner that lives may still be taken, also backwards.
fn commit(state: &mut State, log: usize, offset: u64) -> Answer {
    if state.fault(20) {
        return Answer::NotOwned;
    }
    let lost = state.fault(20);
    if !lost {
        state.rotor_committed[log] = offset;
    }
    match lost || state.fault(20) {
        true => Answer::Unknown,
        false => Answer::Confirmed,
    }
}

/// Produces a batch in order; false where a delivery failed: of what comes after it nothing is in the log, or all of it
/// is, and the log has a gap.
async fn produce(world: &World, partition: usize, records: Vec<Incoming>) -> bool {
    let mut all = true;
    for from in records {
        turn().await;
        let record = {
            let mut state = world.get();
            if state.fault(20) {
                if state.random.chance(500) {
                    return false;
                }
                all = false;
                continue;
            }
            let record = state.decide(from);
            state.transformed[partition].push(record.clone());
            record
        };
        if world.control(Control::CopiesByRotor) {
            turn().await;
            world.get().copy(&record);
        }
        if world.get().fault(20) {
            // It is in the log, and the answer is not known: the next session produces it again.
            return false;
        }
    }
    all
}

impl State {
    /// Up to four records of one of the logs, and which.
    fn next_batch(&mut self, positions: &[u64; LOGS]) -> Option<(usize, Vec<Incoming>)> {
        let count = 1 + self.random.index(4);
        let log = self.random.index(LOGS);
        let from = usize::try_from(positions[log]).ok()?;
        let unread = self.logs[log].get(from..)?;
        let records: Vec<_> = unread.iter().take(count).copied().collect();
        (!records.is_empty()).then_some((log, records))
    }

    /// Functions and configuration change their mind from one run to the next.
    fn decide(&mut self, from: Incoming) -> Transformed {
        if let Some((table, _)) = from.row {
            return Transformed {
                from,
                verdict: Verdict::Forward,
                outputs: vec![table],
            };
        }
        let mut table = || u8::try_from(self.random.below(u64::from(TABLES))).unwrap_or(0);
        let tables = [table(), table()];
        let (verdict, outputs) = match self.random.below(20) {
            0..=1 => (Verdict::Drop, 0),
            2..=3 => (Verdict::DeadLetter, 0),
            4..=7 if from.attempt < LAST_ATTEMPT => (Verdict::Retry, 0),
            8..=13 => (Verdict::Forward, 2),
            _ => (Verdict::Forward, 1),
        };
        let outputs = tables.into_iter().take(outputs).collect();
        Transformed {
            from,
            verdict,
            outputs,
        }
    }
}
