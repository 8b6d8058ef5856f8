use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::HeaderValue;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;
use crate::http::memory::Budget;

const PLAIN: &[u8] = br#"{"batch":[{"type":"track","event":"Sent","messageId":"m-1"}]}"#;
/// The same through another implementation of brotli.
const BROTLI: &[u8] = b"\x0b\x1e\x80\x7b\x22\x62\x61\x74\x63\x68\x22\x3a\x5b\x7b\x22\x74\x79\x70\x65\x22\x3a\x22\x74\x72\x61\x63\x6b\x22\x2c\x22\x65\x76\x65\x6e\x74\x22\x3a\x22\x53\x65\x6e\x74\x22\x2c\x22\x6d\x65\x73\x73\x61\x67\x65\x49\x64\x22\x3a\x22\x6d\x2d\x31\x22\x7d\x5d\x7d\x03";
/// 3 MiB of spaces.
const BROTLI_BOMB: &[u8] = b"\x9b\xff\xff\x2f\xf8\x25\x40\xe2\xb1\x40\x20\xf7\xfe\x05";

const CAPS: Caps = Caps {
    size: 4 << 20,
    ratio: 100,
};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    compress_to_vec(plain, CompressionLevel::Fastest)
}

async fn within(coding: Coding, body: &[u8], caps: Caps, memory: usize) -> Result<Bytes, IngestCode> {
    let budget = Budget::new(memory, Duration::from_millis(10));
    decoded(coding, body, caps, &mut budget.grant())
        .await
        .map_err(|refusal| refusal.code)
}

async fn unpacked(coding: Coding, body: &[u8]) -> Result<Bytes, IngestCode> {
    within(coding, body, CAPS, 64 << 20).await
}

fn said(encoding: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))])
}

#[tokio::test]
async fn every_coding_of_the_web_is_decoded() {
    let large: Vec<u8> = (0..300_000_u32).flat_map(|n| (n % 7_919).to_le_bytes()).collect();
    for plain in [PLAIN, &large, b""] {
        for (coding, body) in [
            (Coding::Gzip, gzip(plain)),
            (Coding::Deflate, zlib(plain)),
            (Coding::Deflate, deflate(plain)),
            (Coding::Zstd, zstd(plain)),
        ] {
            assert_eq!(unpacked(coding, &body).await.unwrap(), plain, "{coding:?}");
        }
    }
    assert_eq!(unpacked(Coding::Brotli, BROTLI).await.unwrap(), PLAIN);
}

#[tokio::test]
async fn bodies_of_several_members_are_one_body_and_too_many_are_none() {
    for (coding, one) in [(Coding::Gzip, gzip(PLAIN)), (Coding::Zstd, zstd(PLAIN))] {
        assert_eq!(unpacked(coding, &one.repeat(3)).await.unwrap(), PLAIN.repeat(3));
        assert_eq!(
            unpacked(coding, &one.repeat(65)).await,
            Err(IngestCode::InvalidJson)
        );
    }
}

#[tokio::test]
async fn a_bomb_is_given_up_at_the_cap_and_before_there_is_memory_for_it() {
    let plain = vec![b' '; 3 << 20];
    for (coding, body) in [
        (Coding::Gzip, gzip(&plain)),
        (Coding::Deflate, zlib(&plain)),
        (Coding::Zstd, zstd(&plain)),
        (Coding::Brotli, BROTLI_BOMB.to_vec()),
    ] {
        assert_eq!(
            unpacked(coding, &body).await,
            Err(IngestCode::BodyTooLarge),
            "{coding:?}: the ratio"
        );
        let loose = Caps {
            size: 2 << 20,
            ratio: 1 << 20,
        };
        assert_eq!(
            within(coding, &body, loose, 64 << 20).await,
            Err(IngestCode::BodyTooLarge),
            "{coding:?}: the size"
        );
        assert_eq!(
            within(coding, &body, loose, 1 << 20).await,
            Err(IngestCode::RateLimited),
            "{coding:?}: the memory"
        );
        let wide = Caps {
            size: 3 << 20,
            ..loose
        };
        assert_eq!(within(coding, &body, wide, 64 << 20).await.unwrap(), plain);
    }
}

#[tokio::test]
async fn a_window_larger_than_the_web_allows_is_refused() {
    // A frame header that asks for a window of 64 MiB, then an empty last block.
    let frame = b"\x28\xb5\x2f\xfd\x00\x80\x01\x00\x00";
    assert_eq!(unpacked(Coding::Zstd, frame).await, Err(IngestCode::InvalidJson));
}

#[test]
fn the_first_bytes_are_believed_more_than_the_header() {
    let (plain, gzipped, zstded) = (PLAIN, gzip(PLAIN), zstd(PLAIN));
    for (headers, body, coding) in [
        (HeaderMap::new(), plain, None),
        (HeaderMap::new(), &gzipped[..], Some(Coding::Gzip)),
        (said("br"), &gzipped[..], Some(Coding::Gzip)),
        (said("gzip"), &zstded[..], Some(Coding::Zstd)),
        (said("gzip"), plain, None),
        (said("identity, X-GZIP"), plain, None),
        (said("deflate"), plain, Some(Coding::Deflate)),
        (said("BR"), plain, Some(Coding::Brotli)),
    ] {
        assert_eq!(Coding::of(&headers, body).unwrap(), coding, "{headers:?}");
    }
    for pile in ["br, deflate", "compress"] {
        assert!(Coding::of(&said(pile), plain).is_err(), "{pile}");
    }
}

#[tokio::test]
async fn a_body_cut_short_is_broken() {
    for (coding, body) in [
        (Coding::Gzip, gzip(PLAIN)),
        (Coding::Deflate, zlib(PLAIN)),
        (Coding::Zstd, zstd(PLAIN)),
        (Coding::Brotli, BROTLI.to_vec()),
    ] {
        let cut = &body[..body.len() - 5];
        assert_eq!(
            unpacked(coding, cut).await,
            Err(IngestCode::InvalidJson),
            "{coding:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_decoder_panic_or_outgrow_its_caps(
        mut body in proptest::collection::vec(any::<u8>(), 0..600),
        begin in 0..4_usize,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let packed = [gzip(PLAIN), zlib(PLAIN), zstd(PLAIN), BROTLI.to_vec()];
        let mut damaged = packed[begin].clone();
        for (at, byte) in flips {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        body.splice(0..0, damaged.iter().copied());
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            for body in [&body, &damaged] {
                if let Ok(plain) = runtime.block_on(unpacked(coding, body)) {
                    prop_assert!(plain.len() <= CAPS.size);
                }
            }
        }
    }
}
