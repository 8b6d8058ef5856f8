use proptest::prelude::*;

use super::super::tests::{batch_with, push};
use super::super::{Batch, Block};
use super::*;

/// Columns that are there from the start, of types that are taken quickly and of some that are not.
const COLUMNS: [(&str, &str); 7] = [
    ("a", "String"),
    ("n", "Nullable(Float64)"),
    ("at", "Nullable(DateTime64(3, 'UTC'))"),
    ("low", "LowCardinality(String)"),
    ("small", "UInt8"),
    ("list", "Array(String)"),
    ("context_page", "String"),
];

fn plain() -> Batch {
    let mut batch = batch_with(&COLUMNS, 12);
    batch.scratch.shapes.off = true;
    batch
}

/// Pushes into both, a batch that follows paths and one that reads every event key by key, and compares all there is.
fn both(events: &[String]) -> u32 {
    let (mut following, mut reading) = (batch_with(&COLUMNS, 12), plain());
    for event in events {
        assert_eq!(push(&mut following, event), push(&mut reading, event), "{event}");
        assert_eq!(following.added(), reading.added(), "{event}");
    }
    let known = following.scratch.shapes.known;
    let bodies = |batch: Batch| {
        let mut all = batch.schema.columns().to_vec();
        all.extend(batch.added().iter().cloned());
        let stored = crate::schema::Schema::new(all);
        let blocks = batch.finish(&stored).expect("the same columns");
        blocks.iter().map(Block::body).collect::<Vec<_>>()
    };
    assert_eq!(bodies(following), bodies(reading), "{events:?}");
    known
}

fn known_of(events: &[&str]) -> u32 {
    both(&events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>())
}

#[test]
fn an_event_with_the_keys_of_an_earlier_one_follows_its_path_whatever_its_values_are() {
    let known = known_of(&[
        r#"{"type":"track","event":"A","properties":{"a":"x","n":1,"at":"2026-11-21T04:00:00Z"},"x":{"y":1}}"#,
        r#"{"type":"page","event":"é\n","properties":{"a":"\ud800","n":-1.25e3,"at":"2026-11-21T04:00:00.1234Z"},"x":[]}"#,
        r#"{"type":null,"event":"","properties":{"a":null,"n":123456789012345678901234567890,"at":null},"x":null}"#,
        r#"{"type":"","event":"B","properties":{"a":{},"n":[],"at":{}},"x":"x"}"#,
    ]);
    assert_eq!(known, 3);
}

#[test]
fn what_another_column_type_or_a_new_column_asks_for_is_read_key_by_key() {
    let known = known_of(&[
        r#"{"type":"track","properties":{"a":"x","new":null,"small":1}}"#,
        r#"{"type":"track","properties":{"a":1,"new":null,"small":1}}"#,
        r#"{"type":"track","properties":{"a":"x","new":null,"small":300}}"#,
        r#"{"type":17,"properties":{"a":"x","new":null,"small":1}}"#,
        r#"{"type":"track","properties":{"a":"x","new":"now","small":1}}"#,
    ]);
    assert_eq!(known, 0);
    // And a column that came later is found.
    let known = known_of(&[
        r#"{"properties":{"new":null}}"#,
        r#"{"properties":{"new":"now"}}"#,
        r#"{"properties":{"new":"then"}}"#,
        r#"{"properties":{"new":{"er":"still"}}}"#,
        r#"{"properties":{"new":{"er":"yet"}}}"#,
    ]);
    assert_eq!(known, 2);
}

#[test]
fn events_in_which_two_fields_want_one_column_are_always_read_key_by_key() {
    for event in [
        r#"{"type":"a","type":"b"}"#,
        r#"{"properties":{"a":"1"},"traits":{"a":"2"}}"#,
        r#"{"properties":{"a":"1","a":"2"}}"#,
        r#"{"properties":{"a":"1"},"properties":{"n":2}}"#,
        r#"{"properties":null}"#,
        r#"{"context":"none"}"#,
    ] {
        assert_eq!(known_of(&[event, event, event]), 0, "{event}");
    }
}

#[test]
fn what_goes_to_extra_stands_there_in_one_order_whatever_the_events_is() {
    let event = r#"{"context":{"x":null,"page":{"b":[{}]}},"traits":{"t":null},"sentAt":"2026-11-21 04:00:00","other":{"k":[1]},
        "properties":{"list":[{}],"a":null},"event":null,"more":1}"#;
    assert_eq!(known_of(&[event, event]), 1);
}

#[test]
fn short_numbers_are_read_as_the_standard_library_reads_them() {
    for text in ["0", "-0", "0.1", "4.9", "123456789.12345", "-99999999999999"] {
        let read = short_number(format!("{text},").as_bytes(), 0);
        let number: f64 = text.parse().expect("a number");
        let bits = read.map(|(number, end)| (number.to_bits(), end));
        assert_eq!(bits, Some((number.to_bits(), text.len())), "{text}");
    }
    for text in ["1e3", "1234567890123456", "-", "\"1\"", "null"] {
        assert_eq!(short_number(text.as_bytes(), 0), None, "{text}");
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{0,12}".prop_map(|text| format!("\"{text}\"")),
        2 => any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string")),
        4 => (-2000..2000_i32, 0..4_u32).prop_map(|(number, digits)| format!("{}", f64::from(number) / 10_f64.powi(digits.cast_signed()))),
        1 => any::<f64>().prop_filter("JSON", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        2 => Just("\"2026-11-21T04:00:00.120Z\"".to_owned()),
        1 => Just("\"2026-11-21T04:00:00.1201+01:00\"".to_owned()),
        1 => prop_oneof![Just("null"), Just("true"), Just("{}"), Just("[]"), Just("[\"x\",\"y\"]"), Just("[{}]"), Just("{ }")].prop_map(str::to_owned),
    ]
}

/// An event of one of a few shapes.
fn event() -> impl Strategy<Value = String> {
    const SHAPES: [&str; 6] = [
        r#"{"type":?,"event":?,"properties":{"a":?,"n":?,"at":?},"context":{"page":?,"library":{"name":?}}}"#,
        r#"{"type":?,"event":?,"properties":{"a":?,"n":?,"low":?},"timestamp":"2026-11-21T04:00:00Z"}"#,
        r#"{"context":{"page":{"url":?,"x":?}},"integrations":?,"userId":?,"traits":{"a":?,"type":?}}"#,
        r#"{"properties":{"n":?,"deep":{"er":{"x":?}},"list":?},"event":?}"#,
        r#"{"a":?,"properties":{"small":?,"n":?}, "messageId" : ? }"#,
        r#"{"type":?,"event":?,"properties":?,"sentAt":?}"#,
    ];
    (
        prop::sample::select(&SHAPES[..]),
        prop::collection::vec(value(), 8),
    )
        .prop_map(|(shape, values)| {
            let mut values = values.into_iter();
            let parts = shape.split('?').map(str::to_owned);
            parts
                .reduce(|event, part| event + &values.next().unwrap_or_default() + &part)
                .unwrap_or_default()
        })
}

proptest! {
    #[test]
    fn whichever_way_an_event_is_read_the_same_comes_of_it(events in prop::collection::vec(event(), 1..30)) {
        both(&events);
    }
}
