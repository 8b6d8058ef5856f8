use super::*;
use serde_json::value::RawValue;

/// The golden bytes live beside the schemas, so that writers in other languages find them.
macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../schemas/events/",
            $name
        ))
        .trim_end()
    };
}

fn reads_back<'a, E: Envelope<'a>>(golden: &'a str) -> E {
    let envelope = E::read(golden.as_bytes()).expect("the golden bytes are readable");
    let written = String::from_utf8(envelope.to_bytes()).expect("JSON is UTF-8");
    assert_eq!(written, golden, "what is written is what the contract shows");
    envelope
}

#[test]
fn the_ingest_envelope_keeps_its_golden_bytes() {
    let ingest: Ingest<'_> = reads_back(golden!("events.ingest.v1.golden.json"));
    assert_eq!(ingest.key_kind, crate::KeyKind::Server);
    assert!(
        ingest.event.get().contains("9007199254740993"),
        "digits beyond 2^53 stay"
    );
    assert!(ingest.event.get().contains(r"\ud800"), "a lone surrogate stays");
}

#[test]
fn the_transformed_envelope_keeps_its_golden_bytes_for_every_verdict() {
    for (golden, verdict) in [
        (
            golden!("events.transformed.v1.forward.golden.json"),
            crate::Verdict::Forward,
        ),
        (
            golden!("events.transformed.v1.drop.golden.json"),
            crate::Verdict::Drop,
        ),
        (
            golden!("events.transformed.v1.retry.golden.json"),
            crate::Verdict::Retry,
        ),
        (
            golden!("events.transformed.v1.dead_letter.golden.json"),
            crate::Verdict::DeadLetter,
        ),
    ] {
        let transformed: Transformed<'_> = reads_back(golden);
        assert_eq!(transformed.verdict, verdict);
        let carries_original = matches!(verdict, crate::Verdict::Retry | crate::Verdict::DeadLetter);
        assert_eq!(transformed.original.is_some(), carries_original);
        if let Some(original) = transformed.original {
            Ingest::read(original.get().as_bytes()).expect("the original is an ingest envelope");
        }
    }
}

#[test]
fn the_retry_envelope_keeps_its_golden_bytes_for_both_stages() {
    let rotor: Retry<'_> = reads_back(golden!("events.retry.v1.rotor.golden.json"));
    Ingest::read(rotor.payload.get().as_bytes()).expect("the payload is the ingest envelope");
    let bulker: Retry<'_> = reads_back(golden!("events.retry.v1.bulker.golden.json"));
    assert_eq!((bulker.stage, bulker.sub), (Stage::Bulker, Some(1)));
    RowPayload::read(bulker.payload.get().as_bytes()).expect("the payload is one row");
}

#[test]
fn the_dead_letter_of_a_row_keeps_its_golden_bytes() {
    let row: RowPayload<'_> = reads_back(golden!("events.dlq.v1.bulker.golden.json"));
    assert_eq!(row.output.table.as_str(), "ws_demo.events");
}

#[test]
fn another_version_is_refused_by_name() {
    let value = golden!("events.ingest.v1.golden.json").replacen("\"version\":1", "\"version\":2", 1);
    let error = Ingest::read(value.as_bytes()).expect_err("version 2 is not known");
    assert_eq!(error.to_string(), "the value is no ingest envelope of version 1");
    let source = std::error::Error::source(&error)
        .expect("the cause is kept")
        .to_string();
    assert!(source.contains("version 2 is not known"), "{source}");
}

#[test]
fn a_value_that_is_not_an_envelope_is_refused() {
    for value in ["", "null", "[]", "{}", "{\"version\":1}", "\u{feff}{}"] {
        assert!(Ingest::read(value.as_bytes()).is_err(), "{value}");
        assert!(Transformed::read(value.as_bytes()).is_err(), "{value}");
    }
}

#[test]
fn an_event_passes_through_byte_for_byte() {
    let event = r#"{ "b":1e2,"a" : 10.0, "x":"\u0041", "big":123456789012345678901234567890 }"#;
    let raw: Box<RawValue> = serde_json::from_str(event).expect("valid JSON");
    let ingest: Ingest<'_> =
        Ingest::read(golden!("events.ingest.v1.golden.json").as_bytes()).expect("golden");
    let bytes = Ingest {
        event: &raw,
        ..ingest
    }
    .to_bytes();
    assert_eq!(Ingest::read(&bytes).expect("own bytes").event.get(), event);
}
