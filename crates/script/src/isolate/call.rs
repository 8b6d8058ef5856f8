//! One function called with one event: in, through its promise where it gives one, and out again.

use std::rc::Rc;
use std::time::Instant;

use deno_core::v8;
use millrace_event::FunctionCode;
use millrace_event::frame::Fault;

use super::settle::{Settled, settle};
use super::value::{self, Accepted};
use super::{Calls, Event, Interrupted, Isolate, OnError, Parts, fault};
use crate::watchdog::{Stopped, now};

/// What one call gave.
pub(super) enum Passed<'a> {
    Events(Vec<Event<'a>>),
    /// The function failed and its `onError` says that the event goes.
    Dropped(Fault),
    /// The last function of the chain is through, and these are the event's texts.
    Texts(Vec<String>),
}

/// How a call came back.
pub(super) enum Called {
    /// The event it was given, as it is now.
    Same(v8::Global<v8::Value>),
    /// Other events; none means dropped.
    Others(Vec<v8::Global<v8::Value>>),
    /// What came of it was written at once.
    Texts(Vec<String>),
    /// The promise that the function returned, and the event that it was given.
    Waiting(v8::Global<v8::Promise>, v8::Global<v8::Value>),
}

impl Called {
    fn kept(scope: &v8::PinScope<'_, '_>, accepted: Accepted<'_>) -> Self {
        match accepted {
            Accepted::Same(value) => Self::Same(v8::Global::new(scope, value)),
            Accepted::Others(values) => {
                let keep = |value| v8::Global::new(scope, value);
                Self::Others(values.into_iter().map(keep).collect())
            }
        }
    }
}

/// A call that was made already, in a sweep.
pub(super) struct Entered {
    pub(super) called: Result<Called, Interrupted>,
    /// Whether what went wrong did so while its result was written.
    pub(super) writing: bool,
    /// When its event began.
    pub(super) began: Instant,
}

/// A call's place among those of its event.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// The function's place in the chain.
    pub(super) position: usize,
    /// Whether nothing comes behind it: no function, and no other event beside this one.
    pub(super) last: bool,
    /// When the event's time ends.
    pub(super) deadline: Instant,
    /// Whether the watchdog may be set to another function's deadline.
    pub(super) rearm: bool,
}

