//! The numbers of journals that came, and the gaps between them.

use std::collections::BTreeMap;
use std::ops::Range;

use millrace_event::{Identity, JournalId};

use super::findings::{Findings, Named};

/// Gaps of one journal in one partition that may yet be filled; beyond it the lowest counts as one for good.
const MOST_GAPS: usize = 100_000;

/// By journal and partition.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    of: BTreeMap<(JournalId, u32), Taken>,
    closed: Named,
    again: u64,
}

/// Numbers that came, from the first to the last of them; dense but for the gaps.
#[derive(Debug, Default)]
struct Taken {
    seen: Option<Range<u64>>,
    gaps: BTreeMap<u64, u64>,
}

impl Numbers {
    pub(super) fn take(&mut self, identity: Identity) {
        let (journal, partition) = (identity.journal, identity.partition);
        let taken = self.of.entry((journal, partition)).or_default();
        if !taken.take(identity.seq) {
            self.again += 1;
        }
        if taken.gaps.len() > MOST_GAPS
            && let Some(gap) = taken.gaps.pop_first()
        {
            self.closed.push(name(journal, partition, gap));
        }
    }

    /// Adds the gaps that are left, and how many records were there already.
    pub(super) fn report(self, findings: &mut Findings) {
        findings.shipped_again += self.again;
        findings.gaps.extend(self.closed);
        for ((journal, partition), taken) in self.of {
            for gap in taken.gaps {
                findings.gaps.push(name(journal, partition, gap));
            }
        }
    }
}

fn name(journal: JournalId, partition: u32, (from, to): (u64, u64)) -> String {
    match to - from {
        1 => format!("{journal}-{partition}-{from} is not in the ingest topic"),
        count => format!("{count} events from {journal}-{partition}-{from} on are not in the ingest topic"),
    }
}

impl Taken {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seqs: &[u64]) -> (Vec<bool>, Vec<(u64, u64)>) {
        let mut taken = Taken::default();
        let new = seqs.iter().map(|seq| taken.take(*seq)).collect();
        (new, taken.gaps.into_iter().collect())
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

    #[test]
    fn of_endless_gaps_the_lowest_are_counted_and_forgotten() {
        let mut numbers = Numbers::default();
        let most = u64::try_from(MOST_GAPS).expect("small");
        for n in 0..=most + 10 {
            numbers.take(Identity {
                journal: JournalId(1),
                partition: 0,
                seq: n * 2,
            });
        }
        assert!(numbers.of.values().all(|taken| taken.gaps.len() <= MOST_GAPS));
        let mut findings = Findings::default();
        numbers.report(&mut findings);
        assert_eq!(findings.gaps.count(), most + 10);
    }
}
