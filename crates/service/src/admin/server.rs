//! A port for the admin routes alone.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{Admin, plain};
use crate::listen::{BindError, Limits, Listener};

/// Probes and scrapers are few, and a connection ends after its lifetime whatever it does, so that 64 idle ones do
/// not shut probes out.
const LIMITS: Limits = Limits {
    connections: 64,
    header_timeout: Duration::from_secs(5),
    lifetime: Some(Duration::from_secs(60)),
};

/// The admin routes on a port of their own.
#[derive(Debug)]
pub struct Server {
    admin: Admin,
    listener: Listener,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(admin: Admin, address: SocketAddr) -> Result<Self, BindError> {
        let listener = Listener::bind(address, LIMITS).await?;
        Ok(Self { admin, listener })
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
        let admin = self.admin;
        let answer = move |request: http::Request<hyper::body::Incoming>, _| {
            let found = admin.respond(request.method(), request.uri().path());
            std::future::ready(found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found")))
        };
        self.listener.serve(answer, CancellationToken::new()).await;
    }
}
