//! Tables follow the events: unknown columns are added, and the types that the table then has are what counts.

use std::sync::Arc;

use millrace_event::Timestamp;

use crate::batch::{AsRow, Batch, Block, Limits, RowError};
use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::Error;
use crate::layout::Layout;
use crate::name::TableName;
use crate::schema::{ColumnSpec, Schema};

/// Rounds of encoding, adding and reading back. The second is for a column that somebody else added first; more
/// are needed only while others keep changing types.
const ROUNDS: usize = 4;

/// Rows of one table as blocks.
#[derive(Debug)]
pub struct Encoded {
    /// One block per partition of the table.
    pub blocks: Vec<Block>,
    /// The rows that do not fit, by their index, each with the field.
    pub refused: Vec<(usize, RowError)>,
    /// The table's schema as of now, for the next call.
    pub schema: Arc<Schema>,
}

impl Warehouse {
    /// Adds columns in one statement and reads the schema back. A column that is there already stays as it is,
    /// whatever its type. Waits for its turn, where turns are taken: see [`Warehouse::with_turns`].
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// The columns may be added or not; calling again is safe.
    pub async fn add_columns(
        &self,
        table: &TableName,
        layout: &Layout,
        columns: &[ColumnSpec],
    ) -> Result<Schema, Error> {
        let _turn = self.turn(table).await;
        if !columns.is_empty() {
            self.execute(&add_columns(table, layout, columns)).await?;
        }
        Schema::read(self, table).await
    }

    /// Encodes rows of one table, adding the columns that it lacks.
    ///
    /// `schema` is the table's as it was last read; that it is out of date costs a second round and nothing else.
    /// Encoding and compressing is CPU work that does not yield. On a runtime of several threads it takes its own
    /// out of the runtime's, so that inserts and everything else go on, and no more of it runs at once than there
    /// are cores.
    ///
    /// # Errors
    /// The server does not answer or refuses, the table is not fit for events, or its types keep changing.
    /// Rows that do not fit are no error: see [`Encoded::refused`].
    ///
    /// # Cancellation
    /// Columns may be added that no row has values for. Calling again is safe.
    pub async fn encode(
        &self,
        table: &TableName,
        schema: Arc<Schema>,
        limits: Limits,
        ingested_at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> Result<Encoded, Error> {
        self.encode_as(table, &Layout::default(), schema, limits, ingested_at, rows)
            .await
    }

    /// As [`Self::encode`], for a table of that layout: new columns are compressed as it says.
    ///
    /// # Errors
    /// As [`Self::encode`].
    ///
    /// # Cancellation
    /// As [`Self::encode`].
    pub async fn encode_as(
        &self,
        table: &TableName,
        layout: &Layout,
        schema: Arc<Schema>,
        limits: Limits,
        ingested_at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> Result<Encoded, Error> {
        let mut schema = schema;
        for _ in 0..ROUNDS {
            let unfit = |reason| Error::UnfitTable {
                table: table.clone(),
                reason,
            };
            let batch = Batch::new(Arc::clone(&schema), limits, ingested_at).map_err(unfit)?;
            let mut batch = batch.compressed(layout.compression);
            let refused = self.busy(|| push_all(&mut batch, rows)).await;
            if !batch.added().is_empty() {
                tracing::info!(table = %table, columns = batch.added().len(), "adding columns");
                schema = Arc::new(self.add_columns(table, layout, batch.added()).await?);
                if layout.shared {
                    self.refresh_shares(table).await?;
                }
            }
            match self.busy(|| batch.finish(&schema)).await {
                Ok(blocks) => {
                    return Ok(Encoded {
                        blocks,
                        refused,
                        schema,
                    });
                }
                Err(moved) => {
                    tracing::info!(table = %table, column = moved.column, "the table has another type, encoding again");
                }
            }
        }
        Err(Error::UnstableSchema { table: table.clone() })
    }
}

fn push_all(batch: &mut Batch, rows: &[impl AsRow]) -> Vec<(usize, RowError)> {
    let mut refused = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if let Err(error) = batch.push(&row.as_row()) {
            refused.push((index, error));
        }
    }
    refused
}

/// The statement that adds columns.
pub fn add_columns(table: &TableName, layout: &Layout, columns: &[ColumnSpec]) -> String {
    let mut sql = format!("ALTER TABLE {}{}", table.quoted(), layout.on_cluster());
    for (index, column) in columns.iter().enumerate() {
        let separator = if index == 0 { " " } else { ", " };
        sql.push_str(separator);
        sql.push_str(&format!(
            "ADD COLUMN IF NOT EXISTS `{}` {}",
            column.name, column.type_name
        ));
        let codec = layout.codec(&column.type_name, codec_of(&column.column_type));
        if !codec.is_empty() {
            sql.push_str(&format!(" CODEC({codec})"));
        }
    }
    sql
}

const fn codec_of(column_type: &ColumnType) -> &'static str {
    match column_type {
        ColumnType::Plain(Scalar::String) | ColumnType::Array(_) => "ZSTD(1)",
        ColumnType::Plain(Scalar::DateTime64) | ColumnType::Nullable(Scalar::DateTime64) => "Delta, ZSTD(1)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Codecs;

    #[test]
    fn a_column_is_compressed_as_the_settings_say_of_its_kind() {
        let table: TableName = "db.events".parse().expect("a name");
        let layout = Layout {
            codecs: Codecs {
                text: "ZSTD(3)".parse().ok(),
                time: "DoubleDelta, LZ4".parse().ok(),
                number: "Gorilla, ZSTD(1)".parse().ok(),
            },
            cluster: "main".to_owned().try_into().ok(),
            ..Layout::default()
        };
        let columns = [
            ColumnSpec::new("t", ColumnType::Plain(Scalar::String)),
            ColumnSpec::new("at", ColumnType::Nullable(Scalar::DateTime64)),
            ColumnSpec::new("n", ColumnType::Nullable(Scalar::Float64)),
        ];
        assert_eq!(
            add_columns(&table, &layout, &columns),
            "ALTER TABLE `db`.`events` ON CLUSTER `main` ADD COLUMN IF NOT EXISTS `t` String CODEC(ZSTD(3)), \
             ADD COLUMN IF NOT EXISTS `at` Nullable(DateTime64(3, 'UTC')) CODEC(DoubleDelta, LZ4), \
             ADD COLUMN IF NOT EXISTS `n` Nullable(Float64) CODEC(Gorilla, ZSTD(1))"
        );
    }

    #[test]
    fn all_columns_go_into_one_statement() {
        let table: TableName = "db.events".parse().expect("a name");
        let columns = [
            ColumnSpec::new("price", ColumnType::Nullable(Scalar::Float64)),
            ColumnSpec::new("2nd", ColumnType::Plain(Scalar::String)),
        ];
        assert_eq!(
            add_columns(&table, &Layout::default(), &columns),
            "ALTER TABLE `db`.`events` ADD COLUMN IF NOT EXISTS `price` Nullable(Float64), \
             ADD COLUMN IF NOT EXISTS `2nd` String CODEC(ZSTD(1))"
        );
    }
}
