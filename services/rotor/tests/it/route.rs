//! From outcomes to records, without a process.

use millrace_event::envelope::{
    Envelope as _, Origin, Output, Reason, Retry, RowPayload, Stage, Text as Name, Transformed, V1,
};
use millrace_event::frame::{Fault, Function, Load, Outcome, Resume, Text};
use millrace_event::header::{self, Headers};
use millrace_event::topic::{MAX_RECORD_BYTES, MAX_WRAPPED_BYTES};
use millrace_event::{FunctionCode, Verdict};
use millrace_kafka::{Outgoing, Record};
use millrace_rotor::incoming::{Incoming, Place};
use millrace_rotor::pool::Chain;
use millrace_rotor::registry::{Tables, Way};
use millrace_rotor::route::{Taken, Wrapping, aside, ran, settled};
use serde_json::value::RawValue;

use super::ground::ingest;

const PLACE: Place<'_> = Place {
    topic: "t",
    partition: 0,
    retry: false,
    incarnation: "",
};
const BARE: Wrapping<'_> = Wrapping {
    key: Some(b"k"),
    traceparent: Some("00-a-b-01"),
};

fn record(event: &str) -> Record {
    let Outgoing { key, value, headers } = ingest("src", "ws", 0, 0, event);
    Record {
        offset: 0,
        timestamp_ms: 0,
        key: key.map(Into::into),
        value: value.into(),
        headers,
    }
}

fn way(destination: &str) -> Way {
    Way {
        id: format!("chn_{destination}"),
        version: 1,
        destination: destination.into(),
        workspace: "ws".into(),
        database: "db".into(),
        table: destination.into(),
        config_version: 4,
        chain: None,
    }
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).expect("JSON")
}

