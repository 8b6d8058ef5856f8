//! A database that a test has for itself, and rows to put into it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::{Identity, JournalId, Timestamp};
use millrace_warehouse::{
    Block, Config, Database, Encoded, Insert, Layout, Limits, Outcome, Row, RowId, Schema, TableName,
    Warehouse,
};
use serde_json::value::RawValue;

pub(crate) const JOURNAL: JournalId = JournalId(0xab);
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The address of the ClickHouse that tests may use.
fn url() -> String {
    #[expect(clippy::disallowed_methods, reason = "the tests' own configuration")]
    let url = std::env::var("MILLRACE_TEST_CLICKHOUSE");
    url.expect("MILLRACE_TEST_CLICKHOUSE names a ClickHouse, http://host:port")
}

/// A client for a machine that may be slow: no lease of it ends in the middle of a test.
pub(crate) fn unhurried(url: &str) -> Config {
    Config {
        lease: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(30),
        ..Config::new(url)
    }
}

/// A database of its own; it goes when this is dropped.
pub(crate) struct Place {
    pub(crate) warehouse: Warehouse,
    pub(crate) database: Database,
    pub(crate) url: String,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let place = Self::empty();
        place
            .run(&format!("CREATE DATABASE {}", place.database.quoted()))
            .await;
        place
    }

    /// The name of a database that is not made yet.
    pub(crate) fn empty() -> Self {
        let database = format!("test_{}", uuid::Uuid::new_v4().simple())
            .parse()
            .expect("a name");
        let url = url();
        Self {
            warehouse: unhurried(&url).build(),
            database,
            url,
        }
    }

    pub(crate) fn table(&self, name: &str) -> TableName {
        TableName::new(self.database.clone(), name).expect("a name")
    }

    /// An event table named `events`.
    pub(crate) async fn events(&self) -> (TableName, Arc<Schema>) {
        let table = self.table("events");
        let schema = self
            .warehouse
            .create_table(&table, &Layout::default())
            .await
            .expect("a table");
        (table, Arc::new(schema))
    }

    pub(crate) async fn run(&self, sql: &str) {
        let ran = self
            .warehouse
            .client()
            .query(&sql.replace('?', "??"))
            .execute()
            .await;
        ran.unwrap_or_else(|error| panic!("{error} in {sql}"));
    }

    /// The rows of a query, one text a row, columns apart by tabs.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        let bytes = self.bytes(sql, "TSV").await;
        String::from_utf8(bytes)
            .expect("UTF-8")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    pub(crate) async fn bytes(&self, sql: &str, format: &str) -> Vec<u8> {
        let cursor = self
            .warehouse
            .client()
            .query(&sql.replace('?', "??"))
            .fetch_bytes(format);
        let bytes = cursor.expect("a query").collect().await;
        bytes.unwrap_or_else(|error| panic!("{error} in {sql}")).to_vec()
    }

    pub(crate) async fn encode(&self, table: &TableName, schema: &Arc<Schema>, rows: &[Row<'_>]) -> Encoded {
        let encoded = self.warehouse.encode(
            table,
            Arc::clone(schema),
            Limits::default(),
            at("2026-11-21T04:00:02Z"),
            rows,
        );
        encoded.await.expect("rows can be encoded")
    }

    pub(crate) async fn insert(&self, table: &TableName, block: &Block, token: &str) -> Outcome {
        let query_id = format!("{}-{}", self.database, uuid::Uuid::new_v4().simple());
        let insert = Insert {
            table,
            block,
            token,
            query_id: &query_id,
            deadline: DEADLINE,
        };
        self.warehouse.insert(insert).await
    }

    /// Encodes events and inserts their blocks, all of which must go well.
    pub(crate) async fn write(
        &self,
        table: &TableName,
        schema: &Arc<Schema>,
        events: &[&str],
    ) -> Arc<Schema> {
        let events: Vec<_> = events.iter().map(|event| raw(event)).collect();
        let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
        let encoded = self.encode(table, schema, &rows).await;
        assert_eq!(encoded.refused, [], "every row fits");
        for (index, block) in encoded.blocks.iter().enumerate() {
            let outcome = self.insert(table, block, &format!("token-{index}")).await;
            assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
        }
        encoded.schema
    }
}

impl Drop for Place {
    /// Without the runtime, which may be gone by now. A database that stays does no harm to other tests.
    fn drop(&mut self) {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        let sql = format!("DROP DATABASE IF EXISTS {} SYNC", self.database.quoted());
        let Ok(mut stream) = TcpStream::connect(address) else {
            return;
        };
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        );
        if stream.write_all(request.as_bytes()).is_ok() {
            let mut answer = String::new();
            drop(stream.read_to_string(&mut answer));
        }
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a date-time")
}

pub(crate) fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

pub(crate) fn id(seq: u64) -> RowId {
    RowId {
        identity: Identity {
            journal: JOURNAL,
            partition: 3,
            seq,
        },
        sub: 0,
    }
}

pub(crate) fn row(seq: u64, event: &RawValue) -> Row<'_> {
    Row {
        id: id(seq),
        received_at: at("2026-11-21T04:00:01Z"),
        sent_at: None,
        source: "src",
        workspace: "ws_test",
        message_id: "from-the-gateway",
        event,
    }
}

/// Two rows of the workspace `ws_one` and three of `ws_two`.
pub(crate) fn rows_of_two(event: &RawValue) -> Vec<Row<'_>> {
    let workspace = |seq| if seq < 2 { "ws_one" } else { "ws_two" };
    (0..5)
        .map(|seq| Row {
            workspace: workspace(seq),
            ..row(seq, event)
        })
        .collect()
}
