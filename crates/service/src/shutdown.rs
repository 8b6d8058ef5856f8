//! From the signal to the exit.
//!
//! The first SIGTERM or SIGINT asks: the token is cancelled and the service drains. The second one, or
//! the deadline, ends the process whatever it is doing; everything Millrace promises survives that.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGXFSZ.
const FILE_LIMIT: i32 = 25;

/// Asks a service to end, and says how long it may take.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    deadline: Duration,
}

impl Shutdown {
    /// A shutdown nobody has asked for yet, leaving `deadline` between request and end.
    pub fn new(deadline: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            deadline,
        }
    }

    /// The token that is cancelled when the process is asked to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// How long the process may take from the request to its end.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Asks for the shutdown, as a signal would.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// True once the process was asked to end.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the process is asked to end.
    ///
    /// # Cancellation
    /// Nothing is lost: the request stays visible to the next caller.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Resolves when the deadline after the request has passed.
    pub(crate) async fn overdue(&self) {
        self.token.cancelled().await;
        tokio::time::sleep(self.deadline).await;
    }

    /// Turns signals into requests until the process ends.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) async fn on_signals(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Once somebody listens, a file that may not grow any more is the error of a write, as a full disk is, and
        // not the end of the process.
        drop(signal(SignalKind::from_raw(FILE_LIMIT))?);
        loop {
            let (name, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            if self.token.is_cancelled() {
                tracing::warn!(signal = name, "second signal, ending at once");
                std::process::exit(code);
            }
            let deadline_seconds = self.deadline.as_secs_f64();
            tracing::info!(signal = name, deadline_seconds, "shutdown requested");
            self.token.cancel();
        }
    }
}
