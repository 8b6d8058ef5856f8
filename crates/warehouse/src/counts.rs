//! Live counts: how many events of each name came in each minute, kept beside the event table by a view.
//!
//! `events` gets `events_per_minute`. A dashboard that asks it reads a few rows a minute instead of every event.
//! Counts begin when the view is made, and they say what came in: rows that are deleted later stay counted.

use millrace_event::destination::Ttl;

use crate::client::Warehouse;
use crate::error::Error;
use crate::layout::Layout;
use crate::name::TableName;

/// What the counts' table is called, unquoted; its view has `_view` behind it.
pub fn name_of(table: &TableName) -> String {
    format!("{}_per_minute", table.table())
}

/// The statements that make the counts of an event table: their table, then the view that fills it.
///
/// A block of the source is of one month, and so is what the view makes of it: one block, under the source's token,
/// in a table with a deduplication window of the same size.
pub fn create(table: &TableName, layout: &Layout) -> [String; 2] {
    let (database, name) = (table.database().quoted(), name_of(table));
    let days = layout.ttl.and_then(Ttl::days);
    let ttl = days.map_or(String::new(), |days| {
        format!("TTL minute + INTERVAL {days} DAY DELETE\n")
    });
    let (on, engine, window) = (
        layout.on_cluster(),
        layout.engine("AggregatingMergeTree"),
        layout.window(),
    );
    let (column, workspace) = match layout.shared {
        true => ("    `_workspace` LowCardinality(String),\n", "_workspace, "),
        false => ("", ""),
    };
    let target = format!(
        "CREATE TABLE IF NOT EXISTS {database}.`{name}`{on}\n(\n{column}\
         \x20   `minute` DateTime('UTC') CODEC(Delta, ZSTD(1)),\n\
         \x20   `type` LowCardinality(String),\n\
         \x20   `event` LowCardinality(String),\n\
         \x20   `source` LowCardinality(String),\n\
         \x20   `events` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),\n\
         \x20   `people` AggregateFunction(uniq, String),\n\
         \x20   `latest` SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(ZSTD(1))\n)\n\
         ENGINE = {engine}\n\
         PARTITION BY toYYYYMM(minute)\n\
         ORDER BY ({workspace}type, event, source, minute)\n\
         {ttl}SETTINGS {window}"
    );
    let source = table.quoted();
    let view = format!(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.`{name}_view`{on} TO {database}.`{name}` AS\n\
         SELECT {workspace}toStartOfMinute(toDateTime(received_at, 'UTC')) AS minute, type, event, source, count() AS events, \
         uniqState(anonymous_id) AS people, max(received_at) AS latest\n\
         FROM {source} GROUP BY {workspace}minute, type, event, source"
    );
    [target, view]
}

impl Warehouse {
    /// Makes the counts of an event table where they are missing. Events do not depend on them: where the name is
    /// taken by a table of another kind, or the server refuses, the table goes without.
    ///
    /// # Errors
    /// The server does not answer.
    ///
    /// # Cancellation
    /// The counts may be made or not; calling again is safe.
    pub(crate) async fn create_counts(&self, table: &TableName, layout: &Layout) -> Result<(), Error> {
        let query = self
            .client()
            .query("SELECT engine FROM system.tables WHERE database = ? AND name = ?")
            .bind(table.database().as_str())
            .bind(name_of(table));
        let taken: Option<String> = self.bounded(query.fetch_optional()).await?;
        if let Some(engine) = taken.filter(|engine| !engine.ends_with("AggregatingMergeTree")) {
            tracing::warn!(%table, engine, "no live counts: their name is taken");
            return Ok(());
        }
        for statement in create(table, layout) {
            match self.execute(&statement).await {
                Ok(()) => {}
                Err(error) if error.code().is_some() => {
                    tracing::warn!(%table, error = %error, "no live counts: the server refused");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
