//! What a table holds, and the end of queries that outlived their client.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use millrace_event::JournalId;

use crate::client::Warehouse;
use crate::error::Error;
use crate::name::TableName;

/// Sequence numbers per query: with 20 digits each they stay below the server's `max_query_size` of 256 KiB.
const SEQS_PER_QUERY: usize = 5_000;

#[derive(clickhouse::Row, serde::Deserialize)]
struct HeldRow {
    seq: u64,
    sub: u16,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct CountedRow {
    seq: u64,
    sub: u16,
    copies: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct SumRow {
    rows: u64,
    different: u64,
}

/// A line of the answer to `KILL QUERY`; it has columns that are of no use here.
#[derive(serde::Deserialize)]
struct KilledRow {
    kill_status: String,
    query_id: String,
}

/// What became of the queries that `KILL QUERY` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// How many had been running and are over.
    pub ended: usize,
    /// Those that the server could not end.
    pub left: Vec<String>,
}

impl Killed {
    /// Whether none of the queries runs any more. Only then may the table be asked.
    pub fn is_answered(&self) -> bool {
        self.left.is_empty()
    }
}

impl Warehouse {
    /// Which rows of these events a table holds, as `(seq, sub)`. Exact for what was written before the call;
    /// an insert that still runs must have been killed first. Rows deleted since then are not held.
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
        let mut held = BTreeSet::new();
        // Mostly a table holds none of them, and then the range says so at a fraction of the cost.
        if let (Some(first), Some(last), true) = (
            seqs.iter().min(),
            seqs.iter().max(),
            seqs.len() > SEQS_PER_QUERY / 10,
        ) && self.sum(table, journal, partition, *first..=*last).await?.0 == 0
        {
            return Ok(held);
        }
        for some in seqs.chunks(SEQS_PER_QUERY) {
            let mut sql = format!(
                "SELECT _seq AS seq, _sub AS sub FROM {} WHERE _journal = {} AND _partition = {partition} AND _seq IN (",
                table.quoted(),
                journal.0
            );
            for (index, seq) in some.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                sql.push_str(&format!("{separator}{seq}"));
            }
            sql.push_str(") SETTINGS select_sequential_consistency = 1");
            let rows: Vec<HeldRow> = self.bounded(self.client().query(&sql).fetch_all()).await?;
            held.extend(rows.into_iter().map(|row| (row.seq, row.sub)));
        }
        Ok(held)
    }

    /// How often a table holds each row of a range of events, as `(seq, sub)`; rows that it does not hold are left
    /// out. For audits: one query reads the whole range.
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
        let sql = format!(
            "SELECT _seq AS seq, _sub AS sub, count() AS copies FROM {} WHERE _journal = {} AND _partition = {partition} \
             AND _seq BETWEEN {} AND {} GROUP BY seq, sub SETTINGS select_sequential_consistency = 1",
            table.quoted(),
            journal.0,
            seqs.start(),
            seqs.end()
        );
        let rows: Vec<CountedRow> = self.bounded(self.client().query(&sql).fetch_all()).await?;
        Ok(rows
            .into_iter()
            .map(|row| ((row.seq, row.sub), row.copies))
            .collect())
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
        let sql = format!(
            "SELECT count() AS rows, uniqExact(_seq, _sub) AS different FROM {} WHERE _journal = {} \
             AND _partition = {partition} AND _seq BETWEEN {} AND {} SETTINGS select_sequential_consistency = 1",
            table.quoted(),
            journal.0,
            seqs.start(),
            seqs.end()
        );
        let sum: SumRow = self.bounded(self.client().query(&sql).fetch_one()).await?;
        Ok((sum.rows, sum.different))
    }

    /// Ends every query whose id starts with `prefix`, and waits until they are over.
    ///
    /// # Errors
    /// The server does not answer or refuses: whether something still runs is unknown.
    ///
    /// # Cancellation
    /// Queries may be ended or not; calling again is safe.
    pub async fn kill(&self, prefix: &str) -> Result<Killed, Error> {
        // As JSON: where nothing is found the answer is empty, which the binary formats have no form for.
        let sql = "KILL QUERY WHERE startsWith(query_id, ?) SYNC";
        let mut answer = self.client().query(sql).bind(prefix).fetch_bytes("JSONEachRow")?;
        let answer = self.bounded(answer.collect()).await?;
        let rows: Vec<KilledRow> = serde_json::Deserializer::from_slice(&answer)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Malformed(clickhouse::error::Error::DataFormat(error.into())))?;
        let (ended, left): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.kill_status == "finished");
        Ok(Killed {
            ended: ended.len(),
            left: left.into_iter().map(|row| row.query_id).collect(),
        })
    }
}
