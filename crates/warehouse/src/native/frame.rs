//! Frames of LZ4, as ClickHouse takes them with the setting `decompress`: a checksum, the sizes, the data. A body
//! is any number of frames; where they end means nothing to what is inside.

use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::Sink;

/// Data is compressed in pieces of this size, the server's own default.
pub const PIECE_BYTES: usize = 1 << 20;

/// CityHash128, in the version that ClickHouse stayed with, over the header and the data.
const CHECKSUM_BYTES: usize = 16;
/// The method, the size of the frame without its checksum, the size of what is inside.
const HEADER_BYTES: usize = 9;
const LZ4: u8 = 0x82;

/// Collects bytes and compresses them piece by piece: what it holds is compressed but for the last piece.
pub struct Frames {
    frames: Vec<Bytes>,
    piece: Vec<u8>,
    table: CompressTable,
    /// Where a frame is made; frames are copied out of it at their own size.
    output: Vec<u8>,
}

impl Frames {
    /// No frames yet, with room for one piece.
    pub fn new() -> Self {
        Self {
            frames: Vec::new(),
            piece: Vec::new(),
            table: CompressTable::default(),
            output: Vec::new(),
        }
    }

    /// The frames, the last one of what is left.
    pub fn finish(mut self) -> Vec<Bytes> {
        let rest = std::mem::take(&mut self.piece);
        if !rest.is_empty() {
            self.compress(&rest);
        }
        self.frames
    }

    fn compress(&mut self, piece: &[u8]) {
        let start = CHECKSUM_BYTES + HEADER_BYTES;
        let room = start + get_maximum_output_size(piece.len());
        if self.output.len() < room {
            self.output.resize(room, 0);
        }
        let Some(data) = self.output.get_mut(start..) else {
            return;
        };
        #[expect(
            clippy::expect_used,
            reason = "the output has the room that the algorithm asks for"
        )]
        let length = compress_into_with_table(piece, data, &mut self.table).expect("room for the piece");
        #[expect(clippy::expect_used, reason = "a piece is of one mebibyte at most")]
        let size = |bytes: usize| u32::try_from(bytes).expect("a size of 32 bits").to_le_bytes();
        let mut frame = Vec::with_capacity(start + length);
        frame.extend_from_slice(&[0; CHECKSUM_BYTES]);
        frame.push(LZ4);
        frame.extend_from_slice(&size(HEADER_BYTES + length));
        frame.extend_from_slice(&size(piece.len()));
        frame.extend_from_slice(data.get(..length).unwrap_or_default());
        if let Some((checksum, hashed)) = frame.split_first_chunk_mut() {
            *checksum = checksum_of(hashed);
        }
        self.frames.push(frame.into());
    }
}

/// The high half comes first.
fn checksum_of(hashed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(hashed)
        .rotate_left(64)
        .to_le_bytes()
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames")
            .field("frames", &self.frames.len())
            .field("piece", &self.piece.len())
            .finish_non_exhaustive()
    }
}

impl Sink for Frames {
    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.piece.len() + rest.len() >= PIECE_BYTES {
            let (now, later) = rest.split_at(PIECE_BYTES - self.piece.len());
            rest = later;
            if self.piece.is_empty() {
                self.compress(now);
                continue;
            }
            let mut piece = std::mem::take(&mut self.piece);
            piece.extend_from_slice(now);
            self.compress(&piece);
            piece.clear();
            self.piece = piece;
        }
        self.piece.extend_from_slice(rest);
    }
}

/// Bytes as one body of frames.
pub fn compress(bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::new();
    frames.put(bytes);
    frames.finish()
}

/// What is inside frames that [`Frames`] made; empty from the first one on that is no frame.
pub fn decompress(frames: &[Bytes]) -> Vec<u8> {
    let inside = |frame: &Bytes| {
        let (header, data) = frame.get(CHECKSUM_BYTES..)?.split_at_checked(HEADER_BYTES)?;
        let size = u32::from_le_bytes(*header.last_chunk()?);
        lz4_flex::block::decompress(data, size as usize).ok()
    };
    frames.iter().map_while(inside).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_as_clickhouse_takes_it() {
        let frames = compress(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        let frame = frames.first().expect("a frame").to_vec();
        // The checksum, then LZ4, 21 bytes with this header, 32 inside; one letter, 25 from one back, six letters.
        let (checksum, rest) = frame.split_at(16);
        let mut expected = vec![0x82, 21, 0, 0, 0, 32, 0, 0, 0, 0x1f, b'a', 1, 0, 6, 0x60];
        expected.extend_from_slice(b"aaaaaa");
        assert_eq!(rest, expected);
        assert_eq!(checksum, checksum_of(rest));
        assert_eq!(frames.len(), 1);
        assert!(compress(b"").is_empty());
    }

    #[test]
    fn pieces_are_of_one_size_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PIECE_BYTES + 5).collect();
        let whole = compress(&bytes);
        assert_eq!(whole.len(), 4);
        for step in [1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1] {
            let mut frames = Frames::new();
            bytes.chunks(step).for_each(|chunk| frames.put(chunk));
            assert_eq!(frames.finish(), whole, "{step}");
        }
        assert_eq!(decompress(&whole), bytes);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut frames = Frames::new();
            chunks.iter().for_each(|chunk| frames.put(chunk));
            prop_assert_eq!(decompress(&frames.finish()), chunks.concat());
        }
    }
}
