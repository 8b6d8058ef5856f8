//! Waiting for a promise while the isolate's event loop runs.

use std::task::Poll;
use std::time::Instant;

use deno_core::{JsRuntime, PollEventLoopOptions, v8};
use millrace_event::frame::Reply;

use super::calls::Calls;
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

/// What ended one turn of waiting.
enum Turn {
    Settled(Settled),
    Reply(u64, Reply),
    /// A timer is due, or the deadline passed.
    Time,
}

/// Polls the event loop, runs timers when they are due and hands replies to the calls that wait for them, until `promise`
/// is settled, nothing is left to do, or the deadline passes.
///
/// # Cancellation
/// The promise stays as it is.
pub(super) async fn settle(
    runtime: &mut JsRuntime,
    timers: &Timers,
    calls: &mut Calls,
    promise: &v8::Global<v8::Promise>,
    deadline: Instant,
) -> Settled {
    loop {
        let due = timers.next_due();
        let until = due.map_or(deadline, |due| due.min(deadline));
        let outstanding = due.is_some() || calls.is_waiting();
        let turn = tokio::select! {
            biased;
            (id, reply) = calls.next() => Turn::Reply(id, reply),
            settled = polled(runtime, promise, outstanding) => Turn::Settled(settled),
            () = tokio::time::sleep_until(until.into()) => Turn::Time,
        };
        match turn {
            Turn::Settled(settled) => return settled,
            // What waited for it runs on the event's own deadline, as timers do: the watchdog stops an endless one.
            Turn::Reply(id, reply) => calls.settle(runtime, id, &reply),
            Turn::Time => {}
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

/// The promise, once it is settled or nothing in the engine could settle it; where something outside of it is
/// `outstanding` that is no reason to give up.
async fn polled(runtime: &mut JsRuntime, promise: &v8::Global<v8::Promise>, outstanding: bool) -> Settled {
    std::future::poll_fn(|cx| {
        if is_settled(runtime, promise) {
            return Poll::Ready(Settled::Yes);
        }
        let polled = runtime.poll_event_loop(cx, PollEventLoopOptions::default());
        if is_settled(runtime, promise) {
            return Poll::Ready(Settled::Yes);
        }
        match polled {
            Poll::Ready(Ok(())) if outstanding => Poll::Pending,
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
