//! Payloads that lie in memory which both sides share.

use super::{FrameError, Kind};

/// Where the payload of another frame is: at the beginning of what the sender may write of the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What that payload is.
    pub kind: Kind,
    /// Its length in bytes.
    pub payload_len: u32,
}

impl Shared {
    /// Its payload: the kind, then the length in 4 bytes.
    pub const fn encode(self) -> [u8; 5] {
        let [l0, l1, l2, l3] = self.payload_len.to_le_bytes();
        [self.kind as u8, l0, l1, l2, l3]
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are not of its form, or the frame it speaks of is one of those that cannot be shared: another of its own
    /// kind.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let [kind, l0, l1, l2, l3] = *payload else {
            return Err(FrameError::NotShared);
        };
        match Kind::try_from(kind)? {
            Kind::Shared => Err(FrameError::NotShared),
            kind => Ok(Self {
                kind,
                payload_len: u32::from_le_bytes([l0, l1, l2, l3]),
            }),
        }
    }
}
