//! Message ids as they are kept: short, of one length, and one behind the other, so that a call has one argument for all
//! of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Characters of one; the scripts know it too.
const LENGTH: usize = 22;

/// The first 128 bits of the SHA-256 of each id, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprints(String);

impl Fingerprints {
    pub(super) fn with_capacity(ids: usize) -> Self {
        Self(String::with_capacity(ids * LENGTH))
    }

    pub(super) fn push(&mut self, message_id: &str) {
        let digest: [u8; 32] = Sha256::digest(message_id.as_bytes()).into();
        let (half, _) = digest.split_at(16);
        URL_SAFE_NO_PAD.encode_string(half, &mut self.0);
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len() / LENGTH
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the scripts take them.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// All of them, so many at a time.
    pub(super) fn chunks(&self, most: usize) -> impl Iterator<Item = Self> {
        let chunks = self.0.as_bytes().chunks(most * LENGTH);
        // Base64 is ASCII: there is no character to be cut in two.
        chunks.map(|chunk| Self(String::from_utf8_lossy(chunk).into_owned()))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Fingerprints {
    fn from_iter<I: IntoIterator<Item = S>>(ids: I) -> Self {
        let ids = ids.into_iter();
        let mut all = Self::with_capacity(ids.size_hint().0);
        ids.for_each(|id| all.push(id.as_ref()));
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
