//! The way an insert takes: one connection, opened before anybody decides that it may be written, never replaced.
//!
//! Between a look at who owns a partition and the block's arrival a process may be stopped for any time. Two things
//! keep such a block out. A line is one connection: where it breaks the request ends, and nothing connects anew. And it
//! carries a lease: a session that the server itself forgets some seconds after it was last used, and the insert says
//! that it must still be there. What is sent later than that is refused by the server, also where a long keep-alive
//! left the connection open.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use clickhouse::Client;
use http::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use crate::client::Warehouse;
use crate::error::Error;

/// The server counts whole seconds and looks once a second: a lease may last this much longer.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// Most lines that wait for their next insert: as many inserts at once keep theirs.
const MOST_IDLE: usize = 64;

/// How long a request on a line waits for the answer before it to be cleared away.
const CLEARING: Duration = Duration::from_millis(250);

/// One open connection with its lease. Dropping it closes it.
#[derive(Debug)]
pub struct Line {
    pub(crate) client: Client,
    pub(crate) lease: String,
    used: Instant,
}

/// Lines between two inserts.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Vec<Line>>);

impl Warehouse {
    /// An open line: an idle one, or a new one.
    ///
    /// # Errors
    /// The server cannot be reached or refuses; nothing was sent of any insert.
    ///
    /// # Cancellation
    /// Leaves nothing behind but a session that the server forgets.
    pub async fn line(&self) -> Result<Line, Error> {
        if let Some(line) = self.idle_line() {
            return Ok(line);
        }
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(None)
            .pool_max_idle_per_host(1)
            .retry_canceled_requests(false)
            .build(Once::new(self.config.connector()));
        let client = self.config.authorized(Client::with_http_client(http));
        let lease = format!("millrace-{}", uuid::Uuid::new_v4().simple());
        let opened = client
            .query("SELECT 1")
            .with_setting("session_id", lease.as_str())
            .with_setting("session_timeout", self.lease().as_secs().to_string())
            .fetch_all::<u8>();
        // All of the answer is read: a connection with a rest in it would be closed, and none follows it.
        self.bounded(opened).await.map(|_: Vec<u8>| ())?;
        Ok(Line {
            client,
            lease,
            used: Instant::now(),
        })
    }

    /// The longest that an insert can be late: what a process that was stopped sends, once it goes on, more than this
    /// after it was stopped is refused.
    pub fn latest_arrival(&self) -> Duration {
        self.lease() + LEASE_MARGIN
    }

    /// The line's insert was applied: the next one may take it.
    pub(crate) fn keep(&self, mut line: Line) {
        line.used = Instant::now();
        let mut lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MOST_IDLE {
            lines.push(line);
        }
    }

    fn idle_line(&self) -> Option<Line> {
        // One that has lain for longer has hardly a lease any more.
        let longest = self.lease() / 2;
        let mut lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.used.elapsed() < longest);
        lines.pop()
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.config.lease.as_secs().max(1))
    }
}

/// Connects once, and refuses ever after.
#[derive(Clone, Debug)]
struct Once {
    connector: HttpConnector,
    used: Arc<AtomicBool>,
}

impl Once {
    fn new(connector: HttpConnector) -> Self {
        Self {
            connector,
            used: Arc::new(AtomicBool::new(false)),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting = dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send;

impl Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<Connecting>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if self.used.swap(true, Ordering::SeqCst) {
            // Whoever asks for a connection waits for the one there is as well: it may be about to be free.
            return Box::pin(async {
                tokio::time::sleep(CLEARING).await;
                Err(io::Error::new(io::ErrorKind::NotConnected, "the connection of this line is gone").into())
            });
        }
        let connecting = self.connector.call(uri);
        Box::pin(async { Ok(connecting.await?) })
    }
}
