//! Secrets: made here, shown once, stored only as a hash, compared in constant time.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Error;
use crate::id::random_text;

/// Symbols of a secret: 200 bits. So much randomness needs no slow hash: there is nothing to guess.
const LENGTH: usize = 40;

/// Longest secret that is hashed, in bytes; anything longer is not one of ours.
const LENGTH_LIMIT: usize = 256;

/// A secret in clear. Never printed, never stored.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn generate() -> Result<Self, Error> {
        random_text(LENGTH).map(Self)
    }

    /// What a client presented; `None` when it is empty or too long to be a secret.
    pub fn presented(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= LENGTH_LIMIT).then(|| Self(text.to_owned()))
    }

    /// The secret itself, for the one time that it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be stored.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// SHA-256 of a secret.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// True when `secret` is the one that was hashed. Takes the same time wherever they differ.
    pub fn matches(&self, secret: &Secret) -> bool {
        bool::from(self.0.ct_eq(&secret.hash().0))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_matches_its_hash() {
        let secret = Secret::generate().expect("random bytes");
        assert_eq!(secret.expose().len(), LENGTH);
        assert!(secret.hash().matches(&secret));
        assert!(!secret.hash().matches(&Secret::generate().expect("random bytes")));
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        let hash = Secret::presented("abc").expect("not empty").hash();
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn neither_form_is_printed() {
        let secret = Secret::presented("hunter2").expect("not empty");
        assert!(!format!("{secret:?} {:?}", secret.hash()).contains("hunter2"));
    }

    #[test]
    fn nothing_and_far_too_much_are_no_secrets() {
        assert!(Secret::presented("").is_none());
        assert!(Secret::presented(&"x".repeat(LENGTH_LIMIT + 1)).is_none());
    }
}
