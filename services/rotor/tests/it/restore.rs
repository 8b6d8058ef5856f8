//! What no function touched comes out as it went in: against a real engine, and by hand.

use millrace_event::frame::Outcome;
use millrace_rotor::restore::{is_at_risk, restore};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON in the test")
}

/// What comes of `output`, which an engine wrote of `source`.
#[track_caller]
fn restored(source: &str, output: &str) -> String {
    let mut outcome = Outcome::forward(vec![raw(output)]);
    restore(source, &mut outcome);
    outcome.events[0].get().to_owned()
}

#[test]
fn digits_that_an_engine_cannot_hold_come_back() {
    for (source, output) in [
        (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#),
        (r#"{"n":12345678901234567890}"#, r#"{"n":12345678901234567000}"#),
        (r#"{"n":10.50}"#, r#"{"n":10.5}"#),
        (r#"{"n":1e2}"#, r#"{"n":100}"#),
        (r#"{"n":-0}"#, r#"{"n":0}"#),
        (r#"{"n":1E400}"#, r#"{"n":null}"#),
        (r#"{"n":0.0000001}"#, r#"{"n":1e-7}"#),
        (r#"{"n":1000000000000000000000}"#, r#"{"n":1e+21}"#),
    ] {
        assert_eq!(restored(source, output), source);
    }
}

#[test]
fn escapes_and_the_order_of_names_come_back() {
    for (source, output) in [
        (r#"{"s":"caf\u00e9 \ud83d\ude00 \/"}"#, r#"{"s":"café 😀 /"}"#),
        (r#"{"s":"\ud800"}"#, r#"{"s":"\ud800"}"#),
        (r#"{"s":"\uD800"}"#, r#"{"s":"\ud800"}"#),
        (r#"{"b":1,"10":2,"9":3,"a":4}"#, r#"{"9":3,"10":2,"b":1,"a":4}"#),
        (r#"{"\u0061":1.0}"#, r#"{"a":1}"#),
        (r#"{"a":[{"x":1.0,"1":2}, 3]}"#, r#"{"a":[{"1":2,"x":1},3]}"#),
    ] {
        assert_eq!(restored(source, output), source);
    }
}

#[test]
fn only_what_was_touched_is_as_the_function_left_it() {
    assert_eq!(
        restored(
            r#"{"a":1.0,"b":{"x":2.0,"y":[1.0,2.0]},"z":1e1}"#,
            r#"{"a":1,"b":{"x":3,"y":[1,2,5]},"z":10,"new":4}"#
        ),
        r#"{"a":1.0,"b":{"x":3,"y":[1.0,2.0,5]},"z":1e1,"new":4}"#
    );
    assert_eq!(restored(r#"{"a":1.0,"b":2.0}"#, r#"{"b":2}"#), r#"{"b":2.0}"#);
    assert_eq!(restored(r#"{"a":1.0}"#, r#"{"a":"1"}"#), r#"{"a":"1"}"#);
    assert_eq!(restored(r#"{"a":1.0}"#, r#"{"a":null}"#), r#"{"a":null}"#);
}

#[test]
fn names_keep_their_order_beside_new_ones_unless_the_function_moved_them() {
    assert_eq!(
        restored(r#"{"b":1,"7":2}"#, r#"{"3":9,"7":2,"b":1,"c":5}"#),
        r#"{"b":1,"7":2,"3":9,"c":5}"#
    );
    assert_eq!(
        restored(r#"{"a":1.0,"b":2}"#, r#"{"b":2,"a":1}"#),
        r#"{"b":2,"a":1.0}"#
    );
}

#[test]
fn every_event_that_came_of_one_and_the_place_to_go_on_are_restored() {
    let mut outcome = Outcome::forward(vec![raw(r#"{"n":1}"#), raw(r#"{"n":1,"m":2}"#)]);
    outcome.resume = Some(millrace_event::frame::Resume {
        position: 1,
        event: raw(r#"{"n":1}"#),
    });
    restore(r#"{"n":1.0}"#, &mut outcome);
    let events: Vec<_> = outcome.events.iter().map(|event| event.get()).collect();
    assert_eq!(events, [r#"{"n":1.0}"#, r#"{"n":1.0,"m":2}"#]);
    assert_eq!(outcome.resume.expect("kept").event.get(), r#"{"n":1.0}"#);
}

#[test]
fn ordinary_events_are_not_looked_at_twice() {
    let ordinary = r#"{"type":"track","messageId":"a-1","properties":{"price":10.5,"n":-3,"big":123456789012345,
        "small":0.25,"s":"line\nquote\"é 😀","list":[1,2,{"x":null}],"t":true,"2a":"10"},"timestamp":"2026-01-02"}"#;
    assert!(!is_at_risk(ordinary));
    for risky in [
        "10.50",
        "1e2",
        "-0",
        "1234567890123456",
        r#""\u0041""#,
        r#""\/""#,
        r#"{"1":2}"#,
        r#"{"1" : 2}"#,
        "0.0000001",
    ] {
        assert!(is_at_risk(risky), "{risky}");
    }
}

#[test]
fn nesting_without_end_is_left_as_it_is() {
    let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(restored(&deep("1.0"), &deep("1")), deep("1"));
    let shallow = |inner: &str| format!("{}{inner}{}", "[".repeat(60), "]".repeat(60));
    assert_eq!(restored(&shallow("1.0"), &shallow("1")), shallow("1.0"));
}

/// JSON text of every shape, with what engines rewrite in it; names are distinct in each object.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "(-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?)",
        "\"([a-z 0-9é]|\\\\u[0-9a-fA-F]{4}|\\\\[nt\"/\\\\]){0,8}\"",
        Just("true".to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map("[a-c]{1,2}|[0-9]{1,3}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(|entries| {
                    let entries: Vec<_> = entries.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                    format!("{{{}}}", entries.join(","))
                }),
        ]
    })
}

/// The quick look is for objects only: within an array each byte is read in its place.
#[test]
fn the_quick_look_at_an_event_sees_what_the_slow_one_sees() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2000,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(json(), 1..6), |values| {
            let entries = values
                .iter()
                .enumerate()
                .map(|(at, value)| format!("\"n{at}\":{value}"));
            let event = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
            for event in [event.replace(':', " :\n "), event.replace(',', " , "), event] {
                prop_assert_eq!(is_at_risk(&event), is_at_risk(&format!("[{event}]")), "{}", event);
            }
            Ok(())
        })
        .expect("every case holds");
}

/// The engine is real: what a function that touches nothing gives is the source, byte for byte.
#[test]
fn whatever_passes_an_engine_untouched_is_the_source_byte_for_byte() {
    let (pool, _) = super::pool::pool(1);
    let touch_nothing = super::pool::chain("same", 1, 10_000, "export default (event) => ({ ...event })");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 30,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(json(), 50), |values| {
            let texts: Vec<_> = values
                .iter()
                .map(|value| format!("{{\"z\":{value},\"1\":{value}}}"))
                .collect();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let running = pool.run(std::sync::Arc::clone(&touch_nothing), super::pool::events(&texts));
            let outcomes = runtime.block_on(running).expect("the pool is open");
            for (outcome, text) in outcomes.iter().zip(&texts) {
                prop_assert_eq!(super::pool::forwarded(outcome), *text);
            }
            Ok(())
        })
        .expect("every case holds");
}
