//! The calls of one worker while it runs a batch: carried out on the runtime, answered by the seat's own thread.
//!
//! Bounded by [`MOST`] at once; a worker that makes more has lost its footing. A call ends with its batch, with its
//! cancellation and with its worker; what it had begun outside may have taken effect.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use millrace_event::frame::{Call, MAX_ARGUMENT, MAX_CALLS, Reply};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Chain;
use crate::outside::Outside;

/// Calls of one worker at once.
const MOST: usize = MAX_CALLS * millrace_event::frame::MAX_FLIGHT;

/// Why a worker's call is not one.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("a call cannot be read: {0}")]
    Unreadable(serde_json::Error),
    #[error("the argument of a call is too large")]
    TooLarge,
    #[error("more calls at once than a worker makes")]
    TooMany,
}

/// What the seat's thread waits for.
pub(super) struct Ready {
    /// The worker said something.
    pub(super) socket: bool,
}

/// The calls of one worker.
#[derive(Debug)]
pub(super) struct Calls {
    outside: Outside,
    running: HashMap<u64, DropGuard>,
    finish: mpsc::Sender<(u64, Reply)>,
    finished: mpsc::Receiver<(u64, Reply)>,
    /// Rings when a call is finished.
    bell: Arc<OwnedFd>,
}

impl Calls {
    pub(super) fn new(outside: Outside) -> std::io::Result<Self> {
        let (finish, finished) = mpsc::channel(MOST);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            outside,
            running: HashMap::new(),
            finish,
            finished,
            bell: Arc::new(bell),
        })
    }

    /// Begins to carry out a call.
    pub(super) fn begin(&mut self, id: u64, payload: &[u8], chain: &Chain) -> Result<(), CallError> {
        let call: Call = serde_json::from_slice(payload).map_err(CallError::Unreadable)?;
        if call.argument.get().len() > MAX_ARGUMENT {
            return Err(CallError::TooLarge);
        }
        if self.running.len() >= MOST {
            return Err(CallError::TooMany);
        }
        let (token, finish, bell) = (
            CancellationToken::new(),
            self.finish.clone(),
            Arc::clone(&self.bell),
        );
        let carried = self.outside.carry(Arc::clone(chain.reach()), call);
        let cancelled = token.clone();
        self.running.insert(id, token.drop_guard());
        self.outside.spawn(async move {
            if let Some(reply) = cancelled.run_until_cancelled(carried).await
                && finish.send((id, reply)).await.is_ok()
            {
                // One that cannot be rung has rung 2^64 times already; the seat looks now and then anyway.
                if let Err(error) = rustix::io::write(&bell, &1_u64.to_ne_bytes()) {
                    tracing::debug!(%error, "a finished call did not wake its seat");
                }
            }
        });
        Ok(())
    }

    /// Nobody waits for this call any more.
    pub(super) fn cancel(&mut self, id: u64) {
        self.running.remove(&id);
    }

    /// Nobody waits for any call any more.
    pub(super) fn abandon(&mut self) {
        self.running.clear();
    }

    /// A reply that somebody waits for, if one is there.
    pub(super) fn finished(&mut self) -> Option<(u64, Reply)> {
        while let Ok((id, reply)) = self.finished.try_recv() {
            if self.running.remove(&id).is_some() {
                return Some((id, reply));
            }
        }
        None
    }

    /// Blocks until the worker says something, a call is finished, or `longest` has passed.
    pub(super) fn wait(&self, socket: &impl AsFd, longest: Duration) -> std::io::Result<Ready> {
        let mut watched = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(&self.bell, PollFlags::IN),
        ];
        let longest = Timespec::try_from(longest).unwrap_or_default();
        match poll(&mut watched, Some(&longest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [said, rang] = watched.map(|one| !one.revents().is_empty());
        if rang && let Err(error) = rustix::io::read(&self.bell, &mut [0_u8; 8]) {
            tracing::debug!(%error, "a bell cannot be silenced");
        }
        Ok(Ready { socket: said })
    }
}
