//! The public port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_service::listen::{BindError, Limits, Listener};
use tokio_util::sync::CancellationToken;

use super::{Config, Handler, answer};

/// How long a kept-alive connection stays open once the gateway drains: a request that was on its way is taken.
const LINGER: Duration = Duration::from_secs(1);

/// A bound port.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let limits = Limits {
            connections: config.connections,
            header_timeout: config.header_timeout,
            lifetime: None,
        };
        let listener = Listener::bind(config.listen, limits).await?;
        Ok(Self {
            listener: listener
                .answering_unfinished(answer::unfinished)
                .lingering(LINGER),
        })
    }

    /// Where it listens; differs from the configuration where that says port 0.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.address()
    }

    /// Serves until `drain`; then takes no connection more, answers the requests that have begun, and returns
    /// when the last connection is closed. Heads that are not whole when `closing` is cancelled get 503.
    ///
    /// # Cancellation
    /// Connections go on in tasks of their own.
    pub(crate) async fn serve(self, handler: Handler, drain: CancellationToken, closing: CancellationToken) {
        // What a handler holds is shared many times over; a request takes one share of all of it.
        let handler = Arc::new(handler);
        let answer = move |request, peer| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(request, peer).await }
        };
        self.listener.closing(closing).serve(answer, drain).await;
    }
}
