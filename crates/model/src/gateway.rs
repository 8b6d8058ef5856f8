//! Pods that accept messages into journals, die between two steps, and ship what they have, at least once.

use std::collections::{BTreeMap, BTreeSet};

use millrace_event::{Identity, JournalId};

use crate::control::Control;
use crate::executor::turn;
use crate::world::{DeadLetter, Incoming, Message, PARTITION, World};

/// Added to a journal's id for the topic of dead letters.
const REFUSED: u64 = 1000;

/// A journal on a disk: it outlives its pod.
#[derive(Debug, Default)]
struct Journal {
    id: u64,
    records: Vec<Message>,
    /// Everything below was shipped and acknowledged.
    shipped: usize,
    /// Records that were passed over, to be shipped later.
    aside: BTreeSet<usize>,
    refused: u64,
}

#[derive(Debug, Default)]
struct Pod {
    /// Changes when it dies: whoever was connected notices.
    life: u64,
    down_until: u64,
    journals: Vec<Journal>,
}

/// Everything behind the door.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pods: Vec<Pod>,
    /// Which pod took a message, and whether it is marked done.
    taken: BTreeMap<Message, (usize, bool)>,
    journals: u64,
}

impl Gateway {
    pub(crate) fn new(pods: usize) -> Self {
        let mut gateway = Self::default();
        for _ in 0..pods {
            gateway.pods.push(Pod::default());
        }
        for pod in 0..pods {
            gateway.open_journal(pod);
        }
        gateway
    }

    fn open_journal(&mut self, pod: usize) {
        self.journals += 1;
        let journal = Journal {
            id: self.journals,
            ..Journal::default()
        };
        self.pods[pod].journals.push(journal);
    }

    pub(crate) fn is_empty(&self) -> bool {
        let shipped =
            |journal: &Journal| journal.shipped == journal.records.len() && journal.aside.is_empty();
        self.pods.iter().flat_map(|pod| &pod.journals).all(shipped)
    }

    fn up(&self, pod: usize, now: u64) -> bool {
        self.pods[pod].down_until <= now
    }

    /// What a pod does before it opens its door: reservations become done where its journals have the message, and
    /// are taken back where they have not.
    fn settle(&mut self, pod: usize) {
        let has = |message: &Message| {
            let mut journals = self.pods[pod].journals.iter();
            journals.any(|journal| journal.records.contains(message))
        };
        let held: BTreeSet<Message> = self
            .taken
            .keys()
            .filter(|message| has(message))
            .copied()
            .collect();
        self.taken.retain(|message, (by, done)| {
            if *by == pod && !*done {
                *done = held.contains(message);
                return *done;
            }
            true
        });
    }
}

/// A pod dies, now and then for long or with its journal in doubt.
pub(crate) fn kill_a_pod(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    let pod = state.random.index(state.gateway.pods.len());
    state.gateway.pods[pod].life += 1;
    state.gateway.pods[pod].down_until = state.now + state.random.below(150);
    if state.random.chance(500) {
        // After an unclean end a journal gets a new id; the old one is shipped still.
        state.gateway.open_journal(pod);
    }
    state.gateway.settle(pod);
}

/// A client sends messages, each again until it has an answer.
pub(crate) async fn client(world: World, messages: Message) {
    for message in 0..messages {
        while !send(&world, message).await {
            turn().await;
        }
        let rest = world.get().random.below(30);
        for _ in 0..rest {
            turn().await;
        }
    }
}

/// True once it was answered.
async fn send(world: &World, message: Message) -> bool {
    let reserves = !world.control(Control::Reserve);
    let (pod, life) = {
        let mut state = world.get();
        let pod = {
            let pods = state.gateway.pods.len();
            state.random.index(pods)
        };
        if !state.gateway.up(pod, state.now) {
            return false;
        }
        let refused = message % 7 == 6;
        if refused {
            refuse(&mut state, pod, message);
            return true;
        }
        match state.gateway.taken.get(&message) {
            Some((_, true)) => {
                state.answered.insert(message);
                return true;
            }
            Some((_, false)) => return false,
            None => {}
        }
        if reserves {
            state.gateway.taken.insert(message, (pod, false));
        }
        (pod, state.gateway.pods[pod].life)
    };
    turn().await;
    {
        let mut state = world.get();
        if state.gateway.pods[pod].life != life {
            return false;
        }
        if let Some(journal) = state.gateway.pods[pod].journals.last_mut() {
            journal.records.push(message);
        }
    }
    turn().await;
    let mut state = world.get();
    if state.gateway.pods[pod].life != life {
        return false;
    }
    state.gateway.taken.insert(message, (pod, true));
    state.answered.insert(message);
    // The answer can be lost; the client then asks again and is told the same.
    !state.fault(50)
}

fn refuse(state: &mut crate::world::State, pod: usize, message: Message) {
    if !state.refused.insert(message) {
        return;
    }
    let one = state.control == Control::OneJournal;
    let Some(journal) = state.gateway.pods[pod].journals.last_mut() else {
        return;
    };
    let identity = Identity {
        journal: JournalId(if one { journal.id } else { journal.id + REFUSED }),
        partition: PARTITION,
        seq: journal.refused,
    };
    journal.refused += 1;
    state.dead.push(DeadLetter {
        identity,
        message,
        attempt: 0,
        row: None,
    });
}

/// One produce of one journal: in order, acknowledged or not, now and then with a record passed over.
pub(crate) fn ship(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    let pod = state.random.index(state.gateway.pods.len());
    let index = state.random.index(state.gateway.pods[pod].journals.len());
    let passes_over = state.fault(60);
    let unanswered = state.fault(150);
    let count = 1 + state.random.index(3);
    if state.random.chance(700) || !state.gateway.up(pod, state.now) {
        return;
    }
    let fetch = state.random.chance(200) || !state.chaos;
    let journal = &mut state.gateway.pods[pod].journals[index];
    let record = |seq: usize, message: Message| Incoming {
        identity: Identity {
            journal: JournalId(journal.id),
            partition: PARTITION,
            seq: u64::try_from(seq).unwrap_or(u64::MAX),
        },
        message,
        attempt: 0,
        row: None,
    };
    if fetch && let Some(seq) = journal.aside.first().copied() {
        state.ingest.push(record(seq, journal.records[seq]));
        journal.aside.remove(&seq);
        return;
    }
    let end = journal.records.len().min(journal.shipped + count);
    let mut range = journal.shipped..end;
    if range.is_empty() {
        return;
    }
    let passed_over = passes_over.then(|| range.next()).flatten();
    for seq in range {
        state.ingest.push(record(seq, journal.records[seq]));
    }
    if unanswered && passed_over.is_none() {
        return;
    }
    journal.aside.extend(passed_over);
    journal.shipped = end;
}
