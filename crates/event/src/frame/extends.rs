//! Telling that a text is JSON, because it is another text that is known to be JSON with something added.
//!
//! What most functions do to an event is to add fields, or nothing. The engine then writes the event as it was, byte for byte,
//! with the new fields at the end of the objects they belong to. Laying the two texts side by side takes a tenth of the time
//! of reading one of them.

use crate::json::check::end_of_value;

/// Bytes that are compared at once.
const LANES: usize = 32;

/// Whether `output` is `source` with members added at the end of some of its objects, or with nothing added: it is JSON then,
/// without white space around it, and everything of `source` is in it as it was. `source` must be JSON; says no for much that
/// would do (an empty object that got its first member, white space at the end of an object).
///
/// Where a bracket of an object is next in `source`, and that object has a member already, any number of `,"name":value` may
/// be in front of it. Nothing else may differ. So all that must be known of the place where the texts part is whether it is
/// inside of a string, and quotes that are no part of an escape say so.
pub(super) fn extends(source: &[u8], output: &[u8]) -> bool {
    if source.first() != Some(&b'{') || source.last() != Some(&b'}') {
        return false;
    }
    let (mut source, mut output) = (source, output);
    let mut inside = Inside::default();
    let mut before = 0;
    loop {
        let same = common(source, output, &mut inside);
        if let Some(last) = same.checked_sub(1).and_then(|last| source.get(last)) {
            before = *last;
        }
        (source, output) = (rest(source, same), rest(output, same));
        if source.is_empty() {
            return output.is_empty();
        }
        let ends_object = source.first() == Some(&b'}') && !inside.string;
        if !ends_object || matches!(before, b'{' | b' ' | b'\t' | b'\n' | b'\r') {
            return false;
        }
        let Some(added) = members(output) else {
            return false;
        };
        (before, output) = (b'"', rest(output, added));
    }
}

