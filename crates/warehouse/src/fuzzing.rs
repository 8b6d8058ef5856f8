//! What the fuzz target `encode` does with its bytes; its corpus is an ordinary test.
//!
//! The first byte chooses the table: which columns it has and how many it may get. What follows is events, one on a
//! line; lines that are not JSON are passed over. The blocks are read back by a reader that shares no code with the
//! encoder.

mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_event::{Identity, JournalId, Timestamp};
use serde_json::value::RawValue;

use crate::batch::{Batch, Block, Limits, Row, RowId};
use crate::column_type::ColumnType;
use crate::layout::{CORE, IDENTITY};
use crate::schema::{ColumnSpec, Schema};
use reader::Held;

/// Most events of one input.
const MOST_EVENTS: usize = 64;

/// Columns that a table may have from before, one of each type that the encoder knows and two that it does not.
const COLUMNS: [(&str, &str); 26] = [
    ("b", "Bool"),
    ("u8", "UInt8"),
    ("u16", "UInt16"),
    ("u32", "UInt32"),
    ("u64", "UInt64"),
    ("i8", "Int8"),
    ("i16", "Int16"),
    ("i32", "Int32"),
    ("i64", "Int64"),
    ("f32", "Float32"),
    ("f64", "Float64"),
    ("at", "DateTime64(3, 'UTC')"),
    ("text", "String"),
    ("low", "LowCardinality(String)"),
    ("low_null", "LowCardinality(Nullable(String))"),
    ("null_b", "Nullable(Bool)"),
    ("null_u8", "Nullable(UInt8)"),
    ("null_f64", "Nullable(Float64)"),
    ("null_at", "Nullable(DateTime64(3))"),
    ("null_text", "Nullable(String)"),
    ("list_b", "Array(Bool)"),
    ("list_i64", "Array(Int64)"),
    ("list_f64", "Array(Float64)"),
    ("list_text", "Array(String)"),
    ("other", "Decimal(18, 2)"),
    ("context_other", "UUID"),
];

/// Encodes events twice, for the table as it is and for the table with the columns that they made.
///
/// # Panics
/// A block is not what the server could read, holds other rows than those that were taken, lacks something of an event
/// or invents it, or is not the same the second time.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub fn encode(bytes: &[u8]) {
    let Some((how, text)) = bytes.split_first() else {
        return;
    };
    let events: Vec<Box<RawValue>> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .take(MOST_EVENTS)
        .collect();
    let known: &[_] = if how & 1 == 0 { &[] } else { &COLUMNS };
    let limits = Limits {
        columns: [500, 0, 3, 30][usize::from(how >> 1 & 3)],
    };
    let core = CORE.iter().map(|column| (column.name, column.type_name));
    let columns = core.chain(IDENTITY).chain(known.iter().copied());
    let spec = |(name, kind): (&str, &str)| ColumnSpec {
        name: name.to_owned(),
        type_name: kind.to_owned(),
        column_type: ColumnType::parse(kind),
    };
    let schema = Arc::new(Schema::new(columns.map(spec).collect()));

    let (batch, taken) = pushed(&schema, limits, &events);
    let mut all = schema.columns().to_vec();
    all.extend(batch.added().iter().cloned());
    assert!(
        batch.added().len() <= limits.columns,
        "a table gets no more columns than it may"
    );
    let stored = Arc::new(Schema::new(all));
    let blocks = batch.finish(&stored).expect("the columns that it asked for");
    // No further column: what had no room the first time has none the second time.
    let full = Limits {
        columns: stored.columns().len() - CORE.len() - IDENTITY.len(),
    };
    let (batch, again) = pushed(&stored, full, &events);
    assert_eq!(taken, again, "the same rows are taken again");
    assert!(batch.added().is_empty(), "nothing is new any more");
    let same = batch.finish(&stored).expect("the same columns");
    let bodies = |blocks: &[Block]| blocks.iter().map(Block::body).collect::<Vec<_>>();
    // An empty array makes no column, and goes into one that is there.
    if !events.iter().any(|event| has_empty_array(event.get())) {
        assert_eq!(
            bodies(&blocks),
            bodies(&same),
            "an event encoded again is the same again"
        );
    }

    let mut rows = 0;
    for block in &blocks {
        let held = reader::read(&block.body(), block.rows().len());
        check(block, &held, &events);
        rows += block.rows().len();
    }
    assert_eq!(rows, taken.len(), "every row that was taken is in a block");
}

