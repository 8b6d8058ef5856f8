//! Events of any shape against a naive model: nothing of an event is lost, and nothing is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_event::flatten;
use millrace_warehouse::{Outcome, Schema, TableName, layout};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::place::{JOURNAL, Place, raw, row};

/// Few names, so that fields of one name and several types meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]",
        "[ab]_[ab]",
        "[ab][AB]",
        Just("type".to_owned()),
        Just("_seq".to_owned()),
        Just("é".to_owned())
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => any::<f64>().prop_filter("JSON", |f| f.is_finite()).prop_map(Value::from),
        2 => (-100..100_i32).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        3 => any::<String>().prop_map(Value::from),
        1 => (-2_208_988_800_000..10_413_791_999_999_i64).prop_map(|millis| {
            let at = jiff::Timestamp::from_millisecond(millis).expect("in range");
            Value::from(format!("{at:.3}"))
        }),
        1 => Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name(), inner), 0..4)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

fn event() -> impl Strategy<Value = Value> {
    let object = || {
        proptest::collection::vec((name(), value()), 0..5)
            .prop_map(|entries| entries.into_iter().collect::<Value>())
    };
    (object(), object(), object()).prop_map(|(properties, traits, context)| {
        let mut event = Map::new();
        event.insert("type".to_owned(), "track".into());
        event.insert("context".to_owned(), context);
        event.insert("traits".to_owned(), traits);
        event.insert("properties".to_owned(), properties);
        event.into()
    })
}

/// The leaves of an event, with the names that their columns have, in the order in which they take them.
fn leaves(event: &Value) -> Vec<(String, Value)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    let key = flatten::name_of(key);
                    let name = if prefix.is_empty() {
                        key
                    } else {
                        format!("{prefix}_{key}")
                    };
                    walk(&name, value, out);
                }
            }
            leaf => out.push((prefix.to_owned(), leaf.clone())),
        }
    }
    let mut all = Vec::new();
    for source in ["properties", "traits", "context"] {
        let mut some = Vec::new();
        let prefix = if source == "context" { source } else { "" };
        if let Some(Value::Object(entries)) = event.get(source)
            && !entries.is_empty()
        {
            walk(prefix, &event[source], &mut some);
        }
        for (name, value) in some {
            let name = if layout::is_reserved(&name) {
                format!("{source}_{name}")
            } else {
                name
            };
            all.push((name, value));
        }
    }
    all
}

/// The entries of `extra`, names that occur twice included.
fn entries_of(extra: &str) -> Vec<(String, Value)> {
    if extra.is_empty() {
        return Vec::new();
    }
    let raw: Box<RawValue> = serde_json::from_str(extra).expect("extra is JSON");
    let parse = |text| serde_json::from_str(text).expect("a value is JSON");
    millrace_event::json::Value::from(&*raw)
        .entries()
        .map(|(key, value)| (key.unescape().text.into_owned(), parse(value.text())))
        .collect()
}

/// Whether a column that reads as `stored` holds `value`, and says all of it.
fn same(stored: &Value, value: &Value) -> bool {
    match (stored, value) {
        (Value::Number(stored), Value::Number(value)) => {
            // The server writes the fewest digits that name a float; what it holds is the float.
            let held = stored.as_f64().expect("a float");
            let integer = value.to_string().parse::<i128>();
            integer.map_or_else(
                |_| Some(held) == value.as_f64(),
                |sent| format!("{held:.0}") == sent.to_string(),
            )
        }
        (Value::Array(stored), Value::Array(value)) => {
            stored.len() == value.len()
                && stored
                    .iter()
                    .zip(value)
                    .all(|(stored, value)| same(stored, value))
        }
        _ => stored == value,
    }
}

async fn check(
    place: &Place,
    table: &TableName,
    schema: &mut Arc<Schema>,
    events: &[Value],
) -> Result<(), TestCaseError> {
    place.run(&format!("TRUNCATE TABLE {}", table.quoted())).await;
    let texts: Vec<_> = events.iter().map(|event| raw(&event.to_string())).collect();
    let rows: Vec<_> = (0..).zip(&texts).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(table, schema, &rows).await;
    *schema = Arc::clone(&encoded.schema);
    for block in &encoded.blocks {
        let outcome = place
            .insert(table, block, &uuid::Uuid::new_v4().to_string())
            .await;
        prop_assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    let sql = format!(
        "SELECT * FROM {} SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0",
        table.quoted()
    );
    let read = place.bytes(&sql, "JSONEachRow").await;
    let read: BTreeMap<u64, Value> = serde_json::Deserializer::from_slice(&read)
        .into_iter()
        .map(|row| row.expect("JSON"))
        .map(|row: Value| (row["_seq"].as_u64().expect("a number"), row))
        .collect();
    let refused: BTreeMap<usize, _> = encoded.refused.into_iter().collect();
    prop_assert_eq!(
        read.len() + refused.len(),
        events.len(),
        "every row is in the table or refused"
    );
    for (index, event) in events.iter().enumerate() {
        let leaves = leaves(event);
        if let Some(error) = refused.get(&index) {
            prop_assert!(
                leaves.iter().any(|(name, _)| *name == error.field),
                "{} is a field",
                error.field
            );
            continue;
        }
        let row = &read[&(index as u64)];
        prop_assert_eq!(&row["_journal"], &Value::from(JOURNAL.0));
        let mut extra = entries_of(row["extra"].as_str().expect("text"));
        let mut taken = Vec::new();
        for (name, value) in &leaves {
            let kept = extra
                .iter()
                .position(|(kept, text)| kept == name && text == value);
            if let Some(kept) = kept {
                extra.remove(kept);
                continue;
            }
            let held = row.get(name).is_some_and(|stored| same(stored, value));
            prop_assert!(
                held,
                "{name}: {value} is neither in its column ({:?}) nor in extra",
                row.get(name)
            );
            prop_assert!(!taken.contains(name), "{name} is taken once");
            taken.push(name.clone());
        }
        prop_assert!(extra.is_empty(), "extra holds what nobody sent: {extra:?}");
    }
    Ok(())
}

#[test]
fn nothing_of_an_event_is_lost_or_changed() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = runtime.block_on(Place::new());
    let mut table = runtime.block_on(place.events());
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    let mut case = 0;
    let cell = std::cell::RefCell::new((&mut table, &mut case));
    let result = runner.run(&proptest::collection::vec(event(), 1..8), |events| {
        let mut state = cell.borrow_mut();
        let (table, case) = &mut *state;
        // A fresh table now and then, so that other types come first.
        **case += 1;
        if **case % 8 == 0 {
            runtime.block_on(place.run(&format!("DROP TABLE {} SYNC", table.0.quoted())));
            **table = runtime.block_on(place.events());
        }
        runtime.block_on(check(&place, &table.0, &mut table.1, &events))
    });
    result.expect("every case");
}
