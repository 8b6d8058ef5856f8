//! ClickHouse's own Kafka engine, as well as it can be set up: whole messages as strings, one `JSONExtract` of all
//! fields at once in the view, a consumer for each of two threads, large blocks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use millrace_service::{Clock as _, SystemClock};

use crate::event::FIELDS;
use crate::ours::Ours;
use crate::report::Price;
use crate::server::Server;

pub(crate) async fn run(server: &Server, ours: &Ours, events: u64) -> Result<Price> {
    let table = server.copy_of(ours.table(), "engine").await?;
    let types = server.types(&table).await?;
    let queue = format!("{table}_queue");
    let source = format!(
        "CREATE TABLE {queue} (raw String) ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{}', \
         kafka_group_name = '{table}', kafka_format = 'JSONAsString', kafka_num_consumers = 2, \
         kafka_thread_per_consumer = 1, kafka_max_block_size = 100000, kafka_poll_max_batch_size = 65536, \
         kafka_flush_interval_ms = 3000, date_time_input_format = 'best_effort'",
        ours.connection().brokers,
        ours.plain_topic()
    );
    let view = format!(
        "CREATE MATERIALIZED VIEW {table}_view TO {table} AS {}",
        select(&queue, &types)?
    );
    server
        .ask(&source)
        .await
        .context("this ClickHouse has no Kafka engine")?;
    let (clickhouse, began) = (server.cpu()?, SystemClock.instant());
    server.ask(&view).await?;
    let filled = server.filled(&table, events).await;
    let elapsed = SystemClock.instant() - began;
    // Without the view it goes on polling; without the queue it does not.
    server.ask(&format!("DROP VIEW {table}_view SYNC")).await?;
    server.ask(&format!("DROP TABLE {queue} SYNC")).await?;
    filled?;
    server.settled().await?;
    let clickhouse = server.cpu()?.since(clickhouse).total();
    same(server, ours.table(), &table).await?;
    Ok(Price {
        events,
        elapsed,
        own: std::time::Duration::ZERO,
        clickhouse,
        peak: 0,
    })
}

/// All columns of the table from one tuple.
fn select(queue: &str, types: &BTreeMap<String, String>) -> Result<String> {
    let mut columns = String::new();
    for field in FIELDS {
        let path: String = field
            .path
            .iter()
            .fold(String::new(), |path, name| format!("{path}.`{name}`"));
        write!(columns, "t{path} AS {}, ", field.column)?;
    }
    let tuple = tuple(&[], types)?;
    Ok(format!(
        "WITH JSONExtract(raw, '{tuple}') AS t SELECT {columns} _timestamp_ms AS received_at, now64(3) AS ingested_at, \
         'src_bench' AS source, toUInt64(0) AS _journal, toUInt32(_partition) AS _partition, toUInt64(_offset) AS _seq, \
         toUInt16(0) AS _sub FROM {queue}"
    ))
}

/// The type of the object at `path`: its leaves as the table has them, its objects as tuples.
fn tuple(path: &[&str], types: &BTreeMap<String, String>) -> Result<String> {
    let mut members: Vec<(&str, String)> = Vec::new();
    for field in FIELDS.iter().filter(|field| field.path.starts_with(path)) {
        let Some((name, rest)) = field.path.get(path.len()..).and_then(<[_]>::split_first) else {
            continue;
        };
        if members.iter().any(|(known, _)| known == name) {
            continue;
        }
        let kind = if rest.is_empty() {
            let kind = types.get(field.column);
            kind.with_context(|| format!("the table has no column {}", field.column))?
                .clone()
        } else {
            tuple(&[path, &[name]].concat(), types)?
        };
        members.push((name, kind));
    }
    let members: Vec<String> = members
        .iter()
        .map(|(name, kind)| format!("`{name}` {kind}"))
        .collect();
    // It stands inside a string: types such as DateTime64(3, 'UTC') have quotes.
    Ok(format!("Tuple({})", members.join(", ")).replace('\'', "\\'"))
}

/// Checks that both tables hold the same values.
async fn same(server: &Server, ours: &str, theirs: &str) -> Result<()> {
    let columns: Vec<&str> = FIELDS.iter().map(|field| field.column).collect();
    let sum = |table: &str| {
        format!(
            "SELECT sum(cityHash64(tuple({}))) FROM {table}",
            columns.join(", ")
        )
    };
    let (ours, theirs) = (server.ask(&sum(ours)).await?, server.ask(&sum(theirs)).await?);
    ensure!(
        ours == theirs,
        "the engine's table holds other values than Millrace's"
    );
    Ok(())
}
