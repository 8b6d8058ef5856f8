//! Bodies that are almost JSON, as some clients write them.
//!
//! Python writes `NaN` and `Infinity` bare, and broken text ends up as bytes that are not UTF-8. Either would
//! lose all of a batch for one value of one event, and neither has a meaning in JSON: the numbers become
//! `null`, the bytes U+FFFD.

const NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The body with what can be mended mended; none where there is nothing of that kind. Whether the result is
/// JSON is for the reader to say.
pub(super) fn mended(body: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(body);
    let broken = matches!(text, std::borrow::Cow::Owned(_));
    let mut rest = text.as_bytes();
    let mut mended = Vec::with_capacity(rest.len());
    let mut replaced = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    while let [first, tail @ ..] = rest {
        if !in_string && let Some(after) = NUMBERS.iter().find_map(|number| rest.strip_prefix(*number)) {
            mended.extend_from_slice(b"null");
            replaced += 1;
            rest = after;
            continue;
        }
        match first {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        mended.push(*first);
        rest = tail;
    }
    (broken || replaced > 0).then_some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &[u8]) -> Option<String> {
        mended(body).map(|mended| String::from_utf8(mended).unwrap())
    }

    #[test]
    fn bare_numbers_that_json_lacks_become_null_and_strings_stay() {
        assert_eq!(
            text(br#"{"a":NaN,"b":[Infinity,-Infinity],"NaN":"NaN \" Infinity"}"#).as_deref(),
            Some(r#"{"a":null,"b":[null,null],"NaN":"NaN \" Infinity"}"#)
        );
    }

    #[test]
    fn bytes_that_are_not_text_become_the_replacement_character() {
        assert_eq!(
            text(b"{\"a\":\"x\xffy\"}").as_deref(),
            Some("{\"a\":\"x\u{fffd}y\"}")
        );
    }

    #[test]
    fn what_is_broken_otherwise_is_left_to_the_reader() {
        for body in [&b"{"[..], b"", b"{\"a\":nan}", b"{\"a\":\"NaN\"}"] {
            assert_eq!(text(body), None);
        }
    }
}
