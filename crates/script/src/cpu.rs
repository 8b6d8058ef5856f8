//! The processor time of a thread, read from another one.
#![expect(
    unsafe_code,
    reason = "the system call has no safe binding; this module is all there is of it"
)]

use std::time::Duration;

/// The clock of one thread. When the thread is gone it says nothing any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadClock(#[cfg(target_os = "linux")] libc::clockid_t);

impl ThreadClock {
    /// The clock of the thread that asks; `None` where the system has none.
    #[cfg(target_os = "linux")]
    pub(crate) fn own() -> Option<Self> {
        let mut id: libc::clockid_t = 0;
        // SAFETY: the handle is that of the calling thread, which lives; `id` is valid for the write.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        (failed == 0).then_some(Self(id))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn own() -> Option<Self> {
        None
    }

    /// The processor time that the thread has used.
    #[cfg(target_os = "linux")]
    pub(crate) fn read(self) -> Option<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is valid for the write; a clock that is no more is an error and nothing else.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        if failed != 0 {
            return None;
        }
        Some(Duration::new(
            u64::try_from(time.tv_sec).ok()?,
            u32::try_from(time.tv_nsec).ok()?,
        ))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn read(self) -> Option<Duration> {
        None
    }
}
