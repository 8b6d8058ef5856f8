//! Tasks that are polled one step at a time, in an order that chance decides.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A task of one process. Dropping it is a `kill -9`; not polling it is a SIGSTOP.
pub(crate) struct Task {
    pub(crate) process: usize,
    /// For a bulker: the assignment that it works for.
    pub(crate) epoch: u64,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

impl Task {
    pub(crate) fn new(process: usize, future: impl Future<Output = ()> + 'static) -> Self {
        Self {
            process,
            epoch: 0,
            future: Box::pin(future),
        }
    }

    pub(crate) fn of(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// One step; true when the task is over.
    pub(crate) fn step(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.future.as_mut().poll(&mut context).is_ready()
    }
}

/// Ends a step: whatever can happen to the rest of the world may happen here.
pub(crate) async fn turn() {
    let mut yielded = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut yielded, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
