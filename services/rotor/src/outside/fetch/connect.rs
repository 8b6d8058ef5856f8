//! Connections to addresses that were looked at: names are resolved here, and what is connected to is one of the
//! addresses that passed, never the name a second time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::address::is_public;

/// A connection that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept for one origin.
const IDLE_CONNECTIONS: usize = 8;
/// Most bytes of an answer's head.
const HEAD: usize = 64 << 10;

/// An address that must not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an address of the Internet at large")]
pub(super) struct NotPublic(pub(super) IpAddr);

/// What may be connected to.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Let in although they are not public.
    exceptions: Arc<[IpAddr]>,
}

impl Guard {
    pub(super) fn new(exceptions: &[IpAddr]) -> Self {
        Self {
            exceptions: exceptions.into(),
        }
    }

    pub(super) fn check(&self, address: IpAddr) -> Result<(), NotPublic> {
        if is_public(address) || self.exceptions.contains(&address) {
            return Ok(());
        }
        Err(NotPublic(address))
    }
}

/// A name resolves only as a whole: with one address that is not public among several it does not.
impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                guard.check(address.ip()).map_err(io::Error::other)?;
            }
            Ok(found.into_iter())
        })
    }
}

/// Sends requests over connections that it keeps for a while.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>;

/// The certificates of a PEM file.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        // A bundle may hold what is too old to be understood; the others count.
        if roots.add(certificate).is_err() {
            tracing::debug!(path = %path.display(), "a certificate cannot be used");
        }
    }
    if roots.is_empty() {
        return Err(unusable(&"no certificate in it"));
    }
    Ok(roots)
}

pub(super) fn client(
    guard: Guard,
    roots: RootCertStore,
    timeout: Duration,
) -> Result<HttpClient, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(guard);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_max_buf_size(HEAD)
        .build(connector))
}
