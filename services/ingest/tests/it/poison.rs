//! Bodies that nobody should send and somebody does.

use http::StatusCode;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::*;

#[tokio::test]
async fn each_poisonous_event_stands_or_falls_alone() {
    let pipeline = start(Vec::new()).await;
    let url = format!("{}/v1/batch", pipeline.url("ingest"));
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let items = [
        (r#"{"type":"track","messageId":"surrogate","event":"a\ud800b"}"#.to_owned(), None),
        (r#"{"type":"track","messageId":"nan","properties":{"a":NaN,"b":[-Infinity,Infinity]}}"#.to_owned(), None),
        (r#"{"type":"track","messageId":"twice","messageId":"again","event":"a","event":"b"}"#.to_owned(), None),
        (r#"{"type":"track","messageId":"number","userId":17,"event":null,"properties":null}"#.to_owned(), None),
        (r#"{"type":"track","messageId":"huge","properties":{"n":1e999999,"m":123456789012345678901234567890}}"#.to_owned(), None),
        (format!(r#"{{"type":"track","messageId":"deep","properties":{deep}}}"#), Some((Some("deep"), "invalid_event"))),
        ("7".to_owned(), Some((None, "invalid_event"))),
        ("null".to_owned(), Some((None, "invalid_event"))),
        ("[[]]".to_owned(), Some((None, "invalid_event"))),
        (r#""text""#.to_owned(), Some((None, "invalid_event"))),
        (r#"{"type":17,"messageId":"type"}"#.to_owned(), Some((Some("type"), "invalid_event"))),
        (r#"{"type":"track","messageId":"zero","event":"a\u0000b"}"#.to_owned(), None),
    ];
    let texts: Vec<_> = items.iter().map(|(text, _)| text.as_str()).collect();
    let body = format!("\u{feff}{{\"batch\":[{}],\"NaN\":0}}", texts.join(","));
    let headers = [("x-write-key", pipeline.write_key.as_str())];
    let answer = pipeline.client.post(&url, &headers, body).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let json = answer.json().unwrap();
    let rejected: Vec<_> = json["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            let index = usize::try_from(fault["index"].as_u64().unwrap()).unwrap();
            (
                index,
                (fault["message_id"].as_str(), fault["code"].as_str().unwrap()),
            )
        })
        .collect();
    let expected: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, (_, fault))| Some((index, (*fault)?)))
        .collect();
    assert_eq!(rejected, expected);

    let mut broken = br#"{"batch":[{"type":"track","messageId":"bytes","event":"a"#.to_vec();
    broken.extend(b"\xff\xfe\"},{\"type\":\"track\",\"messageId\":\"beside\"}]}");
    let answer = pipeline.client.post(&url, &headers, broken).await.unwrap();
    assert_eq!(answer.body, r#"{"success":true}"#);
    let whole = [
        "surrogate",
        "nan",
        "again",
        "number",
        "huge",
        "zero",
        "bytes",
        "beside",
    ];
    let events = all_arrived(&pipeline, &whole.map(str::to_owned).into()).await;
    assert_eq!(events.len(), whole.len());
    let event = |id: &str| {
        let record = events[id].values().next().unwrap();
        Ingest::read(&record.value).unwrap().event.get().to_owned()
    };
    assert_eq!(event("surrogate"), items[0].0, "kept byte for byte");
    assert_eq!(
        event("nan"),
        r#"{"type":"track","messageId":"nan","properties":{"a":null,"b":[null,null]}}"#
    );
    assert!(event("bytes").contains("a\u{fffd}\u{fffd}"));
}

/// Bodies near JSON, cut, doubled and overwritten: whatever it is, the client hears that it was the client.
#[tokio::test]
async fn no_body_is_answered_with_a_fault_of_the_gateway() {
    let pipeline = start(Vec::new()).await;
    let corpus = [
        r#"{"batch":[{"type":"track","messageId":"m","userId":"u","properties":{"a":[1,2.5e3,"x\u00e9\ud800"],"b":{}}}],"writeKey":"wk_a:s","sentAt":"2026-01-01T00:00:00Z","context":{"a":1}}"#,
        r#"{"type":"identify","anonymousId":"a","traits":{"email":"x","n":-0.0,"t":true,"z":null},"context":{},"integrations":{"All":true}}"#,
        "[[[[{\"a\":{}}]]]]",
        "\u{feff}{}",
        "NaN",
        "",
    ];
    let splices = [
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\u{0}",
        "\\ud800",
        "1e9999",
        "-",
        "NaN",
        "\"batch\":",
        "nul",
    ];
    let change = (
        0..corpus.len(),
        proptest::collection::vec((0..400_usize, 0..40_usize, 0..splices.len()), 0..5),
        0..8_u8,
    );
    let mut runner = TestRunner::deterministic();
    for _ in 0..400 {
        let (which, edits, path) = change.new_tree(&mut runner).unwrap().current();
        let mut body = corpus[which].as_bytes().to_vec();
        for (at, length, splice) in edits {
            let at = at.min(body.len());
            let end = (at + length).min(body.len());
            body.splice(at..end, splices[splice].bytes());
        }
        let path = ["/v1/batch", "/v1/track", "/v1/identify", "/v1/import"][usize::from(path % 4)];
        let url = format!("{}{path}", pipeline.url("ingest"));
        let headers = [("x-write-key", pipeline.write_key.as_str())];
        let answer = pipeline.client.post(&url, &headers, body.clone()).await.unwrap();
        let json = answer.json().unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(
            answer.status == StatusCode::OK || answer.status.is_client_error(),
            "{path} {body}: {}",
            answer.body
        );
        assert_eq!(json["success"], answer.status == StatusCode::OK, "{path} {body}");
        if answer.status != StatusCode::OK {
            assert!(
                json["code"].is_string() && json["message"].is_string() && json["request_id"].is_string()
            );
        }
    }
}
