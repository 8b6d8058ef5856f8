use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Bench, Outcome, token};

/// One row of every kind of column, so that each has its type.
const FIRST: &str = r#"{"type":"track","properties":{"s":"text","f":1,"b":true,"t":"2026-11-21T04:00:00Z",
    "ss":["a"],"fs":[1.5],"bs":[true],"ts":["2026-11-21T04:00:00Z"]}}"#;

/// A string as JSON writes it, and the text that it stands for: none where PostgreSQL holds none such.
#[derive(Clone, Debug)]
struct Text {
    source: String,
    text: Option<String>,
    exact: bool,
}

fn texts() -> impl Strategy<Value = Text> {
    let plain = prop_oneof![
        any::<String>(),
        "[a-z\\\\\"'\t\n,{}]{0,12}",
        Just("\u{10ffff}\u{feff}\u{202e}".to_owned()),
        Just("N".repeat(9000)),
        Just("\\N".to_owned()),
    ];
    prop_oneof![
        8 => plain.prop_map(|text| Text {
            source: serde_json::to_string(&text).expect("text"),
            exact: !text.contains('\0'),
            text: (!text.contains('\0')).then_some(text),
        }),
        1 => "[a-z]{0,4}".prop_map(|text| Text { source: format!("\"{text}\\u0000\""), text: None, exact: false }),
        1 => "[a-z]{0,4}".prop_map(|text| Text {
            source: format!("\"{text}\\ud800\""),
            text: Some(format!("{text}\u{fffd}")),
            exact: false,
        }),
    ]
}

/// Milliseconds, most of them in the years that a column holds.
fn times() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -2_208_988_800_000_i64..=10_413_791_999_999,
        1 => Just(-2_208_988_800_000), 1 => Just(10_413_791_999_999), 1 => Just(0), 1 => Just(-1),
    ]
}

fn written(millis: i64) -> String {
    let time = millrace_event::Timestamp::clamped_from_millis(millis).to_string();
    format!("\"{time}\"")
}

fn floats() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

#[derive(Clone, Debug)]
struct Event {
    s: Text,
    f: f64,
    b: bool,
    t: i64,
    ss: Vec<Text>,
    fs: Vec<f64>,
    bs: Vec<bool>,
    ts: Vec<i64>,
}

fn events() -> impl Strategy<Value = Event> {
    let lists = (
        proptest::collection::vec(texts(), 0..4),
        proptest::collection::vec(floats(), 0..4),
        proptest::collection::vec(any::<bool>(), 0..4),
        proptest::collection::vec(times(), 0..4),
    );
    (texts(), floats(), any::<bool>(), times(), lists).prop_map(|(s, f, b, t, (ss, fs, bs, ts))| Event {
        s,
        f,
        b,
        t,
        ss,
        fs,
        bs,
        ts,
    })
}

fn list<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    let items: Vec<_> = items.iter().map(write).collect();
    format!("[{}]", items.join(","))
}

fn number(value: f64) -> String {
    serde_json::to_string(&value).expect("finite")
}

impl Event {
    fn source(&self) -> String {
        format!(
            r#"{{"type":"track","properties":{{"s":{},"f":{},"b":{},"t":{},"ss":{},"fs":{},"bs":{},"ts":{}}}}}"#,
            self.s.source,
            number(self.f),
            self.b,
            written(self.t),
            list(&self.ss, |text| text.source.clone()),
            list(&self.fs, |value| number(*value)),
            list(&self.bs, ToString::to_string),
            list(&self.ts, |millis| written(*millis)),
        )
    }
}

const READ: &str = "SELECT s, f, b, (extract(epoch FROM t) * 1000)::bigint, ss, fs, bs, \
    ARRAY(SELECT (extract(epoch FROM x) * 1000)::bigint FROM unnest(ts) WITH ORDINALITY AS u (x, n) ORDER BY n), \
    extra, _journal, _partition, _sub, message_id, source, user_id, (extract(epoch FROM received_at) * 1000)::bigint \
    FROM millrace.events WHERE _seq = $1";

fn check(event: &Event, row: &tokio_postgres::Row) {
    let extra: Option<String> = row.get("extra");
    let kept = |name: &str, source: &str| {
        extra
            .as_deref()
            .is_some_and(|extra| extra.contains(&format!("\"{name}\":{source}")))
    };
    assert_eq!(row.get::<_, Option<String>>("s"), event.s.text);
    assert_eq!(event.s.exact, !kept("s", &event.s.source));
    assert_eq!(
        row.get::<_, Option<f64>>("f").map(f64::to_bits),
        Some(event.f.to_bits())
    );
    assert_eq!(row.get::<_, Option<bool>>("b"), Some(event.b));
    assert_eq!(row.get::<_, Option<i64>>(3), Some(event.t));
    let all: Option<Vec<String>> = event.ss.iter().map(|text| text.text.clone()).collect();
    assert_eq!(row.get::<_, Option<Vec<String>>>("ss"), all);
    let exact = event.ss.iter().all(|text| text.exact);
    assert_eq!(exact, !kept("ss", &list(&event.ss, |text| text.source.clone())));
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!(
        row.get::<_, Option<Vec<f64>>>("fs").map(bits),
        Some(bits(event.fs.clone()))
    );
    assert_eq!(row.get::<_, Option<Vec<bool>>>("bs"), Some(event.bs.clone()));
    assert_eq!(row.get::<_, Vec<i64>>(7), event.ts);
    assert_eq!(row.get::<_, String>("_journal"), "f23456789abcdef0");
    assert_eq!(
        (row.get::<_, i64>("_partition"), row.get::<_, i32>("_sub")),
        (2, 0)
    );
    assert_eq!(
        (row.get::<_, String>("message_id"), row.get::<_, String>("source")),
        ("m".into(), "src_test".into())
    );
    assert_eq!(row.get::<_, Option<String>>("user_id"), None);
    assert_eq!(row.get::<_, i64>(15), super::at().as_millis());
}

