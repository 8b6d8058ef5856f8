//! What the services say about themselves: requests and log lines, from their topics into `usage_events` and
//! `function_logs`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use millrace_event::Timestamp;
use serde::Deserialize;

use crate::batch::{Block, RowId, month_of};
use crate::column_type::{ColumnType, Scalar};
use crate::fixed::{Columns, FixedRows};
use crate::name::{Database, InvalidName, TableName};
use crate::native::Cell;
use crate::value::DateTime;

/// The version of both records that this build reads.
const VERSION: u32 = 1;

const DAY_MILLIS: i64 = 86_400_000;

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemTable {
    /// A row for each request that the gateway answered.
    UsageEvents,
    /// A row for each line that a function logged.
    FunctionLogs,
}

impl SystemTable {
    /// Its name, also as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsageEvents => "usage_events",
            Self::FunctionLogs => "function_logs",
        }
    }

    /// The table in a database.
    ///
    /// # Errors
    /// Never for the names of this crate; the error is that of [`TableName::new`].
    pub fn table(self, database: Database) -> Result<TableName, InvalidName> {
        TableName::new(database, self.as_str())
    }

    const fn columns(self) -> &'static Columns {
        match self {
            Self::UsageEvents => &USAGE,
            Self::FunctionLogs => &LOGS,
        }
    }
}

/// A record that is none of its table's: it has no place there.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not the JSON object that the contract names.
    #[error("it is no record of its topic")]
    Json(#[from] serde_json::Error),
    /// A later program wrote it.
    #[error("version {0} is not known")]
    Version(u32),
}

#[derive(Deserialize)]
struct Usage<'a> {
    version: u32,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    organization_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    api_key_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    status_code: u16,
    response_time_ms: f64,
    timestamp: Timestamp,
    billable: bool,
}

#[derive(Deserialize)]
struct LogLine<'a> {
    version: u32,
    #[serde(borrow)]
    workspace: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    destination: Cow<'a, str>,
    #[serde(borrow)]
    chain: Cow<'a, str>,
    chain_version: u64,
    #[serde(borrow, default)]
    function: Option<Cow<'a, str>>,
    #[serde(default)]
    function_version: Option<u32>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message_id: Option<Cow<'a, str>>,
    #[serde(default)]
    attempt: Option<u32>,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    timestamp: Timestamp,
    #[serde(default)]
    discarded: Option<u64>,
}

const TEXT: ColumnType = ColumnType::Plain(Scalar::String);
const TIME: ColumnType = ColumnType::Plain(Scalar::DateTime64);
const JOURNAL: (&str, ColumnType) = ("_journal", ColumnType::Plain(Scalar::UInt(64)));
const PARTITION: (&str, ColumnType) = ("_partition", ColumnType::Plain(Scalar::UInt(32)));
const SEQ: (&str, ColumnType) = ("_seq", ColumnType::Plain(Scalar::UInt(64)));
const SUB: (&str, ColumnType) = ("_sub", ColumnType::Plain(Scalar::UInt(16)));

const USAGE: [(&str, ColumnType); 13] = [
    ("request_id", TEXT),
    ("organization_id", ColumnType::LowCardinality),
    ("api_key_id", ColumnType::LowCardinality),
    ("endpoint", ColumnType::LowCardinality),
    ("method", ColumnType::LowCardinality),
    ("status_code", ColumnType::Plain(Scalar::UInt(16))),
    ("response_time_ms", ColumnType::Plain(Scalar::Float64)),
    ("timestamp", TIME),
    ("billable", ColumnType::Plain(Scalar::Bool)),
    JOURNAL,
    PARTITION,
    SEQ,
    SUB,
];

const LOGS: [(&str, ColumnType); 18] = [
    ("timestamp", TIME),
    ("workspace", ColumnType::LowCardinality),
    ("source", ColumnType::LowCardinality),
    ("destination", ColumnType::LowCardinality),
    ("chain", ColumnType::LowCardinality),
    ("chain_version", ColumnType::Plain(Scalar::UInt(64))),
    ("function", ColumnType::LowCardinality),
    ("function_version", ColumnType::Nullable(Scalar::UInt(32))),
    ("id", TEXT),
    ("message_id", TEXT),
    ("attempt", ColumnType::Nullable(Scalar::UInt(32))),
    ("level", ColumnType::LowCardinality),
    ("message", TEXT),
    ("discarded", ColumnType::Plain(Scalar::UInt(64))),
    JOURNAL,
    PARTITION,
    SEQ,
    SUB,
];

/// Rows of one table on their way into blocks, one for each of the table's partitions.
#[derive(Debug)]
pub struct SystemRows {
    table: SystemTable,
    parts: BTreeMap<u32, FixedRows>,
    rows: usize,
}

impl SystemRows {
    /// No rows yet.
    pub const fn new(table: SystemTable) -> Self {
        Self {
            table,
            parts: BTreeMap::new(),
            rows: 0,
        }
    }

    /// How many rows it holds.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds the row of one record, by its value.
    ///
    /// # Errors
    /// It is no record of the table's topic; nothing was added.
    pub fn push(&mut self, id: RowId, value: &[u8]) -> Result<(), Unreadable> {
        match self.table {
            SystemTable::UsageEvents => self.push_usage(id, value),
            SystemTable::FunctionLogs => self.push_line(id, value),
        }
    }

