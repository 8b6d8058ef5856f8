//! The edge's part of the fuzz targets `body` and `head`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Uri};
use millrace_store::keys::Presented;

use super::coding::{self, Caps, Coding};
use super::memory::Budget;
use super::peer::Proxies;
use super::route::{self, Routes};
use super::{credential, pixel};

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

/// Finds the way of a request and the key that it presents; gives the event that its query may carry.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub(crate) fn head(uri: &[u8], authorization: &[u8], key: &[u8], forwarded: &[u8]) -> Option<Bytes> {
    let uri = Uri::try_from(uri).ok()?;
    let path = route::plain(uri.path());
    assert_eq!(route::plain(&path), path, "plain once is plain");
    let routes = Routes::new().expect("routes");
    let _route = routes.find(&path);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (AUTHORIZATION.as_str(), authorization),
        ("x-write-key", key),
        ("x-forwarded-for", forwarded),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.append(name, value);
        }
    }
    let _presented = credential::presented(&headers, &uri)
        .as_deref()
        .map(Presented::parse);
    let peer = std::net::IpAddr::from([10, 0, 0, 1]);
    for trusted in [
        &["10.0.0.0/8".to_owned()][..],
        &["0.0.0.0/0".to_owned(), "::/0".to_owned()],
    ] {
        let _client = Proxies::new(trusted).expect("networks").client(peer, &headers);
    }
    Some(pixel::event(uri.query()?))
}
