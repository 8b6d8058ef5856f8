//! What browsers need to be told.
//!
//! Any page may send: which pages a browser key serves is judged with the key, and the answer must be
//! readable for the page to know. Credentials are never allowed, so `*` gives nothing away.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::answer::Answer;

/// A day; browsers cap it. What a page sends as it closes gets through only with a preflight in the cache.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,OPTIONS");
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, X-RateLimit-Reset, X-Request-Id");
const VARIES: HeaderValue = HeaderValue::from_static("Origin, Access-Control-Request-Headers");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The answer to `OPTIONS`: every header is allowed, as clients may be configured to send any.
pub(super) fn preflight(asked: &HeaderMap) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(VARY, VARIES);
    answer
}

/// Lets the page that asked read an answer, whatever it says.
pub(super) fn open(asked: &HeaderMap, answer: &mut Answer) {
    if asked.contains_key(ORIGIN) {
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.entry(VARY).or_insert(HeaderValue::from_static("Origin"));
    }
}