/// The verdict and the outputs, as `destination event`.
fn decided(outcomes: Vec<Option<Outcome>>) -> (Verdict, Vec<String>, Option<u64>) {
    let record = record(r#"{"n":1}"#);
    let ways: Vec<_> = (0..outcomes.len()).map(|n| way(&format!("d{n}"))).collect();
    let taken: Vec<_> = ways
        .iter()
        .zip(outcomes)
        .map(|(way, outcome)| Taken { way, outcome })
        .collect();
    let (verdict, outgoing) = ran(&Incoming::read(&record, PLACE), &taken, &Tables::default(), &BARE);
    let read = Record {
        offset: 0,
        timestamp_ms: 0,
        key: None,
        value: outgoing.value.into(),
        headers: Headers::new(),
    };
    let envelope = super::ground::read(&read);
    assert_eq!(envelope.verdict, verdict);
    assert_eq!(
        envelope.original.is_some(),
        matches!(verdict, Verdict::Retry | Verdict::DeadLetter)
    );
    let outputs = envelope
        .outputs
        .iter()
        .map(|output| format!("{} {}", output.destination, output.event.get()));
    (verdict, outputs.collect(), envelope.retry_after_ms)
}

fn fault() -> Fault {
    Fault::new(FunctionCode::Thrown, "x")
}

#[test]
fn rows_of_several_destinations_stand_in_the_order_of_the_ways() {
    let (verdict, outputs, _) = decided(vec![
        None,
        Some(Outcome::forward(vec![json(r#"{"a":1}"#), json(r#"{"a":2}"#)])),
    ]);
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(outputs, [r#"d0 {"n":1}"#, r#"d1 {"a":1}"#, r#"d1 {"a":2}"#]);
}

#[test]
fn an_event_is_dropped_when_every_chain_drops_it() {
    assert_eq!(
        decided(vec![Some(Outcome::dropped()), Some(Outcome::dropped())]).0,
        Verdict::Drop
    );
    let (verdict, outputs, _) = decided(vec![Some(Outcome::dropped()), None]);
    assert_eq!((verdict, outputs.len()), (Verdict::Forward, 1));
}

#[test]
fn one_retry_sends_the_whole_event_round_again_after_the_longest_wait() {
    let (verdict, outputs, after) = decided(vec![
        None,
        Some(Outcome::retry(fault(), Some(5))),
        Some(Outcome::retry(fault(), Some(9000))),
        Some(Outcome::retry(fault(), None)),
    ]);
    assert_eq!((verdict, outputs.len(), after), (Verdict::Retry, 0, Some(9000)));
}

/// The way of a chain of two functions, `fn_a` and `fn_b`.
fn running(destination: &str) -> Way {
    let function = |id: &str| Function {
        id: id.into(),
        version: 1,
        code: String::new(),
        typescript: false,
    };
    let load = Load {
        chain: format!("chn_{destination}"),
        version: 1,
        workspace: "ws".into(),
        source: "src".into(),
        destination: destination.into(),
        functions: vec![function("fn_a"), function("fn_b")],
        environment: Text(json("{}")),
        environment_fault: None,
        limits: millrace_rotor::config::EventLimits::default().frame(),
    };
    Way {
        chain: Some(std::sync::Arc::new(Chain::new(load).expect("plain"))),
        ..way(destination)
    }
}

/// An outcome of the second function, which got `event`.
fn asked(event: &str, function: &str) -> Outcome {
    let fault = Fault {
        function: Some(function.into()),
        ..fault()
    };
    let resume = Resume {
        position: 1,
        event: json(event),
    };
    Outcome {
        resume: Some(resume),
        ..Outcome::retry(fault, None)
    }
}

/// Where the event of a record goes on after these outcomes: chain, position and event.
fn resumed(record: &Record, outcomes: Vec<Outcome>) -> Option<(String, u32, String)> {
    let ways: Vec<_> = (0..outcomes.len()).map(|n| running(&format!("d{n}"))).collect();
    let taken: Vec<_> = ways
        .iter()
        .zip(outcomes)
        .map(|(way, outcome)| Taken {
            way,
            outcome: Some(outcome),
        })
        .collect();
    let (verdict, outgoing) = ran(&Incoming::read(record, PLACE), &taken, &Tables::default(), &BARE);
    assert_eq!(verdict, Verdict::Retry);
    let envelope = Transformed::read(&outgoing.value).expect("an envelope");
    assert!(envelope.original.is_some(), "a retry keeps its original");
    envelope.resume.map(|resume| {
        (
            resume.chain.to_string(),
            resume.position,
            resume.event.get().to_owned(),
        )
    })
}

#[test]
fn a_retry_says_where_the_chain_that_asked_goes_on() {
    let plain = record(r#"{"n":1}"#);
    let forward = || Outcome::forward(vec![json("{}")]);
    assert_eq!(
        resumed(&plain, vec![forward(), asked(r#"{"n":2}"#, "fn_b")]),
        Some(("chn_d1".into(), 1, r#"{"n":2}"#.into()))
    );
    assert_eq!(
        resumed(&plain, vec![asked("{}", "fn_a")]),
        None,
        "another function is to blame than the one that stands there"
    );
}

#[test]
fn a_place_to_go_on_that_does_not_fit_beside_the_original_is_left_out() {
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(600_000));
    assert_eq!(resumed(&record(&large), vec![asked(&large, "fn_b")]), None);
    assert!(resumed(&record(&large), vec![asked("{}", "fn_b")]).is_some());
}

/// The tables and events of what a server's or a browser's event became.
fn routed(kind: &str, outcome: Option<Outcome>, event: &str) -> (Verdict, Vec<String>) {
    let mut record = record(event);
    let text = String::from_utf8(record.value.into()).expect("UTF-8");
    record.value = text
        .replace(r#""key_kind":"server""#, &format!(r#""key_kind":"{kind}""#))
        .into();
    let way = way("events");
    let taken = [Taken { way: &way, outcome }];
    let owned = |table: &str, owner: &str| (format!("db.{table}"), owner.to_owned());
    let tables = Tables::new([owned("events", "ws"), owned("theirs", "ws_other")].into());
    let (verdict, outgoing) = ran(&Incoming::read(&record, PLACE), &taken, &tables, &BARE);
    let envelope = Transformed::read(&outgoing.value).expect("an envelope");
    let outputs = envelope
        .outputs
        .iter()
        .map(|output| format!("{} {}", output.table, output.event.get()));
    (verdict, outputs.collect())
}

#[test]
fn an_event_of_a_server_goes_to_the_table_that_it_names() {
    let outcome = Outcome::forward(vec![
        json(r#"{"a":1.50,"table":"orders","b":{"table":"x"}}"#),
        json(r#"{"a":2}"#),
        json(r#"{"table":7}"#),
    ]);
    let rows = [
        r#"db.orders {"a":1.50,"b":{"table":"x"}}"#,
        r#"db.events {"a":2}"#,
        r#"db.events {"table":7}"#,
    ];
    let rows = rows.map(str::to_owned).to_vec();
    assert_eq!(routed("server", Some(outcome), "{}"), (Verdict::Forward, rows));
    let passed = vec![r#"db.orders {"n":1}"#.to_owned()];
    assert_eq!(
        routed("import", None, r#"{"n":1,"t\u0061ble":"x","table":"orders"}"#),
        (Verdict::Forward, passed)
    );
}

#[test]
fn the_table_that_a_browsers_event_names_is_a_field_like_others() {
    let outcome = Outcome::forward(vec![json(r#"{"table":"orders"}"#)]);
    let rows = vec![r#"db.events {"table":"orders"}"#.to_owned()];
    assert_eq!(routed("browser", Some(outcome), "{}"), (Verdict::Forward, rows));
}

#[test]
fn a_table_of_another_workspace_or_without_a_usable_name_is_an_invalid_return() {
    for table in ["theirs", "", "a b", "a.b", "`a`", "é"] {
        let outcome = Outcome::forward(vec![json(&format!(r#"{{"table":"{table}"}}"#))]);
        assert_eq!(
            routed("server", Some(outcome), "{}"),
            (Verdict::DeadLetter, vec![]),
            "{table}"
        );
    }
}

#[test]
fn one_dead_letter_sets_the_whole_event_aside() {
    let (verdict, outputs, after) = decided(vec![
        Some(Outcome::retry(fault(), Some(5))),
        Some(Outcome::dead_letter(fault())),
        None,
    ]);
    assert_eq!((verdict, outputs.len(), after), (Verdict::DeadLetter, 0, None));
}

#[test]
fn outputs_that_do_not_fit_in_a_record_become_a_dead_letter_with_the_original() {
    let large = json(&format!(r#"{{"text":"{}"}}"#, "x".repeat(600_000)));
    let (verdict, ..) = decided(vec![Some(Outcome::forward(vec![large.clone()]))]);
    assert_eq!(verdict, Verdict::Forward);
    let (verdict, outputs, _) = decided(vec![Some(Outcome::forward(vec![large.clone(), large]))]);
    assert_eq!((verdict, outputs.len()), (Verdict::DeadLetter, 0));
}

#[test]
fn the_dead_letter_of_a_record_of_full_size_holds_its_original() {
    let mut record = record("{}");
    let padding = MAX_RECORD_BYTES - record.size() - r#""text":"""#.len();
    record.value = ingest(
        "src",
        "ws",
        0,
        0,
        &format!(r#"{{"text":"{}"}}"#, "x".repeat(padding)),
    )
    .value
    .into();
    assert_eq!(record.size(), MAX_RECORD_BYTES);
    // As long as a reason gets, in the characters that take most room.
    let fault = Fault {
        function: Some("fn_0123456789abcdef".into()),
        function_version: Some(u32::MAX),
        line: Some(u32::MAX),
        column: Some(u32::MAX),
        ..Fault::new(FunctionCode::Thrown, "\u{1}".repeat(1024))
    };
    let incoming = Incoming::read(&record, PLACE);
    for (outcome, expected) in [
        (Outcome::dead_letter(fault.clone()), Verdict::DeadLetter),
        (Outcome::retry(fault, Some(u64::MAX)), Verdict::Retry),
    ] {
        let way = way("d");
        let taken = [Taken {
            way: &way,
            outcome: Some(outcome),
        }];
        let (verdict, outgoing) = ran(&incoming, &taken, &Tables::default(), &BARE);
        assert_eq!(verdict, expected);
        assert!(outgoing.size() <= MAX_WRAPPED_BYTES, "{}", outgoing.size());
        let envelope = Transformed::read(&outgoing.value).expect("an envelope");
        let original = envelope.original.expect("it fits").get();
        assert!(original.as_bytes() == record.value, "byte for byte");
    }
}

#[test]
fn a_dead_letter_that_does_not_fit_is_written_without_its_original() {
    let record = record(&format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_WRAPPED_BYTES)));
    let incoming = Incoming::read(&record, PLACE);
    let (verdict, outgoing) = aside(&incoming, &fault(), &BARE);
    assert_eq!(verdict, Verdict::DeadLetter);
    assert!(outgoing.size() < 10_000);
}

#[test]
fn key_identity_attempt_and_trace_go_on() {
    let mut record = record("{}");
    record.headers.push(header::ATTEMPT, "3");
    let incoming = Incoming::read(&record, PLACE);
    let (_, outgoing) = aside(&incoming, &fault(), &BARE);
    assert_eq!(outgoing.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(outgoing.headers.text(header::ID), record.headers.text(header::ID));
    assert_eq!(outgoing.headers.text(header::ATTEMPT), Some("3"));
    assert_eq!(outgoing.headers.text(header::TRACEPARENT), Some("00-a-b-01"));
    let envelope = Transformed::read(&outgoing.value).expect("an envelope");
    assert_eq!(envelope.attempt, 3);
}

/// A copy of the bulker's for a row of `bytes`.
fn row_copy(bytes: usize) -> Record {
    let event = json(&format!("\"{}\"", "x".repeat(bytes)));
    let now = "2026-11-21T04:00:00.120Z".parse().expect("a time");
    let row = RowPayload {
        version: V1,
        origin: Origin {
            workspace: Name::from("ws"),
            source: Name::from("src"),
            message_id: Name::from("m"),
            received_at: now,
            sent_at: None,
        },
        output: Output {
            destination: Name::from("dst"),
            table: Name::from("db.t"),
            config_version: 1,
            event: &event,
        },
    };
    let payload = json(&String::from_utf8(row.to_bytes()).expect("text"));
    let retry = Retry {
        version: V1,
        stage: Stage::Bulker,
        attempt: 2,
        due_at: now,
        resume: None,
        reason: Reason {
            code: Name::from("table_failing"),
            message: Name::from("the table cannot be written"),
            field: None,
            function: None,
            function_version: None,
            stack: None,
        },
        table: Some(Name::from("db.t")),
        sub: Some(3),
        payload: &payload,
    };
    Record {
        value: retry.to_bytes().into(),
        ..record("{}")
    }
}

#[test]
fn a_row_that_came_back_too_large_is_set_aside_under_its_own_table_and_number_and_says_where_it_is() {
    let place = Place { retry: true, ..PLACE };
    let copy = row_copy(MAX_WRAPPED_BYTES);
    let (verdict, outgoing) = settled(&Incoming::read(&copy, place), &BARE);
    assert_eq!(verdict, Verdict::DeadLetter);
    let envelope = Transformed::read(&outgoing.value).expect("an envelope");
    assert_eq!((envelope.attempt, envelope.sub), (2, Some(3)));
    assert_eq!(envelope.outputs[0].table.as_str(), "db.t");
    assert_eq!(envelope.outputs[0].event.get(), "null");
    let reason = envelope.reason.expect("why");
    assert_eq!(reason.code.as_str(), "output_limit");
    assert!(
        reason.message.as_str().contains("offset 0 of partition 0 of t"),
        "{}",
        reason.message
    );

    let fits = row_copy(100);
    assert_eq!(settled(&Incoming::read(&fits, place), &BARE).0, Verdict::Forward);
}
