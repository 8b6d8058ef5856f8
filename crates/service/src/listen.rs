//! One bounded HTTP/1 listener for every port of every process.
//!
//! It owns sockets, permits and timeouts; what a request means is its caller's.

mod heard;

use std::convert::Infallible;
use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::heard::{Heard, Progress};

/// Most bytes of a request's head.
const HEAD: usize = 64 << 10;
/// How long to wait when no connection can be accepted, which mostly means that file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client that had not asked when it was no longer waited for may take to hear so.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the system's backlog.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Duration,
    /// A connection is closed after this long, whatever it does; `None` leaves it open while it is used.
    pub lifetime: Option<Duration>,
}

/// The port cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", advice(.source))]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What can be done about it.
fn advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::AddrInUse => " (another process has the port: end that one, or set another port)",
        ErrorKind::AddrNotAvailable => {
            " (this machine has no such address; 0.0.0.0 stands for all that it has)"
        }
        ErrorKind::PermissionDenied => " (ports below 1024 need a privilege: set a higher one)",
        _ => "",
    }
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    limits: Limits,
    manner: Manner,
}

/// Why a request whose head began and did not end is not waited for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It took longer than [`Limits::header_timeout`].
    Late,
    /// The process ends: see [`Listener::closing`].
    Draining,
}

/// How connections end that are no longer wanted.
#[derive(Clone, Debug, Default)]
struct Manner {
    unfinished: Option<fn(Unfinished) -> Bytes>,
    linger: Duration,
    closing: CancellationToken,
}

impl Listener {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            listener,
            limits,
            manner: Manner::default(),
        })
    }

    /// Gives a whole answer, status line and all, for a request whose head began and did not end while it was waited for;
    /// without one the connection is closed in silence, as an idle one always is.
    #[must_use]
    pub const fn answering_unfinished(mut self, answer: fn(Unfinished) -> Bytes) -> Self {
        self.manner.unfinished = Some(answer);
        self
    }

    /// Waits for the rest of a head that has begun until `closing` is cancelled, once the port drains; without it for as
    /// long as [`Limits::header_timeout`] allows.
    #[must_use]
    pub fn closing(mut self, closing: CancellationToken) -> Self {
        self.manner.closing = closing;
        self
    }

    /// Leaves idle connections open for so long once the port drains: a request that was on its way then is answered,
    /// and the answer closes its connection. Without it an idle connection is closed at once, and who had just used it
    /// cannot know what became of the request.
    #[must_use]
    pub const fn lingering(mut self, linger: Duration) -> Self {
        self.manner.linger = linger;
        self
    }

    /// Where it listens; differs from what was asked for when that was port 0.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `drain`; then takes no connection more, answers the requests that have begun with
    /// `Connection: close`, and returns when the last connection is closed.
    ///
    /// # Cancellation
    /// Open connections go on in tasks of their own, until their limits or the end of the runtime.
    pub async fn serve<S, F, B>(self, answer: S, drain: CancellationToken)
    where
        S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let tracker = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => break,
                accepted = accept(&self.listener, &permits) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let (answer, drain, limits) = (answer.clone(), drain.clone(), self.limits);
            let manner = self.manner.clone();
            tracker.spawn(async move {
                let connection = connection(stream, peer, answer, (limits.header_timeout, manner), drain);
                match limits.lifetime {
                    // A connection that has used up its time is dropped in the middle of what it does.
                    Some(lifetime) => drop(tokio::time::timeout(lifetime, connection).await),
                    None => connection.await,
                }
                drop(permit);
            });
        }
        drop(self.listener);
        tracker.close();
        tracker.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn connection<S, F, B>(
    stream: TcpStream,
    peer: SocketAddr,
    answer: S,
    (header_timeout, manner): (Duration, Manner),
    drain: CancellationToken,
) where
    S: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let progress = Arc::new(Progress::default());
    let service = service_fn(|request| {
        progress.answers(true);
        let (answer, drain, progress) = (answer(request, peer), &drain, &progress);
        async move {
            let mut answer = answer.await;
            progress.answers(false);
            if drain.is_cancelled() {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD)
        // Answers are small: copied behind their head they leave with the cheaper call.
        .writev(false)
        .serve_connection(TokioIo::new(Heard::new(stream, Arc::clone(&progress))), service);
    let lingered = async {
        drain.cancelled().await;
        if !manner.linger.is_zero() {
            tokio::time::sleep(manner.linger).await;
        }
    };
    let ended = tokio::select! {
        // What has arrived is seen before the connection is told to end.
        biased;
        ended = &mut connection => Some(ended),
        () = lingered => {
            // Told to end while a head is on its way the connection would not wait for the rest of it.
            if !progress.head_has_begun() {
                Pin::new(&mut connection).graceful_shutdown();
            }
            tokio::select! {
                biased;
                ended = &mut connection => Some(ended),
                () = manner.closing.cancelled() => {
                    if progress.head_has_begun() {
                        None
                    } else {
                        Pin::new(&mut connection).graceful_shutdown();
                        Some((&mut connection).await)
                    }
                }
            }
        }
    };
    let unfinished = match ended {
        Some(Ok(())) => return,
        Some(Err(error)) => {
            tracing::debug!(%error, "a connection ended early");
            error.is_timeout().then_some(Unfinished::Late)
        }
        None => Some(Unfinished::Draining),
    };
    let parts = connection.into_parts();
    if let (Some(why), Some(answer)) = (unfinished, manner.unfinished)
        && !parts.read_buf.is_empty()
    {
        // Nobody is owed more than the attempt.
        let told = tell(parts.io.into_inner().into_inner(), answer(why));
        drop(tokio::time::timeout(LAST_WORD, told).await);
    }
}

/// Sends a last answer, and takes what is still on its way: a connection that is closed with bytes unread is reset, which
/// may overtake the answer.
async fn tell(mut stream: TcpStream, answer: Bytes) -> std::io::Result<()> {
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
