//! Whether a text is JSON, as [`serde_json`] says it, read in one pass that takes most bytes eight at a time.
//!
//! It may refuse what `serde_json` takes (objects nested too deep), never the other way round: who is refused here
//! asks there.

use super::cursor::{eight, zeros};

/// Deeper values are refused, which bounds the recursion.
const MAX_DEPTH: usize = 64;

/// Where the value that starts at `at` ends; nothing where it is no JSON, or nested too deep. That `bytes` are UTF-8 is looked at
/// by the caller.
pub(crate) fn end_of_value(bytes: &[u8], at: usize) -> Option<usize> {
    value(bytes, at, MAX_DEPTH)
}

/// Where the string without any escape ends whose quote is at `at`, behind its closing quote; nothing for another one.
pub(crate) fn end_of_plain_string(bytes: &[u8], at: usize) -> Option<usize> {
    let end = special(bytes, at + 1);
    (bytes.get(at) == Some(&b'"') && bytes.get(end) == Some(&b'"')).then_some(end + 1)
}

fn value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' => nested::<b'}'>(bytes, at, depth),
        b'[' => nested::<b']'>(bytes, at, depth),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => end_of_number(bytes, at),
    }
}

fn nested<const CLOSE: u8>(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let mut at = white_space(bytes, at + 1);
    if bytes.get(at) == Some(&CLOSE) {
        return Some(at + 1);
    }
    loop {
        if CLOSE == b'}' {
            at = white_space(bytes, string(bytes, at)?);
            if bytes.get(at) != Some(&b':') {
                return None;
            }
            at = white_space(bytes, at + 1);
        }
        at = white_space(bytes, value(bytes, at, depth)?);
        match bytes.get(at)? {
            b',' => at = white_space(bytes, at + 1),
            byte if *byte == CLOSE => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The first byte from `at` on that is no white space.
#[inline]
pub(crate) fn white_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn literal(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    let end = at + literal.len();
    (bytes.get(at..end) == Some(literal)).then_some(end)
}

/// Where the number that starts at `at` ends.
pub(crate) fn end_of_number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| {
        let mut at = from;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        (at > from).then_some(at)
    };
    let first = at + usize::from(bytes.get(at) == Some(&b'-'));
    let mut at = match bytes.get(first) {
        Some(b'0') => first + 1,
        _ => digits(first)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(at)?;
    }
    Some(at)
}

/// Where the string whose quote is at `at` ends, behind its closing quote.
#[inline]
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = special(bytes, at + 1);
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = special(bytes, escape(bytes, at + 1)?),
            // A control character.
            _ => return None,
        }
    }
}

fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = bytes.get(at + 1..at + 5)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
        }
        _ => None,
    }
}

/// The first quote, backslash or control character from `at` on; the end of `bytes` where there is none.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        // Below a space: the subtraction borrows. As with zeros, the lowest mark is always right.
        let control = word.wrapping_sub(eight(0x20)) & !word & eight(0x80);
        let marks = zeros(word ^ eight(b'"')) | zeros(word ^ eight(b'\\')) | control;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20))
    {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What `serde_json` says: the text as one value without white space around it.
    fn is_json(text: &str) -> bool {
        serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len())
    }

    fn is_taken(text: &str) -> bool {
        end_of_value(text.as_bytes(), 0) == Some(text.len())
    }

    #[test]
    fn it_agrees_with_serde_json_on_forms_that_are_nearly_right() {
        for text in [
            "0",
            "-0",
            "01",
            "-",
            "1.",
            ".5",
            "1.5e",
            "1e+",
            "1E-7",
            "+1",
            "1e5.2",
            "0x1",
            "NaN",
            "true",
            "tru",
            "nul",
            "null",
            "falsey",
            "\"\"",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\u12\"",
            "\"\\u12zz\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"a\tb\"",
            "\"a\u{1f}b\"",
            "\"12345678\u{0}\"",
            "\"1234567\\n\"",
            "\"é\u{7f}\"",
            "[]",
            "[ ]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1, 2 ]",
            "{}",
            "{ }",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" : 1 }",
            "{\"a\":1 \"b\":2}",
            "[}",
            "{]",
            "[[[[1]]]]",
            "{\"a\":{\"b\":[{}]}}",
        ] {
            assert_eq!(is_taken(text), is_json(text), "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_left_to_others() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_taken(&nested(MAX_DEPTH)));
        assert!(!is_taken(&nested(MAX_DEPTH + 1)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json_on_text_of_jsons_letters(text in r#"[\[\]{}:,"\\0-9.eE+\-truefalsn u\n]{0,40}"#) {
            prop_assert_eq!(is_taken(&text), is_json(&text));
        }

        #[test]
        fn it_takes_what_serde_json_writes_and_agrees_on_it_with_one_byte_changed(
            text in any::<String>(), number in any::<f64>(), at in any::<prop::sample::Index>(), byte in 0_u8..128,
        ) {
            let value = serde_json::json!({"a": [text, number], &text: {"b": text, "c": null}, "d": [true, {}]});
            let written = serde_json::to_string(&value).expect("a tree");
            prop_assert!(is_taken(&written));
            let mut changed = written.into_bytes();
            let at = at.index(changed.len());
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            if let Ok(changed) = String::from_utf8(changed) {
                prop_assert_eq!(is_taken(&changed), is_json(&changed));
            }
        }
    }
}
