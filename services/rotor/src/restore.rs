//! What a function did not touch leaves as it came: digits, key order and escapes that a JavaScript engine cannot
//! keep. Pure.
//!
//! An engine reads `9007199254740993` as another number, writes `10.50` as `10.5`, moves the key `"10"` in front
//! of `"name"` and resolves escapes. So the event that came out is laid beside the one that went in, path by path,
//! and every value that is what the engine makes of the source's value is replaced by the source's text. Events in
//! which the engine changes nothing are told apart by one scan and left alone.
//!
//! A function that moved a value, or set it to what it was, cannot be told from one that changed it, or did not.
//! Of a name that stands twice in an object, both entries stay only while the object is untouched.

use std::borrow::Cow;
use std::collections::HashMap;

use millrace_event::frame::Outcome;
use millrace_event::json::{Key, Kind, Value, quote_or_backslash};
use serde_json::value::RawValue;

/// Levels that are looked into; what lies deeper comes out as the engine wrote it.
const DEEPEST: usize = 64;

/// Bytes of source text that are laid beside outputs, for all outputs of one event together.
const MOST_WORK: usize = 16 << 20;

/// Puts the source's text back into everything that its event became.
///
/// `source` is JSON: nothing is put back where it is not. An [intact](Outcome::intact) outcome needs none of this.
pub fn restore(source: &str, outcome: &mut Outcome) {
    let outputs = outcome.events.len() + usize::from(outcome.resume.is_some());
    let work = source.len().saturating_mul(outputs);
    if work == 0 || work > MOST_WORK || !is_at_risk(source) {
        return;
    }
    let Ok(source) = serde_json::from_str::<&RawValue>(source) else {
        return;
    };
    for event in &mut outcome.events {
        if let Some(restored) = restored(source, event.raw()) {
            *event = restored.into();
        }
    }
    if let Some(resume) = &mut outcome.resume
        && let Some(restored) = restored(source, &resume.event)
    {
        resume.event = restored;
    }
}

/// What `output` becomes, where that is something else.
fn restored(source: &RawValue, output: &RawValue) -> Option<Box<RawValue>> {
    let mut text = String::with_capacity(source.get().len().max(output.get().len()));
    put(Value::from(source), Value::from(output), 0, &mut text);
    if text == output.get() {
        return None;
    }
    RawValue::from_string(text).ok()
}

/// Whether a round trip through an engine may change the text of a value: no for nearly all events, after one pass that
/// takes many bytes at a time.
pub fn is_at_risk(text: &str) -> bool {
    may_be_at_risk(text.as_bytes()) && would_change(text.as_bytes())
}

/// Bytes that are looked at together.
const LANES: usize = 32;

const NUMBER: u8 = 1;
const ESCAPE: u8 = 2;
const NAME: u8 = 4;

/// Looks for what is at risk without knowing what is inside of a string: it sees too much and misses nothing. What it
/// marks can be told from three bytes, so a processor does that for many places at once.
fn may_be_at_risk(bytes: &[u8]) -> bool {
    // Everywhere else a number or a name stands behind something.
    if bytes.first() != Some(&b'{') {
        return true;
    }
    let mut at = 1;
    while let (Some(before), Some(here), Some(behind)) =
        (lanes(bytes, at - 1), lanes(bytes, at), lanes(bytes, at + 1))
    {
        let mut found = [0; LANES];
        for (lane, found) in found.iter_mut().enumerate() {
            *found = marks(before[lane], here[lane], behind[lane]);
        }
        let (words, _) = found.as_chunks();
        for (word, marks) in words.iter().enumerate() {
            let mut left = u64::from_le_bytes(*marks);
            while left != 0 {
                let lane = left.trailing_zeros() / 8;
                let mark = (left >> (8 * lane)) & 0xff;
                left &= !(0xff << (8 * lane));
                if confirms(bytes, at + 8 * word + lane as usize, mark) {
                    return true;
                }
            }
        }
        at += LANES;
    }
    let rest = bytes.get(at - 1..).unwrap_or_default().windows(3);
    rest.enumerate().any(|(further, three)| match three {
        [before, here, behind] => confirms(bytes, at + further, u64::from(marks(*before, *here, *behind))),
        _ => false,
    })
}

