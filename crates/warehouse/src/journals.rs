//! Table `journals`: watermarks that no longer fit into the commit metadata.

use std::ops::Range;

use millrace_event::JournalId;

use crate::batch::Block;
use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::Error;
use crate::fixed::FixedRows;
use crate::name::{Database, TableName};
use crate::native::Cell;

/// The table's name.
pub const TABLE: &str = "journals";

/// What is known about one journal in one partition, as of one position in the transformed log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The partition of the transformed log.
    pub partition: u32,
    /// The journal.
    pub journal: JournalId,
    /// Everything of the log below it is settled.
    pub position: u64,
    /// The journal's next sequence number.
    pub next: u64,
    /// Sequence numbers below `next` that have not arrived.
    pub holes: Vec<Range<u64>>,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct WatermarkRow {
    position: u64,
    next: u64,
    hole_starts: Vec<u64>,
    hole_ends: Vec<u64>,
}

const COLUMNS: [(&str, ColumnType); 7] = [
    ("group", ColumnType::LowCardinality),
    ("log_partition", ColumnType::Plain(Scalar::UInt(32))),
    ("journal", ColumnType::Plain(Scalar::UInt(64))),
    ("position", ColumnType::Plain(Scalar::UInt(64))),
    ("next", ColumnType::Plain(Scalar::UInt(64))),
    ("hole_starts", ColumnType::Array(Scalar::UInt(64))),
    ("hole_ends", ColumnType::Array(Scalar::UInt(64))),
];

/// The table in a database.
///
/// # Errors
/// Never for the names of this crate; the error is that of [`TableName::new`].
pub fn table(database: Database) -> Result<TableName, crate::name::InvalidName> {
    TableName::new(database, TABLE)
}

/// Watermarks of one consumer group as one block; the table has no partitions, so its month is 0, and its rows
/// have no identity.
pub fn encode(group: &str, watermarks: &[Watermark]) -> Block {
    let mut rows = FixedRows::new(&COLUMNS);
    for watermark in watermarks {
        let bounds = |bound: fn(&Range<u64>) -> u64| {
            Cell::List(
                watermark
                    .holes
                    .iter()
                    .map(|hole| Cell::Bits(bound(hole)))
                    .collect(),
            )
        };
        let cells = [
            Cell::Text(group.into()),
            Cell::Bits(u64::from(watermark.partition)),
            Cell::Bits(watermark.journal.0),
            Cell::Bits(watermark.position),
            Cell::Bits(watermark.next),
            bounds(|hole| hole.start),
            bounds(|hole| hole.end),
        ];
        rows.push(&cells, None);
    }
    rows.finish(0)
}

impl Warehouse {
    /// What was written about a journal last, at a position not above `position`.
    ///
    /// # Errors
    /// The server does not answer or refuses. Nothing is known then.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn watermark(
        &self,
        journals: &TableName,
        group: &str,
        partition: u32,
        journal: JournalId,
        position: u64,
    ) -> Result<Option<Watermark>, Error> {
        let sql = format!(
            "SELECT position, next, hole_starts, hole_ends FROM {} \
             WHERE `group` = ? AND log_partition = ? AND journal = ? AND position <= ? \
             ORDER BY position DESC LIMIT 1 SETTINGS select_sequential_consistency = 1",
            journals.quoted()
        );
        let query = self
            .client()
            .query(&sql)
            .bind(group)
            .bind(partition)
            .bind(journal.0)
            .bind(position);
        let row: Option<WatermarkRow> = self.bounded(query.fetch_optional()).await?;
        Ok(row.map(|row| Watermark {
            partition,
            journal,
            position: row.position,
            next: row.next,
            holes: row
                .hole_starts
                .into_iter()
                .zip(row.hole_ends)
                .map(|(start, end)| start..end)
                .collect(),
        }))
    }
}
