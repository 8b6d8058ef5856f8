//! Where a value ends. Most bytes of an event are inside strings, so a scan takes those eight at a time.

use super::{Key, Kind, Value};

/// A place in a text, always at the start of something: a value, a key, a separator, or white space before one.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor behind the opening bracket; at the end of the text where the value is of another kind.
    pub(super) fn inside(text: &'a str, wanted: Kind, kind: Kind) -> Self {
        let mut cursor = Self {
            text,
            at: if kind == wanted { 1 } else { text.len() },
        };
        cursor.skip_white_space();
        cursor
    }

    /// A cursor at that byte of the text, which is the start of something.
    pub(super) const fn at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    #[inline]
    fn skip_white_space(&mut self) {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Steps over `separator`, where it is next, and over the white space on both sides.
    #[inline]
    pub(crate) fn skip(&mut self, separator: u8) {
        self.skip_white_space();
        if self.text.as_bytes().get(self.at) == Some(&separator) {
            self.at += 1;
            self.skip_white_space();
        }
    }

    /// The kind of the value that is next; `None` at a closing bracket or the end.
    #[inline]
    pub(crate) fn peek(&self) -> Option<Kind> {
        match self.text.as_bytes().get(self.at)? {
            b'}' | b']' | b',' | b':' => None,
            byte => Some(Kind::of(*byte)),
        }
    }

    /// The next key, with the cursor at its value; `None` at a closing bracket or the end.
    pub(crate) fn key(&mut self) -> Option<Key<'a>> {
        let key = self.value()?;
        self.skip(b':');
        Some(Key(key))
    }

    /// Steps into the object that is next, to its first key. False where there is none, or an empty one; then
    /// nothing moves.
    #[inline]
    pub(crate) fn enter(&mut self) -> bool {
        if self.peek() != Some(Kind::Object) {
            return false;
        }
        let before = self.at;
        self.at += 1;
        self.skip_white_space();
        if self.peek().is_none() {
            self.at = before;
            return false;
        }
        true
    }

    /// The next value; `None` at a closing bracket or the end.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at = match self.peek()? {
            Kind::String => end_of_string(bytes, start),
            Kind::Object | Kind::Array => end_of_nested(bytes, start),
            Kind::Number | Kind::Bool | Kind::Null => end_of_plain(bytes, start),
        };
        self.text.get(start..self.at)
    }

    /// As [`Self::value`], as a value.
    pub(crate) fn next_value(&mut self) -> Option<Value<'a>> {
        self.value().map(Value)
    }

    /// Steps out of the object that was entered at `start`, behind its closing bracket, and returns it whole.
    pub(crate) fn leave(&mut self, start: usize) -> Value<'a> {
        if self.text.as_bytes().get(self.at) == Some(&b'}') {
            self.at += 1;
        }
        Value(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Where the cursor is, in bytes from the start of the text.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }
}

/// Eight bytes that are all `byte`.
pub(super) const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of every byte of `word` that is zero. A byte above a zero one may be marked though it is 1; the
/// lowest mark is always right.
#[inline]
pub(super) const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(eight(1)) & !word & eight(0x80)
}

/// The first quote or backslash in `bytes` from `at` on: the end of `bytes` where there is none.
#[inline]
pub fn quote_or_backslash(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let marks = zeros(word ^ eight(b'"')) | zeros(word ^ eight(b'\\'));
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\')) {
        at += 1;
    }
    at
}

/// Whether a backslash is among `bytes`.
pub(super) fn has_escape(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    let marks = words.iter().fold(0, |marks, word| {
        marks | zeros(u64::from_le_bytes(*word) ^ eight(b'\\'))
    });
    marks != 0 || rest.contains(&b'\\')
}

/// The index behind the string that starts at `start`.
#[inline]
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        at = quote_or_backslash(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(_) => at += 2,
            None => return bytes.len(),
        }
    }
}

/// The index behind the object or array that starts at `start`.
fn end_of_nested(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The index behind the number or literal that starts at `start`.
fn end_of_plain(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\n' | b'\r' | b'\t'))
        .unwrap_or(rest.len());
    start + length
}
