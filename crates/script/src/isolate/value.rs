//! Between JSON text and values of the engine.

use deno_core::v8;
use millrace_event::FunctionCode;

use super::Event;

/// What a function's return value means.
pub(super) enum Accepted<'s> {
    /// The event it was given, as it is now.
    Same(v8::Local<'s, v8::Value>),
    /// Other events; none means dropped.
    Others(Vec<v8::Local<'s, v8::Value>>),
}

/// The event as a value; `None` when the engine threw.
pub(super) fn parsed<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    event: &Event<'_>,
) -> Option<v8::Local<'s, v8::Value>> {
    let text: &str = match event {
        Event::Value(value) => return Some(v8::Local::new(scope, value)),
        Event::Text(text) => text,
        Event::Written(text) => text,
    };
    let text = v8::String::new(scope, text)?;
    v8::json::parse(scope, text)
}

/// Reads a return value; the error says what was wrong with it. Runs no code of the function, except the traps
/// of a proxy in front of an array. An array has at most `most` elements.
pub(super) fn accept<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    returned: v8::Local<'s, v8::Value>,
    event: v8::Local<'s, v8::Value>,
    most: usize,
) -> Result<Accepted<'s>, Refused> {
    let invalid = |text: String| (FunctionCode::InvalidReturn, text);
    if returned.is_undefined() {
        return Ok(Accepted::Same(event));
    }
    if returned.is_null() || returned.is_false() {
        return Ok(Accepted::Others(Vec::new()));
    }
    if let Ok(text) = v8::Local::<v8::String>::try_from(returned) {
        if text.length() == 4 && text.to_rust_string_lossy(scope) == "drop" {
            return Ok(Accepted::Others(Vec::new()));
        }
        return Err(invalid("returned a string that is not \"drop\"".into()));
    }
    if let Ok(array) = v8::Local::<v8::Array>::try_from(returned) {
        if usize::try_from(array.length()).unwrap_or(usize::MAX) > most {
            return Err((FunctionCode::OutputLimit, too_many(most)));
        }
        let mut events = Vec::new();
        for index in 0..array.length() {
            match array.get_index(scope, index) {
                Some(element) if is_event(element) => events.push(element),
                _ => {
                    return Err(invalid(format!(
                        "element {index} of the returned array is not an event"
                    )));
                }
            }
        }
        return Ok(Accepted::Others(events));
    }
    if is_event(returned) {
        return Ok(Accepted::Others(vec![returned]));
    }
    Err(invalid(
        "returned neither an event, an array of events, nor a way to drop it".into(),
    ))
}

fn is_event(value: v8::Local<'_, v8::Value>) -> bool {
    value.is_object() && !value.is_array() && !value.is_function() && !value.is_promise()
}

/// `JSON.stringify`, before anybody can have put another one in its place.
pub(super) fn stringify<'s>(scope: &mut v8::PinScope<'s, '_>) -> Option<v8::Local<'s, v8::Function>> {
    let global = scope.get_current_context().global(scope);
    let name = v8::String::new(scope, "JSON")?;
    let json = v8::Local::<v8::Object>::try_from(global.get(scope, name.into())?).ok()?;
    let name = v8::String::new(scope, "stringify")?;
    v8::Local::<v8::Function>::try_from(json.get(scope, name.into())?).ok()
}

/// A fault's code and message.
pub(super) type Refused = (FunctionCode, String);

