//! Table `replays`: who sent which dead letters round again, when, and by what choice.

use millrace_event::Timestamp;

use crate::batch::Block;
use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::Error;
use crate::fixed::FixedRows;
use crate::name::{Database, InvalidName, TableName};
use crate::native::Cell;
use crate::value::DateTime;

/// The table's name.
pub const TABLE: &str = "replays";

/// One run of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its own id.
    pub id: String,
    /// Who ran it.
    pub by: String,
    /// When it began.
    pub at: Timestamp,
    /// Which letters it chose, as JSON.
    pub filter: String,
    /// Whether letters went that would fail again.
    pub forced: bool,
    /// The topic that they were sent to.
    pub topic: String,
}

/// One letter of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its partition in the dead-letter topic.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// The event.
    pub event: String,
    /// The attempt that it was sent on.
    pub attempt: u32,
    /// Its workspace.
    pub workspace: String,
    /// Why it had been set aside.
    pub code: String,
}

/// A replay and how many letters it sent.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The run's id.
    pub replay: String,
    /// Who ran it.
    pub by: String,
    /// When, in UTC.
    pub at: String,
    /// Its choice, as JSON.
    pub filter: String,
    /// Whether it was forced.
    pub forced: bool,
    /// Where the letters went.
    pub topic: String,
    /// How many letters.
    pub letters: u64,
}

const COLUMNS: [(&str, ColumnType); 12] = [
    ("replay", ColumnType::LowCardinality),
    ("by", ColumnType::LowCardinality),
    ("at", ColumnType::Plain(Scalar::DateTime64)),
    ("filter", ColumnType::LowCardinality),
    ("forced", ColumnType::Plain(Scalar::Bool)),
    ("topic", ColumnType::LowCardinality),
    ("dlq_partition", ColumnType::Plain(Scalar::UInt(32))),
    ("dlq_offset", ColumnType::Plain(Scalar::UInt(64))),
    ("id", ColumnType::Plain(Scalar::String)),
    ("attempt", ColumnType::Plain(Scalar::UInt(32))),
    ("workspace", ColumnType::LowCardinality),
    ("code", ColumnType::LowCardinality),
];

/// The table in a database.
///
/// # Errors
/// Never for the names of this crate; the error is that of [`TableName::new`].
pub fn table(database: Database) -> Result<TableName, InvalidName> {
    TableName::new(database, TABLE)
}

/// Letters of one replay as one block.
pub fn encode(replay: &Replay, letters: &[Letter]) -> Block {
    let mut rows = FixedRows::new(&COLUMNS);
    let text = |text: &str| Cell::Text(text.to_owned().into());
    let at = DateTime::clamped(replay.at.as_millis());
    for letter in letters {
        let cells = [
            text(&replay.id),
            text(&replay.by),
            Cell::Bits(at.bits()),
            text(&replay.filter),
            Cell::Bits(u64::from(replay.forced)),
            text(&replay.topic),
            Cell::Bits(u64::from(letter.partition)),
            Cell::Bits(letter.offset),
            text(&letter.event),
            Cell::Bits(u64::from(letter.attempt)),
            text(&letter.workspace),
            text(&letter.code),
        ];
        rows.push(&cells, None);
    }
    rows.finish(crate::batch::month_of(at.millis))
}

impl Warehouse {
    /// The replays there were, newest first.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn replays(&self, replays: &TableName, limit: usize) -> Result<Vec<Summary>, Error> {
        let sql = format!(
            "SELECT toString(replay) AS replay, any(toString(`by`)) AS `by`, \
             formatDateTime(any(at), '%FT%TZ', 'UTC') AS at, any(toString(filter)) AS filter, \
             any(forced) AS forced, any(toString(topic)) AS topic, count() AS letters \
             FROM {} GROUP BY replay ORDER BY at DESC, replay LIMIT {limit}",
            replays.quoted()
        );
        self.bounded(self.client().query(&sql).fetch_all()).await
    }
}
