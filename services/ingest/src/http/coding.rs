//! Content codings, decoded in steps with a cap on what comes out.
//!
//! A decoder never runs ahead of the memory it was granted, and gives way to other requests between steps.

use std::io::{self, Read};

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use millrace_event::IngestCode;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::memory::Grant;
use crate::pipeline::Refusal;

/// What a decoder gives at a time.
const STEP: usize = 64 << 10;
/// Up to this size a body may be as compressible as it likes.
const RATIO_FLOOR: usize = 1 << 20;
/// Most members of a gzip body and frames of a zstd one: an empty one costs more to open than to send.
const MEMBERS: usize = 64;
/// Largest window of a zstd frame, what RFC 9659 allows on the web.
const ZSTD_WINDOW: u64 = 8 << 20;
/// What brotli begins with; it grows with the body.
const BROTLI_WINDOW: u32 = 64 << 10;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Caps on what a body decodes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Most bytes.
    pub(super) size: usize,
    /// Most bytes for each byte sent, once there are many.
    pub(super) ratio: usize,
}

impl Coding {
    /// What the header says and the first bytes confirm: clients and proxies say gzip of plain bodies and
    /// nothing of gzipped ones, and no JSON begins like either format that has a magic number.
    ///
    /// # Errors
    /// When it is a coding, or a pile of codings, that is not decoded here.
    pub(super) fn of(headers: &HeaderMap, body: &[u8]) -> Result<Option<Self>, Refusal> {
        if body.starts_with(GZIP) {
            return Ok(Some(Self::Gzip));
        }
        if body.starts_with(ZSTD) {
            return Ok(Some(Self::Zstd));
        }
        let mut said = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.as_bytes().split(|byte| *byte == b',') {
                let coding = match name.trim_ascii().to_ascii_lowercase().as_slice() {
                    b"" | b"identity" | b"gzip" | b"x-gzip" | b"zstd" => continue,
                    b"deflate" => Self::Deflate,
                    b"br" => Self::Brotli,
                    _ => return Err(unsupported()),
                };
                if said.replace(coding).is_some() {
                    return Err(unsupported());
                }
            }
        }
        Ok(said)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }

    fn reader<'a>(self, body: &'a [u8]) -> Box<dyn Read + Send + 'a> {
        match self {
            Self::Gzip => Box::new(Gzip {
                member: GzDecoder::new(body),
                members: 1,
            }),
            // RFC 9110 means zlib, some clients send it bare.
            Self::Deflate if is_zlib(body) => Box::new(ZlibDecoder::new(body)),
            Self::Deflate => Box::new(DeflateDecoder::new(body)),
            Self::Brotli => {
                let mut reader = Decompressor::new(body, 4096);
                // Windows of up to 1 GiB are no part of the web's brotli.
                reader.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
                reader.set_initial_ring_buffer_size(BROTLI_WINDOW);
                Box::new(reader)
            }
            Self::Zstd => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(ZSTD_WINDOW);
                Box::new(Zstd {
                    rest: body,
                    decoder,
                    open: false,
                    frames: 0,
                })
            }
        }
    }
}

/// Decodes a body; the grant covers it and the decoder's window besides the encoded body.
///
/// # Errors
/// When it is broken, larger than the caps allow, or there is no memory for it.
pub(super) async fn decoded(
    coding: Coding,
    body: &[u8],
    caps: Caps,
    grant: &mut Grant,
) -> Result<Bytes, Refusal> {
    let most = caps
        .size
        .min(body.len().saturating_mul(caps.ratio).max(RATIO_FLOOR));
    let mut reader = coding.reader(body);
    let mut whole: Vec<u8> = Vec::new();
    loop {
        let end = whole.len();
        // One byte more than allowed, to tell a full body from one too large.
        let room = STEP.min(body.len().max(1 << 10) * 4).min(most + 1 - end);
        grant.cover(body.len() + 2 * (end + room)).await?;
        whole.resize(end + room, 0);
        let target = whole.get_mut(end..).unwrap_or_default();
        let read = reader.read(target).map_err(|error| {
            tracing::debug!(%error, coding = coding.name(), "a body cannot be decoded");
            Refusal::new(
                IngestCode::InvalidJson,
                format!("the body is not {} as it says", coding.name()),
            )
        })?;
        whole.truncate(end + read);
        if whole.len() > most {
            return Err(Refusal::new(
                IngestCode::BodyTooLarge,
                format!("a body decodes to {most} bytes at most"),
            ));
        }
        if read == 0 {
            return Ok(Bytes::from(whole));
        }
        tokio::task::consume_budget().await;
    }
}

/// The header of RFC 1950: method 8, and a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

fn unsupported() -> Refusal {
    Refusal::new(
        IngestCode::InvalidJson,
        "the content encoding is not supported: send gzip, deflate, br, zstd or plain",
    )
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "too many members")
}

/// The members of a gzip body, one after the other.
struct Gzip<'a> {
    member: GzDecoder<&'a [u8]>,
    members: usize,
}

impl Read for Gzip<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.member.read(target)?;
            let rest = *self.member.get_ref();
            // Zeros behind the last member are padding.
            if read > 0 || rest.iter().all(|byte| *byte == 0) {
                return Ok(read);
            }
            if self.members == MEMBERS {
                return Err(too_many());
            }
            self.members += 1;
            self.member = GzDecoder::new(rest);
        }
    }
}

/// The frames of a zstd body, one after the other.
struct Zstd<'a> {
    rest: &'a [u8],
    decoder: FrameDecoder,
    open: bool,
    frames: usize,
}

impl Zstd<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if self.frames == MEMBERS {
            return Err(too_many());
        }
        self.frames += 1;
        match self.decoder.init(&mut self.rest) {
            Ok(()) => self.open = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.rest = self.rest.get(length..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;

        loop {
            if !self.open {
                if self.rest.is_empty() {
                    return Ok(0);
                }
                self.begin()?;
                continue;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.rest, UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let read = self.decoder.read(target)?;
            if read > 0 {
                return Ok(read);
            }
            self.open = false;
        }
    }
}

#[cfg(test)]
mod tests;
