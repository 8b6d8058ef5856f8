//! Table `outcomes`: what was decided about every event that is not a plain first forward, and by which record.

use std::collections::{BTreeMap, HashMap};

use millrace_event::{Identity, Timestamp, Verdict};

use crate::batch::{Block, RowId};
use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::Error;
use crate::fixed::FixedRows;
use crate::name::{Database, TableName};
use crate::native::Cell;
use crate::value::DateTime;

/// The table's name.
pub const TABLE: &str = "outcomes";

/// Keys per question: at up to 350 bytes each they stay below the server's `max_query_size` of 256 KiB.
const KEYS_PER_QUERY: usize = 700;

const HOUR: i64 = 3_600_000;

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The event.
    pub identity: Identity,
    /// How often it had gone round.
    pub attempt: u32,
    /// For a row that came back from the bulker: its table, and which of the event's rows it is.
    pub row: Option<(TableName, u16)>,
}

/// A record of the transformed log, by its coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decider {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided about.
    pub key: Key,
    /// Which record decided.
    pub decider: Decider,
    /// When the gateway had read the request; decides hour and partition of the row.
    pub received_at: Timestamp,
    /// The workspace.
    pub workspace: String,
    /// What was decided.
    pub verdict: Verdict,
    /// The function that failed, dropped or asked for a retry; empty where none did.
    pub function: String,
    /// The error's code; empty where there is none.
    pub code: String,
}

/// The table in a database.
///
/// # Errors
/// Never for the names of this crate; the error is that of [`TableName::new`].
pub fn table(database: Database) -> Result<TableName, crate::name::InvalidName> {
    TableName::new(database, TABLE)
}

/// Decisions as blocks, one per partition of the table, rows in the order given.
pub fn encode(decisions: &[Decision]) -> Vec<Block> {
    let mut months: BTreeMap<u32, FixedRows> = BTreeMap::new();
    for decision in decisions {
        let millis = DateTime::clamped(decision.received_at.as_millis()).millis;
        let hour = millis - millis.rem_euclid(HOUR);
        let month = crate::batch::month_of(hour);
        let rows = months.entry(month).or_insert_with(|| FixedRows::new(&COLUMNS));
        push(rows, decision, hour);
    }
    months
        .into_iter()
        .map(|(month, rows)| rows.finish(month))
        .collect()
}

const COLUMNS: [(&str, ColumnType); 13] = [
    ("_journal", ColumnType::Plain(Scalar::UInt(64))),
    ("_partition", ColumnType::Plain(Scalar::UInt(32))),
    ("_seq", ColumnType::Plain(Scalar::UInt(64))),
    ("attempt", ColumnType::Plain(Scalar::UInt(32))),
    ("target", ColumnType::LowCardinality),
    ("sub", ColumnType::Plain(Scalar::UInt(16))),
    ("log_partition", ColumnType::Plain(Scalar::UInt(32))),
    ("log_offset", ColumnType::Plain(Scalar::UInt(64))),
    ("hour", ColumnType::Plain(Scalar::DateTime64)),
    ("workspace", ColumnType::LowCardinality),
    ("verdict", ColumnType::LowCardinality),
    ("function", ColumnType::LowCardinality),
    ("code", ColumnType::LowCardinality),
];

fn push(rows: &mut FixedRows, decision: &Decision, hour: i64) {
    let Decision { key, decider, .. } = decision;
    let (target, sub) = match &key.row {
        Some((table, sub)) => (table.to_string(), *sub),
        None => (String::new(), 0),
    };
    let text = |text: &str| Cell::Text(text.to_owned().into());
    let cells = [
        Cell::Bits(key.identity.journal.0),
        Cell::Bits(u64::from(key.identity.partition)),
        Cell::Bits(key.identity.seq),
        Cell::Bits(u64::from(key.attempt)),
        Cell::Text(target.into()),
        Cell::Bits(u64::from(sub)),
        Cell::Bits(u64::from(decider.partition)),
        Cell::Bits(decider.offset),
        Cell::Bits(hour.cast_unsigned()),
        text(&decision.workspace),
        text(decision.verdict.as_str()),
        text(&decision.function),
        text(&decision.code),
    ];
    let identity = key.identity;
    rows.push(&cells, Some(RowId { identity, sub }));
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct DecidedRow {
    journal: u64,
    partition: u32,
    seq: u64,
    attempt: u32,
    target: String,
    sub: u16,
    log_partition: u32,
    log_offset: u64,
}

impl Warehouse {
    /// Which records decided about these keys; a key that nothing was decided about is not in the answer.
    ///
    /// # Errors
    /// The server does not answer or refuses. Nothing is known then.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn deciders(&self, outcomes: &TableName, keys: &[Key]) -> Result<HashMap<Key, Decider>, Error> {
        let mut deciders = HashMap::with_capacity(keys.len());
        for some in keys.chunks(KEYS_PER_QUERY) {
            let mut sql = format!(
                "SELECT _journal AS journal, _partition AS partition, _seq AS seq, attempt, target, sub, \
                 log_partition, log_offset FROM {} \
                 WHERE (_journal, _partition, _seq, attempt, target, sub) IN (",
                outcomes.quoted()
            );
            for (index, key) in some.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                let Identity {
                    journal,
                    partition,
                    seq,
                } = key.identity;
                let (target, sub) = match &key.row {
                    Some((table, sub)) => (table.to_string(), *sub),
                    None => (String::new(), 0),
                };
                let (journal, attempt) = (journal.0, key.attempt);
                // A table's name has nothing to escape.
                sql.push_str(&format!(
                    "{separator}({journal},{partition},{seq},{attempt},'{target}',{sub})"
                ));
            }
            sql.push(')');
            sql.push_str(" SETTINGS select_sequential_consistency = 1");
            let rows: Vec<DecidedRow> = self.bounded(self.client().query(&sql).fetch_all()).await?;
            for row in rows {
                let key = row.key();
                let decider = Decider {
                    partition: row.log_partition,
                    offset: row.log_offset,
                };
                // The first record decides.
                let first = deciders.entry(key).or_insert(decider);
                *first = decider.min(*first);
            }
        }
        Ok(deciders)
    }
}

impl DecidedRow {
    fn key(&self) -> Key {
        let journal = millrace_event::JournalId(self.journal);
        Key {
            identity: Identity {
                journal,
                partition: self.partition,
                seq: self.seq,
            },
            attempt: self.attempt,
            row: self.target.parse().ok().map(|table| (table, self.sub)),
        }
    }
}
