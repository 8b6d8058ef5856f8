//! What came out.

use std::collections::{BTreeMap, BTreeSet};

/// Findings of one kind that are named one by one.
pub(super) const MOST_NAMED: usize = 100;

/// Findings of one kind: all are counted, the first ones in their order are named.
#[derive(Debug, Default)]
pub(super) struct Named {
    count: u64,
    names: BTreeSet<String>,
}

impl Named {
    pub(super) fn push(&mut self, name: String) {
        self.count += 1;
        self.names.insert(name);
        if self.names.len() > MOST_NAMED {
            self.names.pop_last();
        }
    }

    /// Adds those of another part.
    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.names.extend(other.names);
        while self.names.len() > MOST_NAMED {
            self.names.pop_last();
        }
    }

    /// How many there are, named or not.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// Events of one workspace and hour, by where they are.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) dropped: u64,
    pub(super) dead: u64,
    pub(super) waiting: u64,
    pub(super) under_way: u64,
    pub(super) lost: u64,
}

/// What came out of all passes.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Events that the log holds.
    pub(super) events: usize,
    pub(super) rows: usize,
    /// Records of the log that repeat one.
    pub(super) duplicates: u64,
    pub(super) missing: Named,
    pub(super) duplicated: Named,
    pub(super) stray: Named,
    pub(super) lost: Named,
    /// Numbers of journals that are in no record of the ingest topic.
    pub(super) gaps: Named,
    /// Events that the ingest topic holds.
    pub(super) accepted: usize,
    /// Records of the ingest topic that were there already.
    pub(super) shipped_again: u64,
    pub(super) hours: BTreeMap<(String, String), Counts>,
    /// How often the logs were gone through in part.
    pub(super) passes: usize,
}

impl Findings {
    /// Every kind of finding with its name.
    pub(super) const fn kinds(&self) -> [(&'static str, &Named); 5] {
        [
            ("missing", &self.missing),
            ("duplicated", &self.duplicated),
            ("stray", &self.stray),
            ("lost", &self.lost),
            ("gaps", &self.gaps),
        ]
    }

    pub(super) fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.count() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_ones_are_named_whatever_their_order() {
        let mut named = Named::default();
        for n in (0..500).rev() {
            named.push(format!("{n:03}"));
        }
        assert_eq!(named.count(), 500);
        let names: Vec<_> = named.names().map(ToOwned::to_owned).collect();
        let first: Vec<_> = (0..100).map(|n| format!("{n:03}")).collect();
        assert_eq!(names, first);
    }
}
