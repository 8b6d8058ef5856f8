//! The outside of a body: found without looking into its events.
//!
//! The text is checked to be JSON once, without recursion and without a tree; what is in a string, a number
//! out of range or a lone surrogate say, is the business of the event it is in.

use std::borrow::Cow;

use millrace_event::json::{self, Kind as JsonKind, Value};
use millrace_event::{IngestCode, Timestamp};
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Refusal, Shape};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A decoded body.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    events: Events<'a>,
    write_key: Option<Cow<'a, str>>,
    /// What the batch says for all of its events.
    pub(super) context: Option<Value<'a>>,
    pub(super) integrations: Option<Value<'a>>,
    pub(super) sent_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Events<'a> {
    One(&'a RawValue),
    List(Vec<&'a RawValue>),
}

impl Default for Events<'_> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<'a> Envelope<'a> {
    /// Takes what a batch says for all of its events.
    fn set(&mut self, name: &str, value: Value<'a>) {
        let object = || Some(value).filter(|value| value.kind() == JsonKind::Object);
        match name {
            "writeKey" => self.write_key = string(value),
            "context" => self.context = object(),
            "integrations" => self.integrations = object(),
            "sentAt" => self.sent_at = timestamp(value),
            _ => {}
        }
    }

    /// The events, in order.
    pub(super) fn items(&self) -> &[&'a RawValue] {
        match &self.events {
            Events::One(event) => std::slice::from_ref(event),
            Events::List(list) => list,
        }
    }

    /// The write key in the body: of the batch, else of its first event, where browsers put it.
    pub(super) fn write_key(&self) -> Option<String> {
        let of_first = || string(Value::from(*self.items().first()?).get("writeKey")?);
        self.write_key.clone().or_else(of_first).map(Cow::into_owned)
    }
}

/// Decodes a body. Of a batch it gives `most` events and one more at most, so that a body of a million commas
/// takes no memory.
pub(super) fn decode(body: &[u8], shape: Shape, most: usize) -> Result<Envelope<'_>, Refusal> {
    let invalid = |message| Refusal::new(IngestCode::InvalidJson, message);
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    let is_object = text.trim_ascii_start().starts_with('{');
    if is_object {
        let quick = match shape {
            Shape::Single(_) => one(text),
            Shape::Batch => outside(text, most),
        };
        if let Some(envelope) = quick {
            return Ok(envelope);
        }
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| invalid("the body is not JSON"))?;
    if !is_object {
        return Err(invalid("the body is not an object"));
    }
    if let Shape::Single(_) = shape {
        return Ok(Envelope {
            events: Events::One(raw),
            ..Envelope::default()
        });
    }
    // JSON it is, nested deep or with a `batch` that is at fault, or an earlier entry of that name.
    let list = Value::from(raw).get("batch");
    let list = list.filter(|list| list.kind() == JsonKind::Array);
    let list = list.ok_or_else(|| {
        Refusal::of_field(
            IngestCode::InvalidJson,
            "batch",
            "a batch needs a `batch` that is an array",
        )
    })?;
    let events = Items(most).deserialize(&mut serde_json::Deserializer::from_str(list.text()));
    let mut batch = Envelope {
        events: Events::List(events.map_err(|_| invalid("the batch cannot be read"))?),
        ..Envelope::default()
    };
    for (name, value) in Value::from(raw).entries() {
        batch.set(&name.unescape().text, value);
    }
    Ok(batch)
}

/// A single event; nothing where the text is no JSON, or nested deeper than most.
fn one(text: &str) -> Option<Envelope<'_>> {
    let start = json::white_space(text, 0);
    let end = json::end_of_value(text, start)?;
    let event = json::known(text.get(start..end)?)?;
    (json::white_space(text, end) == text.len()).then_some(Envelope {
        events: Events::One(event),
        ..Envelope::default()
    })
}