fn lanes(bytes: &[u8], at: usize) -> Option<&[u8; LANES]> {
    bytes.get(at..)?.first_chunk()
}

/// Whether a number may begin here, an escape that may be written otherwise stands here, or a name that may be all digits
/// ends here.
#[inline]
fn marks(before: u8, here: u8, behind: u8) -> u8 {
    let is_digit = |byte: u8| byte.wrapping_sub(b'0') < 10;
    let opens = (before == b':') | (before == b',') | (before == b'[') | (before <= b' ');
    let number = opens & (is_digit(here) | (here == b'-'));
    let escape = (here == b'\\') & ((behind == b'u') | (behind == b'/'));
    let name = (here == b'"') & is_digit(before) & ((behind == b':') | (behind <= b' '));
    (u8::from(number) * NUMBER) | (u8::from(escape) * ESCAPE) | (u8::from(name) * NAME)
}

/// Takes a second look at what was marked.
fn confirms(bytes: &[u8], at: usize, mark: u64) -> bool {
    if mark & u64::from(NUMBER) != 0 {
        let number = number_at(bytes, at);
        let behind = bytes.get(at + number.len());
        // A number ends where its item does; another text of digits is part of a string.
        return behind.is_none_or(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
            && !is_canonical(number);
    }
    if mark & u64::from(NAME) != 0 {
        let before = bytes.get(..at).unwrap_or_default();
        return before.iter().rev().find(|byte| !byte.is_ascii_digit()) == Some(&b'"');
    }
    mark != 0
}

/// What may belong to the number that starts here.
fn number_at(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    rest.get(..rest.iter().take_while(is_part).count())
        .unwrap_or_default()
}

/// As [`is_at_risk`], string by string.
fn would_change(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => match string_end(bytes, at) {
                Some(end) if !is_index_key(bytes, at, end) => at = end,
                _ => return true,
            },
            b'-' | b'0'..=b'9' => {
                let number = number_at(bytes, at);
                if !is_canonical(number) {
                    return true;
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    false
}

/// The index behind the string that starts at `start`; `None` where it has an escape that may be written otherwise.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at = quote_or_backslash(bytes, at);
        match bytes.get(at) {
            Some(b'\\') => match bytes.get(at + 1) {
                Some(b'u' | b'/') => return None,
                _ => at += 2,
            },
            _ => return Some(at + 1),
        }
    }
}

/// A name that the engine may move: all digits.
fn is_index_key(bytes: &[u8], start: usize, end: usize) -> bool {
    let name = bytes.get(start + 1..end - 1).unwrap_or_default();
    name.first().is_some_and(u8::is_ascii_digit)
        && name.iter().all(u8::is_ascii_digit)
        && bytes
            .get(end..)
            .unwrap_or_default()
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            == Some(&b':')
}

/// A number that an engine surely writes as it read it: at most 15 digits, no exponent, no zero at the end of a
/// fraction, nothing so small that it is written with an exponent.
fn is_canonical(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if digits.len() > 16 || digits.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return false;
    }
    match digits.iter().position(|byte| *byte == b'.') {
        None => digits.len() <= 15 && number != b"-0",
        Some(_) => digits.last() != Some(&b'0') && !digits.starts_with(b"0.00000"),
    }
}

/// Writes what `output` stands for; says whether it is what the engine makes of `source`.
fn put(source: Value<'_>, output: Value<'_>, depth: usize, out: &mut String) -> bool {
    if source.text() == output.text() {
        out.push_str(output.text());
        return true;
    }
    let same = match (source.kind(), output.kind()) {
        (Kind::Object, Kind::Object) if depth < DEEPEST => return object(source, output, depth + 1, out),
        (Kind::Array, Kind::Array) if depth < DEEPEST => return array(source, output, depth + 1, out),
        (Kind::Number, Kind::Number) => match (number(source), number(output)) {
            (Some(source), Some(output)) => source == output,
            _ => false,
        },
        // What is too large for a number is written as null.
        (Kind::Number, Kind::Null) => number(source).is_some_and(f64::is_infinite),
        (Kind::String, Kind::String) => units(source.text()).eq(units(output.text())),
        _ => false,
    };
    out.push_str(if same { source.text() } else { output.text() });
    same
}

fn number(value: Value<'_>) -> Option<f64> {
    value.text().parse().ok()
}

