//! What is outside of every process: the logs, the group, the tables, the time.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use millrace_event::Identity;

use crate::control::Control;
use crate::pods::Gateway;
use crate::random::Random;
use crate::record::{
    DeadLetter, Event, Incoming, LOGS, LOGS_EACH, Message, PARTITIONS, TIERS, Transformed, Verdict,
    first_log, index_of,
};
use crate::server::Server;
use crate::stats::Stats;

/// Steps after which a silent member is out of the group.
pub(crate) const SESSION: u64 = 60;
/// Steps after which the server has closed an idle connection.
pub(crate) const KEEP_ALIVE: u64 = 40;

/// A partition in the bulkers' group.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    pub(crate) committed: Option<(u64, String)>,
    /// Of the present assignment; no other partition ever has the same.
    pub(crate) epoch: u64,
    pub(crate) owner: Option<usize>,
}

/// The bulkers' group, as broker and members see it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) partitions: [Assignment; PARTITIONS],
    epochs: u64,
    /// Epochs whose owner was put out of the group for its silence: the broker refuses them.
    pub(crate) fenced: BTreeSet<u64>,
    /// Members whose session ended by their own doing: everything they worked on ends with it.
    pub(crate) left: BTreeSet<usize>,
}

impl Group {
    pub(crate) fn of(&self, partition: u32) -> &Assignment {
        &self.partitions[index_of(partition)]
    }

    pub(crate) fn of_mut(&mut self, partition: u32) -> &mut Assignment {
        &mut self.partitions[index_of(partition)]
    }

    /// Gives a partition to a member; the epoch of it.
    pub(crate) fn assign(&mut self, partition: u32, member: usize) -> u64 {
        self.epochs += 1;
        let epoch = self.epochs;
        let assignment = self.of_mut(partition);
        assignment.epoch = epoch;
        assignment.owner = Some(member);
        epoch
    }

    /// Whether any partition is this member's.
    pub(crate) fn is_member(&self, member: usize) -> bool {
        self.partitions
            .iter()
            .any(|assignment| assignment.owner == Some(member))
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) control: Control,
    pub(crate) random: Random,
    pub(crate) now: u64,
    /// Faults happen.
    pub(crate) chaos: bool,
    /// Until when each process is stopped.
    pub(crate) stopped: BTreeMap<usize, u64>,
    /// When each process was last seen by the broker.
    pub(crate) polled: BTreeMap<usize, u64>,
    /// The ingest topic and the retry topics of each partition.
    pub(crate) logs: [Vec<Incoming>; LOGS],
    pub(crate) transformed: [Vec<Transformed>; PARTITIONS],
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) group: Group,
    /// What the rotor's group has committed in each of its logs.
    pub(crate) rotor_committed: [u64; LOGS],
    pub(crate) server: Server,
    /// Rows of blocks whose view somebody has to look after: an alarm was raised.
    pub(crate) alarmed: BTreeSet<(u8, crate::record::Row)>,
    /// Messages that were answered 200.
    pub(crate) answered: BTreeSet<Message>,
    /// Dead letters of rows that may be in their table too: because they were sent round again, because the plans that
    /// named them were lost with the group's offset, or because the table had them when they had waited for a day, which
    /// it could not say. Event, table, sub.
    pub(crate) both: BTreeSet<(Event, u8, u16)>,
    /// When a row was first handed over, under the control that judges by the clock how long it has waited.
    pub(crate) first_failed: BTreeMap<(Identity, u8, u16), u64>,
    pub(crate) gateway: Gateway,
    /// Events that were refused at the door, into the dead letters.
    pub(crate) refused: BTreeMap<Message, Identity>,
    pub(crate) stats: Stats,
}

/// A handle on the world.
#[derive(Clone, Debug)]
pub(crate) struct World(Rc<RefCell<State>>);

impl World {
    pub(crate) fn new(state: State) -> Self {
        Self(Rc::new(RefCell::new(state)))
    }

    /// Never held over a [`crate::executor::turn`].
    pub(crate) fn get(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub(crate) fn control(&self, control: Control) -> bool {
        self.get().control == control
    }
}

impl State {
    /// Whether a fault happens now.
    pub(crate) fn fault(&mut self, per_mille: u64) -> bool {
        self.chaos && self.random.chance(per_mille)
    }

    /// The log that the bulker reads.
    pub(crate) fn decided(&self, partition: u32) -> &[Transformed] {
        &self.transformed[index_of(partition)]
    }

    /// Where it ends.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        u64::try_from(self.decided(partition).len()).unwrap_or(u64::MAX)
    }

    /// A partition's state in the group was lost and it begins anew. What the lost plans named is not known any more: a
    /// row that is a dead letter goes in if its table takes it now, and one that was handed over is judged here and again
    /// when it comes back.
    pub(crate) fn adopted(&mut self, partition: u32) {
        self.stats.adoptions += 1;
        let first = first_log(partition);
        let copies = self.logs[first + 1..first + LOGS_EACH].iter().flatten();
        let copies = copies.map(|copy| (copy.event(), copy.row));
        let letters = self.dead.iter().map(|letter| (letter.event(), letter.row));
        for (event, row) in copies.chain(letters) {
            if event.0.partition == partition {
                self.both.extend(row.map(|(table, sub)| (event, table, sub)));
            }
        }
    }

    /// A copy goes to some retry topic: they wait differently long, so copies come back in any order.
    pub(crate) fn go_round(&mut self, copy: Incoming) {
        let tier = self.random.index(TIERS);
        self.logs[first_log(copy.identity.partition) + 1 + tier].push(copy);
    }

    /// What becomes of a record that goes round or is set aside.
    pub(crate) fn copy(&mut self, record: &Transformed) {
        let from = record.from;
        match record.verdict {
            Verdict::Forward | Verdict::Drop => {}
            Verdict::Retry => self.go_round(Incoming {
                attempt: from.attempt + 1,
                ..from
            }),
            Verdict::DeadLetter => self.dead.push(DeadLetter {
                identity: from.identity,
                message: from.message,
                attempt: from.attempt,
                row: from.row,
            }),
        }
    }
}