#[test]
fn what_is_written_is_what_is_read_back() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bench = runtime.block_on(Bench::start());
    let first = runtime.block_on(bench.encode(&[(u64::from(u32::MAX), FIRST.to_owned())]));
    assert_eq!(first.refused, []);
    let mut runner = TestRunner::new(Config::with_cases(24));
    let next = std::cell::Cell::new(0_u64);
    runner
        .run(&proptest::collection::vec(events(), 1..20), |events| {
            let from = next.get();
            let numbered: Vec<_> = (from..)
                .zip(&events)
                .map(|(seq, event)| (seq, event.source()))
                .collect();
            next.set(from + 20);
            runtime.block_on(async {
                let encoded = bench.encode(&numbered).await;
                assert_eq!(encoded.refused, []);
                let token = format!("{from:032x}");
                for block in &encoded.blocks {
                    let outcome = bench.insert(&bench.destination, block, &token).await;
                    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
                }
                let client = bench.database.client().await.expect("connected");
                for ((seq, _), event) in numbered.iter().zip(&events) {
                    let seq = i64::try_from(*seq).expect("small");
                    check(event, &client.query_one(READ, &[&seq]).await.expect("a row"));
                }
            });
            Ok(())
        })
        .expect("read back as written");
}

#[tokio::test]
async fn what_no_column_can_hold_goes_to_extra_as_it_came_or_is_refused_with_its_field() {
    let bench = Bench::start().await;
    let long = "x".repeat(64);
    let properties = format!(
        r#""xmin":1,"{long}":2,"big":12345678901234567890123,"never":"9999-12-31T23:59:59Z","fine":"2026-11-21T04:00:00.1234Z","o":{{}},"u":[1,"a"],"nul":null"#
    );
    let good = format!(r#"{{"type":"track","userId":"ü","properties":{{{properties}}}}}"#);
    let refused = [
        (r#"{"type":"track","userId":"a\u0000"}"#, "user_id"),
        (r#"{"type":"track","messageId":"\u0000"}"#, "message_id"),
        (r#"{"type":"track","timestamp":"yesterday"}"#, "timestamp"),
        (r#"[]"#, ""),
    ];
    let mut events = vec![(0, good)];
    events.extend((1..).zip(refused.iter().map(|(event, _)| (*event).to_owned())));
    let encoded = bench.encode(&events).await;
    let fields: Vec<_> = encoded
        .refused
        .iter()
        .map(|(index, error)| (*index, error.field.as_str()))
        .collect();
    let wanted: Vec<_> = (1..).zip(refused.iter().map(|(_, field)| *field)).collect();
    assert_eq!(fields, wanted);
    let outcome = bench
        .insert(&bench.destination, &encoded.blocks[0], &token(1))
        .await;
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    let client = bench.database.client().await.expect("connected");
    let row = client
        .query_one("SELECT extra, never::text, (extract(epoch FROM fine) * 1000)::bigint, user_id FROM millrace.events", &[])
        .await
        .expect("a row");
    let extra: String = row.get(0);
    for kept in [
        r#""xmin":1"#,
        &format!("\"{long}\":2"),
        r#""big":12345678901234567890123"#,
        r#""never":"9999-12-31T23:59:59Z""#,
        r#""fine":"2026-11-21T04:00:00.1234Z""#,
        r#""u":[1,"a"]"#,
        r#""nul":null"#,
    ] {
        assert!(extra.contains(kept), "{kept} is not in {extra}");
    }
    assert!(
        row.get::<_, String>(1).starts_with("2299-12-31 "),
        "clamped, and said so"
    );
    assert_eq!(row.get::<_, i64>(2), 1_795_233_600_123);
    assert_eq!(row.get::<_, String>(3), "ü");
}

#[tokio::test]
async fn rows_beyond_what_a_block_holds_go_into_further_ones_in_their_order() {
    let bench = Bench::start().await;
    let text = "z".repeat(3 << 20);
    let events: Vec<_> = (0..7)
        .map(|seq| {
            (
                seq,
                format!(r#"{{"type":"track","properties":{{"t":"{text}"}}}}"#),
            )
        })
        .collect();
    let encoded = bench.encode(&events).await;
    let lengths: Vec<_> = encoded.blocks.iter().map(|block| block.rows().len()).collect();
    assert_eq!(lengths, [3, 3, 1]);
    for (number, block) in (1..).zip(&encoded.blocks) {
        let outcome = bench.insert(&bench.destination, block, &token(number)).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    assert_eq!(bench.count().await, 7);
}

#[tokio::test]
async fn a_row_that_is_too_wide_for_a_page_may_be_the_cause_of_its_refusal() {
    let bench = Bench::start().await;
    // Text that compression does not make smaller.
    let text = |n: u64| {
        [3, 5, 7]
            .map(|k| {
                format!(
                    "{:016x}",
                    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(k))
                )
            })
            .concat()
    };
    let fields: Vec<_> = (0..490).map(|n| format!("\"f{n}\":\"{}\"", text(n))).collect();
    let event = format!(r#"{{"type":"track","properties":{{{}}}}}"#, fields.join(","));
    let encoded = bench.encode(&[(0, event)]).await;
    let outcome = bench
        .insert(&bench.destination, &encoded.blocks[0], &token(1))
        .await;
    assert!(
        matches!(&outcome, Outcome::Ambiguous(error) if error.may_be_a_row()),
        "{outcome:?}"
    );
    assert_eq!(bench.count().await, 0);
}
