//! What a table holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use millrace_event::JournalId;
use millrace_warehouse::TableName;

use crate::client::Postgres;
use crate::error::Error;

/// Sequence numbers per query.
const SEQS_PER_QUERY: usize = 10_000;

impl Postgres {
    /// Which rows of these events a table holds, as `(seq, sub)`. Exact for what was committed before the call; the
    /// partition must have been taken over first.
    ///
    /// # Errors
    /// The server does not answer or refuses. Nothing is known then.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn which(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: &[u64],
    ) -> Result<BTreeSet<(u64, u16)>, Error> {
        let line = self.open().await?;
        let sql = format!(
            "SELECT _seq, _sub FROM {} WHERE _journal = $1 AND _partition = $2 AND _seq = ANY($3)",
            self.quoted(table.table())
        );
        let statement = self.bounded(line.client.prepare(&sql)).await?;
        let (journal, partition) = (journal.to_string(), i64::from(partition));
        let mut held = BTreeSet::new();
        for some in seqs.chunks(SEQS_PER_QUERY) {
            let some: Vec<i64> = some.iter().filter_map(|seq| i64::try_from(*seq).ok()).collect();
            let asked = self
                .bounded(line.client.query(&statement, &[&journal, &partition, &some]))
                .await?;
            for row in asked {
                let (seq, sub): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
                if let (Ok(seq), Ok(sub)) = (u64::try_from(seq), u16::try_from(sub)) {
                    held.insert((seq, sub));
                }
            }
        }
        self.keep(line);
        Ok(held)
    }

    /// How often a table holds each row of a range of events, as `(seq, sub)`; rows that it does not hold are left out.
    /// For audits. A table with a unique index holds none twice; whether it still has one is not asked.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn copies(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: RangeInclusive<u64>,
    ) -> Result<BTreeMap<(u64, u16), u64>, Error> {
        let line = self.open().await?;
        let sql = format!(
            "SELECT _seq, _sub, count(*) FROM {} WHERE _journal = $1 AND _partition = $2 AND _seq BETWEEN $3 AND $4 \
             GROUP BY 1, 2",
            self.quoted(table.table())
        );
        let statement = self.bounded(line.client.prepare(&sql)).await?;
        let end = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let (journal, partition) = (journal.to_string(), i64::from(partition));
        let (first, last) = (end(*seqs.start()), end(*seqs.end()));
        let rows = self
            .bounded(
                line.client
                    .query(&statement, &[&journal, &partition, &first, &last]),
            )
            .await?;
        let mut copies = BTreeMap::new();
        for row in rows {
            let (seq, sub, count): (i64, i32, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let (Ok(seq), Ok(sub), Ok(count)) =
                (u64::try_from(seq), u16::try_from(sub), u64::try_from(count))
            {
                copies.insert((seq, sub), count);
            }
        }
        self.keep(line);
        Ok(copies)
    }

    /// How many rows a table holds of a range of events, and how many different ones.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn sum(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: RangeInclusive<u64>,
    ) -> Result<(u64, u64), Error> {
        let line = self.open().await?;
        let sql = format!(
            "SELECT count(*), count(DISTINCT (_seq, _sub)) FROM {} \
             WHERE _journal = $1 AND _partition = $2 AND _seq BETWEEN $3 AND $4",
            self.quoted(table.table())
        );
        let statement = self.bounded(line.client.prepare(&sql)).await?;
        let end = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let (journal, partition) = (journal.to_string(), i64::from(partition));
        let (first, last) = (end(*seqs.start()), end(*seqs.end()));
        let row = self
            .bounded(
                line.client
                    .query_one(&statement, &[&journal, &partition, &first, &last]),
            )
            .await?;
        let (rows, different): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        self.keep(line);
        Ok((
            u64::try_from(rows).unwrap_or(0),
            u64::try_from(different).unwrap_or(0),
        ))
    }
}
