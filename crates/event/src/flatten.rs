//! Names of fields: how a path in an event becomes the name of a column.
//!
//! `{"cart": {"totalPrice": 3}}` becomes `cart_total_price`: path segments in snake_case, everything outside
//! ASCII letters and digits an underscore, joined by underscores. Two paths may become one name; who comes
//! second is the caller's to decide. Values stay slices of the source text.

use crate::json::{Cursor, Entries, Key, Value};

/// Objects nested deeper than this are leaves: handed over whole, never walked into.
pub const MAX_DEPTH: usize = 16;

/// Names longer than this many bytes are cut; beyond it a name is of no use to anybody.
pub const MAX_NAME_BYTES: usize = 200;

/// Walks the leaves of an object depth first, in source order.
///
/// Keeps one buffer for the name and remembers how it wrote the keys it met last: reuse it over many events.
#[derive(Debug, Default)]
pub struct Flattener {
    name: String,
    segments: Segments,
}

/// Keys and their segments, each in the one slot that its text points to: a key that is met again is compared and
/// copied, not written anew. Keys that share a slot replace each other, so no choice of keys makes it grow or
/// costs more than writing them.
#[derive(Debug, Default)]
struct Segments {
    /// `SLOTS` of them, or none before the first key.
    slots: Vec<Slot>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// The key as it stood in the source, quotes included; empty where the slot is.
    key: String,
    segment: String,
}

/// Events of one workspace have a few hundred different keys.
const SLOTS: usize = 1024;

/// Longer keys are not remembered, which bounds the memory.
const MAX_REMEMBERED_BYTES: usize = 64;

impl Flattener {
    /// A walker with an empty buffer; reuse it over many events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `leaf` with the flattened name and the value of every leaf below `object`, each name starting
    /// with `prefix` and an underscore where `prefix` is not empty.
    ///
    /// A leaf is a value that is not an object, an empty object, or an object below [`MAX_DEPTH`]. A value
    /// that is no object at all has no leaves.
    pub fn walk<'a>(&mut self, prefix: &str, object: Value<'a>, leaf: &mut impl FnMut(&str, Value<'a>)) {
        self.name.clear();
        self.name.push_str(prefix);
        self.level(object.entries().cursor(), 1, leaf);
    }

    /// As [`Self::walk`] for the value of the entry whose key was read last, and returns that value: its text is
    /// read once for both.
    pub fn walk_value<'a>(
        &mut self,
        prefix: &str,
        entries: &mut Entries<'a>,
        leaf: &mut impl FnMut(&str, Value<'a>),
    ) -> Option<Value<'a>> {
        let cursor = entries.cursor();
        let start = cursor.position();
        if !cursor.enter() {
            return entries.value();
        }
        self.name.clear();
        self.name.push_str(prefix);
        self.level(cursor, 1, leaf);
        let whole = cursor.leave(start);
        cursor.skip(b',');
        Some(whole)
    }

    /// The entries from the cursor to the end of their object, its bracket not included.
    fn level<'a>(&mut self, cursor: &mut Cursor<'a>, depth: usize, leaf: &mut impl FnMut(&str, Value<'a>)) {
        while let Some(key) = cursor.key() {
            let length = self.name.len();
            self.segments.push(&mut self.name, key);
            let start = cursor.position();
            if depth < MAX_DEPTH && cursor.enter() {
                self.level(cursor, depth + 1, leaf);
                cursor.leave(start);
            } else if let Some(value) = cursor.next_value() {
                leaf(&self.name, value);
            }
            self.name.truncate(length);
            cursor.skip(b',');
        }
    }
}

/// The flattened form of one key on its own.
pub fn name_of(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    push_text(&mut name, key);
    name
}

