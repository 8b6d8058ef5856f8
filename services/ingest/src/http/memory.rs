//! The memory that all bodies share.

use std::sync::Arc;
use std::time::Duration;

use millrace_event::IngestCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::pipeline::Refusal;

/// Memory is given out in pieces of this size.
const PIECE: usize = 1024;

/// What is left of the memory for bodies.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    pieces: Arc<Semaphore>,
    /// How long a body waits before its client is asked to come again.
    wait: Duration,
}

/// The share of one body; given back when dropped.
#[derive(Debug)]
pub(super) struct Grant {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(bytes: usize, wait: Duration) -> Self {
        Self {
            pieces: Arc::new(Semaphore::new(bytes / PIECE)),
            wait,
        }
    }

    pub(super) fn grant(&self) -> Grant {
        Grant {
            budget: self.clone(),
            held: None,
        }
    }
}

impl Grant {
    /// Makes the share large enough for `bytes`. A body is charged for what has arrived of it, never for what
    /// it announces, so that connections that send nothing take no room from others.
    ///
    /// # Errors
    /// When others hold the memory for too long.
    pub(super) async fn cover(&mut self, bytes: usize) -> Result<(), Refusal> {
        let exhausted = || {
            Refusal::new(
                IngestCode::RateLimited,
                "too many bodies at a time, send it again",
            )
        };
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(PIECE).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| exhausted())?;
        let more = Arc::clone(&self.budget.pieces).acquire_many_owned(missing);
        let more = timeout(self.budget.wait, more).await;
        let Ok(Ok(more)) = more else {
            return Err(exhausted());
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}
