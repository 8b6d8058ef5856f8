//! A receiver of spans over OTLP/gRPC, in the test's own process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

/// Most bytes of one export.
const MOST_BYTES: usize = 16 << 20;
/// In front of a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// An empty answer of gRPC: one empty message, then a status of 0.
#[derive(Debug)]
struct Empty(Vec<Frame<Bytes>>);

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }
}

/// Takes every span that is exported to it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Receiver {
    /// Listens on a port of its own until the test's runtime ends.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                let service = service_fn(move |request| export(request, Arc::clone(&received)));
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, spans })
    }

    /// The endpoint for `telemetry.otlp_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of that name, in the order in which they came.
    pub fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

async fn export(request: Request<Incoming>, spans: Arc<Mutex<Vec<Span>>>) -> Result<Response<Empty>> {
    // `Limited` is the cap that the ban on unbounded reads asks for.
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(request.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    let message = body.get(PREFIX..).context("a message of gRPC")?;
    let message = ExportTraceServiceRequest::decode(message)?;
    let scopes = message
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    let exported = scopes.flat_map(|scope| scope.spans);
    spans
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(exported);
    let trailers = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]);
    let frames = vec![
        Frame::trailers(trailers),
        Frame::data(Bytes::from_static(&[0; PREFIX])),
    ];
    Ok(Response::builder()
        .header("content-type", "application/grpc")
        .body(Empty(frames))?)
}

/// An id of a trace or a span as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
