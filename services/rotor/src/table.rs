//! `event.table`: a server's event that names the table it goes to. Pure.

use std::borrow::Cow;

use millrace_event::json::{Kind, Value};
use serde_json::value::RawValue;

/// The field.
const FIELD: &str = "table";

/// Longest name, in bytes.
const MOST_BYTES: usize = 128;

/// The event without the field, and the name in it. An event without it is left as it is, and so is one whose
/// field is no string: then it is an ordinary field.
///
/// # Errors
/// When the name is not one that a table can have.
pub fn taken_out(event: &RawValue) -> Result<(Cow<'_, RawValue>, Option<String>), String> {
    // Cheaper than walking the fields, and enough for nearly all events.
    if !event.get().contains("\"table\"") {
        return Ok((Cow::Borrowed(event), None));
    }
    let value = Value::from(event);
    let Some(name) = value.get(FIELD).and_then(Value::as_str) else {
        return Ok((Cow::Borrowed(event), None));
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let name = name.text;
    if name.is_empty() || name.len() > MOST_BYTES || !name.bytes().all(allowed) {
        return Err("event.table is not a name of ASCII letters, digits, underscores and hyphens".into());
    }
    let mut text = String::with_capacity(event.get().len());
    text.push('{');
    let others = value.entries().filter(|(key, _)| !key.equals(FIELD));
    for (at, (key, value)) in others.enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(key.text());
        text.push(':');
        text.push_str(value.text());
    }
    text.push('}');
    debug_assert_eq!(value.kind(), Kind::Object, "only objects have fields");
    let name = name.into_owned();
    match RawValue::from_string(text) {
        Ok(rest) => Ok((Cow::Owned(rest), Some(name))),
        Err(_) => Ok((Cow::Borrowed(event), Some(name))),
    }
}
