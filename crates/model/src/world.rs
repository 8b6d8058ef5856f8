//! What is outside of every process: the logs, the group, the tables, the time.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use millrace_event::Identity;
use millrace_ledger::Place;

use crate::control::Control;
use crate::random::Random;
use crate::warehouse::Server;

/// The partition that is modelled.
pub(crate) const PARTITION: u32 = 0;
/// Steps after which a silent member is out of the group.
pub(crate) const SESSION: u64 = 60;
/// Steps after which the server has closed an idle connection.
pub(crate) const KEEP_ALIVE: u64 = 40;
/// How many tables events go to.
pub(crate) const TABLES: u8 = 2;

/// The retry topics.
pub(crate) const TIERS: usize = 3;
/// What the rotor reads: the ingest topic, then the retry topics.
pub(crate) const LOGS: usize = 1 + TIERS;

/// What a client sent: its number stands for the payload.
pub(crate) type Message = u32;

/// A row as its table holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row {
    pub(crate) identity: Identity,
    pub(crate) sub: u16,
    pub(crate) message: Message,
}

impl Row {
    pub(crate) const fn month(self) -> u32 {
        self.message % 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Forward,
    Drop,
    Retry,
    DeadLetter,
}

/// A record of the ingest topic (attempt 0) or of a retry topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) identity: Identity,
    pub(crate) message: Message,
    pub(crate) attempt: u32,
    /// For stage bulker: the table and which of the event's rows.
    pub(crate) row: Option<(u8, u16)>,
}

/// A record of the transformed topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transformed {
    pub(crate) from: Incoming,
    pub(crate) verdict: Verdict,
    /// The tables of its rows; a row's position is its `sub`, but for rows that came back.
    pub(crate) outputs: Vec<u8>,
}

/// A dead letter: of a whole event, or of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeadLetter {
    pub(crate) identity: Identity,
    pub(crate) message: Message,
    pub(crate) attempt: u32,
    pub(crate) row: Option<(u8, u16)>,
}

/// The bulkers' group, as broker and members see it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) committed: Option<(u64, String)>,
    pub(crate) epoch: u64,
    pub(crate) owner: Option<usize>,
    /// Epochs whose owner was put out of the group for its silence: the broker refuses them.
    pub(crate) fenced: BTreeSet<u64>,
}

pub(crate) type ArbiterKey = (Identity, u32, Option<(u8, u16)>);

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
    pub(crate) ingest: Vec<Incoming>,
    pub(crate) retry: [Vec<Incoming>; TIERS],
    pub(crate) transformed: Vec<Transformed>,
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) group: Group,
    /// What the rotor's group has committed in each of its logs.
    pub(crate) rotor_committed: [u64; LOGS],
    pub(crate) server: Server,
    pub(crate) deciders: BTreeMap<ArbiterKey, Place>,
    /// Rows of blocks whose view somebody has to look after: an alarm was raised.
    pub(crate) alarmed: BTreeSet<(u8, Row)>,
    /// Messages that were answered 200.
    pub(crate) answered: BTreeSet<Message>,
    /// Dead letters of rows that may be in their table too, because they were sent round again, or because the plans that
    /// named them were lost with the group's offset: message, table, sub.
    pub(crate) replayed: BTreeSet<(Message, u8, u16)>,
    pub(crate) gateway: crate::gateway::Gateway,
    /// Messages that were refused at the door, into the dead letters.
    pub(crate) refused: BTreeSet<Message>,
    pub(crate) stats: crate::run::Stats,
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

    /// One of the logs that the rotor reads.
    pub(crate) fn log(&self, log: usize) -> &[Incoming] {
        match log {
            0 => &self.ingest,
            tier => &self.retry[tier - 1],
        }
    }

    /// The group's state was lost and the partition begins anew. What the lost plans named is not known any more: a row
    /// that is a dead letter goes in if its table takes it now, and one that was handed over is judged here and again
    /// when it comes back.
    pub(crate) fn adopted(&mut self) {
        self.stats.adoptions += 1;
        let copies = self.retry.iter().flatten().map(|copy| (copy.message, copy.row));
        let letters = self.dead.iter().map(|letter| (letter.message, letter.row));
        for (message, row) in copies.chain(letters) {
            self.replayed
                .extend(row.map(|(table, sub)| (message, table, sub)));
        }
    }

    /// A copy goes to some retry topic: they wait differently long, so copies come back in any order.
    pub(crate) fn go_round(&mut self, copy: Incoming) {
        let tier = self.random.index(TIERS);
        self.retry[tier].push(copy);
    }
}
