//! The event table: its columns, its DDL, and the check that refuses a table which could hold a row twice.
//!
//! It has the columns that it has in ClickHouse, as PostgreSQL's types; a field that is missing is `NULL`. The journal
//! of a row's identity is text, as headers and dead letters show it: PostgreSQL has no unsigned integers.

use millrace_warehouse::column_type::{ColumnType, Scalar};
use millrace_warehouse::layout::{CORE, IDENTITY};
use millrace_warehouse::schema::POSTGRES_NAME_BYTES;
use millrace_warehouse::{ColumnSpec, Dialect, Schema, TableName};

use crate::client::Postgres;
use crate::error::{Error, Unfit};
use crate::own::{IDENTITY_INDEX, MAKING};
use crate::sql;

/// The types of the identity's columns, in their order in [`IDENTITY`].
const IDENTITY_TYPES: [&str; 4] = ["text", "bigint", "bigint", "integer"];

/// How long a statement waits for others to let go of the table that it changes.
const LOCK_TIMEOUT: &str = "5s";

/// The type that a column of that kind gets.
pub fn type_name(column_type: &ColumnType) -> Option<String> {
    match column_type {
        ColumnType::Plain(scalar) | ColumnType::Nullable(scalar) => scalar_name(*scalar).map(str::to_owned),
        ColumnType::LowCardinality | ColumnType::LowCardinalityNullable => Some("text".to_owned()),
        ColumnType::Array(scalar) => scalar_name(*scalar).map(|name| format!("{name}[]")),
        ColumnType::Other => None,
    }
}

const fn scalar_name(scalar: Scalar) -> Option<&'static str> {
    Some(match scalar {
        Scalar::Bool => "boolean",
        Scalar::Int(16) => "smallint",
        Scalar::Int(32) => "integer",
        Scalar::Int(64) => "bigint",
        Scalar::Float32 => "real",
        Scalar::Float64 => "double precision",
        Scalar::DateTime64 => "timestamp with time zone",
        Scalar::String => "text",
        Scalar::UInt(_) | Scalar::Int(_) => return None,
    })
}

/// What this build makes of a type as `format_type` shows it.
pub fn parse_type(text: &str) -> ColumnType {
    let scalar = |text| {
        Some(match text {
            "boolean" => Scalar::Bool,
            "smallint" => Scalar::Int(16),
            "integer" => Scalar::Int(32),
            "bigint" => Scalar::Int(64),
            "real" => Scalar::Float32,
            "double precision" => Scalar::Float64,
            "timestamp with time zone" => Scalar::DateTime64,
            "text" => Scalar::String,
            _ => return None,
        })
    };
    match text.strip_suffix("[]") {
        Some(item) => scalar(item).map_or(ColumnType::Other, ColumnType::Array),
        None => match (text, scalar(text)) {
            ("text" | "character varying", _) => ColumnType::Plain(Scalar::String),
            (_, Some(scalar)) => ColumnType::Nullable(scalar),
            (_, None) => ColumnType::Other,
        },
    }
}

/// The statement that makes an event table; a table that is there already stays as it is.
fn create_table(quoted: &str, table: &TableName) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS {quoted} (\n");
    for column in &CORE {
        let type_name = type_name(&ColumnType::parse(column.type_name)).unwrap_or_default();
        sql.push_str(&format!("    {} {type_name},\n", sql::name(column.name)));
    }
    for ((name, _), type_name) in IDENTITY.iter().zip(IDENTITY_TYPES) {
        sql.push_str(&format!("    {name} {type_name} NOT NULL,\n"));
    }
    let identity = IDENTITY.map(|(name, _)| name).join(", ");
    let index = sql::name(&format!("{IDENTITY_INDEX}{:016x}", hash(&table.to_string())));
    sql.push_str(&format!("    CONSTRAINT {index} UNIQUE ({identity})\n)"));
    sql
}

/// FNV-1a: tells the indexes of a schema's tables apart.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated::text <> '' \
    OR a.attidentity::text = 'a' FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 \
    AND NOT a.attisdropped ORDER BY a.attnum";

const FITNESS: &str = "SELECT c.relkind::text, c.relpersistence::text, current_setting('server_encoding'), EXISTS ( \
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate \
        AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 4 AND ARRAY( \
            SELECT a.attname::text COLLATE \"C\" FROM pg_attribute a WHERE a.attrelid = c.oid \
            AND a.attnum = ANY ((i.indkey::int2[])[0:3]) ORDER BY 1 \
        ) = ARRAY['_journal', '_partition', '_seq', '_sub']) \
    FROM pg_class c WHERE c.oid = to_regclass($1)";

impl Postgres {
    /// Makes the event table where it is missing, and checks it.
    ///
    /// # Errors
    /// The server does not answer or refuses, or [`Error::UnfitTable`].
    ///
    /// # Cancellation
    /// The table may be made or not; calling again is safe.
    pub async fn create_table(&self, table: &TableName) -> Result<Schema, Error> {
        if table.table().len() > POSTGRES_NAME_BYTES {
            return Err(unfit(table, Unfit::Name));
        }
        let line = self.open().await?;
        let quoted = self.quoted(table.table());
        let known = self
            .bounded(
                line.client
                    .query_one("SELECT to_regclass($1) IS NOT NULL", &[&quoted]),
            )
            .await?;
        if !known.try_get::<_, bool>(0)? {
            let sql = format!(
                "BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SELECT pg_advisory_xact_lock({MAKING}); {}; COMMIT",
                create_table(&quoted, table)
            );
            self.bounded(line.client.batch_execute(&sql)).await?;
        }
        self.keep(line);
        self.check_table(table).await
    }

