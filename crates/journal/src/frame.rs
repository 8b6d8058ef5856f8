//! One record on disk.
//!
//! ```text
//! marker 4 | length 4 | crc32c 4 | payload
//! payload = topic 1 | partition 4 | seq 8 | key length 2 | headers length 2 | key | headers | value
//! header  = name length 1 | value length 2 | name | value
//! ```
//!
//! Numbers are little-endian. The checksum covers length and payload and starts from a seed drawn for the
//! segment, so neither a recycled block of an older segment nor bytes that a client chose pass for a record.
//! The marker starts with a byte that no UTF-8 text holds; it only speeds up the search behind damage.

use millrace_event::header::Headers;

use super::{Entry, Lane, Topic};

const MARKER: [u8; 4] = [0xf7, b'm', b'r', b'j'];
/// Bytes in front of the payload.
const PREFIX: usize = 12;
/// Bytes of the payload in front of the key.
const FIXED: usize = 17;
/// No payload is larger; its length's highest byte is zero, which a search behind damage relies on.
pub(super) const MAX_PAYLOAD: usize = (1 << 24) - 1;

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) lane: Lane,
    pub(super) seq: u64,
    pub(super) key: &'a [u8],
    headers: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    /// The headers, decoded.
    pub(super) fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        let mut rest = Bytes(self.headers);
        while let Some((name, value)) = rest.header() {
            headers.push(&String::from_utf8_lossy(name), value);
        }
        headers
    }
}

/// Bytes that `entry` takes on disk; `None` when a part of it does not fit its length field.
pub(super) fn size(entry: &Entry) -> Option<usize> {
    u16::try_from(entry.key.len()).ok()?;
    let headers = headers_size(&entry.headers)?;
    let payload = FIXED + entry.key.len() + headers + entry.value.len();
    (payload <= MAX_PAYLOAD).then_some(PREFIX + payload)
}

fn headers_size(headers: &Headers) -> Option<usize> {
    let mut size = 0;
    for (name, value) in headers.iter() {
        u8::try_from(name.len()).ok()?;
        u16::try_from(value.len()).ok()?;
        size += 3 + name.len() + value.len();
    }
    u16::try_from(size).is_ok().then_some(size)
}

/// Appends `entry` as record `seq` of its lane. An entry without a [`size`] is left out.
pub(super) fn encode(entry: &Entry, seq: u64, seed: u32, out: &mut Vec<u8>) {
    let (Some(size), Some(headers)) = (size(entry), headers_size(&entry.headers)) else {
        return;
    };
    let (Ok(length), Ok(key), Ok(headers)) = (
        u32::try_from(size - PREFIX),
        u16::try_from(entry.key.len()),
        u16::try_from(headers),
    ) else {
        return;
    };
    let start = out.len();
    out.reserve(size);
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(entry.topic.code());
    out.extend_from_slice(&entry.partition.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&headers.to_le_bytes());
    out.extend_from_slice(&entry.key);
    for (name, value) in entry.headers.iter() {
        // Both fit: `headers_size` has checked.
        out.push(u8::try_from(name.len()).unwrap_or(0));
        out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    out.extend_from_slice(&entry.value);
    let (prefix, payload) = out[start..].split_at_mut(PREFIX);
    let crc = checksum(seed, length, payload);
    prefix[8..].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(seed: u32, length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &length.to_le_bytes()), payload)
}

/// The record at the start of `bytes` and its size on disk; `None` where there is no whole, sound one.
pub(super) fn decode(bytes: &[u8], seed: u32) -> Option<(Record<'_>, usize)> {
    let (length, crc, payload) = parts(bytes)?;
    if checksum(seed, length, payload) != crc {
        return None;
    }
    Some((record(payload)?, PREFIX + payload.len()))
}

/// As [`decode`], of bytes that never left this process: without the checksum.
pub(super) fn decode_own(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (_, _, payload) = parts(bytes)?;
    Some((record(payload)?, PREFIX + payload.len()))
}

/// Length, checksum and payload.
fn parts(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let mut rest = Bytes(bytes);
    if rest.take(4)? != MARKER {
        return None;
    }
    let (length, crc) = (rest.u32()?, rest.u32()?);
    let size = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD)?;
    Some((length, crc, rest.take(size)?))
}

fn record(payload: &[u8]) -> Option<Record<'_>> {
    let mut rest = Bytes(payload);
    let topic = Topic::from_code(rest.take(1)?[0])?;
    let (partition, seq) = (rest.u32()?, rest.u64()?);
    let (key, headers) = (rest.u16()?, rest.u16()?);
    let key = rest.take(key.into())?;
    let headers = rest.take(headers.into())?;
    Some(Record {
        lane: Lane { topic, partition },
        seq,
        key,
        headers,
        value: rest.0,
    })
}

