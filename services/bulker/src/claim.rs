//! One assignment of a partition, as those who write for it see it: whether it still holds, and how it stands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_kafka::group::{Lost, Ownership, Partition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::write::Fault;

/// Leave to write for a partition.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The partition.
    pub partition: u32,
    /// Cancelled when the partition is being taken away.
    pub revoked: CancellationToken,
    /// How it gets on.
    pub standing: Arc<Standing>,
    ownership: Ownership,
}

/// How a partition gets on.
#[derive(Debug)]
pub struct Standing {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settled: u64,
    moved: Instant,
    waits_for: Option<String>,
}

impl Claim {
    /// The claim of an assignment that is settled up to `settled`.
    pub fn new(partition: &Partition, settled: u64) -> Self {
        let state = State {
            settled,
            moved: Instant::now(),
            waits_for: None,
        };
        Self {
            partition: partition.number,
            revoked: partition.revoked.clone(),
            standing: Arc::new(Standing {
                state: Mutex::new(state),
            }),
            ownership: partition.ownership(),
        }
    }

    /// To be asked right before something is written.
    ///
    /// # Errors
    /// [`Error::Revoked`], [`Error::Lapsed`].
    pub fn check(&self) -> Result<(), Error> {
        self.ownership.check().map_err(|lost| match lost {
            Lost::Revoked => Error::Revoked,
            Lost::Lapsed => Error::Lapsed,
        })
    }

    /// Logs what went wrong and is tried again, and remembers it as what the partition waits for. Nothing is lost by
    /// it.
    pub fn trouble(&self, error: &impl Fault, what: &'static str, whose: impl std::fmt::Display) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(kind = error.kind(), error = %error, source, %whose, "{what}");
        self.waits_for(format!("{what} ({whose}): {error}"));
    }

    /// Remembers what the partition waits for. No values of rows: it is shown to whoever asks for readiness.
    pub fn waits_for(&self, what: String) {
        self.standing.state().waits_for = Some(what);
    }
}

impl Standing {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything below `settled` is settled.
    pub fn settled(&self, settled: u64) {
        let mut state = self.state();
        state.settled = settled;
        state.moved = Instant::now();
        state.waits_for = None;
    }

    /// Part of a chunk is where it belongs.
    pub fn moved(&self) {
        self.state().moved = Instant::now();
    }

    /// The settled offset.
    pub fn offset(&self) -> u64 {
        self.state().settled
    }

    /// Why it stands still, if nothing of it has moved for `longest`.
    pub fn stalled(&self, longest: Duration) -> Option<String> {
        let state = self.state();
        let still = state.moved.elapsed();
        (still >= longest).then(|| {
            let why = state.waits_for.as_deref().unwrap_or("no failure was seen");
            format!("nothing moved for {} s; {why}", still.as_secs())
        })
    }

    /// There is nothing to do: standing still is no fault from now on.
    pub fn idle(&self) {
        let mut state = self.state();
        state.moved = Instant::now();
        state.waits_for = None;
    }
}
