//! Syncs in the background, where an answer does not wait for them.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::SegmentFile;
use super::state::Shared;

/// Bytes that are written and not yet durable.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn SegmentFile>,
    pub(super) length: u64,
}

#[derive(Debug, Default)]
struct Pending {
    target: Option<Target>,
    stop: bool,
}

/// A thread that syncs what it was told, once per interval. Stops when dropped, without a last sync.
#[derive(Debug)]
pub(super) struct Syncer {
    pending: Arc<(Mutex<Pending>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn spawn(shared: Arc<Shared>, interval: Duration) -> io::Result<Self> {
        let pending = Arc::new((Mutex::new(Pending::default()), Condvar::new()));
        let waiting = Arc::clone(&pending);
        let thread = thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || run(&shared, &waiting, interval))?;
        Ok(Self {
            pending,
            thread: Some(thread),
        })
    }

    /// Replaces what is to be synced next. The writer has synced a segment itself before it names another.
    pub(super) fn mark(&self, target: Target) {
        self.pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .target = Some(target);
        self.pending.1.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.pending.0.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.pending.1.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the journal panicked");
        }
    }
}

fn run(shared: &Shared, pending: &(Mutex<Pending>, Condvar), interval: Duration) {
    let (mutex, wake) = pending;
    loop {
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = wake
            .wait_while(guard, |pending| pending.target.is_none() && !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        // More writes may join during the interval.
        let (mut guard, _) = wake
            .wait_timeout_while(guard, interval, |pending| !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if guard.stop {
            return;
        }
        let target = guard.target.take();
        drop(guard);
        if let Some(target) = target {
            shared.sync(target.segment, target.file.as_ref(), target.length);
        }
    }
}
