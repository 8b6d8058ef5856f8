//! Calls of the event that runs: each a promise that the reply settles. They end with their event, as timers do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;

use deno_core::{JsRuntime, v8};
use millrace_event::frame::{Call, MAX_ARGUMENT, MAX_CALLS, Reply};
use serde_json::value::RawValue;

use super::fault::duration;
use super::native::throw;
use crate::chain::Told;
use crate::outside::{Arrivals, Outside};

/// How a reply is told to `outside.js`: done, failed, unavailable.
const KINDS: [f64; 3] = [0.0, 1.0, 2.0];

/// What natives find: where calls go and who waits.
#[derive(Clone)]
struct Desk(Rc<RefCell<Inner>>);

struct Inner {
    outside: Outside,
    /// Where calls are told; nothing while no batch runs.
    tell: Option<SyncSender<Told>>,
    waiting: HashMap<u64, v8::Global<v8::PromiseResolver>>,
}

/// The calls of one chain.
pub(crate) struct Calls {
    desk: Desk,
    arrivals: Arrivals,
}

impl Calls {
    pub(crate) fn new(outside: Outside, arrivals: Arrivals) -> Self {
        let desk = Desk(Rc::new(RefCell::new(Inner {
            outside,
            tell: None,
            waiting: HashMap::new(),
        })));
        Self { desk, arrivals }
    }

    /// Calls are told here from now on.
    pub(crate) fn open(&self, tell: SyncSender<Told>) {
        self.desk.0.borrow_mut().tell = Some(tell);
    }

    /// No calls can be made any more.
    pub(crate) fn close(&mut self) {
        self.clear();
        self.desk.0.borrow_mut().tell = None;
    }

    /// Makes the calls of this chain reachable from the natives of an isolate.
    pub(super) fn attach(&self, runtime: &mut JsRuntime) {
        runtime.op_state().borrow_mut().put(self.desk.clone());
    }

    /// Whether a reply may still come.
    pub(super) fn is_waiting(&self) -> bool {
        !self.desk.0.borrow().waiting.is_empty()
    }

    /// The next reply; never, where none is waited for.
    ///
    /// # Cancellation
    /// Safe: no reply is lost.
    pub(super) async fn next(&mut self) -> (u64, Reply) {
        match self.arrivals.recv().await {
            Some(reply) => reply,
            // This end holds a sender itself, so the channel does not close.
            None => std::future::pending().await,
        }
    }

    /// Settles the promise of a call, and runs what waited for it.
    pub(super) fn settle(&self, runtime: &mut JsRuntime, id: u64, reply: &Reply) {
        let Some(resolver) = self.desk.0.borrow_mut().waiting.remove(&id) else {
            return;
        };
        let (kind, text) = match reply {
            Reply::Done(result) => (KINDS[0], result.get()),
            Reply::Failed(text) => (KINDS[1], text.as_str()),
            Reply::Unavailable(text) => (KINDS[2], text.as_str()),
        };
        deno_core::scope!(scope, runtime);
        v8::tc_scope!(let scope, scope);
        let resolver = v8::Local::new(scope, &resolver);
        // A text that the engine cannot hold leaves the promise to the deadline.
        let Some(text) = v8::String::new(scope, text) else {
            return;
        };
        let kind = v8::Number::new(scope, kind);
        let answer = v8::Array::new_with_elements(scope, &[kind.into(), text.into()]);
        if resolver.resolve(scope, answer.into()).is_none() {
            tracing::debug!("a reply found its promise gone");
        }
        scope.perform_microtask_checkpoint();
    }

    /// Forgets all: the event is over.
    pub(super) fn clear(&mut self) {
        let mut inner = self.desk.0.borrow_mut();
        let Inner {
            outside,
            tell,
            waiting,
        } = &mut *inner;
        for (id, _) in waiting.drain() {
            if outside.forget(id)
                && let Some(tell) = tell
            {
                drop(tell.send(Told::Cancel(id)));
            }
        }
        drop(inner);
        while self.arrivals.try_recv().is_ok() {}
    }
}

fn desk(scope: &v8::PinScope<'_, '_>) -> Option<Desk> {
    let state = JsRuntime::op_state_from(scope);
    let state = state.borrow();
    state.try_borrow::<Desk>().cloned()
}

/// Whether a reply to the event that runs may still come.
pub(super) fn are_waiting(scope: &v8::PinScope<'_, '_>) -> bool {
    desk(scope).is_some_and(|desk| !desk.0.borrow().waiting.is_empty())
}

/// `(operation, argument as JSON text)` → promise of `[kind, text]`
pub(super) fn call(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut returned: v8::ReturnValue<'_>,
) {
    let operation = args.get(0).to_rust_string_lossy(scope);
    let argument = args.get(1).to_rust_string_lossy(scope);
    if argument.len() > MAX_ARGUMENT {
        return throw(
            scope,
            &format!("what is handed over is larger than {MAX_ARGUMENT} bytes"),
        );
    }
    let Ok(argument) = RawValue::from_string(argument) else {
        return throw(scope, "what is handed over is no JSON");
    };
    let Some(desk) = desk(scope) else { return };
    if desk.0.borrow().waiting.len() >= MAX_CALLS {
        return throw(scope, &format!("more than {MAX_CALLS} calls wait at once"));
    }
    let Some(resolver) = v8::PromiseResolver::new(scope) else {
        return;
    };
    let kept = v8::Global::new(scope, resolver);
    let told = {
        let mut inner = desk.0.borrow_mut();
        let id = inner.outside.expect();
        let call = Call { operation, argument };
        let told = inner
            .tell
            .as_ref()
            .is_some_and(|tell| tell.send(Told::Call(id, call)).is_ok());
        if told {
            inner.waiting.insert(id, kept);
        } else {
            inner.outside.forget(id);
        }
        told
    };
    if told {
        returned.set(resolver.get_promise(scope).into());
    } else {
        throw(scope, "nothing outside can be reached now");
    }
}

/// `(duration)` → milliseconds, or nothing where it is none
pub(super) fn millis(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut returned: v8::ReturnValue<'_>,
) {
    let text = args.get(0).to_rust_string_lossy(scope);
    if let Some(duration) = duration(&text) {
        returned.set(v8::Number::new(scope, duration.as_secs_f64() * 1000.0).into());
    }
}
