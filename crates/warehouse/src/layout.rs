//! The event table: its core columns, its DDL, and the check that refuses a table which would break exactly-once.

use std::num::NonZeroU32;

use millrace_event::destination::{ClickHouse, Cluster, Codec, Compression, TableLayout, Ttl};

use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::{Error, UnfitReason};
use crate::name::{Database, InvalidName, TableName};
use crate::schema::{ColumnSpec, Schema};

/// How many insert tokens a table remembers. At one insert a second and partition it is hours for a table.
pub const DEDUPLICATION_WINDOW: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

/// Events of one table go to one partition per month of `received_at`, in UTC.
pub const PARTITION_KEY: &str = "toYYYYMM(received_at)";

/// The columns that hold a row's identity, in the order of their projection.
pub const IDENTITY: [(&str, &str); 4] = [
    ("_journal", "UInt64"),
    ("_partition", "UInt32"),
    ("_seq", "UInt64"),
    ("_sub", "UInt16"),
];

/// A column that every event table has.
#[derive(Clone, Copy, Debug)]
pub struct CoreColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub type_name: &'static str,
    /// How it is compressed; the server's default where it is empty.
    pub codec: &'static str,
}

/// The columns of every event table besides its identity, in the order of the table.
///
/// Date-times are in UTC, so that the month of a row does not depend on the server's time zone.
pub const CORE: [CoreColumn; 16] = [
    core("message_id", "String", "ZSTD(1)"),
    core("type", "LowCardinality(String)", ""),
    core("event", "LowCardinality(String)", ""),
    core("anonymous_id", "String", "ZSTD(1)"),
    core("user_id", "String", "ZSTD(1)"),
    core("group_id", "String", "ZSTD(1)"),
    core("previous_id", "String", "ZSTD(1)"),
    core("name", "String", "ZSTD(1)"),
    core("category", "String", "ZSTD(1)"),
    core("timestamp", "DateTime64(3, 'UTC')", "Delta, ZSTD(1)"),
    core(
        "original_timestamp",
        "Nullable(DateTime64(3, 'UTC'))",
        "Delta, ZSTD(1)",
    ),
    core("sent_at", "Nullable(DateTime64(3, 'UTC'))", "Delta, ZSTD(1)"),
    core("received_at", "DateTime64(3, 'UTC')", "Delta, ZSTD(1)"),
    core("ingested_at", "DateTime64(3, 'UTC')", "Delta, ZSTD(1)"),
    core("source", "LowCardinality(String)", ""),
    core("extra", "String", "ZSTD(1)"),
];

const fn core(name: &'static str, type_name: &'static str, codec: &'static str) -> CoreColumn {
    CoreColumn {
        name,
        type_name,
        codec,
    }
}

/// The column of shared tables that says whose a row is; first in their sort key.
pub const WORKSPACE: &str = "_workspace";

/// The column with what ClickHouse's type JSON takes of `extra`, where a destination asks for it.
pub const EXTRA_JSON: &str = "extra_json";

/// What the server computes [`EXTRA_JSON`] from, without ever failing: `{}` where the type does not take the text,
/// for instance for an integer above UInt64 or a name that is there twice. `extra` has it as it came in any case.
const EXTRA_JSON_TYPE: &str = "JSON DEFAULT JSONExtract(extra, 'JSON')";

/// The database of the tables that workspaces share, beside the one of Millrace's own: `millrace_shared`.
///
/// # Errors
/// The name would be too long.
pub fn shared_database(own: &Database) -> Result<Database, InvalidName> {
    format!("{}_shared", own.as_str()).parse()
}

/// The function that `received_at` is counted by in a TTL.
const TTL_FROM: &str = "toDateTime(received_at)";

/// Whether a name belongs to the table itself, so that no property may have it.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with('_') || name == EXTRA_JSON || CORE.iter().any(|column| column.name == name)
}

/// What may differ from one event table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How many insert tokens the table remembers.
    pub deduplication_window: NonZeroU32,
    /// How long rows are kept; where it is not set, a table that is there keeps the TTL that it has.
    pub ttl: Option<Ttl>,
    /// Whether the table gets live counts: see [`crate::counts`].
    pub live_counts: bool,
    /// Whether it has the column [`EXTRA_JSON`].
    pub extra_json: bool,
    /// Whether several workspaces share it, told apart by [`WORKSPACE`].
    pub shared: bool,
    /// How columns are compressed, where that is not as in [`CORE`].
    pub codecs: Codecs,
    /// The cluster that it is replicated on. Experimental.
    pub cluster: Option<Cluster>,
    /// How its rows are compressed on their way.
    pub compression: Compression,
}

