//! What gateways keep: journals on disks, and what is remembered of message ids, for as long as it is.

use std::collections::BTreeMap;

use millrace_event::{Identity, JournalId};

use crate::record::{ALL_PARTITIONS, Event, Message, PARTITIONS, index_of, partition_of};

/// For how many steps an id stays reserved that nobody settles: longer than most pods are away.
pub(crate) const RESERVED: u64 = 120;
/// For how many steps a message is known after it was accepted.
pub(crate) const REMEMBERED: u64 = 500;
/// What is left of both under the control that forgets too early.
const TOO_EARLY: u64 = 20;

/// The records of one partition in a journal, which numbers them on their own.
#[derive(Debug, Default)]
pub(crate) struct Numbered {
    pub(crate) records: Vec<Message>,
    /// Everything below was shipped and acknowledged.
    pub(crate) shipped: usize,
    /// Records that were passed over, to be shipped later.
    pub(crate) aside: std::collections::BTreeSet<usize>,
    /// How many events were refused at the door.
    pub(crate) refused: u64,
}

/// A journal on a disk: it outlives its pod.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) id: u64,
    pub(crate) partitions: [Numbered; PARTITIONS],
}

impl Journal {
    /// The records of a message's partition.
    pub(crate) fn of(&mut self, message: Message) -> &mut Numbered {
        &mut self.partitions[index_of(partition_of(message))]
    }

    fn has(&self, message: Message) -> bool {
        self.partitions[index_of(partition_of(message))]
            .records
            .contains(&message)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// Changes when it dies: whoever was connected notices.
    pub(crate) life: u64,
    /// When it comes back; it settles what its earlier life left before it opens its door.
    pub(crate) down_until: Option<u64>,
    pub(crate) journals: Vec<Journal>,
}

/// What is remembered of a message id.
#[derive(Clone, Copy, Debug)]
struct Mark {
    pod: usize,
    done: bool,
    since: u64,
}

impl Mark {
    const fn lasts(self) -> u64 {
        if self.done { REMEMBERED } else { RESERVED }
    }
}

/// What a pod is told about a message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// Somebody is about to accept it.
    Reserved,
    Done,
}

/// Everything behind the door.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) pods: Vec<Pod>,
    marks: BTreeMap<Message, Mark>,
    /// How often what was known of a message had expired when it came again.
    pub(crate) lapses: BTreeMap<Message, u64>,
    /// Under one control ids are forgotten long before their time.
    pub(crate) forgets_early: bool,
    journals: u64,
}

impl Gateway {
    pub(crate) fn new(pods: usize) -> Self {
        let mut gateway = Self::default();
        for pod in 0..pods {
            gateway.pods.push(Pod::default());
            gateway.open_journal(pod);
        }
        gateway
    }

    pub(crate) fn open_journal(&mut self, pod: usize) {
        self.journals += 1;
        let journal = Journal {
            id: self.journals,
            ..Journal::default()
        };
        self.pods[pod].journals.push(journal);
    }

    /// Whether everything was shipped.
    pub(crate) fn is_empty(&self) -> bool {
        let mut numbered = self.journals().flat_map(|journal| &journal.partitions);
        numbered.all(|of| of.shipped == of.records.len() && of.aside.is_empty())
    }

    fn journals(&self) -> impl Iterator<Item = &Journal> {
        self.pods.iter().flat_map(|pod| &pod.journals)
    }

    /// Every event that is in a journal.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = Event> {
        self.journals().flat_map(|journal| {
            ALL_PARTITIONS.into_iter().flat_map(move |partition| {
                let records = &journal.partitions[index_of(partition)].records;
                (0..).zip(records).map(move |(seq, message)| {
                    let identity = Identity {
                        journal: JournalId(journal.id),
                        partition,
                        seq,
                    };
                    (identity, *message)
                })
            })
        })
    }

    /// Whether a pod's door is open.
    pub(crate) fn is_open(&self, pod: usize) -> bool {
        self.pods[pod].down_until.is_none()
    }

    /// Pods that are back settle what they had reserved, and open their doors.
    pub(crate) fn open_doors(&mut self, now: u64) {
        for pod in 0..self.pods.len() {
            if self.pods[pod].down_until.is_some_and(|until| until <= now) {
                self.settle(pod, now);
                self.pods[pod].down_until = None;
            }
        }
    }

    /// What still stands of a pod's reservations becomes done where its journals have the message, and is taken back
    /// where they have not.
    fn settle(&mut self, pod: usize, now: u64) {
        let journals = &self.pods[pod].journals;
        let early = self.forgets_early;
        self.marks.retain(|message, mark| {
            if mark.pod != pod || mark.done || !stands(*mark, now, early) {
                return true;
            }
            mark.done = journals.iter().any(|journal| journal.has(*message));
            mark.since = now;
            mark.done
        });
    }

    /// What is known of a message; with `reserves` it is reserved where nothing is.
    pub(crate) fn ask(&mut self, message: Message, pod: usize, now: u64, reserves: bool) -> Known {
        let mark = self.marks.get(&message).copied();
        match mark {
            Some(mark) if stands(mark, now, self.forgets_early) && mark.done => return Known::Done,
            Some(mark) if stands(mark, now, self.forgets_early) => return Known::Reserved,
            // What was forgotten before its time is no excuse.
            Some(mark) if !stands(mark, now, false) => *self.lapses.entry(message).or_default() += 1,
            _ => {}
        }
        if reserves {
            self.mark(message, pod, now, false);
        }
        Known::Nothing
    }

    /// Whatever was known about it.
    pub(crate) fn mark(&mut self, message: Message, pod: usize, since: u64, done: bool) {
        self.marks.insert(message, Mark { pod, done, since });
    }
}

const fn stands(mark: Mark, now: u64, early: bool) -> bool {
    let lasts = if early { TOO_EARLY } else { mark.lasts() };
    now < mark.since + lasts
}
