//! The write key where a request carries it outside its body: header, then query.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use super::query;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key as presented; none where the body must have it. A header that cannot be read counts as a wrong key
/// and not as none: a key in the body must not stand in for it.
pub(super) fn presented(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    basic(headers)
        .or_else(|| of_header(headers))
        .or_else(|| of_query(uri))
}

fn basic(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    // A bearer token belongs to a write key in the body.
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim_ascii()).ok();
    Some(
        decoded
            .and_then(|decoded| String::from_utf8(decoded).ok())
            .unwrap_or_default(),
    )
}

fn of_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-write-key")?;
    Some(value.to_str().unwrap_or_default().trim().to_owned())
}

fn of_query(uri: &Uri) -> Option<String> {
    query::value(uri.query()?, "writeKey")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_header_wins_over_the_query() {
        let query: Uri = "/v1/track?x=1&writeKey=wk_q%3As".parse().unwrap();
        let plain: Uri = "/v1/track".parse().unwrap();
        // wk_a:s and wk_a:s: in base64
        for (pairs, uri, expected) in [
            (
                vec![("authorization", "Basic d2tfYTpz"), ("x-write-key", "wk_b")],
                &query,
                Some("wk_a:s"),
            ),
            (
                vec![("authorization", "basic d2tfYTpzOg==")],
                &plain,
                Some("wk_a:s:"),
            ),
            (
                vec![("authorization", "Basic d2tfYTpzOg")],
                &plain,
                Some("wk_a:s:"),
            ),
            (vec![("x-write-key", "wk_b:s")], &query, Some("wk_b:s")),
            (vec![], &query, Some("wk_q:s")),
            (vec![("authorization", "Bearer token")], &plain, None),
            (vec![], &plain, None),
        ] {
            assert_eq!(presented(&headers(&pairs), uri).as_deref(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_is_a_wrong_key() {
        let uri: Uri = "/v1/track?writeKey=wk_q".parse().unwrap();
        assert_eq!(
            presented(&headers(&[("authorization", "Basic %%%")]), &uri).as_deref(),
            Some("")
        );
    }
}
