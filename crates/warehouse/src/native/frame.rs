//! Frames of LZ4 or ZSTD, as ClickHouse takes them with the setting `decompress`: a checksum, the method, the sizes, the
//! data. A body is any number of frames of one method; where they end means nothing to what is inside.

use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use millrace_event::destination::Compression;
use zstd::bulk::Compressor;

use super::Sink;

/// Data is compressed in pieces of this size, the server's own default.
pub const PIECE_BYTES: usize = 1 << 20;

/// CityHash128, in the version that ClickHouse stayed with, over the header and the data.
const CHECKSUM_BYTES: usize = 16;
/// The method, the size of the frame without its checksum, the size of what is inside.
const HEADER_BYTES: usize = 9;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
/// ZSTD's level; higher ones cost more CPU than the bytes are worth that they save.
const ZSTD_LEVEL: i32 = 1;

/// A method with what it keeps between two pieces.
enum Method {
    Lz4(CompressTable),
    Zstd(Compressor<'static>),
}

impl Method {
    fn new(compression: Compression) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the level is one of ZSTD's, and memory that is not there ends the process anyway"
        )]
        match compression {
            Compression::Lz4 => Self::Lz4(CompressTable::default()),
            Compression::Zstd => Self::Zstd(Compressor::new(ZSTD_LEVEL).expect("a level of ZSTD")),
        }
    }

    const fn byte(&self) -> u8 {
        match self {
            Self::Lz4(_) => LZ4,
            Self::Zstd(_) => ZSTD,
        }
    }

    /// The most bytes that so many become.
    fn most(&self, bytes: usize) -> usize {
        match self {
            Self::Lz4(_) => get_maximum_output_size(bytes),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(bytes),
        }
    }

    /// Compresses a piece into `output`, which has room for the most that it may become: how many bytes it became.
    #[expect(
        clippy::expect_used,
        reason = "the output has the room that the algorithm asks for"
    )]
    fn compress(&mut self, piece: &[u8], output: &mut [u8]) -> usize {
        match self {
            Self::Lz4(table) => compress_into_with_table(piece, output, table).expect("room for the piece"),
            Self::Zstd(compressor) => compressor
                .compress_to_buffer(piece, output)
                .expect("room for the piece"),
        }
    }
}

/// Collects bytes and compresses them piece by piece: what it holds is compressed but for the last piece.
pub struct Frames {
    frames: Vec<Bytes>,
    piece: Vec<u8>,
    method: Method,
    /// Where a frame is made; frames are copied out of it at their own size.
    output: Vec<u8>,
}

impl Frames {
    /// No frames yet, with room for one piece.
    pub fn new(compression: Compression) -> Self {
        Self {
            frames: Vec::new(),
            piece: Vec::new(),
            method: Method::new(compression),
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
        let room = start + self.method.most(piece.len());
        if self.output.len() < room {
            self.output.resize(room, 0);
        }
        let Some(data) = self.output.get_mut(start..) else {
            return;
        };
        let length = self.method.compress(piece, data);
        #[expect(clippy::expect_used, reason = "a piece is of one mebibyte at most")]
        let size = |bytes: usize| u32::try_from(bytes).expect("a size of 32 bits").to_le_bytes();
        let mut frame = Vec::with_capacity(start + length);
        frame.extend_from_slice(&[0; CHECKSUM_BYTES]);
        frame.push(self.method.byte());
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
pub fn compress(bytes: &[u8], compression: Compression) -> Vec<Bytes> {
    let mut frames = Frames::new(compression);
    frames.put(bytes);
    frames.finish()
}

/// What is inside frames that [`Frames`] made; empty from the first one on that is no frame.
pub fn decompress(frames: &[Bytes]) -> Vec<u8> {
    let inside = |frame: &Bytes| {
        let (header, data) = frame.get(CHECKSUM_BYTES..)?.split_at_checked(HEADER_BYTES)?;
        let size = u32::from_le_bytes(*header.last_chunk()?) as usize;
        match *header.first()? {
            ZSTD => zstd::bulk::decompress(data, size).ok(),
            _ => lz4_flex::block::decompress(data, size).ok(),
        }
    };
    frames.iter().map_while(inside).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_as_clickhouse_takes_it() {
        let frames = compress(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Compression::Lz4);
        let frame = frames.first().expect("a frame").to_vec();
        // The checksum, then LZ4, 21 bytes with this header, 32 inside; one letter, 25 from one back, six letters.
        let (checksum, rest) = frame.split_at(16);
        let mut expected = vec![0x82, 21, 0, 0, 0, 32, 0, 0, 0, 0x1f, b'a', 1, 0, 6, 0x60];
        expected.extend_from_slice(b"aaaaaa");
        assert_eq!(rest, expected);
        assert_eq!(checksum, checksum_of(rest));
        assert_eq!(frames.len(), 1);
        assert!(compress(b"", Compression::Lz4).is_empty());
    }

    #[test]
    fn a_frame_of_zstd_is_as_clickhouse_takes_it() {
        let frames = compress(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Compression::Zstd);
        let frame = frames.first().expect("a frame").to_vec();
        // The checksum, then ZSTD, its bytes with this header, 32 inside; what is inside begins with ZSTD's magic number.
        let (checksum, rest) = frame.split_at(16);
        let length = u8::try_from(rest.len()).expect("a short frame");
        assert_eq!(
            rest.get(..9),
            Some([0x90, length, 0, 0, 0, 32, 0, 0, 0].as_slice())
        );
        assert_eq!(rest.get(9..13), Some([0x28, 0xb5, 0x2f, 0xfd].as_slice()));
        assert_eq!(checksum, checksum_of(rest));
    }

    #[test]
    fn pieces_are_of_one_size_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PIECE_BYTES + 5).collect();
        for compression in [Compression::Lz4, Compression::Zstd] {
            let whole = compress(&bytes, compression);
            assert_eq!(whole.len(), 4);
            for step in [1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1] {
                let mut frames = Frames::new(compression);
                bytes.chunks(step).for_each(|chunk| frames.put(chunk));
                assert_eq!(frames.finish(), whole, "{compression:?}, {step}");
            }
            assert_eq!(decompress(&whole), bytes);
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            for compression in [Compression::Lz4, Compression::Zstd] {
                let mut frames = Frames::new(compression);
                chunks.iter().for_each(|chunk| frames.put(chunk));
                prop_assert_eq!(decompress(&frames.finish()), chunks.concat());
            }
        }
    }
}
