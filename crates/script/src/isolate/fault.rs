//! From what was thrown to what people read.

use std::time::Duration;

use deno_core::v8;
use millrace_event::FunctionCode;
use millrace_event::frame::Fault;

use super::{Interrupted, Parts};

/// Characters kept of a message.
const MESSAGE_CHARS: usize = 1024;

/// Most bytes of the frames.
#[cfg(feature = "engine-v8")]
const STACK_BYTES: usize = 2048;

/// Characters kept of the name of a JavaScript function.
#[cfg(feature = "engine-v8")]
const NAME_CHARS: usize = 64;

/// What an exception means. Runs no code of the function: the message and the place come from the engine, the
/// mark of a `RetryError` is a private field.
pub(super) fn interruption<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    parts: &Parts,
    position: usize,
    exception: v8::Local<'s, v8::Value>,
    message: Option<v8::Local<'s, v8::Message>>,
) -> Interrupted {
    let fault = place(scope, parts, position, exception, message);
    let this = v8::undefined(scope).into();
    let retry_after = v8::Local::new(scope, &parts.retry_after);
    match retry_after.call(scope, this, &[exception]) {
        Some(after) if after.is_string() => {
            let after = after.to_rust_string_lossy(scope);
            Interrupted::Retry(Box::new(fault), duration(&after), None)
        }
        _ => Interrupted::Fault(Box::new(fault)),
    }
}

fn place<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    parts: &Parts,
    position: usize,
    exception: v8::Local<'s, v8::Value>,
    message: Option<v8::Local<'s, v8::Message>>,
) -> Fault {
    let stack = stack(scope, parts, exception);
    let Described {
        text,
        script,
        line,
        column,
    } = describe(scope, exception, message);
    let thrower = script.and_then(|script| parts.functions.iter().position(|f| f.script == script));
    let mut fault = parts.blame(thrower.unwrap_or(position), FunctionCode::Thrown, text);
    if thrower.is_some() {
        (fault.line, fault.column) = (line, column);
    }
    fault.stack = stack;
    fault
}

/// The frames of the chain's own functions, as `at name (id@version:line:column)`. Runs no code of theirs: it is what the
/// engine noted when the error was made.
#[cfg(feature = "engine-v8")]
fn stack(
    scope: &mut v8::PinScope<'_, '_>,
    parts: &Parts,
    exception: v8::Local<'_, v8::Value>,
) -> Option<String> {
    let trace = v8::Exception::get_stack_trace(scope, exception)?;
    let mut lines = String::new();
    for index in 0..trace.get_frame_count() {
        let frame = trace.get_frame(scope, index)?;
        let Some(script) = frame.get_script_name(scope) else {
            continue;
        };
        let script = script.to_rust_string_lossy(scope);
        let Some(function) = parts.functions.iter().find(|function| function.script == script) else {
            continue;
        };
        let name = frame
            .get_function_name(scope)
            .map(|name| name.to_rust_string_lossy(scope));
        let name: String = name.unwrap_or_default().chars().take(NAME_CHARS).collect();
        let name = if name.is_empty() {
            "(anonymous)"
        } else {
            name.as_str()
        };
        let (line, column) = (frame.get_line_number(), frame.get_column());
        let text = format!("at {name} ({}@{}:{line}:{column})", function.id, function.version);
        if lines.len() + text.len() >= STACK_BYTES {
            break;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&text);
    }
    (!lines.is_empty()).then_some(lines)
}

/// QuickJS notes no frames that could be read without its functions.
#[cfg(feature = "engine-quickjs")]
fn stack(_: &mut v8::PinScope<'_, '_>, _: &Parts, _: v8::Local<'_, v8::Value>) -> Option<String> {
    None
}

/// What can be said about an exception.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) text: String,
    /// The name of the script it came from.
    pub(super) script: Option<String>,
    /// From 1.
    pub(super) line: Option<u32>,
    /// From 1.
    pub(super) column: Option<u32>,
}

/// What V8 itself noted about an exception.
#[cfg(feature = "engine-v8")]
pub(super) fn describe<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exception: v8::Local<'s, v8::Value>,
    message: Option<v8::Local<'s, v8::Message>>,
) -> Described {
    let message = message.unwrap_or_else(|| v8::Exception::create_message(scope, exception));
    let text = message.get(scope).to_rust_string_lossy(scope);
    let text = text.strip_prefix("Uncaught ").unwrap_or(&text);
    Described {
        text: text.chars().take(MESSAGE_CHARS).collect(),
        script: message
            .get_script_resource_name(scope)
            .filter(|name| name.is_string())
            .map(|name| name.to_rust_string_lossy(scope)),
        line: message
            .get_line_number(scope)
            .and_then(|line| u32::try_from(line).ok()),
        column: u32::try_from(message.get_start_column())
            .ok()
            .and_then(|column| column.checked_add(1)),
    }
}

/// QuickJS notes nothing beside an exception, so its fields are read: on this engine an exception's getters may
/// run, on the event's clock.
#[cfg(feature = "engine-quickjs")]
pub(super) fn describe<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exception: v8::Local<'s, v8::Value>,
    _message: Option<v8::Local<'s, v8::Message>>,
) -> Described {
    let cut = |text: String| text.chars().take(MESSAGE_CHARS).collect();
    let object = v8::Local::<v8::Object>::try_from(exception)
        .ok()
        .filter(|_| !exception.is_proxy() && exception.is_native_error());
    let Some(error) = object else {
        let text = match exception {
            value if value.is_object() => "an object was thrown".to_owned(),
            value if value.is_symbol() => "a symbol was thrown".to_owned(),
            value => value.to_rust_string_lossy(scope),
        };
        return Described {
            text: cut(text),
            ..Described::default()
        };
    };
    let field = |name: &str| {
        let key = v8::String::new(scope, name)?;
        let value = error.get(scope, key.into()).filter(|value| value.is_string())?;
        Some(value.to_rust_string_lossy(scope))
    };
    let (name, message, stack) = (field("name"), field("message"), field("stack"));
    let text = [name, message]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    let (script, line, column) = first_place(stack.as_deref().unwrap_or_default());
    Described {
        text: cut(text),
        script,
        line,
        column,
    }
}

/// The first place in a function's code that a stack names, as `function:<position>/<id>:<line>:<column>`.
#[cfg(feature = "engine-quickjs")]
fn first_place(stack: &str) -> (Option<String>, Option<u32>, Option<u32>) {
    let place = stack
        .split(['(', ')', ' ', '\n'])
        .find(|word| word.starts_with("function:"));
    let mut fields = place.unwrap_or_default().rsplitn(3, ':');
    let column = fields.next().and_then(|column| column.parse().ok());
    let line = fields.next().and_then(|line| line.parse().ok());
    (fields.next().map(ToOwned::to_owned), line, column)
}

/// Reads `250ms`, `10s`, `5m`, `1h` or a number of milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}
