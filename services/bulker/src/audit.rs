//! The bulker's own audit: at intervals each partition compares what it wrote with what its tables hold.
//!
//! Between two looks an account counts the rows that were written, by table and journal, and the range of numbers that
//! they have. One question for each table and journal then says how many rows of that range are there, and how many
//! different ones. It looks at what was written since the last time; `millctl audit` looks at everything.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use millrace_event::JournalId;
use millrace_service::Causes;
use millrace_warehouse::TableName;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::metrics::Kind;
use crate::sort::Sorted;
use crate::write::Writer;

/// Most pairs of a table and a journal, and most journals, that an account keeps; rows beyond are not audited.
const MOST_ENTRIES: usize = 10_000;

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often each partition asks its tables; never where it is 0.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
        }
    }
}

/// The handles.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Rows that were looked for, by what was found: `right`, `missing`, `duplicated`.
    pub rows: Family<Kind, Counter>,
    /// Questions, by how they ended: `answered`, `failed`.
    pub questions: Family<Kind, Counter>,
    /// Rows that no account had room for.
    pub passed_over: Counter,
    /// Numbers of journals below the highest that came, which have not come.
    pub hole_numbers: Gauge,
}

impl Metrics {
    /// Registers every metric in a registry of the bulker's.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "audited_rows",
            "Rows looked for in their tables after they were written, by what was found",
            metrics.rows.clone(),
        );
        registry.register(
            "audit_questions",
            "Questions of the audit, by how they ended",
            metrics.questions.clone(),
        );
        registry.register(
            "audit_passed_over",
            "Rows that the audit had no room for",
            metrics.passed_over.clone(),
        );
        registry.register(
            "hole_numbers",
            "Journal numbers that have not come though later ones have",
            metrics.hole_numbers.clone(),
        );
        metrics
    }
}

/// What one partition wrote since it looked last.
#[derive(Debug)]
pub struct Account {
    every: Duration,
    due: Option<Instant>,
    spans: HashMap<JournalId, Span>,
    written: HashMap<(TableName, JournalId), u64>,
    metrics: Metrics,
    /// This partition's part of [`Metrics::hole_numbers`].
    holes: i64,
}

/// The numbers of one journal: from `floor`, below which rows were written before this account began, to `top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    floor: u64,
    top: u64,
}

/// What must be in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    /// The table.
    table: TableName,
    /// The journal.
    journal: JournalId,
    /// The numbers of its events.
    seqs: RangeInclusive<u64>,
    /// How many rows of them were written.
    rows: u64,
}