fn pushed(schema: &Arc<Schema>, limits: Limits, events: &[Box<RawValue>]) -> (Batch, Vec<u64>) {
    #[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
    let mut batch = Batch::new(Arc::clone(schema), limits, at(1)).expect("a fit schema");
    let mut taken = Vec::new();
    for (seq, event) in (0..).zip(events) {
        let before = (batch.len(), batch.byte_size(), batch.added().len());
        let row = Row {
            id: RowId {
                identity: Identity {
                    journal: JournalId(7),
                    partition: 3,
                    seq,
                },
                sub: 0,
            },
            // Two months: the blocks are as many.
            received_at: at(i64::from(seq % 5 == 4) * 2_678_400_000),
            sent_at: (seq % 2 == 0).then(|| at(-1)),
            source: "src",
            workspace: "",
            message_id: "gateway-id",
            event,
        };
        match batch.push(&row) {
            Ok(()) => taken.push(seq),
            Err(_) => {
                let after = (batch.len(), batch.byte_size(), batch.added().len());
                assert_eq!(before, after, "a row that is refused leaves nothing behind");
            }
        }
    }
    (batch, taken)
}

fn has_empty_array(text: &str) -> bool {
    let text: String = text.split_ascii_whitespace().collect();
    text.contains("[]")
}

fn at(millis: i64) -> Timestamp {
    Timestamp::clamped_from_millis(1_795_233_600_000 + millis)
}

/// Compares a block's values with the events: text for text, where a text is in a column and `extra` does not say more.
fn check(block: &Block, held: &BTreeMap<String, Vec<Held>>, events: &[Box<RawValue>]) {
    for (index, id) in block.rows().iter().enumerate() {
        let cell = |column: &str| held.get(column).and_then(|values| values.get(index));
        assert_eq!(
            cell("_seq"),
            Some(&Held::Bits(id.identity.seq)),
            "rows are in their order"
        );
        assert_eq!(cell("_journal"), Some(&Held::Bits(7)), "rows have their identity");
        let extra = match cell("extra") {
            None => "",
            Some(Held::Text(text)) => text,
            Some(other) => panic!("extra is text, not {other:?}"),
        };
        let entries: Vec<(String, String)> = if extra.is_empty() {
            Vec::new()
        } else {
            entries_of(extra)
        };
        let Some(event) = usize::try_from(id.identity.seq)
            .ok()
            .and_then(|seq| events.get(seq))
        else {
            panic!("a row of an event that was sent")
        };
        for (name, value) in &entries {
            assert!(
                event.get().contains(value.as_str()),
                "extra has what was sent: {name}"
            );
        }
        // The whole of serde_json's reading, for the fields that are text whatever else there is.
        let Ok(tree) = serde_json::from_str::<serde_json::Value>(event.get()) else {
            continue;
        };
        for (key, column) in [("type", "type"), ("userId", "user_id"), ("event", "event")] {
            let Some(sent) = tree.get(key).and_then(serde_json::Value::as_str) else {
                continue;
            };
            let found = match cell(column) {
                None => "",
                Some(Held::Text(text)) => text,
                Some(other) => panic!("{column} is text, not {other:?}"),
            };
            assert_eq!(found, sent, "{column} is what was sent");
        }
    }
}

#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
fn entries_of(extra: &str) -> Vec<(String, String)> {
    let raw: &RawValue = serde_json::from_str(extra).expect("extra is JSON");
    millrace_event::json::Value::from(raw)
        .entries()
        .map(|(key, value)| (key.unescape().text.into_owned(), value.text().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_of_the_fuzz_target_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/encode");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
            let path = entry.expect("an entry").path();
            super::encode(&std::fs::read(path).expect("a seed"));
            count += 1;
        }
        assert!(count >= 20, "{count} seeds");
    }
}
