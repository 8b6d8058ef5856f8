//! The text of a write key as clients send it.

use crate::KeyId;
use crate::secret::Secret;

/// A write key as presented: well formed, not yet looked up.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Which key it claims to be.
    pub id: KeyId,
    /// The secret, when one was given.
    pub secret: Option<Secret>,
}

impl Presented {
    /// Reads `<id>`, `<id>:<secret>`, and either with one colon more at the end: a client that takes the whole
    /// key as the user name of Basic authentication adds that with an empty password.
    ///
    /// `None` when it cannot be one of our keys, so that nothing needs to be looked up.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix(':').unwrap_or(text);
        let (id, secret) = match text.split_once(':') {
            Some((id, secret)) => (id, Some(Secret::presented(secret)?)),
            None => (text, None),
        };
        Some(Self {
            id: id.parse().ok()?,
            secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, Option<String>)> {
        let presented = Presented::parse(text)?;
        Some((
            presented.id.to_string(),
            presented.secret.map(|secret| secret.expose().to_owned()),
        ))
    }

    #[test]
    fn every_form_that_clients_send_is_read() {
        let id = || "wk_abc".to_owned();
        assert_eq!(parts("wk_abc"), Some((id(), None)));
        assert_eq!(parts("wk_abc:"), Some((id(), None)));
        assert_eq!(parts("wk_abc:s3cret"), Some((id(), Some("s3cret".to_owned()))));
        assert_eq!(parts("wk_abc:s3cret:"), Some((id(), Some("s3cret".to_owned()))));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_a_lookup() {
        for text in [
            "",
            ":",
            "::",
            "abc",
            "ws_abc:s",
            "wk_abc::",
            "WK_ABC",
            "wk_a b",
            &format!("wk_abc:{}", "x".repeat(300)),
        ] {
            assert!(parts(text).is_none(), "{text}");
        }
    }
}
