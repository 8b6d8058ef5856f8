//! Random histories of two processes against a naive model: a map of what is known.

use std::collections::{BTreeMap, HashMap};

use millrace_event::JournalId;
use millrace_store::Dedup;
use millrace_store::dedup::{Reservation, Window};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::dedup::{A, B, Memory, workspace};

const JOURNALS: [JournalId; 2] = [A, B];

#[derive(Clone, Debug)]
enum Step {
    /// A request with these ids.
    Reserve { process: usize, ids: Vec<u8> },
    /// The oldest reservation of the process is journaled and marked, journaled only, or given up.
    Finish { process: usize, end: End },
    /// It is killed and starts again on the same journal.
    Restart { process: usize },
    /// It settles what its earlier runs left.
    Settle { process: usize },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    JournaledOnly,
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Done,
    Pending { process: usize, run: u32 },
}

#[derive(Default)]
struct Process {
    run: u32,
    /// Reserved by this run and not finished, oldest first.
    open: Vec<u8>,
    journal: Vec<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..2_usize;
    let end = prop_oneof![3 => Just(End::Done), 2 => Just(End::JournaledOnly), 1 => Just(End::Released)];
    prop_oneof![
        4 => (process.clone(), prop::collection::vec(0..8_u8, 0..5)).prop_map(|(process, ids)| Step::Reserve { process, ids }),
        6 => (process.clone(), end).prop_map(|(process, end)| Step::Finish { process, end }),
        1 => process.clone().prop_map(|process| Step::Restart { process }),
        1 => process.prop_map(|process| Step::Settle { process }),
    ]
}

fn text(id: u8) -> String {
    format!("message {id}")
}

async fn follow(steps: Vec<Step>) -> TestCaseResult {
    let memory = Memory::new().await;
    let ws = workspace();
    let mut runs: Vec<Dedup> = JOURNALS.iter().map(|journal| memory.run(*journal)).collect();
    let mut processes = [Process::default(), Process::default()];
    let mut known: HashMap<u8, Known> = HashMap::new();
    for step in steps {
        match step {
            Step::Reserve { process, ids } => {
                let run = processes[process].run;
                let mut expected = Vec::new();
                for (place, id) in ids.iter().enumerate() {
                    expected.push(match known.get(id) {
                        _ if ids[..place].contains(id) => Reservation::Repeated,
                        None => {
                            known.insert(*id, Known::Pending { process, run });
                            processes[process].open.push(*id);
                            Reservation::Reserved
                        }
                        Some(Known::Done) => Reservation::Done,
                        Some(Known::Pending { process: owner, .. }) if *owner == process => {
                            Reservation::PendingOwn
                        }
                        Some(Known::Pending { process: owner, .. }) => {
                            Reservation::PendingOther(JOURNALS[*owner])
                        }
                    });
                }
                let ids: Vec<String> = ids.into_iter().map(text).collect();
                prop_assert_eq!(
                    runs[process].reserve(&ws, &ids).await.expect("an answer"),
                    expected
                );
            }
            Step::Finish { process, end } => {
                if processes[process].open.is_empty() {
                    continue;
                }
                let id = processes[process].open.remove(0);
                match end {
                    End::Done => {
                        processes[process].journal.push(id);
                        known.insert(id, Known::Done);
                        runs[process]
                            .done(&ws, Window::Live, &[text(id)])
                            .await
                            .expect("done");
                    }
                    End::JournaledOnly => processes[process].journal.push(id),
                    End::Released => {
                        known.remove(&id);
                        runs[process].release(&ws, &[text(id)]).await.expect("released");
                    }
                }
            }
            Step::Restart { process } => {
                processes[process].run += 1;
                processes[process].open.clear();
                runs[process] = memory.run(JOURNALS[process]);
            }
            Step::Settle { process } => {
                let mut settlement = runs[process].settlement().await.expect("a settlement");
                for id in &processes[process].journal {
                    settlement
                        .held(&ws, Window::Live, &text(*id))
                        .await
                        .expect("held");
                }
                settlement.finish().await.expect("settled");
                let now = processes[process].run;
                let Process { journal, .. } = &processes[process];
                known.retain(|id, state| match state {
                    Known::Pending { process: owner, run } if *owner == process && *run < now => {
                        *state = Known::Done;
                        journal.contains(id)
                    }
                    _ => true,
                });
            }
        }
    }
    let mut journaled: BTreeMap<u8, usize> = BTreeMap::new();
    for id in processes.iter().flat_map(|process| &process.journal) {
        *journaled.entry(*id).or_default() += 1;
    }
    prop_assert!(
        journaled.values().all(|times| *times == 1),
        "accepted twice: {:?}",
        journaled
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_processes_that_die_at_any_time_accept_each_id_once(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(follow(steps))?;
    }
}