fn array(source: Value<'_>, output: Value<'_>, depth: usize, out: &mut String) -> bool {
    let start = out.len();
    let mut sources = source.items();
    let mut same = true;
    out.push('[');
    for (at, item) in output.items().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match sources.next() {
            Some(before) => same &= put(before, item, depth, out),
            None => {
                same = false;
                out.push_str(item.text());
            }
        }
    }
    out.push(']');
    same &= sources.next().is_none();
    whole(source, same, start, out)
}

/// The source's own text where all of it is the same.
fn whole(source: Value<'_>, same: bool, start: usize, out: &mut String) -> bool {
    if same {
        out.truncate(start);
        out.push_str(source.text());
    }
    same
}

/// The entries of an object as an engine reads them: a name that stands twice has its first place and its last
/// value. `None` where a name is no text.
struct Members<'a> {
    entries: Vec<(Cow<'a, str>, Key<'a>, Value<'a>)>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Members<'a> {
    fn of(object: Value<'a>) -> Option<Self> {
        let mut entries: Vec<(Cow<'a, str>, Key<'a>, Value<'a>)> = Vec::new();
        let mut places: HashMap<Cow<'a, str>, usize> = HashMap::new();
        for (key, value) in object.entries() {
            let name = key.unescape();
            if name.lossy {
                return None;
            }
            match places.get(&name.text).and_then(|at| entries.get_mut(*at)) {
                Some(entry) => entry.2 = value,
                None => {
                    places.insert(name.text.clone(), entries.len());
                    entries.push((name.text, key, value));
                }
            }
        }
        Some(Self { entries, places })
    }

    /// The places of `kept`, which are sorted, in the order in which an engine gives these names.
    fn engine_order(&self, kept: &[usize]) -> Vec<usize> {
        let index = |at: &usize| self.entries.get(*at).and_then(|(name, ..)| array_index(name));
        let mut order = kept.to_vec();
        // Stable: names that are no array index keep their order, behind those that are.
        order.sort_by_key(|at| index(at).map_or(u64::MAX, u64::from));
        order
    }
}

/// The number that a name is, where engines sort it in front of the others.
fn array_index(name: &str) -> Option<u32> {
    let canonical = name == "0" || !name.starts_with('0');
    let digits = canonical && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse::<u32>()
        .ok()
        .filter(|index| digits && *index < u32::MAX)
}

fn object(source: Value<'_>, output: Value<'_>, depth: usize, out: &mut String) -> bool {
    let (Some(before), Some(after)) = (Members::of(source), Members::of(output)) else {
        out.push_str(output.text());
        return false;
    };
    let place = |name: &Cow<'_, str>| before.places.get(name).copied();
    let found: Vec<usize> = after
        .entries
        .iter()
        .filter_map(|(name, ..)| place(name))
        .collect();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    let in_order = before.engine_order(&sorted) == found;
    let mut same = in_order && found.len() == before.entries.len() && found.len() == after.entries.len();

    // What was there in the source's order, then what is new; where a function changed the order, its own.
    let mut entries: Vec<_> = after.entries.iter().collect();
    if in_order {
        entries.sort_by_key(|(name, ..)| place(name).unwrap_or(usize::MAX));
    }
    let start = out.len();
    out.push('{');
    for (at, (name, key, value)) in entries.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match place(name).and_then(|at| before.entries.get(at)) {
            Some((_, key, source)) => {
                out.push_str(key.text());
                out.push(':');
                same &= put(*source, *value, depth, out);
            }
            None => {
                out.push_str(key.text());
                out.push(':');
                out.push_str(value.text());
            }
        }
    }
    out.push('}');
    whole(source, same, start, out)
}

/// The UTF-16 units that a JSON string stands for, as engines hold it: lone surrogates stay apart.
fn units(text: &str) -> impl Iterator<Item = u16> {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text);
    let mut chars = inner.chars();
    let mut second = None;
    std::iter::from_fn(move || {
        if let Some(unit) = second.take() {
            return Some(unit);
        }
        let decoded = match chars.next()? {
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    return u16::from_str_radix(&digits, 16).ok();
                }
                other => other,
            },
            plain => plain,
        };
        let mut buffer = [0; 2];
        let units = decoded.encode_utf16(&mut buffer);
        second = units.get(1).copied();
        units.first().copied()
    })
}
