//! Message ids as they are kept: short, of one length, and one behind the other, so that a call has one argument for all
//! of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Characters of one; the scripts know it too.
const LENGTH: usize = 22;

/// A message id as it is kept: the first 128 bits of its SHA-256, as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; LENGTH]);

impl Fingerprint {
    /// Of that message id.
    pub fn of(message_id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(message_id.as_bytes()).into();
        let (half, _) = digest.split_at(16);
        let mut text = [0; LENGTH];
        let written = URL_SAFE_NO_PAD.encode_slice(half, &mut text);
        debug_assert_eq!(written, Ok(LENGTH), "16 bytes are 22 characters");
        Self(text)
    }

    fn text(&self) -> &str {
        // Base64 is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// What names a message: its id, or the fingerprint of it where that is known already.
pub trait MessageId {
    /// How it is kept.
    fn fingerprint(&self) -> Fingerprint;
}

impl<T: AsRef<str> + ?Sized> MessageId for T {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.as_ref())
    }
}

impl MessageId for Fingerprint {
    fn fingerprint(&self) -> Fingerprint {
        *self
    }
}

/// Many of them, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprints(String);

impl Fingerprints {
    pub(crate) fn with_capacity(ids: usize) -> Self {
        Self(String::with_capacity(ids * LENGTH))
    }

    pub(crate) fn push(&mut self, fingerprint: Fingerprint) {
        self.0.push_str(fingerprint.text());
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len() / LENGTH
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the scripts take them.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// All of them, so many at a time.
    pub(super) fn chunks(&self, most: usize) -> impl Iterator<Item = Self> {
        let chunks = self.0.as_bytes().chunks(most * LENGTH);
        // Base64 is ASCII: there is no character to be cut in two.
        chunks.map(|chunk| Self(String::from_utf8_lossy(chunk).into_owned()))
    }
}

impl<M: MessageId> FromIterator<M> for Fingerprints {
    fn from_iter<I: IntoIterator<Item = M>>(ids: I) -> Self {
        let ids = ids.into_iter();
        let mut all = Self::with_capacity(ids.size_hint().0);
        ids.for_each(|id| all.push(id.fingerprint()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_short_whatever_the_client_sends() {
        let one = Fingerprints::from_iter(["abc"]);
        assert_eq!(one.text(), "ungWv48Bz-pBQUDeXa4iIw");
        let long = Fingerprints::from_iter(["x".repeat(100_000)]);
        assert_eq!((long.text().len(), long.len()), (LENGTH, 1));
    }

    #[test]
    fn many_are_cut_between_ids() {
        let all: Fingerprints = (0..5).map(|n| n.to_string()).collect();
        let chunks: Vec<_> = all.chunks(2).collect();
        assert_eq!(
            chunks.iter().map(Fingerprints::len).collect::<Vec<_>>(),
            [2, 2, 1]
        );
        let mut again = Fingerprints::default();
        chunks.iter().for_each(|chunk| again.append(chunk));
        assert_eq!(again, all);
        assert_eq!(Fingerprints::default().chunks(2).count(), 0);
    }
}
