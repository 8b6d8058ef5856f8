//! A record batch as it goes over the wire and lies in the log: format version 2, compressed with LZ4.
//!
//! It is written once, whatever becomes of it: a batch that is sent again is the same bytes. Layout: Kafka's "Record
//! Batch" in its protocol guide, and the LZ4 frame format with independent blocks, which is what Kafka reads.

use bytes::{BufMut as _, Bytes, BytesMut};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::record::Outgoing;

/// Bytes of a batch in front of its records.
const HEAD: usize = 61;
/// Where the checksum stands, and where what it covers begins.
const CRC: (usize, usize) = (17, 21);
/// `attributes`: LZ4, times of creation.
const LZ4: i16 = 3;
/// Version 01, independent blocks of 64 KiB at most, no checksums but the descriptor's own: the batch has one.
const FRAME: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
/// Bytes of one block: as many as the compressor's small table reaches, which stays in the first cache.
const BLOCK: usize = 65_000;
/// In the size of a block that is kept as it is.
const STORED: u32 = 1 << 31;
/// Where a `None` stands for bytes.
const NULL: i64 = -1;

/// Records on their way into a batch, encoded and not yet compressed.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    count: u32,
}

/// A whole batch; clones share its bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    count: u32,
}

impl Records {
    /// No records, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Adds a record.
    pub fn push<'h, H>(&mut self, key: Option<&[u8]>, value: &[u8], headers: H)
    where
        H: Iterator<Item = (&'h str, &'h [u8])> + Clone,
    {
        let offset = i64::from(self.count);
        let (mut size, mut count) = (0, 0);
        for (name, value) in headers.clone() {
            size += varint_size(long(name.len())) + name.len() + varint_size(long(value.len())) + value.len();
            count += 1_i64;
        }
        // Attributes and the difference in time are a byte each.
        size += 2 + varint_size(offset) + varint_size(count);
        size += varint_size(key.map_or(NULL, |key| long(key.len()))) + key.map_or(0, <[u8]>::len);
        size += varint_size(long(value.len())) + value.len();

        let out = &mut self.bytes;
        put_varint(out, long(size));
        out.extend_from_slice(&[0, 0]);
        put_varint(out, offset);
        match key {
            Some(key) => put_bytes(out, key),
            None => put_varint(out, NULL),
        }
        put_bytes(out, value);
        put_varint(out, count);
        for (name, value) in headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
        self.count += 1;
    }

    /// The batch that they make, all of the time `created_ms` (milliseconds since the epoch).
    pub fn into_batch(self, created_ms: i64) -> Batch {
        let mut out = BytesMut::with_capacity(HEAD + FRAME.len() + self.bytes.len() / 2);
        out.put_i64(0); // base offset: the broker's to give
        out.put_i32(0); // length, below
        out.put_i32(-1); // leader epoch: none
        out.put_i8(2); // format
        out.put_u32(0); // checksum, below
        out.put_i16(LZ4);
        out.put_i32(i32::try_from(self.count).unwrap_or(i32::MAX) - 1);
        out.put_i64(created_ms);
        out.put_i64(created_ms);
        out.put_i64(-1); // producer: not idempotent
        out.put_i16(-1);
        out.put_i32(-1);
        out.put_i32(i32::try_from(self.count).unwrap_or(i32::MAX));
        compress(&self.bytes, &mut out);
        let length = i32::try_from(out.len() - 12).unwrap_or(i32::MAX);
        let crc = crc32c::crc32c(&out[CRC.1..]);
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[CRC.0..CRC.1].copy_from_slice(&crc.to_be_bytes());
        Batch {
            bytes: out.freeze(),
            count: self.count,
        }
    }
}

impl Extend<Outgoing> for Records {
    fn extend<T: IntoIterator<Item = Outgoing>>(&mut self, records: T) {
        for record in records {
            self.push(record.key.as_deref(), &record.value, record.headers.iter());
        }
    }
}

impl Batch {
    /// How many records it has.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// All of it.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

fn compress(mut records: &[u8], out: &mut BytesMut) {
    out.put_slice(&FRAME);
    let mut table = CompressTable::small();
    while !records.is_empty() {
        let (block, rest) = records.split_at(records.len().min(BLOCK));
        records = rest;
        let (size_at, start) = (out.len(), out.len() + 4);
        out.resize(start + get_maximum_output_size(block.len()), 0);
        // There is room for whatever comes out, so it cannot fail; and what does not shrink is kept as it is.
        let compressed = compress_into_with_table(block, &mut out[start..], &mut table).ok();
        let size = match compressed.filter(|length| *length < block.len()) {
            Some(length) => {
                out.truncate(start + length);
                u32::try_from(length).unwrap_or(u32::MAX)
            }
            None => {
                out.truncate(start);
                out.put_slice(block);
                u32::try_from(block.len()).unwrap_or(u32::MAX) | STORED
            }
        };
        out[size_at..start].copy_from_slice(&size.to_le_bytes());
    }
    out.put_u32_le(0);
}

fn long(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_size(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, long(bytes.len()));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_bytes_that_they_are_said_to_take() {
        for value in [
            0,
            -1,
            1,
            63,
            64,
            -64,
            -65,
            8191,
            8192,
            1 << 20,
            i64::MAX,
            i64::MIN,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_size(value), "{value}");
            let read = out
                .iter()
                .rev()
                .fold(0_u64, |read, byte| (read << 7) | u64::from(byte & 0x7f));
            assert_eq!(read, zigzag(value), "{value}");
        }
    }

    #[test]
    fn a_batch_says_its_length_its_count_and_a_checksum_over_what_follows() {
        let mut records = Records::default();
        records.push(Some(b"k"), b"v", [("id", &b"1"[..]), ("trace", b"")].into_iter());
        records.push(None, &[7; 200_000], std::iter::empty());
        let batch = records.into_batch(1_234).bytes();
        let number = |at: usize| u32::from_be_bytes(*batch[at..].first_chunk().unwrap());
        assert_eq!(usize::try_from(number(8)).unwrap(), batch.len() - 12);
        assert_eq!(number(CRC.0), crc32c::crc32c(&batch[CRC.1..]));
        assert_eq!((number(23), number(57)), (1, 2), "the last offset and the count");
        assert_eq!(batch[HEAD..][..FRAME.len()], FRAME);
        assert_eq!(batch[batch.len() - 4..], [0; 4], "the frame ends");
        assert!(batch.len() < 2_000, "what repeats is compressed");
    }
}
