use proptest::prelude::*;

use super::payload::PayloadError;
use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON in the test")
}

fn load() -> Load {
    Load {
        chain: "chn_1".into(),
        version: 7,
        workspace: "demo".into(),
        source: "web".into(),
        destination: "clickhouse".into(),
        functions: vec![Function {
            id: "fn_total".into(),
            version: 3,
            code: "export default function (event) { event.total = 1; }\n".into(),
            typescript: false,
        }],
        environment: Text(raw(r#"{"REGION":"eu"}"#)),
        environment_fault: None,
        limits: Limits {
            wall_ms: 250,
            cpu_ms: None,
            heap_bytes: 64 << 20,
            output_bytes: 1 << 20,
            outputs: 100,
            log_lines: 100,
            promises: None,
        },
    }
}

/// Each frame of the protocol, with the file under `schemas/frame/` that holds its bytes.
fn golden() -> Vec<(&'static str, Kind, u64, Vec<u8>)> {
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.expect("plain");
    let context = raw(r#"{"attempt":0,"receivedAt":"2026-01-02T03:04:05.678Z","headers":{}}"#);
    let event = raw(r#"{"event":"Order Completed","properties":{"price":10.50,"note":"caf\u00e9"}}"#);
    let batch = Batch {
        chain: "chn_1",
        version: 7,
        records: vec![Record {
            context: context.get(),
            event: event.get(),
            position: 0,
        }],
        budget_ms: None,
    };
    let resumed = Batch {
        chain: "chn_1",
        version: 7,
        records: vec![Record {
            context: context.get(),
            event: event.get(),
            position: 1,
        }],
        budget_ms: None,
    };
    let asked = Outcome {
        resume: Some(Resume {
            position: 1,
            event: event.get().to_owned(),
        }),
        ..Outcome::retry(Fault::new(FunctionCode::Thrown, "RetryError: busy"), None)
    };
    let verdicts = [
        Outcome::forward(vec![r#"{"a":1}"#.to_owned(), r#"{"a":2}"#.to_owned()]),
        Outcome::dropped(),
        Outcome::retry(Fault::new(FunctionCode::Thrown, "RetryError: busy"), Some(10_000)),
        Outcome::dead_letter(Fault {
            function: Some("fn_total".into()),
            function_version: Some(3),
            line: Some(2),
            column: Some(9),
            ..Fault::new(FunctionCode::Thrown, "TypeError: x is not a function")
        }),
    ];
    let log = Log {
        lines: vec![LogLine {
            index: Some(0),
            position: None,
            level: LogLevel::Info,
            message: "seen".into(),
        }],
        discarded: 2,
        usage: None,
    };
    let call = Call {
        operation: "store.get".into(),
        argument: raw(r#"{"key":"k"}"#),
    };
    vec![
        ("load", Kind::Load, 1, json(serde_json::to_vec(&load()))),
        ("batch", Kind::Batch, 2, batch.encode().expect("small")),
        (
            "shared",
            Kind::Shared,
            2,
            Shared {
                kind: Kind::Batch,
                payload_len: 70_000,
            }
            .encode()
            .to_vec(),
        ),
        ("batch_resumed", Kind::Batch, 3, resumed.encode().expect("small")),
        (
            "verdicts_resume",
            Kind::Verdicts,
            3,
            Verdicts::encode(&[asked]).expect("small"),
        ),
        (
            "progress",
            Kind::Progress,
            2,
            json(serde_json::to_vec(&Progress {
                index: 41,
                position: None,
                exhausted: false,
            })),
        ),
        (
            "verdicts",
            Kind::Verdicts,
            2,
            Verdicts::encode(&verdicts).expect("small"),
        ),
        (
            "verdicts_unknown_chain",
            Kind::Verdicts,
            2,
            Verdicts::unknown_chain(),
        ),
        (
            "load_typescript",
            Kind::Load,
            4,
            json(serde_json::to_vec(&Load {
                functions: load()
                    .functions
                    .into_iter()
                    .map(|function| Function {
                        typescript: true,
                        ..function
                    })
                    .collect(),
                ..load()
            })),
        ),
        (
            "log_usage",
            Kind::Log,
            2,
            json(serde_json::to_vec(&Log {
                lines: Vec::new(),
                discarded: 0,
                usage: Some(Usage {
                    cpu_us: 1_250,
                    wall_us: 2_500,
                    waited_us: 0,
                    heap_bytes: 4 << 20,
                }),
            })),
        ),
        ("call", Kind::Call, u64::MAX, json(serde_json::to_vec(&call))),
        (
            "reply",
            Kind::Reply,
            u64::MAX,
            json(serde_json::to_vec(&Reply::Done(raw("null")))),
        ),
        (
            "reply_failed",
            Kind::Reply,
            3,
            json(serde_json::to_vec(&Reply::Failed("quota".into()))),
        ),
        (
            "reply_unavailable",
            Kind::Reply,
            4,
            json(serde_json::to_vec(&Reply::Unavailable(
                "the store is away".into(),
            ))),
        ),
        ("cancel", Kind::Cancel, 5, Vec::new()),
        ("log", Kind::Log, 2, json(serde_json::to_vec(&log))),
    ]
}

#[test]
fn every_frame_has_the_bytes_that_are_kept_in_schemas() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/frame");
    for (name, kind, id, payload) in golden() {
        let mut bytes = Vec::new();
        encode(kind, id, &payload, &mut bytes).expect("small");
        let path = folder.join(format!("{name}.v1.bin"));
        let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            kept == bytes,
            "{name}: the frame is now\n{:?}\nand was\n{:?}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&kept)
        );
        let (frame, taken) = Frame::decode(&kept).expect("known").expect("whole");
        assert_eq!(
            (frame.kind, frame.id, frame.payload, taken),
            (kind, id, &payload[..], kept.len())
        );
    }
}

#[test]
fn the_text_of_an_event_comes_out_as_it_went_in() {
    let text = r#"{"z":1,"a":1e2,"n":12345678901234567890,"s":"\ud800\u00e9/","dup":1,"dup":2}"#;
    let batch = Batch {
        chain: "c",
        version: 1,
        records: vec![Record {
            context: "{}",
            event: text,
            position: 3,
        }],
        budget_ms: None,
    };
    let bytes = batch.encode().expect("small");
    assert_eq!(Batch::decode(&bytes).expect("own bytes"), batch);
    let bytes = Verdicts::encode(&[Outcome::forward(vec![text.to_owned()])]).expect("small");
    let Verdicts::Outcomes(outcomes) = Verdicts::decode(&bytes).expect("own bytes") else {
        panic!("an answer without outcomes");
    };
    assert_eq!(outcomes[0].events[0].get(), text);
}

#[test]
fn what_a_worker_says_is_not_believed_where_it_is_not_json() {
    for text in [
        "",
        "{",
        "{}}",
        "undefined",
        r#"{"a":1},{"b":2}"#,
        "{\"a\":\"\n\"}",
    ] {
        let bytes = Verdicts::encode(&[Outcome::forward(vec![text.to_owned()])]).expect("small");
        let read = Verdicts::decode(&bytes);
        assert!(matches!(read, Err(PayloadError::Json(_))), "{text}: {read:?}");
    }
}

#[test]
fn a_payload_that_ends_too_early_or_too_late_is_refused() {
    for (name, kind, _, payload) in golden() {
        let refused = |bytes: &[u8]| match kind {
            Kind::Batch => Batch::decode(bytes).is_err(),
            Kind::Verdicts => Verdicts::decode(bytes).is_err(),
            _ => true,
        };
        for cut in 0..payload.len() {
            assert!(refused(&payload[..cut]), "{name} cut at {cut}");
        }
        assert!(
            refused(&[&payload[..], b"x"].concat()),
            "{name} with a byte behind it"
        );
    }
}

#[test]
fn an_unknown_version_is_refused() {
    let mut bytes = Vec::new();
    encode(Kind::Batch, 1, b"{}", &mut bytes).expect("small");
    bytes[4] = 2;
    assert_eq!(Frame::decode(&bytes), Err(FrameError::UnknownVersion(2)));
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = Vec::new();
    encode(Kind::Batch, 1, b"{}", &mut bytes).expect("small");
    bytes[5] = 0;
    assert_eq!(Frame::decode(&bytes), Err(FrameError::UnknownKind(0)));
}

#[test]
fn a_length_over_the_limit_is_refused_before_any_payload_is_read() {
    let mut header = [0_u8; HEADER_LEN];
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    header[4] = VERSION;
    header[5] = Kind::Batch as u8;
    assert_eq!(
        Frame::decode(&header),
        Err(FrameError::TooLarge(u32::MAX as usize))
    );
}

#[test]
fn a_payload_over_the_limit_is_not_encoded() {
    let mut out = Vec::new();
    let payload = vec![0; MAX_PAYLOAD + 1];
    assert_eq!(
        encode(Kind::Load, 1, &payload, &mut out),
        Err(FrameError::TooLarge(MAX_PAYLOAD + 1))
    );
    assert!(out.is_empty());
}

#[test]
fn a_frame_that_is_not_whole_is_waited_for() {
    let mut bytes = Vec::new();
    encode(Kind::Log, 9, b"{\"lines\":[]}", &mut bytes).expect("small");
    for cut in 0..bytes.len() {
        assert_eq!(Frame::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn frames_in_a_row_are_read_back(
        frames in prop::collection::vec((1_u8..=8, any::<u64>(), prop::collection::vec(any::<u8>(), 0..64)), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (kind, id, payload) in &frames {
            encode(Kind::try_from(*kind).expect("listed"), *id, payload, &mut bytes).expect("small");
        }
        let mut rest = &bytes[..];
        for (kind, id, payload) in &frames {
            let (frame, taken) = Frame::decode(rest).expect("own bytes").expect("whole");
            prop_assert_eq!((frame.kind as u8, frame.id, frame.payload), (*kind, *id, &payload[..]));
            rest = &rest[taken..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn bytes_from_anywhere_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some((frame, taken))) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.payload.len() + HEADER_LEN, taken);
        }
        drop(Batch::decode(&bytes));
        drop(Verdicts::decode(&bytes));
    }
}
