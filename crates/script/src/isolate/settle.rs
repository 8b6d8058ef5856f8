//! Waiting for a promise while the isolate's event loop runs.

use std::task::Poll;
use std::time::Instant;

use deno_core::{JsRuntime, PollEventLoopOptions, v8};

use super::timers::Timers;
use crate::watchdog::now;

/// How the wait ended.
pub(super) enum Settled {
    /// It is fulfilled or rejected.
    Yes,
    /// Nothing is left that could settle it.
    Never,
    /// The deadline passed.
    TooLate,
}

/// Polls the event loop, and runs timers when they are due, until `promise` is settled, nothing is left to do, or the deadline passes.
///
/// # Cancellation
/// The promise stays as it is.
pub(super) async fn settle(
    runtime: &mut JsRuntime,
    timers: &Timers,
    promise: &v8::Global<v8::Promise>,
    deadline: Instant,
) -> Settled {
    loop {
        let left = deadline.saturating_duration_since(now());
        // Due timers run with the event's own deadline over them: an endless one is stopped by the watchdog.
        let due = timers.next_due();
        let wait = due.map_or(left, |due| left.min(due.saturating_duration_since(now())));
        match tokio::time::timeout(wait, polled(runtime, promise)).await {
            Ok(Settled::Never) if due.is_some() => match due {
                Some(due) if due < deadline => tokio::time::sleep_until(due.into()).await,
                _ => {
                    tokio::time::sleep_until(deadline.into()).await;
                    return Settled::TooLate;
                }
            },
            Ok(settled) => return settled,
            Err(_) => {}
        }
        if now() >= deadline {
            return Settled::TooLate;
        }
        while let Some(callback) = timers.take_due(now()) {
            fire(runtime, &callback);
            if now() >= deadline {
                return Settled::TooLate;
            }
        }
    }
}

/// Calls a timer's function; what it throws is nobody's.
fn fire(runtime: &mut JsRuntime, callback: &v8::Global<v8::Function>) {
    deno_core::scope!(scope, runtime);
    v8::tc_scope!(let scope, scope);
    let callback = v8::Local::new(scope, callback);
    let this = v8::undefined(scope).into();
    if callback.call(scope, this, &[]).is_none() {
        tracing::debug!("a timer's function threw");
    }
    scope.perform_microtask_checkpoint();
}

async fn polled(runtime: &mut JsRuntime, promise: &v8::Global<v8::Promise>) -> Settled {
    std::future::poll_fn(|cx| {
        if is_settled(runtime, promise) {
            return Poll::Ready(Settled::Yes);
        }
        let polled = runtime.poll_event_loop(cx, PollEventLoopOptions::default());
        if is_settled(runtime, promise) {
            return Poll::Ready(Settled::Yes);
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Settled::Never),
            // Another promise of the function was rejected, or the isolate was stopped; the deadline ends this.
            Poll::Ready(Err(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// One turn of the event loop; the text of a rejection that nobody handled.
pub(super) async fn tick(runtime: &mut JsRuntime) -> Option<String> {
    std::future::poll_fn(|cx| {
        Poll::Ready(
            match runtime.poll_event_loop(cx, PollEventLoopOptions::default()) {
                Poll::Ready(Err(error)) => Some(error.to_string()),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            },
        )
    })
    .await
}

fn is_settled(runtime: &mut JsRuntime, promise: &v8::Global<v8::Promise>) -> bool {
    deno_core::scope!(scope, runtime);
    v8::Local::new(scope, promise).state() != v8::PromiseState::Pending
}
