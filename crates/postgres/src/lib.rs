//! Addresses of PostgreSQL servers: what one says, TLS included.
//!
//! `sslmode` is `disable`, which is also what none says, or `require` or `verify-full`, which are the same here: a
//! connection is either open or proven. The server's certificate must name its host and be signed by an authority of
//! `sslrootcert`, a PEM file, or without that by one that the system knows. What falls back to an open connection when
//! somebody stands between (`prefer`, `allow`) is refused.
//!
//! It opens no connection itself, and nothing that it says holds a password.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
pub use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

const MODE: &str = "sslmode";
const AUTHORITIES: &str = "sslrootcert";

/// What an address says.
#[derive(Clone)]
pub struct Address {
    /// Everything but TLS.
    pub options: Config,
    /// What connections are made with; without TLS it is not asked.
    pub tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_proven = self.options.get_ssl_mode() == SslMode::Require;
        f.debug_struct("Address")
            .field("tls", &is_proven)
            .finish_non_exhaustive()
    }
}

/// Why an address cannot be used; it holds nothing of it but names of options and files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(String);

impl Address {
    /// Reads `postgres://user:password@host:port/database?…` or the key-value form, and the file of authorities that it
    /// names. `sslmode=verify-full` and `sslrootcert` are of the first form alone.
    ///
    /// # Errors
    /// An option is not known or has a value that it cannot have; the authorities cannot be read.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let (rest, asked) = take_tls(text);
        // The parser's message names the option that is wrong, never its value.
        let mut options: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = chain(&error);
            InvalidAddress(format!(
                "{cause}; it looks like postgres://user:password@host:port/database"
            ))
        })?;
        let is_proven = match asked.mode.as_deref() {
            None => options.get_ssl_mode() == SslMode::Require,
            Some("disable") => false,
            Some("require" | "verify-full") => true,
            Some(other) => {
                return Err(InvalidAddress(format!(
                    "`{MODE}` is `disable`, `require` or `verify-full`, not `{other}`: a connection is either open or proven"
                )));
            }
        };
        if !is_proven && asked.authorities.is_some() {
            return Err(InvalidAddress(format!(
                "`{AUTHORITIES}` is of use with `{MODE}=verify-full` only"
            )));
        }
        let (mode, roots) = match is_proven {
            false => (SslMode::Disable, RootCertStore::empty()),
            true => (SslMode::Require, authorities(asked.authorities.as_deref())?),
        };
        options.ssl_mode(mode);
        let tls = MakeRustlsConnect::new(client(roots)?);
        Ok(Self { options, tls })
    }
}

/// Whether a connection was not made because the server's certificate proves nothing to us.
pub fn is_distrusted(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(one) = cause {
        if is_of_certificate(one) {
            return true;
        }
        // An error of input and output has what it was made of beside its source.
        let inner = one
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| is_of_certificate(inner)) {
            return true;
        }
        cause = one.source();
    }
    false
}

fn is_of_certificate(error: &(dyn StdError + 'static)) -> bool {
    matches!(
        error.downcast_ref(),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// What an address says of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    mode: Option<String>,
    authorities: Option<String>,
}

/// An address without what it says of TLS, and that.
fn take_tls(text: &str) -> (String, Asked) {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let Some((address, query)) = text.split_once('?').filter(|_| is_url) else {
        return (text.to_owned(), Asked::default());
    };
    let mut asked = Asked::default();
    let mut kept = Vec::new();
    for pair in query.split('&') {
        // As in the rest of such an address a plus is a plus.
        let decoded = pair.replace('+', "%2B");
        let decoded = form_urlencoded::parse(decoded.as_bytes()).next();
        let (name, value) = decoded.map_or_else(Default::default, |(name, value)| (name, value.into_owned()));
        match name.as_ref() {
            MODE => asked.mode = Some(value),
            AUTHORITIES => asked.authorities = Some(value),
            _ => kept.push(pair),
        }
    }
    (format!("{address}?{}", kept.join("&")), asked)
}

/// The authorities of a PEM file, or those that the system knows.
fn authorities(file: Option<&str>) -> Result<RootCertStore, InvalidAddress> {
    let mut roots = RootCertStore::empty();
    let invalid = |reason: String| {
        let what = file.map_or("the system's authorities", |_| AUTHORITIES);
        let named = file.map(|file| format!(" {file}")).unwrap_or_default();
        InvalidAddress(format!("{what}{named}: {reason}"))
    };
    match file {
        Some(file) => {
            let read = CertificateDer::pem_file_iter(Path::new(file));
            for certificate in read.map_err(|error| invalid(error.to_string()))? {
                let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| invalid(error.to_string()))?;
            }
        }
        None => {
            // A system's store may hold some that nobody can read.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

fn client(roots: RootCertStore) -> Result<ClientConfig, InvalidAddress> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| InvalidAddress(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// An error with everything behind it, for a message that has no source.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_tls_is_taken_out_and_the_rest_stays_as_it_is() {
        let (rest, asked) = take_tls(
            "postgres://u:p%40%3F@h:1/d?sslmode=verify-full&application_name=a%26b+c&sslrootcert=/etc/a%20b+c.pem",
        );
        assert_eq!(rest, "postgres://u:p%40%3F@h:1/d?application_name=a%26b+c");
        assert_eq!(asked.mode.as_deref(), Some("verify-full"));
        assert_eq!(asked.authorities.as_deref(), Some("/etc/a b+c.pem"));
        let plain = "host=h user=u password='a?sslmode=b'";
        assert_eq!(take_tls(plain), (plain.to_owned(), Asked::default()));
    }

    #[test]
    fn a_connection_is_open_unless_it_is_to_be_proven() {
        for (text, mode) in [
            ("postgres://h/d", SslMode::Disable),
            ("postgres://h/d?sslmode=disable", SslMode::Disable),
            ("host=h", SslMode::Disable),
        ] {
            let address = Address::parse(text).expect("an address");
            assert_eq!(address.options.get_ssl_mode(), mode, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_in_words_without_the_password() {
        for (text, words) in [
            ("postgres://u:hidden@h/d?sslmode=prefer", "not `prefer`"),
            ("postgres://u:hidden@h/d?sslmode=verify-ca", "not `verify-ca`"),
            (
                "postgres://u:hidden@h/d?sslrootcert=/ca.pem",
                "sslmode=verify-full",
            ),
            (
                "postgres://u:hidden@h/d?sslmode=require&sslrootcert=/nowhere/ca.pem",
                "sslrootcert /nowhere/ca.pem: ",
            ),
            (
                "postgres://u:hidden@h/d?sslmode=require&sslrootcert=/dev/null",
                "no certificate",
            ),
            ("postgres://u:hidden@h/d?colour=red", "colour"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
