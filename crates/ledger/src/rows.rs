//! One table's rows of one chunk, on their way from planned to certainly there.

use std::collections::BTreeSet;

/// What has to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// End everything that may still run for this partition, and wait for the answer.
    Kill,
    /// Ask the table which of the rows it holds.
    Ask,
    /// Insert blocks of the missing rows, each under the token of exactly its rows, until one is in doubt.
    Insert,
    /// Every row is there.
    Done,
}

/// What is known of the rows' table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// None of the missing rows is there, and nothing that could bring one is on its way.
    Missing,
    /// Nothing runs any more; some may be there.
    Still,
    /// Some may be there, or on their way.
    Nothing,
}

/// The state of one table's rows. `R` names a row.
///
/// No row is sent twice under different tokens without a KILL and a question in between.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    missing: BTreeSet<R>,
    known: Known,
}

impl<R: Ord> Rows<R> {
    /// Rows of which none was ever sent.
    pub fn fresh(rows: impl IntoIterator<Item = R>) -> Self {
        Self {
            missing: rows.into_iter().collect(),
            known: Known::Missing,
        }
    }

    /// Rows of which any may have been written before, or be on its way.
    pub fn uncertain(rows: impl IntoIterator<Item = R>) -> Self {
        Self {
            known: Known::Nothing,
            ..Self::fresh(rows)
        }
    }

    /// What has to happen next.
    pub fn step(&self) -> Step {
        match self.known {
            _ if self.missing.is_empty() => Step::Done,
            Known::Nothing => Step::Kill,
            Known::Still => Step::Ask,
            Known::Missing => Step::Insert,
        }
    }

    /// The rows that are not known to be there.
    pub const fn missing(&self) -> &BTreeSet<R> {
        &self.missing
    }

    /// KILL was answered: nothing of this partition runs any more.
    pub fn killed(&mut self) {
        if self.known == Known::Nothing {
            self.known = Known::Still;
        }
    }

    /// The table answered: it holds these, and of the missing rows no others.
    pub fn held(&mut self, held: &BTreeSet<R>) {
        debug_assert!(
            self.known != Known::Nothing,
            "a table is asked after KILL was answered"
        );
        self.missing.retain(|row| !held.contains(row));
        self.known = Known::Missing;
    }

    /// An insert of these was answered: they are there.
    pub fn applied<'a>(&mut self, rows: impl IntoIterator<Item = &'a R>)
    where
        R: 'a,
    {
        let mut rows: Vec<&R> = rows.into_iter().collect();
        rows.sort_unstable();
        // Mostly it was all of them.
        if self.missing.iter().eq(rows.iter().copied()) {
            self.missing.clear();
        }
        if !self.missing.is_empty() {
            for row in rows {
                self.missing.remove(row);
            }
        }
    }

    /// An insert had no clear answer: its rows may be there, or come later.
    pub fn in_doubt(&mut self) {
        self.known = Known::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_rows_are_inserted_without_a_question() {
        let mut rows = Rows::fresh([1, 2, 3]);
        assert_eq!(rows.step(), Step::Insert);
        rows.applied(&[1, 2]);
        assert_eq!(rows.step(), Step::Insert);
        rows.applied(&[3]);
        assert_eq!(rows.step(), Step::Done);
        let mut rows = Rows::fresh([1, 2, 3]);
        rows.applied(&[3, 1, 2]);
        assert_eq!(rows.step(), Step::Done);
        let mut rows = Rows::fresh([1, 2, 3]);
        rows.applied(&[0, 2, 2, 9]);
        assert_eq!(rows.missing(), &[1, 3].into());
    }

    #[test]
    fn after_a_doubt_nothing_is_asked_before_kill_was_answered_and_nothing_sent_before_the_table_was() {
        let mut rows = Rows::fresh([1, 2, 3]);
        rows.applied(&[1]);
        rows.in_doubt();
        assert_eq!(rows.step(), Step::Kill);
        rows.killed();
        assert_eq!(rows.step(), Step::Ask);
        rows.held(&[1, 2].into());
        assert_eq!((rows.step(), rows.missing()), (Step::Insert, &[3].into()));
    }

    #[test]
    fn rows_of_a_recovered_plan_are_in_doubt_from_the_start() {
        let mut rows = Rows::uncertain([1]);
        assert_eq!(rows.step(), Step::Kill);
        rows.killed();
        rows.held(&[1].into());
        assert_eq!(rows.step(), Step::Done);
    }

    #[test]
    fn no_rows_are_done_whatever_is_known() {
        assert_eq!(Rows::<u8>::uncertain([]).step(), Step::Done);
    }
}
