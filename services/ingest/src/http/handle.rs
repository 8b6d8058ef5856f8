//! One request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body::Body;
use millrace_event::{IngestCode, Timestamp};
use millrace_service::{Admin, Clock, Traceparent};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::answer::{self, Answer};
use super::body::Memory;
use super::log::{Entry, Outcome};
use super::peer::Proxies;
use super::redact::Redaction;
use super::route::{self, Endpoint, Route, Routes};
use super::settings::{self, Public};
use super::{Config, cors, credential, pixel, query};
use crate::metrics::{Metrics, Status};
use crate::pipeline::{Accepted, Pipeline, Refusal, Shape, Submission, Trail};
use crate::usage::{self, Usage};

/// Longest value of a request header that goes with an event.
const HEADER_LIMIT: usize = 1024;
/// Longest key that is given back in settings.
const KEY_LIMIT: usize = 128;
/// How clients say how often they tried before.
const ATTEMPTS: [&str; 2] = ["x-retry-count", "rsa-retry-attempt"];

/// Answers requests.
#[derive(Debug)]
pub(crate) struct Handler {
    pipeline: Pipeline,
    admin: Admin,
    usage: Usage,
    memory: Memory,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Shared {
    routes: Routes,
    proxies: Proxies,
    redaction: Redaction,
    public: Option<Public>,
    /// Stands for the route of what has none.
    nowhere: Arc<str>,
    ids: RequestIds,
}

/// Names requests: what no other process has, and a count. A random name for each would be a system call for each.
#[derive(Debug)]
struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let (process, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            process,
            next: AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut name = String::with_capacity(4 + 32);
        name.push_str("req_");
        for byte in self.process.to_be_bytes().into_iter().chain(number.to_be_bytes()) {
            for digit in [byte >> 4, byte & 0xf] {
                name.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        name
    }
}

/// What is learned about a request while it is served.
#[derive(Debug, Default)]
struct Exchange {
    request_id: String,
    trail: Trail,
    /// Kept only where payloads are logged.
    body: Option<Bytes>,
}

impl Handler {
    /// Bodies that have not arrived when `closing` is cancelled get 503.
    ///
    /// # Errors
    /// When two routes contradict each other.
    pub(crate) fn new(
        pipeline: Pipeline,
        admin: Admin,
        usage: Usage,
        config: &Config,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        closing: CancellationToken,
    ) -> Result<Self, matchit::InsertError> {
        let shared = Shared {
            routes: Routes::new()?,
            // What is no network was refused with the configuration; nobody is trusted instead.
            proxies: Proxies::new(&config.trusted_proxies).unwrap_or_default(),
            redaction: Redaction::new(config.log_payload_on_error, &config.redact),
            public: config.public_url.as_deref().and_then(Public::of),
            nowhere: "/*".into(),
            ids: RequestIds::new(),
        };
        Ok(Self {
            pipeline,
            admin,
            usage,
            memory: Memory::new(config, closing),
            shared: Arc::new(shared),
            clock,
            metrics,
        })
    }

    /// Answers one request. No request makes it fail.
    ///
    /// # Cancellation
    /// Events that were on their way to the journal are taken all the same.
    pub(super) async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let path = route::plain(parts.uri.path());
        if let Some(answer) = self.admin.respond(&parts.method, &path) {
            return answer;
        }
        let _open = self.metrics.open();
        let started = self.clock.instant();
        let mut exchange = Exchange {
            request_id: self.shared.ids.next(),
            ..Exchange::default()
        };
        let (endpoint, outcome, mut answer) = match self.shared.routes.find(&path) {
            Some((route, key)) => {
                let served = self.serve(route, key, &parts, body, peer, &mut exchange);
                let (outcome, answer) = Box::pin(served).await;
                (&route.path, outcome, answer)
            }
            None => {
                let refusal = Refusal::new(IngestCode::NotFound, "there is nothing at this path");
                let answer = answer::refused(&refusal, 0, &exchange.request_id);
                (&self.shared.nowhere, Outcome::Refused(refusal), answer)
            }
        };
        cors::open(&parts.headers, &mut answer);
        let elapsed = self.clock.instant().saturating_duration_since(started);
        let status = answer.status();
        if let Outcome::Refused(refusal) = &outcome {
            self.metrics.refuse(refusal.code, 1);
        }
        self.metrics
            .request_seconds
            .get_or_create(&Status {
                status: status.as_u16(),
            })
            .observe(elapsed.as_secs_f64());
        let entry = Entry {
            endpoint,
            path: &path,
            request_id: &exchange.request_id,
            status: status.as_u16(),
            elapsed,
            trail: &exchange.trail,
            body: exchange.body.as_ref(),
        };
        entry.write(&outcome, &self.shared.redaction);
        self.usage.note(usage::Request {
            request_id: exchange.request_id,
            key: exchange.trail.key,
            endpoint: Arc::clone(endpoint),
            method: parts.method,
            status,
            elapsed,
            at: self.now(),
        });
        answer
    }

    async fn serve<B>(
        &self,
        route: &Route,
        key: Option<&str>,
        parts: &Parts,
        body: B,
        peer: SocketAddr,
        exchange: &mut Exchange,
    ) -> (Outcome, Answer)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let method = &parts.method;
        let reads = method == Method::GET || method == Method::HEAD;
        match route.endpoint {
            _ if method == Method::OPTIONS => (Outcome::Answered, cors::preflight(&parts.headers)),
            Endpoint::Events { shape, import } if method == Method::POST => {
                let outcome = self
                    .traced(route, parts, exchange, async |exchange, traceparent| {
                        let (body, _memory) = self.memory.read(&parts.headers, body).await?;
                        self.submit(shape, import, parts, body, peer, traceparent, exchange)
                            .await
                    })
                    .await;
                let answer = self.answer(&outcome, &parts.headers, exchange);
                (outcome, answer)
            }
            Endpoint::Pixel(kind) if method == Method::GET => {
                let event = pixel::event(parts.uri.query().unwrap_or_default());
                let shape = Shape::Single(kind);
                let outcome = self
                    .traced(route, parts, exchange, async |exchange, traceparent| {
                        self.submit(shape, false, parts, event, peer, traceparent, exchange)
                            .await
                    })
                    .await;
                (outcome, answer::pixel(&exchange.request_id))
            }
            Endpoint::Sink if method == Method::POST => {
                let outcome = match Box::pin(self.memory.read(&parts.headers, body)).await {
                    Ok(_) => Outcome::Answered,
                    Err(refusal) => Outcome::Refused(refusal),
                };
                let answer = self.answer(&outcome, &parts.headers, exchange);
                (outcome, answer)
            }
            Endpoint::Pixel(_) if reads => (Outcome::Answered, answer::pixel(&exchange.request_id)),
            Endpoint::Settings if reads => {
                let key = query::decoded(key.unwrap_or_default());
                let settings = settings::segment(shown(&key), self.shared.public.as_ref());
                let answer = answer::settings(&settings, &exchange.request_id);
                (Outcome::Answered, answer)
            }
            Endpoint::Source if reads => {
                let key = credential::presented(&parts.headers, &parts.uri).unwrap_or_default();
                let answer = answer::settings(&settings::rudder(shown(&key)), &exchange.request_id);
                (Outcome::Answered, answer)
            }
            endpoint => {
                let methods = endpoint.methods();
                let message = format!("this path takes {methods}");
                let refusal = Refusal::new(IngestCode::MethodNotAllowed, message);
                let answer = answer::not_allowed(&refusal, methods, &exchange.request_id);
                (Outcome::Refused(refusal), answer)
            }
        }
    }

