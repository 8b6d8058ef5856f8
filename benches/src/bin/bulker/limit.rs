//! A loop that reads, encodes and inserts, and promises nothing: no plan, no ledger, no commit, no question.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use millrace_benches::measure::{Cpu, Memory};
use millrace_event::{Identity, JournalId, Timestamp};
use millrace_kafka::Record;
use millrace_kafka::reader::read_all;
use millrace_service::{Clock as _, SystemClock};
use millrace_warehouse::{Config, Insert, Limits, Outcome, Row, RowId, Schema, TableName, Warehouse};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::PATIENCE;
use crate::ours::Ours;
use crate::report::Price;
use crate::server::Server;

/// Rows of one block, the bulker's own default.
const ROWS: usize = 100_000;

/// Records of one partition that go into one block.
type Chunk = (u32, Vec<Record>);

pub(crate) async fn run(server: &Server, ours: &Ours, events: u64) -> Result<Price> {
    let name = server.copy_of(ours.table(), "limit").await?;
    let table: TableName = name.parse()?;
    let warehouse = Config::new(server.url()).build();
    let schema = Arc::new(Schema::read(&warehouse, &table).await?);

    let itself = || Cpu::of(std::process::id());
    Memory::forget_peak(std::process::id())?;
    let (own, clickhouse, began) = (itself()?, server.cpu()?, SystemClock.instant());
    let (chunks, mut coming) = mpsc::channel::<Chunk>(1);
    let read = async {
        let open: Arc<Mutex<Vec<Vec<Record>>>> = Arc::default();
        let (filling, full) = (Arc::clone(&open), chunks.clone());
        let (connection, topic) = (ours.connection(), ours.plain_topic());
        let read = read_all(&connection, &topic, move |partition, record| {
            let mut open = filling.lock().unwrap_or_else(PoisonError::into_inner);
            let at = usize::try_from(partition).unwrap_or(0);
            if open.len() <= at {
                open.resize_with(at + 1, Vec::new);
            }
            let Some(records) = open.get_mut(at) else { return };
            records.push(record);
            if records.len() >= ROWS {
                let chunk = (partition, std::mem::take(records));
                // Where nobody takes it the other side has failed, and says so.
                drop(full.blocking_send(chunk));
            }
        });
        let read = read.await?;
        let rest = std::mem::take(&mut *open.lock().unwrap_or_else(PoisonError::into_inner));
        for (partition, records) in (0..).zip(rest).filter(|(_, records)| !records.is_empty()) {
            chunks.send((partition, records)).await?;
        }
        drop(chunks);
        Ok::<u64, anyhow::Error>(read)
    };
    let write = async {
        while let Some((partition, records)) = coming.recv().await {
            insert(&warehouse, &table, &schema, partition, &records).await?;
        }
        Ok(())
    };
    let (read, ()) = tokio::try_join!(read, write)?;
    ensure!(
        read == events,
        "the topic holds {read} records instead of {events}"
    );
    server.filled(&name, events).await?;
    let elapsed = SystemClock.instant() - began;
    let own = itself()?.since(own).total();
    let peak = Memory::of(std::process::id())?.peak;
    server.settled().await?;
    Ok(Price {
        events,
        elapsed,
        own,
        clickhouse: server.cpu()?.since(clickhouse).total(),
        peak,
    })
}

async fn insert(
    warehouse: &Warehouse,
    table: &TableName,
    schema: &Arc<Schema>,
    partition: u32,
    records: &[Record],
) -> Result<()> {
    let mut rows = Vec::with_capacity(records.len());
    for record in records {
        let event: &RawValue = serde_json::from_slice(&record.value)?;
        rows.push(Row {
            id: RowId {
                identity: Identity {
                    journal: JournalId(0),
                    partition,
                    seq: record.offset,
                },
                sub: 0,
            },
            received_at: Timestamp::clamped_from_millis(record.timestamp_ms),
            sent_at: None,
            source: "src_bench",
            workspace: "",
            message_id: "",
            event,
        });
    }
    let now = Timestamp::clamped_from_millis(SystemClock.now().as_millisecond());
    let encoded = warehouse
        .encode(table, Arc::clone(schema), Limits::default(), now, &rows)
        .await?;
    ensure!(
        encoded.refused.is_empty(),
        "a row does not fit: {:?}",
        encoded.refused.first()
    );
    for block in &encoded.blocks {
        let first = records.first().map_or(0, |record| record.offset);
        let token = format!("limit-{partition}-{first}-{}", block.month());
        let insert = Insert {
            table,
            block,
            token: &token,
            query_id: &token,
            deadline: PATIENCE,
        };
        if let Outcome::Definite(error) | Outcome::Ambiguous(error) = warehouse.insert(insert).await {
            return Err(error).context("a block was not inserted");
        }
    }
    Ok(())
}
