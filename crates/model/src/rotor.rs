//! The rotor: one record out for each record in, committed when all of a batch is acknowledged; functions that
//! answer differently each time.

use crate::control::Control;
use crate::executor::turn;
use crate::world::{DeadLetter, Incoming, State, TABLES, Transformed, Verdict, World};

/// The attempt that goes round no more.
const LAST_ATTEMPT: u32 = 3;

enum Source {
    Ingest { end: usize },
    Retry(Vec<usize>),
}

/// Sessions, one after the other; each goes on at what is committed.
pub(crate) async fn run(world: World) {
    loop {
        turn().await;
        let batch = world.get().next_batch();
        let Some((source, records)) = batch else { continue };
        if produce(&world, records).await {
            turn().await;
            let mut state = world.get();
            match source {
                Source::Ingest { end } => state.rotor_offset = end,
                Source::Retry(read) => state.rotor_retried.extend(read),
            }
        }
    }
}

/// Produces a batch in order; false where a delivery failed and the session ends: nothing after it is in the log.
async fn produce(world: &World, records: Vec<Incoming>) -> bool {
    for from in records {
        turn().await;
        let record = {
            let mut state = world.get();
            if state.fault(20) {
                return false;
            }
            let record = state.decide(from);
            state.transformed.push(record.clone());
            record
        };
        if world.control(Control::CopiesByRotor) {
            turn().await;
            copy(&mut world.get(), &record);
        }
        if world.get().fault(20) {
            // It is in the log, and the answer is not known: the next session produces it again.
            return false;
        }
    }
    true
}

/// What the bulker does for retries and dead letters; the rotor itself under one control.
pub(crate) fn copy(state: &mut State, record: &Transformed) {
    let from = record.from;
    match record.verdict {
        Verdict::Forward | Verdict::Drop => {}
        Verdict::Retry => state.retry.push(Incoming {
            attempt: from.attempt + 1,
            ..from
        }),
        Verdict::DeadLetter => state.dead.push(DeadLetter {
            identity: from.identity,
            message: from.message,
            attempt: from.attempt,
            row: from.row,
        }),
    }
}

impl State {
    fn next_batch(&mut self) -> Option<(Source, Vec<Incoming>)> {
        let count = 1 + self.random.index(4);
        let unread: Vec<usize> = (0..self.retry.len())
            .filter(|index| !self.rotor_retried.contains(index))
            .collect();
        if !unread.is_empty() && self.random.chance(500) {
            let mut read = Vec::new();
            for _ in 0..count {
                let index = unread[self.random.index(unread.len())];
                if !read.contains(&index) {
                    read.push(index);
                }
            }
            let records = read.iter().map(|index| self.retry[*index]).collect();
            return Some((Source::Retry(read), records));
        }
        let end = self.ingest.len().min(self.rotor_offset + count);
        let records = self.ingest.get(self.rotor_offset..end)?.to_vec();
        (!records.is_empty()).then_some((Source::Ingest { end }, records))
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
