//! A disk that is full or fails when it is told to.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::*;
use crate::disk::SegmentFile;

/// A disk with so much room left, whose calls fail on demand.
#[derive(Clone, Debug)]
pub(super) struct Failing(Arc<Faults>);

#[derive(Debug)]
struct Faults {
    room: AtomicI64,
    sync: AtomicBool,
    cut: AtomicBool,
    /// Whether files are made with room.
    roomy: bool,
}

#[derive(Debug)]
struct FailingFile(Arc<dyn SegmentFile>, Arc<Faults>);

impl Failing {
    /// Files end behind their last record.
    pub(super) fn new() -> Self {
        Self::with_room(false)
    }

    pub(super) fn with_room(roomy: bool) -> Self {
        let (sync, cut) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Faults {
            room: AtomicI64::new(i64::MAX),
            sync,
            cut,
            roomy,
        }))
    }

    /// So many bytes fit from now on; the write that goes beyond is carried out in part.
    pub(super) fn leave(&self, bytes: i64) {
        self.0.room.store(bytes, Ordering::SeqCst);
    }

    pub(super) fn fail_syncs(&self, fail: bool) {
        self.0.sync.store(fail, Ordering::SeqCst);
    }

    /// Whether files can be made shorter.
    pub(super) fn fail_cuts(&self, fail: bool) {
        self.0.cut.store(fail, Ordering::SeqCst);
    }

    pub(super) fn is_sound(&self) -> bool {
        let Faults { room, sync, cut, .. } = &*self.0;
        let fails = sync.load(Ordering::SeqCst) || cut.load(Ordering::SeqCst);
        !fails && room.load(Ordering::SeqCst) > 1 << 40
    }

    pub(super) fn mend(&self) {
        self.leave(i64::MAX);
        self.fail_syncs(false);
        self.fail_cuts(false);
    }
}

impl Disk for Failing {
    fn create(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = RealDisk.create(path, if self.0.roomy { room } else { 0 })?;
        Ok(Arc::new(FailingFile(file, Arc::clone(&self.0))))
    }

    fn reuse(&self, path: &Path, room: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = RealDisk.reuse(path, if self.0.roomy { room } else { 0 })?;
        if !self.0.roomy {
            file.set_len(0)?;
        }
        Ok(Arc::new(FailingFile(file, Arc::clone(&self.0))))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

impl SegmentFile for FailingFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.1.room.load(Ordering::SeqCst);
        let length = i64::try_from(bytes.len()).unwrap();
        if length <= room {
            self.1.room.fetch_sub(length, Ordering::SeqCst);
            return self.0.write_all_at(bytes, offset);
        }
        // Full in the middle of a record: what fits is written.
        self.0
            .write_all_at(&bytes[..usize::try_from(room).unwrap()], offset)?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        match self.1.cut.load(Ordering::SeqCst) {
            true => Err(io::Error::other("no")),
            false => self.0.set_len(length),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.1.sync.load(Ordering::SeqCst) {
            true => Err(io::Error::other("lost")),
            false => self.0.sync(),
        }
    }
}

pub(super) fn open_on(dir: &Path, sync: Sync, disk: &Failing) -> Journal {
    Journal::open_on(&config(dir, sync), Arc::new(SystemClock), Arc::new(disk.clone()))
        .unwrap()
        .0
}
