//! Whether a function can see its second argument at all. Making `ctx` for each event costs about as much as reading a
//! small event, and most functions have no use for it.

use deno_core::v8;

/// Whether the function may look at what it is called with beyond the first argument: yes, unless its own text
/// surely says no. The text is the engine's and not what a function says about itself.
#[cfg(feature = "engine-v8")]
pub(super) fn takes_context(scope: &mut v8::PinScope<'_, '_>, entry: &v8::Global<v8::Function>) -> bool {
    let entry = v8::Local::new(scope, entry);
    if entry.is_proxy() {
        // Its text is that of what it stands in front of.
        return true;
    }
    match entry.to_detail_string(scope) {
        Some(text) => !has_one_name(&text.to_rust_string_lossy(scope)),
        None => true,
    }
}

/// QuickJS is not asked for texts of functions.
#[cfg(feature = "engine-quickjs")]
pub(super) const fn takes_context(_: &mut v8::PinScope<'_, '_>, _: &v8::Global<v8::Function>) -> bool {
    true
}

/// Whether `text` is a function or an arrow with exactly one parameter that is a plain name, and without a way to its
/// other arguments.
#[cfg_attr(
    feature = "engine-quickjs",
    expect(dead_code, reason = "only V8 gives the text")
)]
fn has_one_name(text: &str) -> bool {
    // A name can be written with escapes, and `arguments` is a name.
    if text.contains("arguments") || text.contains("\\u") {
        return false;
    }
    let text = word(text, "async").unwrap_or(text);
    match word(text, "function") {
        Some(rest) => {
            let rest = name(rest).unwrap_or(rest).trim_start();
            parameter_in_brackets(rest).is_some()
        }
        None => {
            let rest = parameter_in_brackets(text).or_else(|| name(text));
            rest.is_some_and(|rest| rest.trim_start().starts_with("=>"))
        }
    }
}

/// What stands behind the word.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    let ends = !rest.starts_with(|c: char| is_name(c) || !c.is_ascii());
    ends.then(|| rest.trim_start())
}

/// What stands behind a name in brackets.
fn parameter_in_brackets(text: &str) -> Option<&str> {
    let rest = name(text.strip_prefix('(')?.trim_start())?;
    rest.trim_start().strip_prefix(')')
}

/// What stands behind a name.
fn name(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(is_name);
    let begins = text.starts_with(|c: char| is_name(c) && !c.is_ascii_digit());
    (begins && !rest.starts_with(|c: char| !c.is_ascii())).then_some(rest)
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}
