//! What the logs hold and how many of them there are: the words that all others share.

use millrace_event::Identity;

/// How many partitions there are. They are alike, share servers, members and clocks, and no record leaves its own: what
/// one does to another it does to one other.
pub(crate) const PARTITIONS: usize = 2;
/// Every partition's number.
pub(crate) const ALL_PARTITIONS: [u32; PARTITIONS] = [0, 1];
/// The retry topics.
pub(crate) const TIERS: usize = 3;
/// What the rotor reads of a partition: the ingest topic, then the retry topics.
pub(crate) const LOGS_EACH: usize = 1 + TIERS;
/// What the rotor reads, partition after partition.
pub(crate) const LOGS: usize = PARTITIONS * LOGS_EACH;
/// How many tables events go to.
pub(crate) const TABLES: u8 = 2;

/// What a client sent: its number stands for the payload.
pub(crate) type Message = u32;

/// An event that was accepted: a message may become two, where its client repeats it later than ids are remembered.
pub(crate) type Event = (Identity, Message);

/// What is decided once.
pub(crate) type ArbiterKey = (Identity, u32, Option<(u8, u16)>);

/// The partition of a message's key.
pub(crate) const fn partition_of(message: Message) -> u32 {
    (message >> 1) % 2
}

/// A partition as an index.
pub(crate) fn index_of(partition: u32) -> usize {
    usize::try_from(partition).unwrap_or(0).min(PARTITIONS - 1)
}

/// The first of a partition's logs, its ingest topic.
pub(crate) fn first_log(partition: u32) -> usize {
    index_of(partition) * LOGS_EACH
}

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

impl Incoming {
    pub(crate) const fn event(&self) -> Event {
        (self.identity, self.message)
    }
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

impl DeadLetter {
    pub(crate) const fn event(&self) -> Event {
        (self.identity, self.message)
    }
}
