//! The rotor's port: the functions API beside the admin routes.
//!
//! Owns connections, bodies and the bearer token; what a request means stands in [`functions`].

mod functions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use millrace_service::Admin;
use millrace_service::listen::{BindError, Limits, Listener};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use functions::{Access, Functions};

/// Probes, scrapers and people are few; a connection lives longer than the longest run.
const LIMITS: Limits = Limits {
    connections: 64,
    header_timeout: Duration::from_secs(5),
    lifetime: Some(Duration::from_secs(120)),
};
/// Largest body of a request, in bytes.
const BODY_BYTES: usize = 8 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A bound port.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    routes: Arc<Routes>,
}

#[derive(Debug)]
struct Routes {
    admin: Admin,
    functions: Functions,
}

/// Why a request gets no result.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    success: bool,
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            success: false,
            status,
            code,
            message: message.into(),
            line: None,
            column: None,
        }
    }
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(address: SocketAddr, admin: Admin, functions: Functions) -> Result<Self, BindError> {
        let listener = Listener::bind(address, LIMITS).await?;
        let routes = Arc::new(Routes { admin, functions });
        Ok(Self { listener, routes })
    }

    /// Where it listens; differs from what was asked for when that was port 0.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.address()
    }

    /// Serves until dropped, drains included: probes must see the process until its end.
    ///
    /// # Cancellation
    /// Open connections go on until their lifetime or the end of the runtime.
    pub async fn serve(self) {
        let routes = self.routes;
        let answer = move |request, _| {
            let routes = Arc::clone(&routes);
            async move { routes.answer(request).await }
        };
        self.listener.serve(answer, CancellationToken::new()).await;
    }
}

impl Routes {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(answer) = self.admin.respond(request.method(), request.uri().path()) {
            return answer;
        }
        match self.routed(request).await {
            Ok(body) => json(StatusCode::OK, body),
            Err((refusal, allow)) => {
                let body = serde_json::to_vec(&refusal).unwrap_or_default();
                let mut response = json(refusal.status, body.into());
                if let Some(allow) = allow {
                    response
                        .headers_mut()
                        .insert(ALLOW, HeaderValue::from_static(allow));
                }
                response
            }
        }
    }

    async fn routed(&self, request: Request<Incoming>) -> Result<Bytes, (Refusal, Option<&'static str>)> {
        let (path, allow) = match request.uri().path() {
            path @ "/v1/functions" => (path, "GET"),
            path @ "/v1/functions/run" => (path, "POST"),
            _ => {
                let refusal = Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path");
                return Err((refusal, None));
            }
        };
        if request.method().as_str() != allow {
            let text = format!("{path} has {allow} only");
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text);
            return Err((refusal, Some(allow)));
        }
        let answered = async {
            self.authorized(&request).await?;
            if request.method() == Method::GET {
                return self.functions.list();
            }
            self.functions.run(&body(request).await?).await
        };
        answered.await.map_err(|refusal| (refusal, None))
    }

    async fn authorized(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let presented = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        if self.functions.may_use(presented).await? {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "invalid_token",
            "a service token is needed: Authorization: Bearer",
        ))
    }
}

/// The whole body, within its limits.
async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let reading = Limited::new(request.into_body(), BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("a body has {BODY_BYTES} bytes at most");
            Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                text,
            ))
        }
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            "the body broke off",
        )),
        Err(_) => {
            let text = "the body did not arrive in time";
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", text))
        }
    }
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
