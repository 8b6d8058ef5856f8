//! The public port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Config, Handler};

/// Most bytes of a request's head.
const HEAD: usize = 64 << 10;

/// The port cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A bound port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    connections: usize,
    header_timeout: Duration,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError { address, source })?;
        Ok(Self {
            listener,
            connections: config.connections,
            header_timeout: config.header_timeout,
        })
    }

    /// Where it listens; differs from the configuration where that says port 0.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `drain`; then takes no connection more, answers the requests that have begun, and returns
    /// when the last connection is closed.
    ///
    /// # Cancellation
    /// Connections go on in tasks of their own.
    pub(crate) async fn serve(self, handler: Handler, drain: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.connections));
        let tracker = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => break,
                accepted = accept(&self.listener, &permits) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let connection = connection(stream, peer, handler.clone(), self.header_timeout, drain.clone());
            tracker.spawn(async move {
                connection.await;
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
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            // Out of file descriptors, mostly: the next one may work after a moment.
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    handler: Handler,
    header_timeout: Duration,
    drain: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
