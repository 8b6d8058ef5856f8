//! TLS in front of a server, with a certificate for `localhost` and `127.0.0.1` that an authority of our own signed.
//!
//! Nobody else knows that authority, and nobody can sign with it: its key was thrown away. `openssl req -x509` and
//! `openssl x509 -req -CA` made the files in `certificates/`; they are valid for a hundred years.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::server::Front;

/// The certificate of the authority, a PEM file.
pub fn authority() -> PathBuf {
    file("ca.pem")
}

/// The certificate of another authority, which signed nothing: a PEM file.
pub fn stranger() -> PathBuf {
    file("stranger.pem")
}

/// The directory with `server.pem` and `server.key`.
pub(crate) fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certificates")
}

/// TLS as a [`Front`].
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// With the certificate that [`authority`] signed.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn new() -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(file("server.pem")).context("server.pem")?;
        let key = PrivateKeyDer::from_pem_file(file("server.key")).context("server.key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl Front for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn open(&self, stream: TcpStream) -> Option<Self::Stream> {
        self.0.accept(stream).await.ok()
    }
}

fn file(name: &str) -> PathBuf {
    certificates().join(name)
}
