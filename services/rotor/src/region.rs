//! Memory that the rotor and one of its workers share: what is large goes from one to the other through it, and not through
//! the socket, where the kernel would allocate, fill and empty pages of its own for every batch.
//!
//! The region has a half for each direction, [`HALF`] bytes. One side writes a half and then says over the socket how much
//! lies there; it writes there again only after the answer. Nobody holds a reference into the region: bytes are copied in
//! and out, so that a side which changes what it gave, in the middle of being read, gives a payload that makes no sense, and
//! is met like any other. The file behind it cannot grow or shrink (it is sealed), so that no access can fail.
#![expect(
    unsafe_code,
    reason = "memory that another process writes has no safe view; the two copies here are all there is of it"
)]

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

/// What goes in one direction at once, in bytes (2 MiB). Only what was used becomes memory.
pub const HALF: usize = 2 << 20;

/// Why a region's size can be relied on.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A side's view of the region.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    /// Where the half begins that this side writes.
    ours: usize,
    /// Where the other's half begins.
    theirs: usize,
}

impl Region {
    /// A new region, as the parent sees it, and the file that a worker [opens](Self::open) it by.
    ///
    /// # Errors
    /// When the system gives no memory that can be shared.
    pub fn create() -> std::io::Result<(Self, OwnedFd)> {
        let file = memfd_create(
            "millrace-batches",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&file, 2 * HALF as u64)?;
        fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        let region = Self {
            map: map(&file)?,
            ours: 0,
            theirs: HALF,
        };
        Ok((region, file))
    }

    /// The region that somebody else made, from the worker's side.
    ///
    /// # Errors
    /// When the file is not of the size that it must have, may change it, or cannot be mapped.
    pub fn open(file: impl AsFd) -> std::io::Result<Self> {
        let file = file.as_fd();
        let whole = u64::try_from(fstat(file)?.st_size).ok() == Some(2 * HALF as u64);
        if !whole || !fcntl_get_seals(file)?.contains(SEALS) {
            return Err(Error::new(ErrorKind::InvalidInput, "not a region for batches"));
        }
        Ok(Self {
            map: map(file)?,
            ours: HALF,
            theirs: 0,
        })
    }

    /// Writes `parts`, one behind the other, where the other side looks; false where they do not fit.
    pub fn put(&self, parts: &[&[u8]]) -> bool {
        let length = parts
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        if length > HALF {
            return false;
        }
        let mut at = self.ours;
        for part in parts {
            // SAFETY: the mapping has 2 * HALF bytes and is writable; `ours` is 0 or HALF and all parts together have HALF
            // bytes at most. Source and destination do not overlap: nothing in this process refers to the mapping.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), self.map.as_mut_ptr().add(at), part.len())
            };
            at += part.len();
        }
        true
    }

    /// The first `length` bytes of what the other side wrote; `None` where it cannot have written so many.
    pub fn take(&self, length: usize) -> Option<Vec<u8>> {
        if length > HALF {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        // SAFETY: the mapping has 2 * HALF bytes, `theirs` is 0 or HALF and `length` HALF at most; the vector has room for
        // `length` bytes, all of which are written before they count. That the other process may write at the same time
        // changes only which bytes are copied: they are used as bytes of a stranger, and no reference to the mapping is made.
        unsafe {
            std::ptr::copy_nonoverlapping(self.map.as_ptr().add(self.theirs), bytes.as_mut_ptr(), length);
            bytes.set_len(length);
        }
        Some(bytes)
    }
}

fn map(file: impl AsFd) -> std::io::Result<MmapRaw> {
    // A descriptor of its own, closed when it is mapped.
    let file = File::from(file.as_fd().try_clone_to_owned()?);
    MmapOptions::new().len(2 * HALF).map_raw(&file)
}