impl Isolate {
    /// Calls one function with one event, or goes on with a call that was `made` already.
    pub(super) async fn call<'a>(
        &mut self,
        turn: Turn,
        event: Event<'a>,
        context: &str,
        made: Option<Entered>,
        calls: &mut Calls,
    ) -> Result<Passed<'a>, Interrupted> {
        let position = turn.position;
        self.console.enter(position);
        let function = &self.parts.functions[position];
        let (on_error, keeps) = (function.on_error, function.keeps);
        // Its own clock within the event's: what one function did not use is not taken from the next.
        let deadline = match function.timeout {
            Some(timeout) => turn
                .deadline
                .min(made.as_ref().map_or_else(now, |made| made.began) + timeout),
            None => turn.deadline,
        };
        if turn.rearm || function.timeout.is_some() {
            self.watch.until(deadline);
        }
        // Mutated in place by a function that may throw halfway: keep what it was.
        let kept = match &event {
            Event::Value(_) if keeps => match self.written(position, &event) {
                Ok(text) => Some(text),
                // It may still become something that can be written; there is only nothing to go back to.
                Err(Interrupted::Fault(_)) if on_error != OnError::Pass => None,
                Err(interrupted) => return Err(interrupted),
            },
            Event::Value(_) => None,
            Event::Text(text) => (position > 0).then(|| Rc::from(*text)),
            Event::Written(text) => Some(Rc::clone(text)),
        };
        // What goes wrong while the results are written is the event's end, whatever the function says of its errors.
        let mut writing = false;
        let entered = match made {
            Some(made) => {
                writing = made.writing;
                made.called
            }
            None => self.enter(turn, &event, context, &mut writing),
        };
        let called = match entered {
            Err(interrupted) if writing => return Err(interrupted),
            Ok(Called::Waiting(promise, given)) => self.wait(position, promise, given, deadline, calls).await,
            entered => entered,
        };
        match (called, on_error) {
            (Ok(Called::Same(value)), _) => Ok(Passed::Events(vec![Event::Value(value)])),
            (Ok(Called::Others(values)), _) => {
                Ok(Passed::Events(values.into_iter().map(Event::Value).collect()))
            }
            (Ok(Called::Texts(texts)), _) => Ok(Passed::Texts(texts)),
            // It was waited for.
            (Ok(Called::Waiting(..)), _) => Err(Interrupted::Stopped),
            (Err(Interrupted::Retry(fault, after, _)), _) => Err(Interrupted::Retry(fault, after, kept)),
            (Err(Interrupted::Fault(fault)), OnError::Retry) if retriable(&fault) => {
                Err(Interrupted::Retry(fault, None, kept))
            }
            (Err(Interrupted::Fault(fault)), OnError::Drop) if retriable(&fault) => {
                Ok(Passed::Dropped(*fault))
            }
            (Err(Interrupted::Fault(fault)), OnError::Pass) if retriable(&fault) => {
                Ok(Passed::Events(vec![kept.map_or(event, Event::Written)]))
            }
            (Err(interrupted), _) => Err(interrupted),
        }
    }

    fn written(&mut self, position: usize, event: &Event<'_>) -> Result<Rc<str>, Interrupted> {
        let limit = self.limits.output_bytes;
        let texts = self.within(position, |scope, parts| {
            let texts = value::written(scope, &parts.stringify, std::slice::from_ref(event), limit)?;
            Some(texts.map_err(|(code, text)| parts.blame(position, code, text)))
        })?;
        Ok(Rc::from(texts.first().map_or("{}", String::as_str)))
    }

    /// Enters the function. Results that are there at once, of the last call of an event, are written before the isolate
    /// is left: `writing` says whether it came to that.
    fn enter(
        &mut self,
        Turn { position, last, .. }: Turn,
        event: &Event<'_>,
        context: &str,
        writing: &mut bool,
    ) -> Result<Called, Interrupted> {
        self.within(position, |scope, parts| {
            let event = value::parsed(scope, event)?;
            let this = v8::undefined(scope).into();
            let function = &parts.functions[position];
            let entry = v8::Local::new(scope, &function.entry);
            let returned = if function.takes_context {
                let context = v8::String::new(scope, context)?;
                let make_context = v8::Local::new(scope, &parts.context);
                let context = make_context.call(scope, this, &[context.into(), event])?;
                entry.call(scope, this, &[event, context])?
            } else {
                entry.call(scope, this, &[event])?
            };
            parts.judged(scope, (position, last), returned, event, writing)
        })
    }

    async fn wait(
        &mut self,
        position: usize,
        promise: v8::Global<v8::Promise>,
        event: v8::Global<v8::Value>,
        deadline: Instant,
        calls: &mut Calls,
    ) -> Result<Called, Interrupted> {
        let settled = settle(&mut self.runtime, &self.timers, calls, &promise, deadline).await;
        // A microtask that was terminated leaves its promise pending and nothing to do: asked first.
        if self.is_spent() {
            return Err(Interrupted::Stopped);
        }
        match settled {
            Settled::Yes => {}
            Settled::Never => {
                let text = "its promise can never settle";
                return Err(Interrupted::Fault(Box::new(self.parts.blame(
                    position,
                    FunctionCode::Unsettled,
                    text,
                ))));
            }
            Settled::TooLate => {
                self.stopped.set(Stopped::Wall);
                return Err(Interrupted::Stopped);
            }
        }
        self.within(position, |scope, parts| {
            let promise = v8::Local::new(scope, &promise);
            let event = v8::Local::new(scope, &event);
            let result = promise.result(scope);
            if promise.state() == v8::PromiseState::Rejected {
                return Some(Ok(Err(fault::interruption(scope, parts, position, result, None))));
            }
            let accepted = parts.accept(scope, position, result, event);
            Some(accepted.map(|accepted| Ok(Called::kept(scope, accepted))))
        })?
    }

    /// Enters the isolate. `work` gives `None` when JavaScript threw or was terminated.
    pub(super) fn within<T>(
        &mut self,
        position: usize,
        work: impl FnOnce(&mut v8::PinScope<'_, '_>, &Parts) -> Option<Result<T, Fault>>,
    ) -> Result<T, Interrupted> {
        deno_core::scope!(scope, self.runtime);
        v8::tc_scope!(let scope, scope);
        let done = work(scope, &self.parts);
        if let Some(done) = done {
            return done.map_err(|fault| Interrupted::Fault(Box::new(fault)));
        }
        if scope.has_terminated() || scope.is_execution_terminating() {
            return Err(Interrupted::Stopped);
        }
        let (exception, message) = (scope.exception(), scope.message());
        match exception {
            Some(exception) => Err(fault::interruption(
                scope,
                &self.parts,
                position,
                exception,
                message,
            )),
            // The engine gave up without an exception: a string longer than it can hold.
            None => {
                let text = "a value is larger than the engine holds";
                Err(Interrupted::Fault(Box::new(self.parts.blame(
                    position,
                    FunctionCode::OutputLimit,
                    text,
                ))))
            }
        }
    }
}

impl Parts {
    /// What a call gave. `last` says whether nothing comes behind it: then its results are written, and `writing` says whether
    /// it came to that.
    pub(super) fn judged<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        (position, last): (usize, bool),
        returned: v8::Local<'s, v8::Value>,
        event: v8::Local<'s, v8::Value>,
        writing: &mut bool,
    ) -> Option<Result<Called, Fault>> {
        // Microtasks that the call left behind are its own: they run on its clock.
        scope.perform_microtask_checkpoint();
        let result = match v8::Local::<v8::Promise>::try_from(returned) {
            Err(_) => returned,
            Ok(promise) if promise.state() == v8::PromiseState::Fulfilled => promise.result(scope),
            Ok(promise) => {
                let nothing = v8::Local::new(scope, &self.nothing);
                promise.catch(scope, nothing)?;
                let promise = v8::Global::new(scope, promise);
                return Some(Ok(Called::Waiting(promise, v8::Global::new(scope, event))));
            }
        };
        let accepted = match self.accept(scope, position, result, event) {
            Ok(accepted) => accepted,
            Err(fault) => return Some(Err(fault)),
        };
        let values = match &accepted {
            Accepted::Same(value) => std::slice::from_ref(value),
            Accepted::Others(values) => values.as_slice(),
        };
        if !last || values.is_empty() {
            return Some(Ok(Called::kept(scope, accepted)));
        }
        *writing = true;
        let texts = value::texts(scope, &self.stringify, values, self.output_bytes)?;
        Some(
            texts
                .map(Called::Texts)
                .map_err(|(code, text)| self.blame(position, code, text)),
        )
    }
}

/// What `onError` speaks about: the function's own failures, not the limits it ran into.
fn retriable(fault: &Fault) -> bool {
    matches!(
        fault.code,
        FunctionCode::Thrown | FunctionCode::InvalidReturn | FunctionCode::Unsettled
    )
}
