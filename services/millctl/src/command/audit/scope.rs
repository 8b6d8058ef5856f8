//! How the audit is divided into passes, so that each has room in memory however long the logs are.

use millrace_event::Identity;

/// Numbers of one journal that stay together: what one question to a table covers.
const SEQS_PER_BLOCK: u64 = 50_000;
/// Slices of one partition past which something else is wrong than the size of its log.
const MOST_SLICES: u64 = 1 << 20;

/// The events that one pass looks at: those of some partitions, or a slice of those of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) partitions: Vec<u32>,
    /// Which slice, and of how many.
    slice: (u64, u64),
    /// Whether gaps in the numbers of journals are looked for: one pass over a partition does, over all its records.
    pub(super) gaps: bool,
}

/// Which block an event belongs to.
pub(super) const fn block(identity: Identity) -> u64 {
    identity.seq / SEQS_PER_BLOCK
}

impl Scope {
    /// Everything of these partitions.
    pub(super) const fn of(partitions: Vec<u32>) -> Self {
        Self {
            partitions,
            slice: (0, 1),
            gaps: true,
        }
    }

    /// Whether an event of one of its partitions is looked at.
    pub(super) const fn holds(&self, identity: Identity) -> bool {
        let (number, of) = self.slice;
        of <= 1 || mix(identity.journal.0 ^ mix(block(identity))) % of == number
    }

    /// Smaller scopes that together are this one; none where it cannot become smaller.
    pub(super) fn split(&self) -> Vec<Self> {
        if self.partitions.len() > 1 {
            let one = |partition: &u32| Self {
                partitions: vec![*partition],
                ..self.clone()
            };
            return self.partitions.iter().map(one).collect();
        }
        let (number, of) = self.slice;
        let of = of.max(1);
        if of >= MOST_SLICES {
            return Vec::new();
        }
        let half = |number, gaps| Self {
            partitions: self.partitions.clone(),
            slice: (number, 2 * of),
            gaps,
        };
        vec![half(number, self.gaps), half(number + of, false)]
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): spreads neighbours over the slices.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_event::JournalId;

    fn identities() -> impl Iterator<Item = Identity> {
        (0..4000_u64).map(|n| Identity {
            journal: JournalId(n % 7),
            partition: 3,
            seq: n * 1000,
        })
    }

    #[test]
    fn however_often_a_scope_is_split_each_event_is_in_one_part_and_one_part_looks_for_gaps() {
        let mut parts = vec![Scope::of(vec![3])];
        for _ in 0..4 {
            parts = parts.iter().flat_map(Scope::split).collect();
            for identity in identities() {
                let held = parts.iter().filter(|part| part.holds(identity)).count();
                assert_eq!(held, 1, "{identity} of {parts:?}");
            }
            assert_eq!(parts.iter().filter(|part| part.gaps).count(), 1);
        }
        assert_eq!(parts.len(), 16);
        let largest = parts
            .iter()
            .map(|part| identities().filter(|identity| part.holds(*identity)).count());
        assert!(largest.max() < Some(4000 / 4), "the parts are of like size");
    }

    #[test]
    fn several_partitions_become_one_each() {
        let parts = Scope::of(vec![0, 1, 5]).split();
        let partitions: Vec<_> = parts.iter().map(|part| part.partitions.clone()).collect();
        assert_eq!(partitions, [[0], [1], [5]]);
        assert!(parts.iter().all(|part| part.gaps), "each looks for its own");
    }

    #[test]
    fn a_block_stays_in_one_slice() {
        let mut parts = vec![Scope::of(vec![3])];
        for _ in 0..6 {
            parts = parts.iter().flat_map(Scope::split).collect();
        }
        let of = |seq| Identity {
            journal: JournalId(9),
            partition: 3,
            seq,
        };
        let part = parts.iter().find(|part| part.holds(of(SEQS_PER_BLOCK)));
        let part = part.expect("one holds it");
        assert!((SEQS_PER_BLOCK..2 * SEQS_PER_BLOCK).all(|seq| part.holds(of(seq))));
    }
}