fn rest(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

/// Where in its strings a text is.
#[derive(Default)]
struct Inside {
    string: bool,
    /// Whether a backslash stands in front.
    escape: bool,
}

impl Inside {
    fn pass(&mut self, byte: u8) {
        match byte {
            _ if self.escape => self.escape = false,
            b'\\' => self.escape = true,
            b'"' => self.string = !self.string,
            _ => {}
        }
    }
}

/// How many bytes two texts begin with alike; `inside` is behind them then.
fn common(source: &[u8], output: &[u8], inside: &mut Inside) -> usize {
    let mut same = 0;
    let (source, output) = (source.as_chunks::<LANES>(), output.as_chunks::<LANES>());
    let pairs = source.0.iter().zip(output.0);
    for (left, _) in pairs.take_while(|(left, right)| left == right) {
        let (mut quotes, mut backslash) = (0_u8, false);
        for byte in left {
            quotes += u8::from(*byte == b'"');
            backslash |= *byte == b'\\';
        }
        if backslash || inside.escape {
            left.iter().for_each(|byte| inside.pass(*byte));
        } else {
            inside.string ^= quotes % 2 == 1;
        }
        same += LANES;
    }
    // What is left of both: less than `LANES`, or a piece in which they part.
    let (left, right) = (tail(source, same), tail(output, same));
    let alike = left.iter().zip(right).take_while(|(left, right)| left == right);
    alike.fold(same, |same, (byte, _)| {
        inside.pass(*byte);
        same + 1
    })
}

/// The piece at `at`, or what is left behind the last one.
fn tail<'a>((pieces, rest): (&'a [[u8; LANES]], &'a [u8]), at: usize) -> &'a [u8] {
    pieces.get(at / LANES).map_or(rest, <[u8; LANES]>::as_slice)
}

/// The bytes of the members, each with a comma in front, that stand before a bracket which ends an object: at least one.
fn members(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while text.get(at)? == &b',' {
        let name = at + 1;
        if text.get(name)? != &b'"' {
            return None;
        }
        let colon = end_of_value(text, name)?;
        if text.get(colon)? != &b':' {
            return None;
        }
        at = end_of_value(text, colon + 1)?;
    }
    let added = text.get(..at).filter(|added| !added.is_empty())?;
    (text.get(at)? == &b'}' && std::str::from_utf8(added).is_ok()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Map, Value};

    fn says(source: &str, output: &str) -> bool {
        extends(source.as_bytes(), output.as_bytes())
    }

    #[test]
    fn the_same_text_and_one_with_members_at_the_end_of_its_objects_are_known() {
        let source = r#"{"event":"Sale","properties":{"price":1.5,"cart":{"n":[1,{"a":2}]}},"note":"a } \\\" b","url":"https://a/?x={y}"}"#;
        assert!(says(source, source));
        for (behind, added) in [
            (r#"{"a":2"#, r#","b":[{}]"#),
            (r#"[1,{"a":2}]"#, r#","c":{"d":null},"e":"}""#),
            (r#"{y}""#, r#","total":-1.5e3,"\u00e9":"é""#),
        ] {
            let output = source.replacen(behind, &format!("{behind}{added}"), 1);
            assert!(says(source, &output), "{output}");
            let twice = output.replacen("}]}", r#"}],"x":1}"#, 1);
            assert!(says(source, &twice), "{twice}");
        }
    }

    #[test]
    fn what_is_no_json_or_no_addition_is_left_to_others() {
        let source = r#"{"a":{"b":"x}y"},"c":{},"d":[1]}"#;
        for output in [
            "",
            "{",
            r#"{"a":{"b":"x}y"},"c":{},"d":[1]}}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e"}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":01}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":1 "f":2}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],e:1}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":1"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":1},"f":{}}"#,
            r#"{"a":{"b":"x,"e":1}y"},"c":{},"d":[1]}"#,
            r#"{"a":{"b":"x}y"},"c":{,"e":1},"d":[1]}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1,"e":1]}"#,
            r#"{"a":{"b":"x}y"},"c":{},"d":[1]"#,
            "{\"a\":{\"b\":\"x}y\"},\"c\":{},\"d\":[1],\"e\":\"\n\"}",
        ] {
            assert!(!says(source, output), "{output}");
        }
        let mut bytes = br#"{"a":{"b":"x}y"},"c":{},"d":[1],"e":"?"}"#.to_vec();
        let at = bytes.iter().position(|byte| *byte == b'?').expect("there");
        bytes[at] = 0xff;
        assert!(!extends(source.as_bytes(), &bytes), "not UTF-8");
        for source in ["[1]", " {}", "{} ", "1", ""] {
            assert!(!says(source, source), "{source}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            r#"[ -~é\\"{}\[\],:]{0,40}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(r#"[a-z"\\}]{1,6}"#, inner, 1..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-z]{1,8}", value(), 1..6)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// Adds a member to every object that has one already, where its turn says so.
    fn grown(value: &Value, turns: &mut impl Iterator<Item = bool>, added: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| grown(item, turns, added)).collect(),
            Value::Object(members) => {
                let mut all = Map::new();
                for (key, value) in members {
                    all.insert(key.clone(), grown(value, turns, added));
                }
                if !all.is_empty() && turns.next() == Some(true) {
                    all.insert("added here".to_owned(), added.clone());
                }
                Value::Object(all)
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_added_to_objects_is_known(
            source in object(),
            added in value(),
            turns in proptest::collection::vec(any::<bool>(), 30),
        ) {
            let output = grown(&source, &mut turns.into_iter(), &added);
            prop_assert!(says(&source.to_string(), &output.to_string()));
        }

        /// The one that counts: where it says yes, `serde_json` says so too, whatever was done to the text.
        #[test]
        fn what_it_takes_is_json(
            source in object(),
            added in value(),
            turns in proptest::collection::vec(any::<bool>(), 30),
            edits in proptest::collection::vec(
                (any::<prop::sample::Index>(), r#"[ -~]|[{}\[\]",:\\\n]{0,3}"#, 0_usize..3), 0..3),
        ) {
            let mut output = grown(&source, &mut turns.into_iter(), &added).to_string().into_bytes();
            for (at, insert, removed) in edits {
                let at = at.index(output.len());
                let end = (at + removed).min(output.len());
                output.splice(at..end, insert.bytes());
            }
            if extends(source.to_string().as_bytes(), &output) {
                let text = std::str::from_utf8(&output).expect("UTF-8");
                let raw: &RawValue = serde_json::from_str(text).expect("JSON");
                prop_assert_eq!(raw.get(), text);
            }
        }
    }
}