/// Writes values as JSON text of at most `limit` bytes together. `None` when the engine threw (a cycle, a BigInt,
/// a `toJSON` of the function).
///
/// `stringify` is the function and not the engine's call of the same name: only the function has the fast way for plain
/// objects, which takes half the time.
pub(super) fn texts(
    scope: &mut v8::PinScope<'_, '_>,
    stringify: &v8::Global<v8::Function>,
    values: &[v8::Local<'_, v8::Value>],
    limit: usize,
) -> Option<Result<Vec<String>, Refused>> {
    let mut left = limit;
    let mut texts = Vec::with_capacity(values.len());
    let this = v8::undefined(scope).into();
    let stringify = v8::Local::new(scope, stringify);
    for value in values {
        let written = stringify.call(scope, this, &[*value])?;
        let text = match text(scope, written, left) {
            Ok(text) => text,
            Err((FunctionCode::OutputLimit, _)) => return Some(Err(too_large(limit))),
            Err(refused) => return Some(Err(refused)),
        };
        left -= text.len();
        texts.push(text);
    }
    Some(Ok(texts))
}

/// What `JSON.stringify` gave for an event, which may have `limit` bytes.
fn text(
    scope: &mut v8::PinScope<'_, '_>,
    written: v8::Local<'_, v8::Value>,
    limit: usize,
) -> Result<String, Refused> {
    let text = string(written, limit)?.to_rust_string_lossy(scope);
    counted(text.as_bytes(), &mut { limit }, limit)?;
    Ok(text)
}

/// As [`text`], appended to `out` without a stop on the way.
pub(super) fn append(
    scope: &mut v8::PinScope<'_, '_>,
    written: v8::Local<'_, v8::Value>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    let text = string(written, limit)?;
    let start = out.len();
    copy(scope, text, out);
    counted(out.get(start..).unwrap_or_default(), &mut { limit }, limit)
}

#[cfg(feature = "engine-v8")]
fn copy(scope: &mut v8::PinScope<'_, '_>, text: v8::Local<'_, v8::String>, out: &mut Vec<u8>) {
    {
        let view = v8::ValueView::new(scope, text);
        // Nearly all texts; as others lie in the engine they are no UTF-8.
        if let v8::ValueViewData::OneByte(bytes) = view.data()
            && bytes.is_ascii()
        {
            return out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(text.to_rust_string_lossy(scope).as_bytes());
}

#[cfg(feature = "engine-quickjs")]
fn copy(scope: &mut v8::PinScope<'_, '_>, text: v8::Local<'_, v8::String>, out: &mut Vec<u8>) {
    out.extend_from_slice(text.to_rust_string_lossy(scope).as_bytes());
}

/// The string that was written, unless it is surely larger than `limit` bytes.
fn string(written: v8::Local<'_, v8::Value>, limit: usize) -> Result<v8::Local<'_, v8::String>, Refused> {
    let Ok(text) = v8::Local::<v8::String>::try_from(written) else {
        return Err(no_object());
    };
    // One UTF-16 unit is at least one byte of UTF-8: too long is known before anything is copied.
    if text.length() > limit {
        return Err(too_large(limit));
    }
    Ok(text)
}

/// As [`texts`], of events that may be text already.
pub(super) fn written(
    scope: &mut v8::PinScope<'_, '_>,
    stringify: &v8::Global<v8::Function>,
    events: &[Event<'_>],
    limit: usize,
) -> Option<Result<Vec<String>, Refused>> {
    let mut left = limit;
    let mut all = Vec::with_capacity(events.len());
    for event in events {
        let text = match event {
            Event::Text(text) => (*text).to_owned(),
            Event::Written(text) => String::from(&**text),
            Event::Value(value) => {
                let value = v8::Local::new(scope, value);
                match texts(scope, stringify, &[value], left)? {
                    Ok(mut texts) => texts.pop().unwrap_or_default(),
                    Err((FunctionCode::OutputLimit, _)) => return Some(Err(too_large(limit))),
                    Err(refused) => return Some(Err(refused)),
                }
            }
        };
        if let Err(refused) = counted(text.as_bytes(), &mut left, limit) {
            return Some(Err(refused));
        }
        all.push(text);
    }
    Some(Ok(all))
}

/// Takes a text off what is left of the limit.
fn counted(text: &[u8], left: &mut usize, limit: usize) -> Result<(), Refused> {
    *left = left.checked_sub(text.len()).ok_or_else(|| too_large(limit))?;
    // `toJSON` can turn an object into anything, even into nothing at all ("undefined").
    if text.first() == Some(&b'{') {
        Ok(())
    } else {
        Err(no_object())
    }
}

fn no_object() -> Refused {
    (
        FunctionCode::InvalidReturn,
        "toJSON did not give an object".into(),
    )
}

pub(super) fn too_many(most: usize) -> String {
    format!("became more than {most} events")
}

fn too_large(limit: usize) -> Refused {
    (
        FunctionCode::OutputLimit,
        format!("the result is larger than {limit} bytes"),
    )
}

/// A field of a function's `config` as text; the inner `None` when it is not there.
pub(super) fn text_of(
    scope: &mut v8::PinScope<'_, '_>,
    config: v8::Local<'_, v8::Object>,
    field: &str,
) -> Option<Option<String>> {
    let key = v8::String::new(scope, field)?;
    let value = config.get(scope, key.into())?;
    if value.is_null_or_undefined() {
        return Some(None);
    }
    Some(Some(value.to_string(scope)?.to_rust_string_lossy(scope)))
}
