//! Events in the query of an image's address.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::query;

/// Deepest nesting that dots in a name make.
const DEPTH: usize = 8;

const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// A transparent image of one pixel.
pub(super) const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// The event of a query: JSON in base64 under `data`, else each parameter a field, dots going deeper. What
/// cannot be decoded is given on as it is, to be refused with a reason.
pub(super) fn event(query: &str) -> Bytes {
    if let Some(data) = query::value(query, "data") {
        // A plus sign that nobody escaped has become a space.
        let data = data.replace(' ', "+");
        let decoded = STANDARD.decode(&data).or_else(|_| URL_SAFE.decode(&data));
        return Bytes::from(decoded.unwrap_or_else(|_| data.into_bytes()));
    }
    let mut event = Map::new();
    for (name, value) in query::pairs(query) {
        if name != "writeKey" {
            insert(&mut event, &name, value);
        }
    }
    Bytes::from(Value::Object(event).to_string())
}

/// The first of two that contradict each other stays.
fn insert(mut into: &mut Map<String, Value>, name: &str, value: String) {
    let mut parts = name.splitn(DEPTH, '.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            into.entry(part).or_insert(Value::String(value));
            return;
        }
        let inner = into
            .entry(part)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut();
        let Some(inner) = inner else { return };
        into = inner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_in_either_base64() {
        for query in [
            "writeKey=k&data=eyJldmVudCI6IlNlbnQg8J-Ygz8ifQ",
            "data=eyJldmVudCI6IlNlbnQg8J%2BYgz8ifQ%3D%3D",
            "data=eyJldmVudCI6IlNlbnQg8J+Ygz8ifQ==",
        ] {
            assert_eq!(event(query), "{\"event\":\"Sent 😃?\"}".as_bytes(), "{query}");
        }
        assert_eq!(
            event("data=%7B%22a%22%3A1%7D"),
            &b"{\"a\":1}"[..],
            "plain JSON is taken too"
        );
    }

    #[test]
    fn parameters_become_fields_and_dots_go_deeper() {
        assert_eq!(
            event("event=Opened&properties.subject=Hello+you&properties.a.b=%31&writeKey=wk_a&userId=u"),
            &br#"{"event":"Opened","properties":{"subject":"Hello you","a":{"b":"1"}},"userId":"u"}"#[..]
        );
        assert_eq!(
            event("a=1&a.b=2&c.d=3&c=4&a=5"),
            &br#"{"a":"1","c":{"d":"3"}}"#[..]
        );
        assert_eq!(event(""), &b"{}"[..]);
    }

    #[test]
    fn dots_without_end_do_not_nest_without_end() {
        let text = event(&format!("{}=1", ".a".repeat(30_000)));
        assert_eq!(text.iter().filter(|byte| **byte == b'{').count(), DEPTH);
    }
}