    /// Reads a table back and refuses one that could hold a row twice, could lose rows that were answered for, or
    /// lacks what every row needs.
    ///
    /// # Errors
    /// The server does not answer, or [`Error::UnfitTable`] with the reason.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn check_table(&self, table: &TableName) -> Result<Schema, Error> {
        let line = self.open().await?;
        let quoted = self.quoted(table.table());
        let found = self
            .bounded(line.client.query_opt(FITNESS, &[&quoted]))
            .await?
            .ok_or_else(|| unfit(table, Unfit::Missing))?;
        let text = |column| found.try_get::<_, String>(column);
        let (kind, persistence, encoding) = (text(0)?, text(1)?, text(2)?);
        let reason = match (kind.as_str(), persistence.as_str(), encoding.as_str()) {
            ("r" | "p", "p", "UTF8") if found.try_get(3)? => None,
            ("r" | "p", "p", "UTF8") => Some(Unfit::Index),
            ("r" | "p", "p", _) => Some(Unfit::Encoding(encoding)),
            ("r" | "p", ..) => Some(Unfit::Unlogged),
            _ => Some(Unfit::Kind),
        };
        if let Some(reason) = reason {
            return Err(unfit(table, reason));
        }
        self.keep(line);
        self.schema(table).await
    }

    /// A table's columns as they are now.
    async fn schema(&self, table: &TableName) -> Result<Schema, Error> {
        let line = self.open().await?;
        let quoted = self.quoted(table.table());
        let mut columns = Vec::new();
        for row in self.bounded(line.client.query(COLUMNS, &[&quoted])).await? {
            let (name, type_name, computed): (String, String, bool) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let column_type = if computed {
                ColumnType::Other
            } else {
                parse_type(&type_name)
            };
            columns.push(ColumnSpec {
                name,
                type_name,
                column_type,
            });
        }
        self.keep(line);
        as_events(columns).map_err(|reason| unfit(table, reason))
    }

    /// Adds columns in one statement and reads the schema back. A column that is there already stays as it is.
    ///
    /// # Errors
    /// The server does not answer or refuses, or somebody keeps the table locked.
    ///
    /// # Cancellation
    /// The columns may be added or not; calling again is safe.
    pub async fn add_columns(&self, table: &TableName, columns: &[ColumnSpec]) -> Result<Schema, Error> {
        let added: Vec<_> = columns
            .iter()
            .filter_map(|column| {
                let type_name = type_name(&column.column_type)?;
                Some(format!(
                    "ADD COLUMN IF NOT EXISTS {} {type_name}",
                    sql::name(&column.name)
                ))
            })
            .collect();
        if !added.is_empty() {
            let line = self.open().await?;
            let sql = format!(
                "BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; ALTER TABLE {} {}; COMMIT",
                self.quoted(table.table()),
                added.join(", ")
            );
            self.bounded(line.client.batch_execute(&sql)).await?;
            self.keep(line);
        }
        self.schema(table).await
    }
}

pub(crate) fn unfit(table: &TableName, reason: Unfit) -> Error {
    Error::UnfitTable {
        table: table.clone(),
        reason,
    }
}

/// The columns as the rules of events know them: identity and `received_at` under the types that those rules ask for
/// by name, once they are of PostgreSQL's types for them.
fn as_events(mut columns: Vec<ColumnSpec>) -> Result<Schema, Unfit> {
    let identity = IDENTITY
        .iter()
        .zip(IDENTITY_TYPES)
        .map(|((name, kind), wanted)| (*name, wanted, *kind));
    let core = CORE.iter().map(|column| {
        let wanted = match ColumnType::parse(column.type_name) {
            ColumnType::Plain(Scalar::DateTime64) | ColumnType::Nullable(Scalar::DateTime64) => {
                "timestamp with time zone"
            }
            _ => "text",
        };
        (column.name, wanted, column.type_name)
    });
    for (name, wanted, kind) in identity.chain(core) {
        let found = columns.iter_mut().find(|column| column.name == name);
        let column = match found {
            Some(column) if column.type_name == wanted && column.column_type != ColumnType::Other => column,
            other => {
                return Err(Unfit::Column {
                    name: name.to_owned(),
                    wanted,
                    found: other.map(|column| column.type_name.clone()),
                });
            }
        };
        if name.starts_with('_') || name == "received_at" {
            column.type_name = kind.to_owned();
            column.column_type = ColumnType::parse(kind);
        }
    }
    Ok(Schema::new(columns).of(Dialect::Postgres))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_they_are_written_and_others_are_not_taken_for_them() {
        for scalar in [
            Scalar::Bool,
            Scalar::Int(16),
            Scalar::Int(32),
            Scalar::Int(64),
            Scalar::Float32,
            Scalar::Float64,
            Scalar::DateTime64,
        ] {
            for kind in [ColumnType::Nullable(scalar), ColumnType::Array(scalar)] {
                assert_eq!(parse_type(&type_name(&kind).expect("a type")), kind);
            }
        }
        assert_eq!(parse_type("text"), ColumnType::Plain(Scalar::String));
        for other in [
            "numeric",
            "numeric(10,2)",
            "character varying(20)",
            "jsonb",
            "timestamp without time zone",
            "date",
        ] {
            assert_eq!(parse_type(other), ColumnType::Other, "{other}");
        }
    }

    #[test]
    fn a_table_has_one_index_that_keeps_a_row_from_being_there_twice() {
        let table: TableName = "postgres-dst_x.events".parse().expect("a name");
        let sql = create_table("\"millrace\".\"events\"", &table);
        assert!(sql.contains("UNIQUE (_journal, _partition, _seq, _sub)"), "{sql}");
        assert!(sql.contains("\"received_at\" timestamp with time zone"), "{sql}");
        assert!(sql.contains("\"extra\" text"), "{sql}");
    }
}
