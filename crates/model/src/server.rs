//! What a server of tables holds, and what it forgets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_event::JournalId;
use millrace_ledger::{Place, Token, Watermark};

use crate::record::{ArbiterKey, Message, Row};

/// What an insert brings.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Rows(u8, Vec<Row>),
    Outcomes(Vec<(ArbiterKey, Place)>),
    Journals(Vec<Left>),
}

/// A watermark that left the metadata: of which partition and journal, and for which position it holds.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    pub(crate) partition: u32,
    pub(crate) journal: JournalId,
    pub(crate) position: u64,
    pub(crate) mark: Watermark,
}

#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) id: u64,
    /// Whose it is: KILL ends those of one partition.
    pub(crate) partition: u32,
    pub(crate) token: Token,
    pub(crate) body: Body,
    /// It hangs until then.
    pub(crate) not_before: u64,
}

/// How an insert that is over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Error,
}

/// What a server remembers of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    All,
    /// The last so many, of all partitions together.
    Last(usize),
    /// Those of so many steps.
    Steps(u64),
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) tables: BTreeMap<u8, Vec<Row>>,
    /// What the view of each table holds.
    pub(crate) views: BTreeMap<u8, Vec<Row>>,
    pub(crate) journals: Vec<Left>,
    pub(crate) deciders: BTreeMap<ArbiterKey, Place>,
    pub(crate) tokens: Tokens,
    pub(crate) view_tokens: Tokens,
    pub(crate) running: Vec<Query>,
    pub(crate) ended: BTreeMap<u64, Ended>,
    pub(crate) queries: u64,
    /// Tables that cannot be written now.
    pub(crate) broken: BTreeSet<u8>,
    /// Messages whose rows their table does not take.
    pub(crate) bad: BTreeSet<Message>,
    /// Nobody answers.
    pub(crate) away: bool,
}

/// The tokens that a table, or the views, remember, and since when.
#[derive(Debug)]
pub(crate) struct Tokens {
    kept: VecDeque<(Token, u64)>,
    memory: Memory,
}

impl Tokens {
    const fn of(memory: Memory) -> Self {
        Self {
            kept: VecDeque::new(),
            memory,
        }
    }

    /// False where it is known.
    pub(crate) fn take(&mut self, token: Token, now: u64) -> bool {
        if let Memory::Steps(steps) = self.memory {
            self.kept.retain(|(_, since)| now < since + steps);
        }
        if self.kept.iter().any(|(kept, _)| *kept == token) {
            return false;
        }
        self.kept.push_back((token, now));
        if let Memory::Last(window) = self.memory {
            while self.kept.len() > window {
                self.kept.pop_front();
            }
        }
        true
    }

    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }
}

impl Server {
    pub(crate) const fn new(memory: Memory) -> Self {
        Self {
            tables: BTreeMap::new(),
            views: BTreeMap::new(),
            journals: Vec::new(),
            deciders: BTreeMap::new(),
            tokens: Tokens::of(memory),
            view_tokens: Tokens::of(memory),
            running: Vec::new(),
            ended: BTreeMap::new(),
            queries: 0,
            broken: BTreeSet::new(),
            bad: BTreeSet::new(),
            away: false,
        }
    }

    /// Tokens are forgotten at any time. Where they are not, tables have views that fail: whoever completes a view relies
    /// on its table to know the block a moment later.
    pub(crate) fn forgets(&self) -> bool {
        self.tokens.memory != Memory::All
    }

    /// Whether anything still runs.
    pub(crate) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether the table has this row.
    pub(crate) fn holds(&self, table: u8, row: &Row) -> bool {
        let held = self.tables.get(&table).into_iter().flatten();
        let mut same = held.filter(|other| (other.identity, other.sub) == (row.identity, row.sub));
        same.next().is_some()
    }
}
