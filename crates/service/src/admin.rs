//! `/health`, `/ready`, `/version`, `/metrics`: a handler that any server can mount, and a small server
//! for processes that have no other.
//!
//! `/health` says that the process answers. `/ready` says whether to send it traffic, and why not.

mod readiness;
mod server;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::metrics::{self, Metrics};
use crate::process::About;

pub use readiness::{Condition, Readiness};
pub use server::Server;

/// The admin routes of one process.
#[derive(Clone, Debug)]
pub struct Admin {
    about: About,
    readiness: Readiness,
    metrics: Metrics,
}

impl Admin {
    /// The routes that report on these three.
    pub fn new(about: About, readiness: Readiness, metrics: Metrics) -> Self {
        Self {
            about,
            readiness,
            metrics,
        }
    }

    /// Answers one of the four routes; `None` for every other path.
    pub fn respond(&self, method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
        let answer: fn(&Self) -> Response<Full<Bytes>> = match path {
            "/health" => Self::health,
            "/ready" => Self::ready,
            "/version" => Self::version,
            "/metrics" => Self::metrics,
            _ => return None,
        };
        if method != Method::GET && method != Method::HEAD {
            let said = serde_json::json!({
                "success": false, "code": "method_not_allowed", "message": "this path takes GET, HEAD",
            });
            let mut refused = json(StatusCode::METHOD_NOT_ALLOWED, &said);
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(refused);
        }
        Some(answer(self))
    }

    fn health(&self) -> Response<Full<Bytes>> {
        json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        json(
            if report.ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            &report,
        )
    }

    fn version(&self) -> Response<Full<Bytes>> {
        json(StatusCode::OK, &self.about)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text.into()),
            Err(error) => {
                tracing::warn!(%error, "metrics could not be encoded");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be encoded")
            }
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(status, "application/json", body.into()),
        Err(error) => {
            tracing::warn!(%error, "an admin answer could not be written");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer could not be written",
            )
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        Admin::new(
            About::new("millrace-test", "1.2.3"),
            Readiness::default(),
            Metrics::default(),
        )
    }

    #[test]
    fn only_the_four_routes_are_answered_and_only_to_readers() {
        let admin = admin();
        assert!(admin.respond(&Method::GET, "/v1/batch").is_none());
        for path in ["/health", "/version", "/metrics"] {
            assert_eq!(
                admin.respond(&Method::GET, path).unwrap().status(),
                StatusCode::OK,
                "{path}"
            );
        }
        let refused = admin.respond(&Method::POST, "/health").unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn readiness_shows_in_the_status() {
        let admin = admin();
        assert_eq!(
            admin.respond(&Method::GET, "/ready").unwrap().status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        admin.readiness.started();
        assert_eq!(
            admin.respond(&Method::GET, "/ready").unwrap().status(),
            StatusCode::OK
        );
    }
}
