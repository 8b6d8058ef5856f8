//! A cursor over JSON text that is already known to be valid: entries of objects, items of arrays, kinds of
//! values, unescaped strings, without a tree and without copying.
//!
//! Validity comes from [`serde_json`]: everything here starts at a [`RawValue`]. On such text a scan needs no
//! error path; text that is not valid JSON gives some entries and ends, it never panics and never reads past
//! the end.

pub(crate) mod check;
mod cursor;
mod known;

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

pub(crate) use cursor::Cursor;
use cursor::has_escape;
pub use cursor::quote_or_backslash;
pub use known::known;

/// One JSON value as a slice of the text it came in, without surrounding white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

/// What a value is, read off its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// Digits.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

impl Kind {
    /// The kind of a value that starts with `byte`.
    const fn of(byte: u8) -> Self {
        match byte {
            b'{' => Self::Object,
            b'[' => Self::Array,
            b'"' => Self::String,
            b't' | b'f' => Self::Bool,
            b'n' => Self::Null,
            _ => Self::Number,
        }
    }
}

/// Where the JSON value that starts at byte `at` of a text ends, read in one pass that takes most bytes eight at a time. Nothing
/// where there is none, and where one is nested deeper than 64 levels: `serde_json` says which of both it is.
pub fn end_of_value(text: &str, at: usize) -> Option<usize> {
    check::end_of_value(text.as_bytes(), at)
}

/// Steps over white space from `at` on.
pub fn white_space(text: &str, at: usize) -> usize {
    check::white_space(text.as_bytes(), at)
}

/// A string after its escapes were resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unescaped<'a> {
    /// The text; U+FFFD stands where a lone surrogate was.
    pub text: Cow<'a, str>,
    /// Whether a lone surrogate was replaced, so that the source says more than `text`.
    pub lossy: bool,
}

impl<'a> From<&'a RawValue> for Value<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(raw.get())
    }
}

impl<'a> Value<'a> {
    /// The text of the value, exactly as it came.
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// What the value is.
    pub fn kind(self) -> Kind {
        self.0
            .as_bytes()
            .first()
            .map_or(Kind::Null, |byte| Kind::of(*byte))
    }

    /// The value that begins at that byte of this one's text; nothing where none does.
    pub fn part_at(self, at: usize) -> Option<Value<'a>> {
        self.0
            .is_char_boundary(at)
            .then(|| Cursor::at(self.0, at).next_value())?
    }

    /// The value that lies in these bytes of this one's text, whose ends somebody has found before.
    pub fn part_in(self, place: Range<usize>) -> Option<Value<'a>> {
        self.0.get(place).map(Value)
    }

    /// The entries of an object in source order, duplicates included; nothing for other kinds.
    pub fn entries(self) -> Entries<'a> {
        Entries(Cursor::inside(self.0, Kind::Object, self.kind()))
    }

    /// What the first item of an array is, without reading it; nothing for an empty array and for other kinds.
    pub fn kind_of_first_item(self) -> Option<Kind> {
        let cursor = Cursor::inside(self.0, Kind::Array, self.kind());
        cursor.peek()
    }

    /// The items of an array in order; nothing for other kinds.
    pub fn items(self) -> Items<'a> {
        Items(Cursor::inside(self.0, Kind::Array, self.kind()))
    }

    /// The value of the last entry named `key` (as JSON parsers resolve duplicates).
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.entries()
            .filter(|(name, _)| name.equals(key))
            .last()
            .map(|(_, value)| value)
    }

    /// The string, where it is one.
    pub fn as_str(self) -> Option<Unescaped<'a>> {
        (self.kind() == Kind::String).then(|| Key(self.0).unescape())
    }

    /// The truth value, where it is one.
    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.0 == "true")
    }
}

/// The name of an entry: a JSON string with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// The name as it stands in the source, quotes included.
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// Whether the name, escapes resolved, is `other`.
    pub fn equals(self, other: &str) -> bool {
        self.unescape().text == other
    }

    /// The name with its escapes resolved.
    pub fn unescape(self) -> Unescaped<'a> {
        let inner = self
            .0
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(self.0);
        if !has_escape(inner.as_bytes()) {
            return Unescaped {
                text: Cow::Borrowed(inner),
                lossy: false,
            };
        }
        unescape(inner)
    }
}

/// Iterator of [`Value::entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a>(Cursor<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (Key<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.key()?;
        Some((key, self.value()?))
    }
}

impl<'a> Entries<'a> {
    /// The next entry's key alone. Its value must be taken before the next key: by [`Self::value`], or by a walk
    /// that reads it in the same pass.
    pub fn key(&mut self) -> Option<Key<'a>> {
        self.0.key()
    }

    /// What the value of the entry is whose key was read last.
    pub fn kind(&self) -> Kind {
        self.0.peek().unwrap_or(Kind::Null)
    }

    /// The value of the entry whose key was read last.
    pub fn value(&mut self) -> Option<Value<'a>> {
        let value = self.0.value()?;
        self.0.skip(b',');
        Some(Value(value))
    }

    /// The cursor itself, for a walk that reads a value while it is being skipped.
    pub(crate) const fn cursor(&mut self) -> &mut Cursor<'a> {
        &mut self.0
    }
}

