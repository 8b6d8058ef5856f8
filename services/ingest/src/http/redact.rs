//! Payloads as they may be logged.

use millrace_event::json::{Kind, Value};
use serde_json::value::RawValue;

/// Deepest nesting that is written out.
const DEPTH: usize = 16;
/// Most bytes of one payload in a log, about.
const LIMIT: usize = 4 << 10;
/// Stands for what is kept out.
const REDACTED: &str = "\"[redacted]\"";
/// Stands for what is left out for its size.
const OMITTED: &str = "\"[omitted]\"";

/// Which payloads go into the log, and without which fields.
#[derive(Clone, Debug)]
pub(super) struct Redaction {
    on: bool,
    names: Vec<String>,
}

impl Redaction {
    pub(super) fn new(on: bool, names: &[String]) -> Self {
        let always = ["writeKey".to_owned()];
        Self {
            on,
            names: names.iter().chain(&always).map(|name| folded(name)).collect(),
        }
    }

    /// Whether payloads are logged at all.
    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// A whole body, or one item of its batch. None where it cannot be read, since then nothing in it can be
    /// told from a secret.
    pub(super) fn payload(&self, body: &[u8], item: Option<usize>) -> Option<String> {
        let raw: &RawValue = serde_json::from_slice(body).ok()?;
        let whole = Value::from(raw);
        let value = match (item, whole.get("batch")) {
            (Some(index), Some(batch)) if batch.kind() == Kind::Array => batch.items().nth(index)?,
            _ => whole,
        };
        let mut text = String::new();
        self.write(value, DEPTH, &mut text);
        Some(text)
    }

    fn write(&self, value: Value<'_>, depth: usize, text: &mut String) {
        match value.kind() {
            Kind::Object if depth > 0 => {
                text.push('{');
                for (index, (name, value)) in value.entries().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    if text.len() > LIMIT {
                        text.push_str("\"[more]\":true");
                        break;
                    }
                    text.push_str(name.text());
                    text.push(':');
                    if self.hides(&name.unescape().text) {
                        text.push_str(REDACTED);
                    } else {
                        self.write(value, depth - 1, text);
                    }
                }
                text.push('}');
            }
            Kind::Array if depth > 0 => {
                text.push('[');
                for (index, value) in value.items().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    if text.len() > LIMIT {
                        text.push_str(OMITTED);
                        break;
                    }
                    self.write(value, depth - 1, text);
                }
                text.push(']');
            }
            Kind::Object | Kind::Array => text.push_str(OMITTED),
            _ if text.len() + value.text().len() > 2 * LIMIT => text.push_str(OMITTED),
            _ => text.push_str(value.text()),
        }
    }

    fn hides(&self, name: &str) -> bool {
        self.names.contains(&folded(name))
    }
}

/// A name without case and separators: `apiKey`, `API-Key` and `api_key` are one.
fn folded(name: &str) -> String {
    name.chars()
        .filter(|symbol| symbol.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(body: &str, item: Option<usize>) -> Option<String> {
        let names = ["api_key".to_owned(), "email".to_owned()];
        Redaction::new(true, &names).payload(body.as_bytes(), item)
    }

    #[test]
    fn named_fields_are_hidden_at_any_depth_however_they_are_spelled() {
        assert_eq!(
            logged(
                r#"{"writeKey":"wk_a:s","traits":{"Email":{"a":1},"\u0065mail":2,"n":[{"API-Key":"x","b":"\ud800"}]}}"#,
                None
            )
            .as_deref(),
            Some(
                r#"{"writeKey":"[redacted]","traits":{"Email":"[redacted]","\u0065mail":"[redacted]","n":[{"API-Key":"[redacted]","b":"\ud800"}]}}"#
            )
        );
    }

    #[test]
    fn an_item_of_a_batch_is_logged_alone() {
        let body = r#"{"batch":[{"a":1},{"email":"x"}]}"#;
        assert_eq!(
            logged(body, Some(1)).as_deref(),
            Some(r#"{"email":"[redacted]"}"#)
        );
        assert_eq!(logged(body, Some(2)), None);
        assert_eq!(logged("{", None), None);
    }

    #[test]
    fn what_is_large_or_deep_is_cut() {
        let large = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(100_000));
        assert_eq!(
            logged(&large, None).as_deref(),
            Some(r#"{"a":"[omitted]","b":1}"#)
        );
        let many = format!("[{}1]", "\"some text\",".repeat(100_000));
        assert!(logged(&many, None).is_some_and(|text| text.len() < 2 * LIMIT));
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(logged(&deep, None).is_some_and(|text| text.len() < 100));
    }
}
