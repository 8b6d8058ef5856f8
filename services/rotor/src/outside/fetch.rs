//! `ctx.fetch`: requests of functions to servers that their workspace named, and to no address inside.
//!
//! Every address on the way, redirects included, must be an origin of the workspace and resolve to public addresses
//! only; the connection goes to an address that was checked. Time, redirects and the size of the answer are bounded.

mod address;
mod connect;
mod request;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use millrace_event::frame::Reply;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use url::{Host, Url};

use super::Reach;
use connect::{Guard, HttpClient, NotPublic};
use request::{Redirect, Wanted};

/// The operation that is carried out here.
pub(crate) const OPERATION: &str = "fetch";

/// What requests may cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// For one call, redirects and the answer's body included.
    pub timeout: Duration,
    /// The largest body of an answer, in bytes.
    pub response_bytes: usize,
    /// Redirects that are followed.
    pub redirects: usize,
    /// PEM file with the certificates that servers are known by.
    pub certificates: PathBuf,
    /// One more such file, whose certificates count beside the others.
    pub ca_file: Option<PathBuf>,
    /// Addresses that are reached although they are not public. Each is a hole for every workspace that may name a host
    /// which resolves to it.
    pub unsafe_reachable: Vec<IpAddr>,
}

/// Sends requests.
#[derive(Clone)]
pub struct Fetch {
    config: Config,
    guard: Guard,
    client: HttpClient,
    /// Why no server can prove who it is.
    unproven: Option<String>,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer; functions read it.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Request(String),
    #[error("the workspace does not allow requests to {0}: `millctl fetch allow` does")]
    NotAllowed(String),
    #[error("{0} does not lead to the Internet at large")]
    NotPublic(String),
    #[error("{host}: {cause}")]
    Connection { host: String, cause: String },
    #[error("{0} answered with a redirect, and redirect is \"error\"")]
    Redirected(String),
    #[error("redirected more than {0} times")]
    TooManyRedirects(usize),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("took longer than {0} ms")]
    TooLong(u128),
}

/// As `outside.js` reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: u16,
    status_text: String,
    url: String,
    redirected: bool,
    headers: Vec<(String, String)>,
    body: String,
}

impl Fetch {
    /// Reads the certificates; without any requests with `https://` fail and say why.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: Config) -> Result<Self, rustls::Error> {
        let guard = Guard::new(&config.unsafe_reachable);
        let mut roots = rustls::RootCertStore::empty();
        let mut unproven = None;
        for file in [Some(&config.certificates), config.ca_file.as_ref()]
            .into_iter()
            .flatten()
        {
            match connect::roots(file) {
                Ok(found) => roots.extend(found.roots),
                Err(error) => {
                    tracing::warn!(
                        error,
                        "no certificates for functions that fetch from https servers"
                    );
                    unproven = Some(error);
                }
            }
        }
        // Those that are known count, whatever the other file holds.
        let unproven = unproven.filter(|_| roots.is_empty());
        let client = connect::client(guard.clone(), roots, config.timeout)?;
        Ok(Self {
            config,
            guard,
            client,
            unproven,
        })
    }

    pub(super) async fn carry(&self, reach: &Reach, argument: &RawValue) -> Reply {
        let wanted = match Wanted::read(argument) {
            Ok(wanted) => wanted,
            Err(error) => return Reply::Failed(error),
        };
        let longest = wanted
            .timeout
            .map_or(self.config.timeout, |own| own.min(self.config.timeout));
        let answered = match tokio::time::timeout(longest, self.follow(reach, wanted)).await {
            Ok(answered) => answered,
            Err(_) => Err(Failed::TooLong(longest.as_millis())),
        };
        match answered.map(|answer| to_raw_value(&answer)) {
            Ok(Ok(answer)) => Reply::Done(answer),
            Ok(Err(error)) => Reply::Failed(error.to_string()),
            Err(error) => Reply::Failed(format!("fetch failed: {error}")),
        }
    }

    async fn follow(&self, reach: &Reach, mut wanted: Wanted) -> Result<Answer, Failed> {
        for hop in 0..=self.config.redirects {
            self.check(reach, &wanted.url)?;
            let request = wanted.request().map_err(Failed::Request)?;
            let response = self.client.request(request).await;
            let response = response.map_err(|error| failed(&wanted.url, &error))?;
            let location = redirected_to(&response, &wanted.url);
            match (location, wanted.redirect) {
                (None, _) | (_, Redirect::Manual) => {
                    return self.answer(response, &wanted.url, hop > 0).await;
                }
                (Some(_), Redirect::Error) => return Err(Failed::Redirected(host(&wanted.url))),
                (Some(next), Redirect::Follow) => {
                    let next = next.map_err(Failed::Request)?;
                    wanted.go_on(response.status(), next);
                }
            }
        }
        Err(Failed::TooManyRedirects(self.config.redirects))
    }

    /// Whether a request may go there at all. Names are checked again by what they resolve to.
    fn check(&self, reach: &Reach, url: &Url) -> Result<(), Failed> {
        if !reach.origins.iter().any(|origin| origin.allows(url)) {
            return Err(Failed::NotAllowed(url.origin().ascii_serialization()));
        }
        if let (true, Some(why)) = (url.scheme() == "https", &self.unproven) {
            tracing::debug!(why, "no certificates");
            return Err(Failed::Request(
                "the rotor has no certificates to know a server by".into(),
            ));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        literal.map_or(Ok(()), |address| {
            self.guard
                .check(address)
                .map_err(|_| Failed::NotPublic(host(url)))
        })
    }

    async fn answer(
        &self,
        response: Response<Incoming>,
        url: &Url,
        redirected: bool,
    ) -> Result<Answer, Failed> {
        let (head, body) = response.into_parts();
        let most = self.config.response_bytes;
        let declared = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: u64| length > most as u64) {
            return Err(Failed::TooLarge(most));
        }
        let body = read(body, most, url).await?;
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let mut shown = url.clone();
        shown.set_fragment(None);
        Ok(Answer {
            status: head.status.as_u16(),
            status_text: head.status.canonical_reason().unwrap_or_default().to_owned(),
            url: shown.into(),
            redirected,
            headers: headers.collect(),
            body: STANDARD.encode(body),
        })
    }
}

/// The whole body, as long as it is no larger than `most`.
async fn read(mut body: Incoming, most: usize, url: &Url) -> Result<Bytes, Failed> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(url, &error))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if whole.len() + chunk.len() > most {
            return Err(Failed::TooLarge(most));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Where an answer sends the request on, if it does.
fn redirected_to(response: &Response<Incoming>, from: &Url) -> Option<Result<Url, String>> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(LOCATION).filter(|_| redirects)?;
    let parsed = location.to_str().ok().and_then(|text| from.join(text).ok());
    Some(parsed.ok_or_else(|| format!("{} redirects to what is no address", host(from))))
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The innermost cause says most.
fn failed(url: &Url, error: &(dyn std::error::Error + 'static)) -> Failed {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
        if cause.is::<NotPublic>() {
            return Failed::NotPublic(host(url));
        }
    }
    // An error of the system that wraps ours hides it from `source`.
    let wrapped = cause
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    if wrapped.is_some_and(|inner| inner.is::<NotPublic>()) {
        return Failed::NotPublic(host(url));
    }
    Failed::Connection {
        host: host(url),
        cause: cause.to_string(),
    }
}
