//! Pods that accept messages into journals, die between two steps, and ship what they have, at least once.

use millrace_event::{Identity, JournalId};

use crate::control::Control;
use crate::executor::turn;
use crate::pods::Known;
use crate::record::{DeadLetter, Incoming, Message, PARTITIONS, first_log, index_of, partition_of};
use crate::world::{State, World};

/// Added to a journal's id for the topic of dead letters.
const REFUSED: u64 = 1000;

/// A pod dies, now and then for long or with its journal in doubt.
pub(crate) fn kill_a_pod(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    let pod = state.random.index(state.gateway.pods.len());
    state.gateway.pods[pod].life += 1;
    state.gateway.pods[pod].down_until = Some(state.now + state.random.below(200));
    if state.random.chance(500) {
        // After an unclean end a journal gets a new id; the old one is shipped still.
        state.gateway.open_journal(pod);
    }
}

/// A client sends messages, each again until it has an answer, and some once more when it has had one.
pub(crate) async fn client(world: World, messages: Message) {
    for message in 0..messages {
        insist(&world, message).await;
        let (again, rest) = {
            let mut state = world.get();
            let earlier = u32::try_from(state.random.below(u64::from(message) + 1)).unwrap_or(0);
            let again = state.random.chance(300).then_some(earlier);
            (again, state.random.below(30))
        };
        for _ in 0..rest {
            turn().await;
        }
        if let Some(earlier) = again {
            insist(&world, earlier).await;
        }
    }
}

async fn insist(world: &World, message: Message) {
    while !send(world, message).await {
        turn().await;
    }
}

/// True once it was answered.
async fn send(world: &World, message: Message) -> bool {
    let reserves = !world.control(Control::Reserve);
    let (pod, life) = {
        let mut state = world.get();
        let state = &mut *state;
        let pod = state.random.index(state.gateway.pods.len());
        if !state.gateway.is_open(pod) {
            return false;
        }
        let refused = message % 7 == 6;
        if refused {
            refuse(state, pod, message);
            return true;
        }
        match state.gateway.ask(message, pod, state.now, reserves) {
            Known::Done => {
                state.stats.repeats += 1;
                state.answered.insert(message);
                return true;
            }
            Known::Reserved => return false,
            Known::Nothing => {}
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
            journal.of(message).records.push(message);
        }
    }
    turn().await;
    let mut state = world.get();
    let state = &mut *state;
    if state.gateway.pods[pod].life != life {
        return false;
    }
    state.gateway.mark(message, pod, state.now, true);
    state.answered.insert(message);
    // The answer can be lost; the client then asks again and is told the same.
    !state.fault(50)
}

fn refuse(state: &mut State, pod: usize, message: Message) {
    if state.refused.contains_key(&message) {
        return;
    }
    let one = state.control == Control::OneJournal;
    let Some(journal) = state.gateway.pods[pod].journals.last_mut() else {
        return;
    };
    let id = if one { journal.id } else { journal.id + REFUSED };
    let numbered = journal.of(message);
    let identity = Identity {
        journal: JournalId(id),
        partition: partition_of(message),
        seq: numbered.refused,
    };
    numbered.refused += 1;
    state.refused.insert(message, identity);
    state.dead.push(DeadLetter {
        identity,
        message,
        attempt: 0,
        row: None,
    });
}

/// One produce of one partition of one journal: in order, acknowledged or not, now and then with a record passed over.
pub(crate) fn ship(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    state.gateway.open_doors(state.now);
    let pod = state.random.index(state.gateway.pods.len());
    let index = state.random.index(state.gateway.pods[pod].journals.len());
    let partition = u32::try_from(state.random.index(PARTITIONS)).unwrap_or(0);
    let passes_over = state.fault(60);
    let unanswered = state.fault(150);
    let count = 1 + state.random.index(3);
    if state.random.chance(400) || !state.gateway.is_open(pod) {
        return;
    }
    let fetch = state.random.chance(200) || !state.chaos;
    let journal = &mut state.gateway.pods[pod].journals[index];
    let id = JournalId(journal.id);
    let numbered = &mut journal.partitions[index_of(partition)];
    let topic = &mut state.logs[first_log(partition)];
    let record = |seq: usize, message: Message| Incoming {
        identity: Identity {
            journal: id,
            partition,
            seq: u64::try_from(seq).unwrap_or(u64::MAX),
        },
        message,
        attempt: 0,
        row: None,
    };
    if fetch && let Some(seq) = numbered.aside.first().copied() {
        topic.push(record(seq, numbered.records[seq]));
        numbered.aside.remove(&seq);
        return;
    }
    let end = numbered.records.len().min(numbered.shipped + count);
    let mut range = numbered.shipped..end;
    if range.is_empty() {
        return;
    }
    let passed_over = passes_over.then(|| range.next()).flatten();
    for seq in range {
        topic.push(record(seq, numbered.records[seq]));
    }
    if unanswered && passed_over.is_none() {
        return;
    }
    numbered.aside.extend(passed_over);
    numbered.shipped = end;
}
