//! The columns of a table as the server has them: the only truth about types.

use std::collections::HashMap;

use crate::client::Warehouse;
use crate::column_type::ColumnType;
use crate::error::{Error, UnfitReason};
use crate::name::TableName;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name, unquoted.
    pub name: String,
    /// Its type in the server's spelling, sent back to it word for word.
    pub type_name: String,
    /// What this build makes of the type. Columns that the server computes are [`ColumnType::Other`].
    pub column_type: ColumnType,
}

/// What a server cannot take that is a name or a text to everybody else. Such a value goes to `extra`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// It takes whatever JSON can say.
    #[default]
    ClickHouse,
    /// Names end after 63 bytes, some belong to the system, and no text holds a NUL.
    Postgres,
}

/// The longest name that PostgreSQL keeps, in bytes; it cuts others without a word.
pub const POSTGRES_NAME_BYTES: usize = 63;
const POSTGRES_SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

impl Dialect {
    /// Whether a column can have this name.
    pub fn takes_name(self, name: &str) -> bool {
        match self {
            Self::ClickHouse => true,
            Self::Postgres => name.len() <= POSTGRES_NAME_BYTES && !POSTGRES_SYSTEM_COLUMNS.contains(&name),
        }
    }

    /// Whether a column can hold this text.
    pub fn takes_text(self, text: &str) -> bool {
        match self {
            Self::ClickHouse => true,
            Self::Postgres => !text.contains('\0'),
        }
    }
}

/// The columns of a table at one moment, in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    columns: Vec<ColumnSpec>,
    positions: HashMap<String, usize>,
    dialect: Dialect,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ColumnRow {
    name: String,
    type_name: String,
    default_kind: String,
}

impl ColumnSpec {
    /// A column of a known type.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self {
            name: name.into(),
            type_name: column_type.to_string(),
            column_type,
        }
    }
}

impl Schema {
    /// A schema of these columns; of two with one name the first is found by it.
    pub fn new(columns: Vec<ColumnSpec>) -> Self {
        let mut positions = HashMap::with_capacity(columns.len());
        for (position, column) in columns.iter().enumerate() {
            positions.entry(column.name.clone()).or_insert(position);
        }
        Self {
            columns,
            positions,
            dialect: Dialect::default(),
        }
    }

    /// The same columns on a server of that kind.
    #[must_use]
    pub fn of(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// What its server cannot take.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Reads a table's columns.
    ///
    /// # Errors
    /// The server does not answer, or the table does not exist ([`UnfitReason::Missing`]).
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn read(warehouse: &Warehouse, table: &TableName) -> Result<Self, Error> {
        let query = warehouse
            .client()
            .query(
                "SELECT name, type AS type_name, default_kind FROM system.columns \
                 WHERE database = ? AND table = ? ORDER BY position",
            )
            .bind(table.database().as_str())
            .bind(table.table());
        let rows: Vec<ColumnRow> = warehouse.bounded(query.fetch_all()).await?;
        if rows.is_empty() {
            return Err(Error::UnfitTable {
                table: table.clone(),
                reason: UnfitReason::Missing,
            });
        }
        let column = |row: ColumnRow| {
            let computed = matches!(row.default_kind.as_str(), "MATERIALIZED" | "ALIAS" | "EPHEMERAL");
            let column_type = if computed {
                ColumnType::Other
            } else {
                ColumnType::parse(&row.type_name)
            };
            ColumnSpec {
                name: row.name,
                type_name: row.type_name,
                column_type,
            }
        };
        Ok(Self::new(rows.into_iter().map(column).collect()))
    }

    /// The columns in the table's order.
    pub fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    /// The column of that name.
    pub fn get(&self, name: &str) -> Option<&ColumnSpec> {
        self.columns.get(self.position(name)?)
    }

    /// Where in [`Self::columns`] the column of that name is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }
}
