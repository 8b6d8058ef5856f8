//! What a function asks for, as a request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

/// What servers are told unless the function says something else.
const AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));

/// These are the connection's own.
const RESERVED: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// These speak about a body that is sent no more.
const OF_BODY: [HeaderName; 4] = [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE];

/// What becomes of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Redirect {
    Follow,
    Manual,
    Error,
}

#[derive(Deserialize)]
struct Argument {
    url: String,
    method: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<Body>,
    redirect: String,
    /// In milliseconds.
    #[serde(default)]
    timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Text(String),
    Base64(String),
}

/// A request that can be sent, and sent on.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) url: Url,
    pub(super) redirect: Redirect,
    pub(super) timeout: Option<Duration>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Wanted {
    /// Reads what a function handed over; the error says what is wrong with it.
    pub(super) fn read(argument: &RawValue) -> Result<Self, String> {
        let argument: Argument = serde_json::from_str(argument.get())
            .map_err(|error| format!("the request cannot be read: {error}"))?;
        let url = Url::parse(&argument.url).map_err(|_| format!("{} is not an address", argument.url))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{}: is not a scheme that can be fetched", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address with a password cannot be fetched: use a header".into());
        }
        let method: Method = argument
            .method
            .parse()
            .map_err(|_| format!("{} is not a method", argument.method))?;
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(format!("the method {method} cannot be used"));
        }
        let body = match argument.body {
            None => None,
            Some(Body::Text(text)) => Some(Bytes::from(text)),
            Some(Body::Base64(text)) => Some(
                STANDARD
                    .decode(text)
                    .map(Bytes::from)
                    .map_err(|error| error.to_string())?,
            ),
        };
        if body.is_some() && matches!(method, Method::GET | Method::HEAD) {
            return Err(format!("a request with method {method} has no body"));
        }
        let redirect = match argument.redirect.as_str() {
            "follow" => Redirect::Follow,
            "manual" => Redirect::Manual,
            "error" => Redirect::Error,
            other => {
                return Err(format!(
                    "redirect is \"follow\", \"manual\" or \"error\", not \"{other}\""
                ));
            }
        };
        Ok(Self {
            url,
            redirect,
            timeout: argument
                .timeout
                .and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok()),
            method,
            headers: headers(argument.headers)?,
            body: body.unwrap_or_default(),
        })
    }

    pub(super) fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let mut plain = self.url.clone();
        plain.set_fragment(None);
        let uri: Uri = plain
            .as_str()
            .parse()
            .map_err(|_| format!("{plain} is not an address"))?;
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// As the Fetch standard has it: the method and the body may not survive, secrets do not change their origin.
    pub(super) fn go_on(&mut self, status: StatusCode, next: Url) {
        let becomes_get = match status {
            StatusCode::SEE_OTHER => !matches!(self.method, Method::GET | Method::HEAD),
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            for name in OF_BODY {
                self.headers.remove(name);
            }
        }
        if self.url.origin() != next.origin() {
            for name in [AUTHORIZATION, COOKIE] {
                self.headers.remove(name);
            }
        }
        self.url = next;
    }
}

fn headers(given: Vec<(String, String)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("{name:?} is not the name of a header"))?;
        if RESERVED.contains(&parsed) {
            return Err(format!("the header {parsed} cannot be set"));
        }
        let value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of the header {parsed} has characters that no header has"))?;
        headers.append(parsed, value);
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(AGENT));
    Ok(headers)
}
