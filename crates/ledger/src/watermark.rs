//! How far one journal's numbers have been taken, and which were skipped on the way.

use std::collections::BTreeMap;
use std::ops::Range;

/// The state of one journal in one partition: every number below `next` was taken, but for the holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    next: u64,
    /// Ranges below `next` that were not seen, start → end; disjoint, not adjacent, none empty.
    holes: BTreeMap<u64, u64>,
}

/// What a number means to a watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is the next one.
    Next,
    /// It lies ahead; the numbers in between were not seen and are a hole now.
    Ahead {
        /// The numbers in between.
        missing: Range<u64>,
    },
    /// It lies in a hole and was taken out of it.
    InHole,
    /// It was taken before.
    Before,
}

impl Watermark {
    /// The number that comes next.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The holes, lowest first.
    pub fn holes(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        self.holes.iter().map(|(start, end)| *start..*end)
    }

    /// A watermark from its parts; `None` where the holes are not ascending, disjoint, apart, not empty and
    /// below `next`.
    pub fn from_parts(next: u64, holes: impl IntoIterator<Item = Range<u64>>) -> Option<Self> {
        let mut watermark = Self {
            next,
            holes: BTreeMap::new(),
        };
        let mut floor = 0;
        for hole in holes {
            let apart = watermark.holes.is_empty() || hole.start > floor;
            if hole.is_empty() || hole.end > next || !apart {
                return None;
            }
            floor = hole.end;
            watermark.holes.insert(hole.start, hole.end);
        }
        Some(watermark)
    }

    /// Takes `seq` if it was not taken before.
    pub fn take(&mut self, seq: u64) -> Seen {
        if seq >= self.next {
            let missing = self.next..seq;
            self.next = seq + 1;
            if missing.is_empty() {
                return Seen::Next;
            }
            self.note_hole(missing.clone());
            return Seen::Ahead { missing };
        }
        let Some((start, end)) = self
            .holes
            .range(..=seq)
            .next_back()
            .map(|(start, end)| (*start, *end))
        else {
            return Seen::Before;
        };
        if seq >= end {
            return Seen::Before;
        }
        self.holes.remove(&start);
        if start < seq {
            self.holes.insert(start, seq);
        }
        if seq + 1 < end {
            self.holes.insert(seq + 1, end);
        }
        Seen::InHole
    }

    /// `missing` starts at the old `next`; a hole that ends there grows instead of getting a neighbour.
    fn note_hole(&mut self, missing: Range<u64>) {
        match self.holes.last_entry() {
            Some(mut last) if *last.get() == missing.start => {
                last.insert(missing.end);
            }
            _ => {
                self.holes.insert(missing.start, missing.end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_in_order_leave_no_hole() {
        let mut watermark = Watermark::default();
        assert!((0..5).all(|seq| watermark.take(seq) == Seen::Next));
        assert_eq!(watermark.take(3), Seen::Before);
        assert_eq!((watermark.next(), watermark.holes().len()), (5, 0));
    }

    #[test]
    fn a_number_that_is_early_is_taken_and_leaves_a_hole() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.take(3), Seen::Ahead { missing: 0..3 });
        assert_eq!(watermark.take(3), Seen::Before);
        assert_eq!(watermark.take(1), Seen::InHole);
        assert_eq!(watermark.take(1), Seen::Before);
        assert_eq!(watermark.holes().collect::<Vec<_>>(), [0..1, 2..3]);
    }

    #[test]
    fn parts_that_contradict_each_other_are_refused() {
        assert!(Watermark::from_parts(5, [1..2, 3..5]).is_some());
        let wrong: [&[(u64, u64)]; 5] = [
            &[(1, 1)],
            &[(3, 6)],
            &[(3, 4), (1, 2)],
            &[(1, 3), (2, 4)],
            &[(1, 2), (2, 3)],
        ];
        for holes in wrong {
            let holes = holes.iter().map(|(start, end)| *start..*end);
            assert_eq!(Watermark::from_parts(5, holes.clone()), None, "{holes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_taken_exactly_once_as_a_set_would(numbers in proptest::collection::vec(0_u64..40, 0..120)) {
            let mut watermark = Watermark::default();
            let mut model = BTreeSet::new();
            for seq in numbers {
                let taken = watermark.take(seq) != Seen::Before;
                prop_assert_eq!(taken, model.insert(seq));
                let next = watermark.next();
                prop_assert_eq!(Some(&(next - 1)), model.last());
                let missing: Vec<_> = (0..next).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(watermark.holes().flatten().collect::<Vec<_>>(), missing);
                prop_assert_eq!(Watermark::from_parts(next, watermark.holes()), Some(watermark.clone()));
            }
        }
    }
}