/// What a scan finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A sound record.
    Record {
        offset: usize,
        size: usize,
        record: Record<'a>,
    },
    /// Bytes that are none, with a sound record behind them.
    Damaged { start: usize, end: usize },
    /// Bytes that are none, up to the end.
    Tail { start: usize },
}

/// Finds every record of a segment, `start` being the length of its header.
pub(super) fn scan(bytes: &[u8], start: usize, seed: u32) -> Scan<'_> {
    Scan {
        bytes,
        at: start,
        seed,
    }
}

/// Iterator of [`scan`].
#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    seed: u32,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let start = self.at;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        if let Some((record, size)) = decode(rest, self.seed) {
            self.at += size;
            return Some(Item::Record {
                offset: start,
                size,
                record,
            });
        }
        let mut from = 1;
        while let Some(found) = find(rest.get(from..).unwrap_or_default(), MARKER) {
            let candidate = from + found;
            if decode(&rest[candidate..], self.seed).is_some() {
                self.at = start + candidate;
                return Some(Item::Damaged { start, end: self.at });
            }
            from = candidate + 1;
        }
        self.at = self.bytes.len();
        Some(Item::Tail { start })
    }
}

fn find(bytes: &[u8], marker: [u8; 4]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let found = rest.iter().position(|byte| *byte == marker[0])?;
        if rest[found..].starts_with(&marker) {
            return Some(from + found);
        }
        from += found + 1;
    }
}

/// A cursor that ends instead of reading past the end.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn header(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let name = self.take(1)?[0];
        let value = self.u16()?;
        Some((self.take(name.into())?, self.take(value.into())?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(value: Vec<u8>) -> Entry {
        let headers = Headers::new()
            .with("traceparent", "00-x")
            .with("error-code", "late_event");
        Entry {
            topic: Topic::Dlq,
            partition: 3,
            key: b"key".to_vec(),
            headers,
            value,
        }
    }

    fn segment(values: &[Vec<u8>], seed: u32) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (seq, value) in (0..).zip(values) {
            encode(&entry(value.clone()), seq, seed, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn sound(bytes: &[u8], seed: u32) -> Vec<u64> {
        scan(bytes, 0, seed)
            .filter_map(|item| match item {
                Item::Record { record, .. } => Some(record.seq),
                Item::Damaged { .. } | Item::Tail { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_record_reads_back_with_its_headers() {
        let mut bytes = Vec::new();
        let entry = entry(b"{}".to_vec());
        encode(&entry, 9, 7, &mut bytes);
        assert_eq!(Some(bytes.len()), size(&entry));
        let (record, size) = decode(&bytes, 7).unwrap();
        assert_eq!(
            (record.seq, record.lane.partition, record.key, size),
            (9, 3, &b"key"[..], bytes.len())
        );
        assert_eq!(
            (record.headers(), record.value),
            (entry.headers.clone(), &b"{}"[..])
        );
        assert!(
            decode(&bytes, 8).is_none(),
            "a record of another segment is none of this one"
        );
    }

    #[test]
    fn what_does_not_fit_its_length_field_has_no_size() {
        let mut large = entry(Vec::new());
        large.key = vec![0; 70_000];
        assert_eq!(size(&large), None);
        let mut bytes = Vec::new();
        encode(&large, 0, 0, &mut bytes);
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn a_segment_cut_anywhere_keeps_every_record_before_the_cut(
            values in proptest::collection::vec(any::<Vec<u8>>(), 1..20), cut: prop::sample::Index, seed: u32,
        ) {
            let (bytes, ends) = segment(&values, seed);
            let cut = cut.index(bytes.len() + 1);
            let whole = u64::try_from(ends.iter().filter(|end| **end <= cut).count()).unwrap();
            prop_assert_eq!(sound(&bytes[..cut], seed), (0..whole).collect::<Vec<_>>());
        }

        #[test]
        fn damage_costs_the_records_it_touches_and_no_other(
            values in proptest::collection::vec(any::<Vec<u8>>(), 1..20),
            at: prop::sample::Index, length in 1_usize..200, fill: u8, seed: u32,
        ) {
            let (mut bytes, ends) = segment(&values, seed);
            let start = at.index(bytes.len());
            let end = (start + length).min(bytes.len());
            let before = bytes.clone();
            bytes[start..end].fill(fill);
            let mut from = 0;
            let mut untouched = Vec::new();
            for (seq, to) in (0..).zip(ends) {
                if bytes[from..to] == before[from..to] {
                    untouched.push(seq);
                }
                from = to;
            }
            prop_assert_eq!(sound(&bytes, seed), untouched);
        }

        #[test]
        fn any_bytes_are_scanned_to_their_end(bytes: Vec<u8>, seed: u32) {
            prop_assert!(scan(&bytes, 0, seed).count() <= bytes.len());
        }
    }
}