/// Iterator of [`Value::items`].
#[derive(Clone, Debug)]
pub struct Items<'a>(Cursor<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.value()?;
        self.0.skip(b',');
        Some(Value(value))
    }
}

/// Resolves the escapes of a string's inside; a lone surrogate becomes U+FFFD.
fn unescape(inner: &str) -> Unescaped<'static> {
    let mut text = String::with_capacity(inner.len());
    let mut lossy = false;
    let mut rest = inner;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut chars = escaped.chars();
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('u') => {
                let (decoded, behind) = unicode_escape(chars.as_str());
                text.push(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
                lossy |= decoded.is_none();
                rest = behind;
                continue;
            }
            Some(other) => text.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    text.push_str(rest);
    Unescaped {
        text: Cow::Owned(text),
        lossy,
    }
}

/// Decodes what stands behind `\u`: the character (`None` for a lone surrogate) and the text behind it.
fn unicode_escape(text: &str) -> (Option<char>, &str) {
    let hex = |text: &str| {
        text.get(..4)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let Some(first) = hex(text) else {
        return (None, text);
    };
    let rest = text.get(4..).unwrap_or_default();
    if !(0xd800..0xe000).contains(&first) {
        return (char::from_u32(first), rest);
    }
    if first < 0xdc00 {
        let second = rest
            .strip_prefix("\\u")
            .and_then(hex)
            .filter(|low| (0xdc00..0xe000).contains(low));
        if let Some(low) = second {
            let code_point = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            return (char::from_u32(code_point), rest.get(6..).unwrap_or_default());
        }
    }
    (None, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).expect("valid JSON")
    }

    #[test]
    fn entries_come_in_source_order_with_duplicates() {
        let source = raw(r#" { "a" : 1 , "b\u0041":[1,{"x":"}"}], "a":"]\"", "c" : { } , "d":null } "#);
        let seen: Vec<_> = Value::from(&*source)
            .entries()
            .map(|(key, value)| (key.unescape().text.into_owned(), value.text(), value.kind()))
            .collect();
        let expected = [
            ("a", "1", Kind::Number),
            ("bA", r#"[1,{"x":"}"}]"#, Kind::Array),
            ("a", r#""]\"""#, Kind::String),
            ("c", "{ }", Kind::Object),
            ("d", "null", Kind::Null),
        ];
        assert_eq!(seen.len(), expected.len());
        for ((key, text, kind), (name, want, of)) in seen.iter().zip(expected) {
            assert_eq!((key.as_str(), *text, *kind), (name, want, of));
        }
        assert_eq!(
            Value::from(&*source).get("a").expect("there").kind(),
            Kind::String
        );
    }

    #[test]
    fn items_of_an_array_come_in_order() {
        let source = raw(r#"[1, "a,b", [2,3], {"k":[]}, true ]"#);
        let seen: Vec<_> = Value::from(&*source).items().map(Value::text).collect();
        assert_eq!(seen, ["1", r#""a,b""#, "[2,3]", r#"{"k":[]}"#, "true"]);
    }

    #[test]
    fn a_lone_surrogate_is_replaced_and_said_so() {
        let source = raw(r#""x\ud800y\ud83d\ude00\udc00""#);
        let string = Value::from(&*source).as_str().expect("a string");
        assert_eq!(string.text, "x\u{fffd}y😀\u{fffd}");
        assert!(string.lossy);
    }

    proptest! {
        #[test]
        fn strings_read_as_serde_json_reads_them(text in any::<String>()) {
            let source = raw(&serde_json::to_string(&text).expect("a string"));
            let read = Value::from(&*source).as_str().expect("a string");
            prop_assert_eq!(read.text.as_ref(), text.as_str());
            prop_assert!(!read.lossy);
        }

        #[test]
        fn objects_read_as_serde_json_reads_them(map in proptest::collection::btree_map(any::<String>(), any::<Vec<i64>>(), 0..6)) {
            let source = raw(&serde_json::to_string_pretty(&map).expect("a map"));
            let read: Vec<_> = Value::from(&*source)
                .entries()
                .map(|(key, value)| (key.unescape().text.into_owned(), serde_json::from_str::<Vec<i64>>(value.text()).expect("a list")))
                .collect();
            prop_assert_eq!(read, map.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn text_that_is_not_json_never_panics(text in any::<String>()) {
            let value = Value(text.as_str());
            prop_assert!(value.entries().count() <= text.len());
            prop_assert!(value.items().count() <= text.len());
            prop_assert!(value.as_str().is_none_or(|string| string.text.len() <= 3 * text.len()));
        }
    }
}
