//! What a workspace asks of its events: names that were changed, fields that must be there.

use std::borrow::Cow;

use millrace_event::IngestCode;
use millrace_event::flatten::{self, Flattener};
use millrace_event::json::{Kind, Value};
use millrace_store::rules::{Alias, AliasMode};

use super::Refusal;
use super::event::rewrite::Object;

/// The text of `properties` with changed names as their rules say; none where it stays as it is.
///
/// # Errors
/// When both names of a field are there and say different things.
pub(super) fn renamed(properties: Value<'_>, aliases: &[Alias]) -> Result<Option<String>, Refusal> {
    let mut added: Vec<(&str, &str)> = Vec::new();
    let mut gone: Vec<(&str, Option<&str>)> = Vec::new();
    for alias in aliases {
        let (old, new) = (properties.get(&alias.old), properties.get(&alias.new));
        match (old, new, alias.mode) {
            (Some(old), Some(new), _) if !are_equal(old, new) => {
                return Err(Refusal::of_field(
                    IngestCode::AliasConflict,
                    alias.new.clone(),
                    "the field is there under its old and its new name with different values",
                ));
            }
            (Some(_), Some(_), AliasMode::New) => gone.push((&alias.old, None)),
            (Some(_), None, AliasMode::New) => gone.push((&alias.old, Some(&alias.new))),
            (Some(old), None, AliasMode::Both) => added.push((&alias.new, old.text())),
            (None, Some(new), AliasMode::Both) => added.push((&alias.old, new.text())),
            _ => {}
        }
    }
    if added.is_empty() && gone.is_empty() {
        return Ok(None);
    }
    let mut text = Object::with_capacity(properties.text().len() + 64);
    for (key, value) in properties.entries() {
        let name = key.unescape().text;
        match gone.iter().find(|(old, _)| *old == name) {
            None => text.entry(key.text(), value.text()),
            Some((_, Some(new))) => text.entry(&quoted(new), value.text()),
            Some((_, None)) => {}
        }
    }
    for (name, value) in added {
        text.entry(&quoted(name), value);
    }
    Ok(Some(text.end()))
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// However they are written.
fn are_equal(one: Value<'_>, other: Value<'_>) -> bool {
    let read = |value: Value<'_>| serde_json::from_str::<serde_json::Value>(value.text()).ok();
    one.text() == other.text() || (one.kind() == other.kind() && read(one) == read(other))
}

/// The first of `required` that an event has nowhere: not at its top, nor in properties, traits or, with that
/// in front, context.
pub(super) fn missing<'r>(event: Value<'_>, required: &'r [String]) -> Option<&'r str> {
    if required.is_empty() {
        return None;
    }
    let mut open: Vec<&str> = required.iter().map(String::as_str).collect();
    let mut flattener = Flattener::new();
    for (key, value) in event.entries() {
        let name = key.unescape().text;
        if value.kind() == Kind::Object {
            let prefix = match name {
                Cow::Borrowed("properties" | "traits") => "",
                _ => name.as_ref(),
            };
            flattener.walk(prefix, value, &mut |name, value| {
                if value.kind() != Kind::Null {
                    open.retain(|required| *required != name);
                }
            });
        } else if value.kind() != Kind::Null {
            let name = flatten::name_of(&name);
            open.retain(|required| *required != name);
        }
    }
    open.first().copied()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn alias(mode: AliasMode) -> [Alias; 1] {
        [Alias {
            old: "event_type".to_owned(),
            new: "action_type".to_owned(),
            mode,
        }]
    }

    fn apply(mode: AliasMode, properties: &str) -> Result<Option<String>, IngestCode> {
        let raw: Box<RawValue> = serde_json::from_str(properties).unwrap();
        renamed(Value::from(&*raw), &alias(mode)).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_changed_name_is_left_copied_or_moved() {
        let (old, new) = (r#"{"a":1,"event_type":"x"}"#, r#"{"action_type":"x"}"#);
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(apply(AliasMode::Old, old), Ok(None));
        assert_eq!(
            apply(AliasMode::Both, old),
            text(r#"{"a":1,"event_type":"x","action_type":"x"}"#)
        );
        assert_eq!(
            apply(AliasMode::Both, new),
            text(r#"{"action_type":"x","event_type":"x"}"#)
        );
        assert_eq!(apply(AliasMode::New, old), text(r#"{"a":1,"action_type":"x"}"#));
        assert_eq!(apply(AliasMode::New, new), Ok(None));
        assert_eq!(apply(AliasMode::New, r#"{"b":1}"#), Ok(None));
    }

    #[test]
    fn both_names_with_different_values_are_a_conflict_and_with_equal_ones_are_not() {
        let (same, other) = (
            r#"{"event_type":{"a": 1},"action_type":{"a":1}}"#,
            r#"{"event_type":1,"action_type":2}"#,
        );
        for mode in [AliasMode::Old, AliasMode::Both, AliasMode::New] {
            assert_eq!(apply(mode, other), Err(IngestCode::AliasConflict), "{mode}");
        }
        assert_eq!(apply(AliasMode::Both, same), Ok(None));
        assert_eq!(
            apply(AliasMode::New, same),
            Ok(Some(r#"{"action_type":{"a":1}}"#.to_owned()))
        );
    }

    #[test]
    fn a_required_field_may_be_anywhere_in_an_event_but_not_null() {
        let required = ["brand".to_owned()];
        let lacks = |event: &str| {
            let raw: Box<RawValue> = serde_json::from_str(event).unwrap();
            missing(Value::from(&*raw), &required).is_some()
        };
        for event in [
            r#"{"brand":"b"}"#,
            r#"{"properties":{"brand":"b"}}"#,
            r#"{"traits":{"Brand":0}}"#,
        ] {
            assert!(!lacks(event), "{event}");
        }
        for event in [
            "{}",
            r#"{"properties":{"brand":null}}"#,
            r#"{"context":{"brand":"b"}}"#,
        ] {
            assert!(lacks(event), "{event}");
        }
    }
}