    /// Does the work in a span of the trace that the client began, if it did. Of level DEBUG: an exporter gets it
    /// all the same, and without one it costs nothing.
    async fn traced<F>(&self, route: &Route, parts: &Parts, exchange: &mut Exchange, work: F) -> Outcome
    where
        F: AsyncFnOnce(&mut Exchange, Option<Traceparent>) -> Result<Accepted, Refusal>,
    {
        let span = tracing::debug_span!(
            "request",
            otel.kind = "server",
            path = %route.path,
            request_id = %exchange.request_id,
            http.response.status_code = tracing::field::Empty,
        );
        let incoming = parts
            .headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(incoming) = &incoming {
            Traceparent::adopt(incoming, &span);
        }
        let traceparent = Traceparent::of(&span).or(incoming);
        // Large, and moved by everything that wraps it: it is put where it stays first.
        let work = Box::pin(work(exchange, traceparent));
        let result = work.instrument(span.clone()).await;
        let (status, outcome) = match result {
            Ok(accepted) => (http::StatusCode::OK, Outcome::Taken(accepted)),
            Err(refusal) => (answer::status(refusal.code), Outcome::Refused(refusal)),
        };
        Span::record(&span, "http.response.status_code", status.as_u16());
        outcome
    }

    #[expect(clippy::too_many_arguments, reason = "a request has that many sides")]
    async fn submit(
        &self,
        shape: Shape,
        import: bool,
        parts: &Parts,
        body: Bytes,
        peer: SocketAddr,
        traceparent: Option<Traceparent>,
        exchange: &mut Exchange,
    ) -> Result<Accepted, Refusal> {
        if self.shared.redaction.is_on() {
            exchange.body = Some(body.clone());
        }
        let header = |name: &str| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            (value.len() <= HEADER_LIMIT).then(|| value.to_owned())
        };
        let carried = self.pipeline.limits.headers.iter();
        let submission = Submission {
            shape,
            credential: credential::presented(&parts.headers, &parts.uri),
            body,
            received_at: self.now(),
            ip: Some(self.shared.proxies.client(peer.ip(), &parts.headers)),
            origin: header(ORIGIN.as_str()),
            import,
            headers: carried
                .filter_map(|name| header(name).map(|value| (name.clone(), value)))
                .collect(),
            traceparent: traceparent.map(|traceparent| traceparent.to_string()),
        };
        self.pipeline.submit(submission, &mut exchange.trail).await
    }

    fn answer(&self, outcome: &Outcome, headers: &HeaderMap, exchange: &Exchange) -> Answer {
        match outcome {
            Outcome::Taken(accepted) => answer::accepted(accepted, &exchange.request_id),
            Outcome::Refused(refusal) => answer::refused(refusal, attempts(headers), &exchange.request_id),
            Outcome::Answered => answer::done(&exchange.request_id),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::clamped_from_millis(self.clock.now().as_millisecond())
    }
}

/// The part of a key that may be shown, its id.
fn shown(key: &str) -> &str {
    let id = key.split(':').next().unwrap_or_default();
    if id.len() <= KEY_LIMIT { id } else { "" }
}

fn attempts(headers: &HeaderMap) -> u32 {
    ATTEMPTS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}