    fn push_usage(&mut self, id: RowId, value: &[u8]) -> Result<(), Unreadable> {
        let usage: Usage<'_> = serde_json::from_slice(value)?;
        known(usage.version)?;
        let at = DateTime::clamped(usage.timestamp.as_millis());
        let [journal, partition, seq, sub] = identity(id);
        let cells = [
            Cell::Text(usage.request_id),
            optional(usage.organization_id),
            optional(usage.api_key_id),
            Cell::Text(usage.endpoint),
            Cell::Text(usage.method),
            Cell::Bits(u64::from(usage.status_code)),
            Cell::Bits(usage.response_time_ms.to_bits()),
            Cell::Bits(at.bits()),
            Cell::Bits(u64::from(usage.billable)),
            journal,
            partition,
            seq,
            sub,
        ];
        self.add(month_of(at.millis), &cells, id);
        Ok(())
    }

    fn push_line(&mut self, id: RowId, value: &[u8]) -> Result<(), Unreadable> {
        let line: LogLine<'_> = serde_json::from_slice(value)?;
        known(line.version)?;
        let at = DateTime::clamped(line.timestamp.as_millis());
        let number =
            |number: Option<u32>| number.map_or(Cell::Missing, |number| Cell::Bits(u64::from(number)));
        let [journal, partition, seq, sub] = identity(id);
        let cells = [
            Cell::Bits(at.bits()),
            Cell::Text(line.workspace),
            Cell::Text(line.source),
            Cell::Text(line.destination),
            Cell::Text(line.chain),
            Cell::Bits(line.chain_version),
            optional(line.function),
            number(line.function_version),
            optional(line.id),
            optional(line.message_id),
            number(line.attempt),
            Cell::Text(line.level),
            Cell::Text(line.message),
            Cell::Bits(line.discarded.unwrap_or(0)),
            journal,
            partition,
            seq,
            sub,
        ];
        let day = u32::try_from(at.millis.div_euclid(DAY_MILLIS)).unwrap_or(0);
        self.add(day, &cells, id);
        Ok(())
    }

    fn add(&mut self, part: u32, cells: &[Cell<'_>], id: RowId) {
        let columns = self.table.columns();
        let rows = self.parts.entry(part).or_insert_with(|| FixedRows::new(columns));
        rows.push(cells, Some(id));
        self.rows += 1;
    }

    /// The blocks. What a block's [`Block::month`] says is the month for requests, the day since 1970 for lines.
    pub fn finish(self) -> Vec<Block> {
        self.parts
            .into_iter()
            .map(|(part, rows)| rows.finish(part))
            .collect()
    }
}

const fn known(version: u32) -> Result<(), Unreadable> {
    match version {
        VERSION => Ok(()),
        other => Err(Unreadable::Version(other)),
    }
}

fn optional(text: Option<Cow<'_, str>>) -> Cell<'_> {
    text.map_or(Cell::Missing, Cell::Text)
}

const fn identity(id: RowId) -> [Cell<'static>; 4] {
    [
        Cell::Bits(id.identity.journal.0),
        Cell::Bits(id.identity.partition as u64),
        Cell::Bits(id.identity.seq),
        Cell::Bits(id.sub as u64),
    ]
}

#[cfg(test)]
mod tests {
    use millrace_event::{Identity, JournalId};

    use super::*;

    const USAGE_GOLDEN: [&str; 2] = [
        include_str!("../../../schemas/usage/usage.requests.v1.golden.json"),
        include_str!("../../../schemas/usage/usage.requests.v1.unknown_key.golden.json"),
    ];
    const LOG_GOLDEN: [&str; 2] = [
        include_str!("../../../schemas/functions/functions.log.v1.golden.json"),
        include_str!("../../../schemas/functions/functions.log.v1.loading.golden.json"),
    ];

    fn id(seq: u64) -> RowId {
        let journal = JournalId::of_topic("usage.requests.v1", "");
        let identity = Identity {
            journal,
            partition: 2,
            seq,
        };
        RowId { identity, sub: 0 }
    }

    #[test]
    fn the_records_of_the_contract_have_rows() {
        for (table, golden) in [
            (SystemTable::UsageEvents, USAGE_GOLDEN),
            (SystemTable::FunctionLogs, LOG_GOLDEN),
        ] {
            let mut rows = SystemRows::new(table);
            for (seq, text) in (0..).zip(golden) {
                rows.push(id(seq), text.as_bytes())
                    .expect("a record of the contract");
            }
            assert_eq!(rows.len(), 2);
            let blocks = rows.finish();
            assert_eq!(blocks.len(), 1, "one month, one day");
            assert_eq!(blocks[0].rows(), [id(0), id(1)]);
        }
    }

    #[test]
    fn a_record_of_a_later_version_or_of_another_topic_has_none() {
        let mut rows = SystemRows::new(SystemTable::UsageEvents);
        let later = USAGE_GOLDEN[0].replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            rows.push(id(0), later.as_bytes()),
            Err(Unreadable::Version(2))
        ));
        for other in [LOG_GOLDEN[0], "", "[]"] {
            assert!(rows.push(id(0), other.as_bytes()).is_err());
        }
        assert!(rows.is_empty());
    }
}
