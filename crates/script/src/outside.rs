//! Calls that functions make through the process that owns this one.
//!
//! A call goes out through the channel of the batch that runs and waits here for its reply, which whoever reads the
//! socket hands in. Bounded: [`MAX_CALLS`] calls of one event wait at once. A call whose event is over is
//! forgotten; a reply that comes all the same finds nobody and is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_event::frame::{MAX_CALLS, Reply};
use tokio::sync::mpsc;

/// Where the replies of a chain's calls arrive: never more than it has calls waiting.
pub(crate) type Arrivals = mpsc::Receiver<(u64, Reply)>;

/// The calls of every chain in this process that wait for a reply.
#[derive(Clone, Debug, Default)]
pub struct Replies(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<(u64, Reply)>>>,
}

impl Replies {
    /// Hands a reply to the function that waits for it. Never blocks; a reply that nobody waits for is dropped.
    pub fn deliver(&self, id: u64, reply: Reply) {
        let waiting = self.waiting().remove(&id);
        if let Some(waiting) = waiting {
            // There is room for each call that waits; a chain that is gone hears nothing.
            drop(waiting.try_send((id, reply)));
        }
    }

    /// How many calls wait for a reply.
    pub fn outstanding(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<(u64, Reply)>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One chain's end.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    replies: Replies,
    arrive: mpsc::Sender<(u64, Reply)>,
}

impl Outside {
    pub(crate) fn new(replies: Replies) -> (Self, Arrivals) {
        let (arrive, arrivals) = mpsc::channel(MAX_CALLS);
        (Self { replies, arrive }, arrivals)
    }

    /// An id that no call of this process had.
    pub(crate) fn expect(&self) -> u64 {
        let id = self.replies.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.replies.waiting().insert(id, self.arrive.clone());
        id
    }

    /// Forgets a call; says whether it still waited.
    pub(crate) fn forget(&self, id: u64) -> bool {
        self.replies.waiting().remove(&id).is_some()
    }
}
