use super::*;
use crate::pipeline::decode::decode;

/// What events of no time in particular are judged by.
fn terms<T>(judge: impl FnOnce(Terms<'_>) -> T) -> T {
    judge(Terms {
        limits: &EventLimits::default(),
        clocks: &Clocks::default(),
        received_at: "2026-11-21T04:00:00Z".parse().unwrap(),
        is_import: false,
        aliases: &[],
        ip: IpPolicy::Keep,
    })
}

fn batch(body: &str) -> Result<(String, String, String), (IngestCode, Option<String>)> {
    let envelope = decode(body.as_bytes(), Shape::Batch, 10).unwrap();
    let item = *envelope.items().first().unwrap();
    terms(|terms| prepare(item, None, Shape::Batch, &envelope, terms))
        .map(|prepared| {
            (
                prepared.message_id.into_owned(),
                prepared.key,
                prepared.event.get().to_owned(),
            )
        })
        .map_err(|fault| (fault.refusal.code, fault.refusal.field.map(Cow::into_owned)))
}

fn single(kind: Kind, body: &str) -> (String, String) {
    let shape = Shape::Single(kind);
    let envelope = decode(body.as_bytes(), shape, 10).unwrap();
    let item = *envelope.items().first().unwrap();
    let prepared = terms(|terms| prepare(item, None, shape, &envelope, terms)).unwrap();
    (prepared.message_id.into_owned(), prepared.event.get().to_owned())
}

#[test]
fn an_event_that_lacks_nothing_goes_on_byte_for_byte() {
    let event =
        r#"{ "type":"track", "messageId":"m", "userId":"u","properties":{"n":1.50,"n":1e2,"s":"\ud800"} }"#;
    let (id, key, text) = batch(&format!(r#"{{"batch":[{event}]}}"#)).unwrap();
    assert_eq!((id.as_str(), key.as_str(), text.as_str()), ("m", "u", event));
}

#[test]
fn the_key_is_the_anonymous_id_else_the_user_id_else_the_message_id() {
    for (fields, key) in [
        (r#""anonymousId":"a","userId":"u""#, "a"),
        (r#""anonymousId":null,"userId":"u""#, "u"),
        (r#""anonymousId":"","userId":17"#, "17"),
        (r#""userId":{}"#, "m"),
    ] {
        let body = format!(r#"{{"batch":[{{"type":"track","messageId":"m",{fields}}}]}}"#);
        assert_eq!(batch(&body).unwrap().1, key, "{fields}");
    }
}

#[test]
fn the_route_gives_the_type_and_the_gateway_the_message_id() {
    let (id, text) = single(
        Kind::Page,
        r#"{"messageId":null,"writeKey":"wk_a:secret","name":"Home","type":null}"#,
    );
    assert_eq!(
        text,
        format!(r#"{{"type":"page","messageId":"{id}","name":"Home"}}"#)
    );
    assert_eq!(
        single(Kind::Page, r#"{"type":"track","messageId":"m"}"#).1,
        r#"{"type":"track","messageId":"m"}"#
    );
}

#[test]
fn the_context_of_a_batch_fills_what_an_event_leaves_open() {
    let merge = |own: &str| {
        let body = format!(
            r#"{{"context":{{"library":{{"name":"go"}},"ip":"::1"}},"batch":[{{"type":"track","messageId":"m"{own}}}]}}"#
        );
        batch(&body).unwrap().2
    };
    assert_eq!(
        merge(""),
        r#"{"type":"track","messageId":"m","context":{"library":{"name":"go"},"ip":"::1"}}"#
    );
    assert_eq!(
        merge(r#","context":{"ip":"::2"}"#),
        r#"{"type":"track","messageId":"m","context":{"ip":"::2","library":{"name":"go"}}}"#
    );
    let full = r#","context":{"ip":"::2","library":7}"#;
    assert_eq!(
        merge(full),
        format!(r#"{{"type":"track","messageId":"m"{full}}}"#)
    );
}

#[test]
fn each_fault_has_its_code_and_names_its_field() {
    let long = "x".repeat(ID_LIMIT + 1);
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let large = "x".repeat(100_000);
    for (event, code, field) in [
        ("7".to_owned(), IngestCode::InvalidEvent, None),
        ("{}".to_owned(), IngestCode::MissingField, Some("type")),
        (
            r#"{"type":"explode"}"#.to_owned(),
            IngestCode::InvalidEvent,
            Some("type"),
        ),
        (r#"{"type":3}"#.to_owned(), IngestCode::InvalidEvent, Some("type")),
        (
            format!(r#"{{"type":"track","messageId":"{long}"}}"#),
            IngestCode::InvalidEvent,
            Some("messageId"),
        ),
        (
            format!(r#"{{"type":"track","userId":"{long}"}}"#),
            IngestCode::InvalidEvent,
            Some("userId"),
        ),
        (
            format!(r#"{{"type":"track","p":{deep}}}"#),
            IngestCode::InvalidEvent,
            None,
        ),
        (
            format!(r#"{{"type":"track","p":"{large}"}}"#),
            IngestCode::EventTooLarge,
            None,
        ),
    ] {
        assert_eq!(
            batch(&format!(r#"{{"batch":[{event}]}}"#)),
            Err((code, field.map(str::to_owned)))
        );
    }
}

#[test]
fn brackets_in_strings_are_not_nesting() {
    assert!(!is_deeper_than(
        &format!(r#"{{"a\"[":"{}"}}"#, "[".repeat(500)),
        2
    ));
    assert!(!is_deeper_than(&format!("[{}1]", "[1],".repeat(500)), 2));
    assert!(is_deeper_than("[[[1]]]", 2));
    assert!(!is_deeper_than("[[1],[1],[1]]", 2));
}

#[test]
fn a_wrong_clock_is_corrected_and_what_it_said_is_kept() {
    let sent = |times: &str| {
        batch(&format!(
            r#"{{"batch":[{{"type":"track","messageId":"m",{times}}}]}}"#
        ))
        .map(|prepared| prepared.2)
    };
    let near = r#""sentAt":"2026-11-21T03:59:30Z","timestamp":"2026-11-21T03:00:00Z""#;
    assert_eq!(
        sent(near).unwrap(),
        format!(r#"{{"type":"track","messageId":"m",{near}}}"#)
    );
    assert_eq!(
        sent(r#""timestamp":"2026-11-21T05:58:00+01:00","sentAt":"2026-11-21T05:00:00Z""#).unwrap(),
        r#"{"type":"track","messageId":"m","sentAt":"2026-11-21T05:00:00Z","timestamp":"2026-11-21T03:58:00.000Z","originalTimestamp":"2026-11-21T05:58:00+01:00"}"#
    );
    assert_eq!(
        sent(r#""timestamp":"2027-01-01T00:00:00Z","originalTimestamp":"x""#).unwrap(),
        r#"{"type":"track","messageId":"m","originalTimestamp":"x","timestamp":"2026-11-21T04:00:00.000Z"}"#
    );
    let late = sent(r#""sentAt":"2026-11-20T03:59:59Z""#).unwrap_err();
    assert_eq!(late, (IngestCode::LateEvent, Some("sentAt".to_owned())));
}