/// How columns are compressed; each as by default where it is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codecs {
    /// Columns of text and arrays.
    pub text: Option<Codec>,
    /// Columns of times.
    pub time: Option<Codec>,
    /// Columns of numbers.
    pub number: Option<Codec>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            deduplication_window: DEDUPLICATION_WINDOW,
            ttl: None,
            live_counts: true,
            extra_json: false,
            shared: false,
            codecs: Codecs::default(),
            cluster: None,
            compression: Compression::default(),
        }
    }
}

impl From<&ClickHouse> for Layout {
    fn from(settings: &ClickHouse) -> Self {
        Self {
            ttl: settings.ttl_days,
            extra_json: settings.extra_json == Some(true),
            shared: settings.layout() == TableLayout::Shared,
            codecs: Codecs {
                text: settings.codec_text.clone(),
                time: settings.codec_time.clone(),
                number: settings.codec_number.clone(),
            },
            cluster: settings.cluster.clone(),
            compression: settings.compression.unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Layout {
    /// ` ON CLUSTER …`, where there is one: behind the name in every statement that makes or changes something.
    pub(crate) fn on_cluster(&self) -> String {
        let cluster = self.cluster.as_ref();
        cluster.map_or_else(String::new, |cluster| format!(" ON CLUSTER `{cluster}`"))
    }

    /// An engine of the MergeTree family, replicated on a cluster: its path comes from the server's own defaults.
    pub(crate) fn engine(&self, family: &str) -> String {
        let replicated = if self.cluster.is_some() { "Replicated" } else { "" };
        format!("{replicated}{family}")
    }

    /// The setting by which a table remembers insert tokens.
    pub(crate) fn window(&self) -> String {
        let setting = window_setting(self.cluster.is_some());
        format!("{setting} = {}", self.deduplication_window)
    }

    /// The codec of a column, of a type and with one of its own by default.
    pub(crate) fn codec<'a>(&'a self, type_name: &str, default: &'a str) -> &'a str {
        let chosen = match ColumnType::parse(type_name) {
            ColumnType::Plain(Scalar::String) | ColumnType::Array(_) => &self.codecs.text,
            ColumnType::Plain(Scalar::DateTime64) | ColumnType::Nullable(Scalar::DateTime64) => {
                &self.codecs.time
            }
            ColumnType::Plain(_) | ColumnType::Nullable(_) => &self.codecs.number,
            ColumnType::LowCardinality | ColumnType::LowCardinalityNullable | ColumnType::Other => &None,
        };
        chosen.as_ref().map_or(default, Codec::as_str)
    }
}

/// The statement that makes a database.
pub fn create_database(database: &Database, layout: &Layout) -> String {
    format!(
        "CREATE DATABASE IF NOT EXISTS {}{}",
        database.quoted(),
        layout.on_cluster()
    )
}

/// The statement that makes an event table; a table that is there already stays as it is.
///
/// The projection answers which identities a table holds from one granule (the sort key is for analysts, and a
/// skip index on the identity stops helping once parts are merged); lightweight deletes rebuild it.
pub fn create_table(table: &TableName, layout: &Layout) -> String {
    let mut sql = format!(
        "CREATE TABLE IF NOT EXISTS {}{}\n(\n",
        table.quoted(),
        layout.on_cluster()
    );
    for column in &CORE {
        sql.push_str(&format!("    `{}` {}", column.name, column.type_name));
        let codec = layout.codec(column.type_name, column.codec);
        if !codec.is_empty() {
            sql.push_str(&format!(" CODEC({codec})"));
        }
        sql.push_str(",\n");
    }
    if layout.extra_json {
        sql.push_str(&format!("    `{EXTRA_JSON}` {EXTRA_JSON_TYPE},\n"));
    }
    if layout.shared {
        sql.push_str(&format!("    `{WORKSPACE}` LowCardinality(String),\n"));
    }
    for (name, type_name) in IDENTITY {
        let codec = match name {
            "_seq" => "Delta, ZSTD(1)",
            _ => "ZSTD(1)",
        };
        sql.push_str(&format!("    `{name}` {type_name} CODEC({codec}),\n"));
    }
    let identity = IDENTITY.map(|(name, _)| name).join(", ");
    let first = if layout.shared { "_workspace, " } else { "" };
    sql.push_str(&format!(
        "    PROJECTION _identity (SELECT {identity} ORDER BY {identity})\n)\n\
         ENGINE = {}\n\
         PARTITION BY {PARTITION_KEY}\n\
         ORDER BY ({first}type, event, toStartOfHour(timestamp), cityHash64(anonymous_id), message_id)\n",
        layout.engine("MergeTree")
    ));
    if let Some(days) = layout.ttl.and_then(Ttl::days) {
        sql.push_str(&format!("TTL {TTL_FROM} + INTERVAL {days} DAY DELETE\n"));
    }
    sql.push_str(&format!(
        "SETTINGS {}, lightweight_mutation_projection_mode = 'rebuild'",
        layout.window()
    ));
    sql
}

/// What has to be changed for a table that is there to be as its settings say; nothing where it is. `found` is its
/// engine in full, as the server shows it.
pub fn follow(table: &TableName, layout: &Layout, schema: &Schema, found: &str) -> Vec<String> {
    let alter = format!("ALTER TABLE {}{}", table.quoted(), layout.on_cluster());
    let mut statements = Vec::new();
    if layout.extra_json && schema.get(EXTRA_JSON).is_none() {
        statements.push(format!(
            "{alter} ADD COLUMN IF NOT EXISTS `{EXTRA_JSON}` {EXTRA_JSON_TYPE} AFTER extra"
        ));
    }
    let has_ttl = found.contains("TTL ");
    match layout.ttl {
        None => {}
        Some(Ttl::Never(_)) if has_ttl => statements.push(format!("{alter} REMOVE TTL")),
        Some(Ttl::Never(_)) => {}
        Some(Ttl::Days(days)) => {
            let as_shown = format!("TTL {TTL_FROM} + toIntervalDay({days})");
            let behind = found
                .split_once(&as_shown)
                .map(|(_, behind)| behind.chars().next());
            // Whatever stands behind it makes it another one, but for the settings.
            if behind.is_none_or(|next| next.is_some_and(|next| next != ' ')) {
                statements.push(format!(
                    "{alter} MODIFY TTL {TTL_FROM} + INTERVAL {days} DAY DELETE"
                ));
            }
        }
    }
    statements
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct TableRow {
    engine: String,
    engine_full: String,
    partition_key: String,
}

impl Warehouse {
    /// Makes the database, the event table and its live counts where they are missing, checks the table, and changes
    /// what its settings want otherwise.
    ///
    /// # Errors
    /// The server does not answer or refuses, or the table that is there is not fit: see [`Self::check_table`].
    ///
    /// # Cancellation
    /// The database or the table may be made or not; calling again is safe.
    pub async fn create_table(&self, table: &TableName, layout: &Layout) -> Result<Schema, Error> {
        let turn = self.turn(table).await;
        self.execute(&create_database(table.database(), layout)).await?;
        self.execute(&create_table(table, layout)).await?;
        if layout.live_counts {
            self.create_counts(table, layout).await?;
        }
        let (schema, found) = self.read_table(table, layout.deduplication_window).await?;
        let statements = follow(table, layout, &schema, &found.engine_full);
        for statement in &statements {
            tracing::info!(%table, statement, "a table follows its settings");
            self.execute(statement).await?;
        }
        drop(turn);
        if statements.is_empty() {
            return Ok(schema);
        }
        Schema::read(self, table).await
    }

    /// The statements by which a table would be as its settings say; nothing where it is.
    ///
    /// # Errors
    /// The server does not answer, or the table that is there is not fit: see [`Self::check_table`].
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn pending(&self, table: &TableName, layout: &Layout) -> Result<Vec<String>, Error> {
        match self.read_table(table, layout.deduplication_window).await {
            Ok((schema, found)) => Ok(follow(table, layout, &schema, &found.engine_full)),
            Err(Error::UnfitTable {
                reason: UnfitReason::Missing,
                ..
            }) => Ok(vec![create_table(table, layout)]),
            Err(error) => Err(error),
        }
    }

    /// Reads a table back and refuses one that could hold a row twice: without a deduplication window of at
    /// least `window`, partitioned otherwise than by month, without the identity columns, with core columns that
    /// cannot take an event, or with a view behind it whose target lacks the window: see [`Self::check_views`].
    ///
    /// # Errors
    /// The server does not answer, or [`Error::UnfitTable`] with the reason.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn check_table(&self, table: &TableName, window: NonZeroU32) -> Result<Schema, Error> {
        self.read_table(table, window).await.map(|(schema, _)| schema)
    }

    async fn read_table(&self, table: &TableName, window: NonZeroU32) -> Result<(Schema, TableRow), Error> {
        let unfit = |reason| Error::UnfitTable {
            table: table.clone(),
            reason,
        };
        let found = self.table_row(table).await?;
        check_engine(&found, window).map_err(unfit)?;
        if !["", PARTITION_KEY].contains(&found.partition_key.as_str()) {
            return Err(unfit(UnfitReason::PartitionKey(found.partition_key)));
        }
        let schema = Schema::read(self, table).await?;
        check_columns(&schema).map_err(unfit)?;
        self.check_views(table, window).await?;
        Ok((schema, found))
    }

    /// Refuses a table, for instance the target of a view, whose engine keeps no deduplication window of at
    /// least `window`.
    ///
    /// # Errors
    /// The server does not answer, or [`Error::UnfitTable`] with the reason.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn check_window(&self, table: &TableName, window: NonZeroU32) -> Result<(), Error> {
        let found = self.table_row(table).await?;
        check_engine(&found, window).map_err(|reason| Error::UnfitTable {
            table: table.clone(),
            reason,
        })
    }

    async fn table_row(&self, table: &TableName) -> Result<TableRow, Error> {
        let query = self
            .client()
            .query("SELECT engine, engine_full, partition_key FROM system.tables WHERE database = ? AND name = ?")
            .bind(table.database().as_str())
            .bind(table.table());
        let found: Option<TableRow> = self.bounded(query.fetch_optional()).await?;
        found.ok_or_else(|| Error::UnfitTable {
            table: table.clone(),
            reason: UnfitReason::Missing,
        })
    }
}

fn check_engine(found: &TableRow, window: NonZeroU32) -> Result<(), UnfitReason> {
    if !found.engine.ends_with("MergeTree") {
        return Err(UnfitReason::Engine(found.engine.clone()));
    }
    let (found, wanted) = (
        window_of(&found.engine, &found.engine_full),
        u64::from(window.get()),
    );
    if found < wanted {
        return Err(UnfitReason::Window { found, wanted });
    }
    Ok(())
}

const fn window_setting(replicated: bool) -> &'static str {
    match replicated {
        true => "replicated_deduplication_window",
        false => "non_replicated_deduplication_window",
    }
}

/// The window in `system.tables.engine_full`, which lists the settings that differ from the server's defaults.
pub(crate) fn window_of(engine: &str, engine_full: &str) -> u64 {
    let setting = window_setting(engine.starts_with("Replicated"));
    let settings = engine_full
        .rsplit_once("SETTINGS ")
        .map_or("", |(_, settings)| settings);
    settings
        .split(", ")
        .find_map(|entry| {
            entry
                .strip_prefix(setting)?
                .strip_prefix(" = ")?
                .trim_matches('\'')
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Refuses a schema in which an identity column or a core column is missing or cannot take its values.
pub(crate) fn check_columns(schema: &Schema) -> Result<(), UnfitReason> {
    let core = CORE.iter().map(|column| (column.name, column.type_name));
    for (name, wanted) in IDENTITY.into_iter().chain(core) {
        let found = schema.get(name);
        if !found.is_some_and(|column| takes_core(column, wanted)) {
            let found = found.map(|column| column.type_name.clone());
            return Err(UnfitReason::Column { name, wanted, found });
        }
    }
    Ok(())
}

/// Identities are exact, and so is `received_at` with its time zone, on which partitions stand. Elsewhere another
/// wrapper of the same type does: text may be `LowCardinality`, a date-time `Nullable`.
fn takes_core(found: &ColumnSpec, wanted: &str) -> bool {
    if found.name.starts_with('_') || found.name == "received_at" {
        return wanted == found.type_name;
    }
    let (wanted, found) = (&ColumnType::parse(wanted), &found.column_type);
    let scalar = |column: &ColumnType| match column {
        ColumnType::Plain(scalar) | ColumnType::Nullable(scalar) => Some(*scalar),
        ColumnType::LowCardinality | ColumnType::LowCardinalityNullable => Some(Scalar::String),
        ColumnType::Array(_) | ColumnType::Other => None,
    };
    scalar(wanted).is_some() && scalar(wanted) == scalar(found)
}

#[cfg(test)]
mod tests;