/// The outside of a batch in one pass: every event is found to be JSON where it stands. Of equal names the last one counts.
/// Nothing where the text is no JSON, nested deeper than most, or no batch.
fn outside(text: &str, most: usize) -> Option<Envelope<'_>> {
    let mut batch = Envelope::default();
    let mut found = false;
    let mut outside = Outside { text, at: 0 };
    outside.step(b'{').then_some(())?;
    loop {
        let name = Value::from(outside.value()?).as_str()?.text;
        outside.step(b':').then_some(())?;
        if name == "batch" {
            batch.events = Events::List(outside.items(most)?);
            found = true;
        } else {
            batch.set(&name, Value::from(outside.value()?));
        }
        if !outside.step(b',') {
            let is_whole = outside.step(b'}') && outside.at == text.len();
            return (found && is_whole).then_some(batch);
        }
    }
}

/// A place in a text that may be JSON.
struct Outside<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Outside<'a> {
    /// Steps over a byte with the white space on both sides, where it is next.
    fn step(&mut self, byte: u8) -> bool {
        let at = json::white_space(self.text, self.at);
        let is_next = self.text.as_bytes().get(at) == Some(&byte);
        self.at = match is_next {
            true => json::white_space(self.text, at + 1),
            false => at,
        };
        is_next
    }

    fn value(&mut self) -> Option<&'a RawValue> {
        let end = json::end_of_value(self.text, self.at)?;
        let value = json::known(self.text.get(self.at..end)?);
        self.at = end;
        value
    }

    /// So many items of an array and one more; those beyond are read over.
    fn items(&mut self, most: usize) -> Option<Vec<&'a RawValue>> {
        let mut items = Vec::new();
        self.step(b'[').then_some(())?;
        if self.step(b']') {
            return Some(items);
        }
        loop {
            let item = self.value()?;
            if items.len() <= most {
                items.push(item);
            }
            if !self.step(b',') {
                return self.step(b']').then_some(items);
            }
        }
    }
}

/// Reads so many items of an array and one more; those beyond are read over.
struct Items(usize);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
            if list.len() > self.0 {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(list)
    }
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
        decode(body.as_bytes(), Shape::Batch, 10)
            .unwrap()
            .items()
            .iter()
            .map(|item| item.get().to_owned())
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
        let key = |body: &str| decode(body.as_bytes(), Shape::Batch, 10).unwrap().write_key();
        assert_eq!(
            key(r#"{"batch":[{"writeKey":"b"}],"writeKey":"a"}"#).as_deref(),
            Some("a")
        );
        assert_eq!(key(r#"{"batch":[{"writeKey":"b"}]}"#).as_deref(), Some("b"));
        assert_eq!(key(r#"{"batch":[3]}"#), None);
        let single = decode(br#"{"writeKey":"c"}"#, Shape::Single(Kind::Track), 10).unwrap();
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
            let refusal = decode(body.as_bytes(), Shape::Batch, 10).unwrap_err();
            assert_eq!(refusal.code, IngestCode::InvalidJson, "{body}");
        }
        assert!(decode(b"{\"batch\":[\"\xff\"]}", Shape::Batch, 10).is_err());
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = format!("{{\"batch\":[{}{}]}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(texts(&deep).len(), 1);
    }

    #[test]
    fn of_equal_names_the_last_counts_and_too_many_events_are_one_too_many() {
        assert_eq!(texts(r#"{"batch":1,"b\u0061tch":[1],"batch":[2,3]}"#), ["2", "3"]);
        let body = format!("{{\"batch\":[{}0],\"writeKey\":\"a\"}}", "0,".repeat(5_000));
        let decoded = decode(body.as_bytes(), Shape::Batch, 10).unwrap();
        assert_eq!(
            (decoded.items().len(), decoded.write_key().as_deref()),
            (11, Some("a"))
        );
        let cut = body.replace("0]", "0");
        assert_eq!(
            decode(cut.as_bytes(), Shape::Batch, 10).unwrap_err().code,
            IngestCode::InvalidJson
        );
    }
}
