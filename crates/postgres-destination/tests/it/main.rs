//! A real PostgreSQL: what is written is what is read back, and each row is there once whoever writes it.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod once;
mod tables;
mod tls;
mod values;

use std::sync::Arc;
use std::time::Duration;

use millrace_event::{Identity, JournalId, Timestamp};
use millrace_postgres_destination::{Block, Config, Encoded, Insert, Outcome, Postgres};
use millrace_testkit::postgres::Database;
use millrace_warehouse::{Limits, Row, RowId, Schema, TableName};
use serde_json::value::RawValue;

const JOURNAL: JournalId = JournalId(0xf234_5678_9abc_def0);
const PARTITION: u32 = 2;

/// A database of a test's own, and a destination in it.
struct Bench {
    database: Database,
    destination: Postgres,
    table: TableName,
}

impl Bench {
    async fn start() -> Self {
        let database = Database::create().await.expect("a database");
        let destination = destination(&database);
        let table = "postgres-dst_test.events".parse().expect("a name");
        Self {
            database,
            destination,
            table,
        }
    }

    async fn schema(&self) -> Arc<Schema> {
        Arc::new(self.destination.create_table(&self.table).await.expect("a table"))
    }

    async fn encode(&self, events: &[(u64, String)]) -> Encoded {
        let rows: Vec<(u64, Box<RawValue>)> = events
            .iter()
            .map(|(seq, text)| (*seq, RawValue::from_string(text.clone()).expect("JSON")))
            .collect();
        let rows: Vec<Row<'_>> = rows.iter().map(|(seq, event)| row(*seq, event)).collect();
        let schema = self.schema().await;
        self.destination
            .encode(&self.table, schema, Limits::default(), at(), &rows)
            .await
            .expect("encoded")
    }

    /// Blocks of plain events.
    async fn blocks(&self, seqs: std::ops::Range<u64>) -> Vec<Block> {
        let events: Vec<_> = seqs
            .map(|seq| (seq, format!(r#"{{"type":"track","properties":{{"n":{seq}}}}}"#)))
            .collect();
        let encoded = self.encode(&events).await;
        assert_eq!(encoded.refused, []);
        encoded.blocks
    }

    async fn insert(&self, by: &Postgres, block: &Block, token: &str) -> Outcome {
        let line = by.line(PARTITION).await.expect("a line");
        let insert = Insert {
            table: &self.table,
            block,
            token,
            partition: PARTITION,
            first_offset: 0,
            deadline: Duration::from_secs(60),
            rehearsal: false,
        };
        by.insert_over(line, insert).await
    }

    async fn count(&self) -> i64 {
        let client = self.database.client().await.expect("connected");
        let row = client
            .query_one("SELECT count(*) FROM millrace.events", &[])
            .await;
        row.expect("answered").get(0)
    }

    async fn execute(&self, sql: &str) {
        let client = self.database.client().await.expect("connected");
        client.batch_execute(sql).await.expect("done by hand");
    }
}

fn destination(database: &Database) -> Postgres {
    destination_at(database.url())
}

fn destination_at(url: &str) -> Postgres {
    let mut config = Config::new("postgres-dst_test", "bulkers", url);
    // Patience for a machine that has other work.
    config.connect_timeout = Duration::from_secs(60);
    config.query_timeout = Duration::from_secs(60);
    config.insert_timeout = Duration::from_secs(60);
    config.lease = Duration::from_secs(60);
    config.build().expect("an address")
}

fn at() -> Timestamp {
    "2026-11-21T04:00:00.120Z".parse().expect("a time")
}

fn row(seq: u64, event: &RawValue) -> Row<'_> {
    Row {
        id: RowId {
            identity: Identity {
                journal: JOURNAL,
                partition: PARTITION,
                seq,
            },
            sub: 0,
        },
        received_at: at(),
        sent_at: None,
        source: "src_test",
        workspace: "ws_test",
        message_id: "m",
        event,
    }
}

fn token(number: u8) -> String {
    format!("{number:032x}")
}
