//! What was accepted, by the ingest topic: each event must be decided once the rotor has read it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use millrace_event::envelope::{Envelope as _, Ingest};
use millrace_event::{Identity, JournalId, Timestamp, header};
use millrace_kafka::Record;

use super::books::{Books, Findings};

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    since: Option<Timestamp>,
    topic: String,
    incarnation: String,
    /// What the rotor has taken on, by partition.
    taken_on: BTreeMap<u32, u64>,
    /// In milliseconds: records of a partition that are older have decisions that retention deleted.
    log_begins: BTreeMap<u32, i64>,
    accepted: HashMap<Identity, Accepted>,
    /// The numbers that a journal has in a partition.
    numbers: BTreeMap<(JournalId, u32), Numbers>,
    again: u64,
}

#[derive(Debug)]
struct Accepted {
    workspace: String,
    hour: String,
    /// The rotor has read it, and the log goes back far enough to have its decision.
    judged: bool,
}

/// Numbers that came, from the first to the last of them; dense but for the gaps.
#[derive(Debug, Default)]
struct Numbers {
    seen: Option<Range<u64>>,
    gaps: BTreeMap<u64, u64>,
}

impl Numbers {
    /// False where it had come before.
    fn take(&mut self, seq: u64) -> bool {
        let Some(seen) = &mut self.seen else {
            self.seen = Some(seq..seq + 1);
            return true;
        };
        if seq >= seen.end {
            if seq > seen.end {
                self.gaps.insert(seen.end, seq);
            }
            seen.end = seq + 1;
            return true;
        }
        if seq < seen.start {
            if seq + 1 < seen.start {
                self.gaps.insert(seq + 1, seen.start);
            }
            seen.start = seq;
            return true;
        }
        let gap = self.gaps.range(..=seq).next_back();
        let Some((from, to)) = gap.map(|(from, to)| (*from, *to)).filter(|(_, to)| seq < *to) else {
            return false;
        };
        self.gaps.remove(&from);
        if from < seq {
            self.gaps.insert(from, seq);
        }
        if seq + 1 < to {
            self.gaps.insert(seq + 1, to);
        }
        true
    }
}

impl Arrivals {
    pub(super) fn new(
        since: Option<Timestamp>,
        topic: &str,
        incarnation: &str,
        taken_on: BTreeMap<u32, u64>,
        log_begins: BTreeMap<u32, i64>,
    ) -> Self {
        Self {
            since,
            topic: topic.to_owned(),
            incarnation: incarnation.to_owned(),
            taken_on,
            log_begins,
            ..Self::default()
        }
    }

    /// A record of the ingest topic. One that is no envelope is not counted as an event: the rotor makes a dead letter
    /// of it, which the books have.
    pub(super) fn accepted(&mut self, partition: u32, record: &Record) {
        let named = record.headers.text(header::ID).and_then(|id| id.parse().ok());
        let identity: Identity = named.unwrap_or_else(|| Identity {
            journal: JournalId::of_topic(&self.topic, &self.incarnation),
            partition,
            seq: record.offset,
        });
        // Gaps are looked for in everything that was read, as times are not in the order of numbers.
        let numbers = self
            .numbers
            .entry((identity.journal, identity.partition))
            .or_default();
        if !numbers.take(identity.seq) {
            self.again += 1;
            return;
        }
        let Ok(envelope) = Ingest::read(&record.value) else {
            return;
        };
        if self.since.is_some_and(|since| envelope.received_at < since) {
            return;
        }
        let read = self
            .taken_on
            .get(&partition)
            .is_some_and(|end| record.offset < *end);
        let begins = self.log_begins.get(&partition).copied().unwrap_or(i64::MIN);
        let accepted = Accepted {
            workspace: envelope.workspace.to_string(),
            hour: envelope.received_at.to_string().chars().take(13).collect(),
            judged: read && record.timestamp_ms >= begins,
        };
        self.accepted.insert(identity, accepted);
    }

    /// Adds what the books lack.
    pub(super) fn compare(&self, books: &Books, findings: &mut Findings) {
        findings.accepted = self.accepted.len();
        findings.shipped_again = self.again;
        for ((journal, partition), numbers) in &self.numbers {
            let gap = |(from, to): (&u64, &u64)| match to - from {
                1 => format!("{journal}-{partition}-{from} is not in the ingest topic"),
                count => {
                    format!("{count} events from {journal}-{partition}-{from} on are not in the ingest topic")
                }
            };
            findings.gaps.extend(numbers.gaps.iter().map(gap));
        }
        for (identity, accepted) in &self.accepted {
            if books.knows(*identity) {
                continue;
            }
            let key = (accepted.workspace.clone(), accepted.hour.clone());
            if accepted.judged {
                findings.hours.entry(key).or_default().lost += 1;
                findings
                    .lost
                    .push(format!("{identity}: accepted, read and never decided"));
            } else if !self.is_older(identity.partition) {
                findings.hours.entry(key).or_default().under_way += 1;
            }
        }
        findings.lost.sort_unstable();
    }

    /// Whether the partition's decisions are not all there any more; then an event without one is not under way.
    fn is_older(&self, partition: u32) -> bool {
        self.log_begins.contains_key(&partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seqs: &[u64]) -> (Vec<bool>, Vec<(u64, u64)>) {
        let mut numbers = Numbers::default();
        let taken = seqs.iter().map(|seq| numbers.take(*seq)).collect();
        (taken, numbers.gaps.into_iter().collect())
    }

    #[test]
    fn numbers_in_order_leave_no_gap_and_a_repetition_is_known() {
        assert_eq!(
            numbers(&[5, 6, 7, 6, 5]),
            (vec![true, true, true, false, false], vec![])
        );
    }

    #[test]
    fn a_number_that_is_missing_is_a_gap_until_it_comes() {
        assert_eq!(numbers(&[0, 1, 5]).1, [(2, 5)]);
        assert_eq!(numbers(&[0, 1, 5, 3]).1, [(2, 3), (4, 5)]);
        assert_eq!(numbers(&[0, 1, 5, 3, 2, 4]).1, []);
        assert_eq!(numbers(&[5, 2]).1, [(3, 5)], "from below as well");
        assert_eq!(numbers(&[0, 2, 2, 0]).0, [true, true, false, false]);
    }
}
