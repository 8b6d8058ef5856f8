//! Files as the journal needs them: written at an offset, synced, replaced atomically.
//!
//! The trait exists so that a test can be the disk that is full, or whose sync fails.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What may fail while the journal grows.
pub(super) trait Disk: Send + Sync + Debug + 'static {
    /// Makes a new file that only the writer writes, where it can with `room` bytes that are zero: a sync of bytes that
    /// are written into them has no new length to make durable, which is half of what it costs.
    fn create(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>>;
    /// Opens a file that was a segment, with `room` bytes as far as that can be had. What is in it stays: writing over
    /// it costs less than writing into new memory.
    fn reuse(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A segment that grows.
pub(super) trait SegmentFile: Send + Sync + Debug {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// The disk of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(with_room(file, room)))
    }

    fn reuse(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(with_room(file, room)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

impl SegmentFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn with_room(file: File, room: u64) -> File {
    if let Err(error) = make_room(&file, room) {
        tracing::debug!(%error, "a segment has no room made for it");
    }
    file
}

#[cfg(target_os = "linux")]
fn make_room(file: &File, room: u64) -> io::Result<()> {
    match room {
        0 => Ok(()),
        room => Ok(rustix::fs::fallocate(
            file,
            rustix::fs::FallocateFlags::empty(),
            0,
            room,
        )?),
    }
}

#[cfg(not(target_os = "linux"))]
fn make_room(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file so that after a crash it holds either its old or its new content, whole. Blocks on the disk.
///
/// # Errors
/// When the disk refuses; the old content is still there then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    write_beside(path, content)?.sync_all()?;
    fs::rename(beside(path), path)?;
    sync_dir(dir)
}

/// As [`replace`], for what only saves work: whole after the death of the process, and after a loss of power perhaps
/// old or not readable. Waits for no disk.
pub(super) fn replace_lightly(path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(path, content)?;
    fs::rename(beside(path), path)
}

fn beside(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    temporary.into()
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside(path))?;
    file.write_all(content)?;
    Ok(file)
}
