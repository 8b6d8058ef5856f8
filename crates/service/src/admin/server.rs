//! A small server for the admin routes alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Admin, plain};

/// Probes and scrapers are few; more connections than this wait in the backlog.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this long, whatever it does, so that 64 idle ones do not shut probes out.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the admin port cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The admin routes on a port of their own.
#[derive(Debug)]
pub struct Server {
    admin: Admin,
    listener: TcpListener,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(admin: Admin, address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { admin, listener })
    }

    /// Where it listens; differs from what was asked for when that was port 0.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped, drains included: probes must see the process until its end.
    ///
    /// # Cancellation
    /// Open connections go on until their timeout or the end of the runtime.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: the next one may work after a moment.
                    tracing::warn!(%error, "an admin connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admin = self.admin.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let found = admin.respond(request.method(), request.uri().path());
                    let answer: Response<_> =
                        found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found"));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let ended = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "admin connection ended");
                }
                drop(permit);
            });
        }
    }
}
