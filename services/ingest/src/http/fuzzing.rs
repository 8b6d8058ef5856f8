//! The edge's part of the fuzz target `body`.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::coding::{self, Caps, Coding};
use super::memory::Budget;

const CAPS: Caps = Caps {
    size: 2 << 20,
    ratio: 100,
};
/// More than a body within the caps is ever charged for.
const MEMORY: usize = 64 << 20;

/// The body as the pipeline gets it, where it gets it at all.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub(crate) fn decoded(said: Option<&'static str>, body: &[u8]) -> Option<Bytes> {
    let headers = said.map(|said| (CONTENT_ENCODING, HeaderValue::from_static(said)));
    let headers = HeaderMap::from_iter(headers);
    let Some(coding) = Coding::of(&headers, body).ok()? else {
        return Some(Bytes::copy_from_slice(body));
    };
    let mut grant = Budget::new(MEMORY, Duration::from_secs(1)).grant();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let decoded = runtime
        .block_on(coding::decoded(coding, body, CAPS, &mut grant))
        .ok()?;
    assert!(decoded.len() <= CAPS.size, "{} bytes", decoded.len());
    Some(decoded)
}
