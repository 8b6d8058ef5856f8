//! The outside of a body: found without looking into its events.
//!
//! The text is checked to be JSON once, without recursion and without a tree; what is in a string, a number
//! out of range or a lone surrogate say, is the business of the event it is in.

use std::borrow::Cow;

use millrace_event::json::{Kind as JsonKind, Value};
use millrace_event::{IngestCode, Timestamp};
use serde_json::value::RawValue;

use super::{Refusal, Shape};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A decoded body.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    events: Events<'a>,
    write_key: Option<Cow<'a, str>>,
    /// What the batch says for all of its events.
    pub(super) context: Option<Value<'a>>,
    pub(super) integrations: Option<Value<'a>>,
    pub(super) sent_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
enum Events<'a> {
    One(Value<'a>),
    List(Value<'a>),
}

impl<'a> Envelope<'a> {
    /// The events, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (one, list) = match self.events {
            Events::One(event) => (Some(event), None),
            Events::List(list) => (None, Some(list.items())),
        };
        one.into_iter().chain(list.into_iter().flatten())
    }

    /// The write key in the body: of the batch, else of its first event, where browsers put it.
    pub(super) fn write_key(&self) -> Option<String> {
        let of_first = || string(self.items().next()?.get("writeKey")?);
        self.write_key.clone().or_else(of_first).map(Cow::into_owned)
    }
}

/// Decodes a body.
pub(super) fn decode(body: &[u8], shape: Shape) -> Result<Envelope<'_>, Refusal> {
    let invalid = |message| Refusal::new(IngestCode::InvalidJson, message);
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| invalid("the body is not JSON"))?;
    let outside = Value::from(raw);
    if outside.kind() != JsonKind::Object {
        return Err(invalid("the body is not an object"));
    }
    if let Shape::Single(_) = shape {
        return Ok(Envelope {
            events: Events::One(outside),
            write_key: None,
            context: None,
            integrations: None,
            sent_at: None,
        });
    }
    let mut list = None;
    let (mut write_key, mut context, mut integrations, mut sent_at) = (None, None, None, None);
    for (name, value) in outside.entries() {
        match name.unescape().text.as_ref() {
            "batch" => list = Some(value),
            "writeKey" => write_key = string(value),
            "context" => context = Some(value).filter(|value| value.kind() == JsonKind::Object),
            "integrations" => integrations = Some(value).filter(|value| value.kind() == JsonKind::Object),
            "sentAt" => sent_at = timestamp(value),
            _ => {}
        }
    }
    let list = list.filter(|list| list.kind() == JsonKind::Array);
    let list = list.ok_or_else(|| {
        Refusal::of_field(
            IngestCode::InvalidJson,
            "batch",
            "a batch needs a `batch` that is an array",
        )
    })?;
    Ok(Envelope {
        events: Events::List(list),
        write_key,
        context,
        integrations,
        sent_at,
    })
}

/// A string that says something.
pub(super) fn string(value: Value<'_>) -> Option<Cow<'_, str>> {
    value
        .as_str()
        .map(|string| string.text)
        .filter(|text| !text.is_empty())
}

pub(super) fn timestamp(value: Value<'_>) -> Option<Timestamp> {
    string(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Kind;

    fn texts(body: &str) -> Vec<String> {
        decode(body.as_bytes(), Shape::Batch)
            .unwrap()
            .items()
            .map(|item| item.text().to_owned())
            .collect()
    }

    #[test]
    fn events_of_a_batch_come_as_they_were_sent() {
        let body = "\u{feff}{\"batch\":[ {\"a\":1e2, \"a\":\"\\ud800\"} , 7 ],\"writeKey\":\"wk_a\"}";
        assert_eq!(texts(body), ["{\"a\":1e2, \"a\":\"\\ud800\"}", "7"]);
        assert_eq!(texts("{\"batch\":[]}"), Vec::<String>::new());
    }

    #[test]
    fn the_key_of_the_batch_wins_over_that_of_an_event() {
        let key = |body: &str| decode(body.as_bytes(), Shape::Batch).unwrap().write_key();
        assert_eq!(
            key(r#"{"batch":[{"writeKey":"b"}],"writeKey":"a"}"#).as_deref(),
            Some("a")
        );
        assert_eq!(key(r#"{"batch":[{"writeKey":"b"}]}"#).as_deref(), Some("b"));
        assert_eq!(key(r#"{"batch":[3]}"#), None);
        let single = decode(br#"{"writeKey":"c"}"#, Shape::Single(Kind::Track)).unwrap();
        assert_eq!(single.write_key().as_deref(), Some("c"));
    }

    #[test]
    fn a_body_that_is_no_batch_is_refused_as_a_whole() {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{\"batch\":{}}",
            "{}",
            "{\"batch\":[NaN]}",
            "{\"batch\":[]} x",
        ] {
            let refusal = decode(body.as_bytes(), Shape::Batch).unwrap_err();
            assert_eq!(refusal.code, IngestCode::InvalidJson, "{body}");
        }
        assert!(decode(b"{\"batch\":[\"\xff\"]}", Shape::Batch).is_err());
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = format!("{{\"batch\":[{}{}]}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(texts(&deep).len(), 1);
    }
}