impl Account {
    /// Nothing written yet.
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            every: config.every,
            due: None,
            spans: HashMap::new(),
            written: HashMap::new(),
            metrics,
            holes: 0,
        }
    }

    /// Takes note of a chunk that is in its tables.
    pub fn note(&mut self, sorted: &Sorted<'_>, now: Instant) {
        if self.every.is_zero() {
            return;
        }
        for (table, asked) in &sorted.tables {
            let rows = asked.rows.iter();
            self.note_rows(
                table,
                rows.map(|row| (row.id.identity.journal, row.id.identity.seq)),
            );
        }
        if !self.written.is_empty() {
            self.due.get_or_insert(now + self.every);
        }
    }

    fn note_rows(&mut self, table: &TableName, rows: impl Iterator<Item = (JournalId, u64)>) {
        // Neighbours are mostly of one journal: one look at the maps for each run of them.
        let mut rows = rows.peekable();
        while let Some((journal, first)) = rows.next() {
            let room = self.spans.len() < MOST_ENTRIES && self.written.len() < MOST_ENTRIES;
            let known = self.spans.contains_key(&journal);
            let mut seqs = vec![first];
            while let Some((_, seq)) = rows.next_if(|(next, _)| *next == journal) {
                seqs.push(seq);
            }
            if !known && !room {
                self.metrics
                    .passed_over
                    .inc_by(u64::try_from(seqs.len()).unwrap_or(0));
                continue;
            }
            let span = self.spans.entry(journal).or_insert(Span {
                floor: first,
                top: first,
            });
            // What is older than the account came round again or late: it is not in the range that is asked about.
            let counted = seqs.iter().filter(|seq| **seq >= span.floor);
            let (count, top) = counted.fold((0, span.top), |(count, top), seq| (count + 1, top.max(*seq)));
            span.top = top;
            if count > 0 {
                *self.written.entry((table.clone(), journal)).or_default() += count;
            }
        }
    }

    /// Returns when the tables are to be asked: never while there is nothing to ask about.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn falls_due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Asks the tables, where that is due. Nothing of the partition may be on its way meanwhile.
    ///
    /// # Errors
    /// [`Error::Revoked`]. A table that cannot be asked is passed over.
    ///
    /// # Cancellation
    /// What was not asked about is passed over.
    pub async fn look(
        &mut self,
        writer: &Writer,
        partition: u32,
        revoked: &CancellationToken,
    ) -> Result<(), Error> {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        for claim in self.take() {
            let sum = tokio::select! {
                biased;
                () = revoked.cancelled() => return Err(Error::Revoked),
                sum = writer.sum(&claim.table, claim.journal, partition, claim.seqs.clone()) => sum,
            };
            match sum {
                Ok(sum) => self.compare(partition, &claim, sum),
                Err(error) => {
                    self.ended("failed");
                    tracing::warn!(partition, table = %claim.table, cause = %Causes(error.as_ref()), "a table could not be audited");
                }
            }
        }
        Ok(())
    }

    /// What the tables must hold, and a new account.
    fn take(&mut self) -> Vec<Claim> {
        self.due = None;
        let mut claims = Vec::with_capacity(self.written.len());
        for ((table, journal), rows) in self.written.drain() {
            let Some(span) = self.spans.get(&journal) else {
                continue;
            };
            let seqs = span.floor..=span.top;
            claims.push(Claim {
                table,
                journal,
                seqs,
                rows,
            });
        }
        if self.spans.len() >= MOST_ENTRIES {
            self.spans.clear();
        }
        for span in self.spans.values_mut() {
            span.floor = span.top.saturating_add(1);
            span.top = span.floor;
        }
        claims
    }

    /// Counts what a table holds of a claim, and says what is wrong.
    fn compare(&self, partition: u32, claim: &Claim, (rows, distinct): (u64, u64)) {
        let missing = claim.rows.saturating_sub(distinct);
        let duplicated = rows.saturating_sub(distinct);
        let count = |kind, rows| self.metrics.rows.get_or_create(&Kind { kind }).inc_by(rows);
        count("right", claim.rows - missing);
        count("missing", missing);
        count("duplicated", duplicated);
        self.ended("answered");
        if missing > 0 || duplicated > 0 {
            let Claim {
                table, journal, seqs, ..
            } = claim;
            let (from, to) = (seqs.start(), seqs.end());
            tracing::error!(%table, %journal, partition, from, to, missing, duplicated,
                "a table does not hold what was written; `millctl audit` names the rows");
        }
    }

    fn ended(&self, kind: &'static str) {
        self.metrics.questions.get_or_create(&Kind { kind }).inc();
    }

    /// Takes note of how many numbers the partition's journals lack.
    pub fn holes(&mut self, numbers: u64) {
        let holes = i64::try_from(numbers).unwrap_or(i64::MAX);
        self.metrics.hole_numbers.inc_by(holes - self.holes);
        self.holes = holes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.hole_numbers.dec_by(self.holes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> (Account, TableName) {
        let account = Account::new(&Config::default(), Metrics::default());
        (account, "ws_demo.events".parse().expect("a name"))
    }

    fn note(account: &mut Account, table: &TableName, rows: &[(u64, u64)]) {
        account.note_rows(
            table,
            rows.iter().map(|(journal, seq)| (JournalId(*journal), *seq)),
        );
    }

    #[test]
    fn what_was_written_is_asked_for_by_journal_and_range_and_only_once() {
        let (mut account, table) = account();
        note(&mut account, &table, &[(1, 5), (1, 6), (1, 6), (2, 40), (1, 9)]);
        let mut claims = account.take();
        claims.sort_by_key(|claim| claim.journal);
        let asked: Vec<_> = claims
            .into_iter()
            .map(|claim| (claim.journal.0, claim.seqs, claim.rows))
            .collect();
        assert_eq!(
            asked,
            [(1, 5..=9, 4), (2, 40..=40, 1)],
            "two rows of one event are two"
        );
        assert_eq!(account.take(), []);
    }

    #[test]
    fn rows_that_come_round_from_before_the_account_are_not_asked_for() {
        let (mut account, table) = account();
        note(&mut account, &table, &[(1, 5), (1, 6)]);
        account.take();
        note(&mut account, &table, &[(1, 3), (1, 6), (1, 7), (1, 8)]);
        let claims = account.take();
        assert_eq!((claims[0].seqs.clone(), claims[0].rows), (7..=8, 2));
    }

    #[test]
    fn too_many_journals_are_passed_over_and_said() {
        let (mut account, table) = account();
        let most = u64::try_from(MOST_ENTRIES).expect("small");
        let rows: Vec<_> = (0..most + 7).map(|journal| (journal, 0)).collect();
        note(&mut account, &table, &rows);
        assert_eq!(account.metrics.passed_over.get(), 7);
        assert_eq!(account.take().len(), MOST_ENTRIES);
    }

    #[test]
    fn fewer_rows_are_missing_and_more_are_duplicated() {
        let (account, table) = account();
        let claim = Claim {
            table,
            journal: JournalId(1),
            seqs: 5..=14,
            rows: 10,
        };
        account.compare(0, &claim, (10, 9));
        let count = |kind| account.metrics.rows.get_or_create(&Kind { kind }).get();
        assert_eq!([count("right"), count("missing"), count("duplicated")], [9, 1, 1]);
    }
}