impl Segments {
    /// Appends the segment of `key`, as [`push_text`] writes it.
    fn push(&mut self, name: &mut String, key: Key<'_>) {
        let text = key.text();
        if text.len() > MAX_REMEMBERED_BYTES {
            return push_text(name, &key.unescape().text);
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let Some(slot) = self.slots.get_mut(slot_of(text)) else {
            return;
        };
        if slot.key != text {
            slot.key.clear();
            slot.key.push_str(text);
            slot.segment.clear();
            push_text(&mut slot.segment, &key.unescape().text);
        }
        // A segment that must be cut for its name is written anew.
        if name.len() + 1 + slot.segment.len() > MAX_NAME_BYTES {
            return push_text(name, &key.unescape().text);
        }
        if !name.is_empty() {
            name.push('_');
        }
        name.push_str(&slot.segment);
    }
}

/// The slot of a key, from its length and its first and last eight bytes.
fn slot_of(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    let mixed = (first ^ last.rotate_left(29) ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 54) as usize % SLOTS
}

/// Appends a path segment in snake_case, with an underscore in front where `name` is not empty.
///
/// A capital starts a word where a lower-case letter or digit is in front of it, or where it ends a row of
/// capitals (`userID` → `user_id`, `HTTPStatus` → `http_status`). An empty segment becomes `empty`. A leading
/// digit stays: columns are quoted wherever they are named.
fn push_text(name: &mut String, segment: &str) {
    if !name.is_empty() {
        name.push('_');
    }
    if segment.is_empty() {
        name.push_str("empty");
        return;
    }
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        // Most names are words of small letters, taken whole.
        let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
        let room = MAX_NAME_BYTES.saturating_sub(name.len());
        name.push_str(segment.get(at..at + plain.min(room)).unwrap_or_default());
        at += plain;
        let Some(byte) = bytes.get(at) else { return };
        if name.len() >= MAX_NAME_BYTES {
            return;
        }
        if byte.is_ascii_uppercase() {
            let before = at.checked_sub(1).and_then(|index| bytes.get(index));
            let after = bytes.get(at + 1);
            let starts_word = before.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let ends_capitals =
                before.is_some_and(u8::is_ascii_uppercase) && after.is_some_and(u8::is_ascii_lowercase);
            if starts_word || ends_capitals {
                name.push('_');
            }
            name.push(char::from(byte.to_ascii_lowercase()));
            at += 1;
        } else {
            name.push('_');
            at += 1;
            // One underscore for a character, however many bytes it has.
            while bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
                at += 1;
            }
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn leaves(prefix: &str, text: &str) -> Vec<(String, String)> {
        let raw: Box<RawValue> = serde_json::from_str(text).expect("valid JSON");
        let mut seen = Vec::new();
        Flattener::new().walk(prefix, Value::from(&*raw), &mut |name, value| {
            seen.push((name.to_owned(), value.text().to_owned()));
        });
        seen
    }

    #[test]
    fn nested_names_are_joined_in_snake_case() {
        let seen = leaves(
            "",
            r#"{"a":{"b":1},"cartTotal":{"grossEUR":2.50},"list":[{"x":1}],"none":null,"o":{}}"#,
        );
        let expected = [
            ("a_b", "1"),
            ("cart_total_gross_eur", "2.50"),
            ("list", r#"[{"x":1}]"#),
            ("none", "null"),
            ("o", "{}"),
        ];
        assert_eq!(
            seen,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_prefix_stands_in_front_of_every_name() {
        assert_eq!(
            leaves("context", r#"{"page":{"url":"x"}}"#),
            [("context_page_url".into(), "\"x\"".into())]
        );
    }

    #[test]
    fn names_are_sanitised() {
        for (key, name) in [
            ("userID", "user_id"),
            ("HTTPStatus", "http_status"),
            ("already_snake", "already_snake"),
            ("with space-and.dots", "with_space_and_dots"),
            ("preis€", "preis_"),
            ("item2Name", "item2_name"),
            ("", "empty"),
            ("2nd", "2nd"),
            ("$browser", "_browser"),
        ] {
            assert_eq!(name_of(key), name, "{key}");
        }
    }

    #[test]
    fn an_object_below_the_depth_limit_is_a_leaf() {
        let text = format!(
            "{}1{}",
            r#"{"a":"#.repeat(MAX_DEPTH + 3),
            "}".repeat(MAX_DEPTH + 3)
        );
        let seen = leaves("", &text);
        assert_eq!(
            seen,
            [(
                vec!["a"; MAX_DEPTH].join("_"),
                r#"{"a":{"a":{"a":1}}}"#.to_owned()
            )]
        );
    }

    proptest! {
        #[test]
        fn a_remembered_key_is_written_as_at_first(
            keys in proptest::collection::vec("[a-zA-Z_é]{0,12}|[a-zA-Z_]{40,90}", 1..40),
        ) {
            let mut flattener = Flattener::new();
            let fresh: Vec<_> = keys.iter().map(|key| name_of(key)).collect();
            for _ in 0..2 {
                let mut nested = "1".to_owned();
                let mut flat = String::new();
                for key in &keys {
                    let key = serde_json::to_string(key).expect("a string");
                    flat.push_str(&format!("{}{key}:1", if flat.is_empty() { "{" } else { "," }));
                    nested = format!("{{{key}:{nested}}}");
                }
                flat.push('}');
                let flat: Box<RawValue> = serde_json::from_str(&flat).expect("valid JSON");
                let mut seen = Vec::new();
                flattener.walk("", Value::from(&*flat), &mut |name, _| seen.push(name.to_owned()));
                prop_assert_eq!(&seen, &fresh);
                let nested: Box<RawValue> = serde_json::from_str(&nested).expect("valid JSON");
                let (mut first, mut again) = (Vec::new(), Vec::new());
                Flattener::new().walk("p", Value::from(&*nested), &mut |name, _| first.push(name.to_owned()));
                flattener.walk("p", Value::from(&*nested), &mut |name, _| again.push(name.to_owned()));
                prop_assert_eq!(first, again);
            }
        }

        #[test]
        fn every_name_is_of_letters_digits_and_underscores(key in any::<String>()) {
            let name = name_of(&key);
            prop_assert!(!name.is_empty());
            prop_assert!(name.len() <= MAX_NAME_BYTES + 2);
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
    }
}
