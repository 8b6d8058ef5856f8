//! Values that may be used but never shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands in the place of a secret wherever it would be printed.
pub const REDACTED: &str = "[redacted]";

/// A secret. `Debug`, `Display` and `Serialize` give [`REDACTED`], or nothing when it is empty, so an
/// operator sees whether it was set.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself, for the one place that sends it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<str>> Secret<T> {
    fn shown(&self) -> &'static str {
        if self.0.as_ref().is_empty() { "" } else { REDACTED }
    }
}

impl<T: AsRef<str>> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown())
    }
}

impl<T: AsRef<str>> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl<T: AsRef<str>> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// The address of a part that may carry a password: `scheme://user:password@host/…`, with or without
/// `?password=…`. Shown without it.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// Takes the address as it is; the client that uses it judges it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address with its password, for the client that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address without its password.
    pub fn redacted(&self) -> String {
        redact_query(&redact_authority(&self.0))
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceUrl({})", self.redacted())
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for ServiceUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

fn redact_authority(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user_info, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    match user_info.split_once(':') {
        Some((user, password)) if !password.is_empty() => {
            format!("{scheme}://{user}:{REDACTED}@{host}{path}")
        }
        _ => url.to_owned(),
    }
}

/// Redacts `password=…`, both as a query parameter and in PostgreSQL's key-value form.
fn redact_query(url: &str) -> String {
    let mut shown = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once("password=") {
        let end = after.find(['&', ' ', '#']).unwrap_or(after.len());
        let (secret, tail) = after.split_at(end);
        shown.push_str(before);
        shown.push_str("password=");
        shown.push_str(if secret.is_empty() { "" } else { REDACTED });
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(String::from("hunter2"));
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(format!("{}", Secret::new(String::new())), "");
    }

    #[test]
    fn a_password_is_cut_out_of_every_form_of_url() {
        for (url, shown) in [
            (
                "postgres://u:p%40ss@db:5432/m",
                "postgres://u:[redacted]@db:5432/m",
            ),
            ("postgres://u:a@b@db/m?x=1", "postgres://u:[redacted]@db/m?x=1"),
            ("redis://:pw@cache:6379/0", "redis://:[redacted]@cache:6379/0"),
            ("redis://cache:6379", "redis://cache:6379"),
            (
                "postgres://u@db/m?password=pw&sslmode=require",
                "postgres://u@db/m?password=[redacted]&sslmode=require",
            ),
            (
                "host=db user=u password=pw dbname=m",
                "host=db user=u password=[redacted] dbname=m",
            ),
            ("http://h/a:b@c", "http://h/a:b@c"),
        ] {
            assert_eq!(ServiceUrl::new(url).to_string(), shown);
        }
    }
}
