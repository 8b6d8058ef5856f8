//! One isolate: the functions of one chain version, loaded and called.
//!
//! Everything around a function is native: the event is parsed and written by the engine's own JSON, results are
//! told apart by their internal type, and exceptions are caught here and not in JavaScript. A function can
//! overwrite `JSON`, `Array.prototype` or `Promise.prototype.then` and only its own code will notice.
//!
//! An isolate lives on the thread that made it, within a Tokio runtime. Once it was stopped it is spent.

mod calls;
mod engine;
mod fault;
mod load;
mod native;
mod settle;
mod signature;
pub(crate) mod snapshot;
mod timers;
mod typescript;
mod value;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deno_core::{JsRuntime, v8};
use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Limits, Outcome, Record, Resume};

use crate::console::Console;
use crate::isolate::settle::{Settled, settle};
use crate::isolate::timers::Timers;
use crate::isolate::value::Accepted;
use crate::watchdog::{StopReason, Stopped, Watch, now};

pub(crate) use calls::Calls;
pub(crate) use load::is_exhausted;

/// What a function's `config` says should become of an event it threw on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnError {
    DeadLetter,
    Retry,
    Drop,
    Pass,
}

/// One function, ready to be called.
struct Function {
    /// The name of its script, which the engine gives with every place in the code.
    script: String,
    id: String,
    version: u32,
    entry: v8::Global<v8::Function>,
    on_error: OnError,
    timeout: Option<Duration>,
    /// How many events it lets be in flight.
    in_flight: usize,
    /// Whether the event must be kept as text before each call, because the function may ask to have it back:
    /// to pass it on after an error, or for another try that begins here.
    keeps: bool,
    /// Whether it can see its `ctx`, which is not made otherwise.
    takes_context: bool,
}

/// What calls need besides the runtime.
struct Parts {
    functions: Vec<Function>,
    /// JavaScript: `ctx` from a record's context text.
    context: v8::Global<v8::Function>,
    /// JavaScript: the delay a `RetryError` asks for; `undefined` for every other value.
    retry_after: v8::Global<v8::Function>,
    /// Handles the rejection of a promise that is looked at from here.
    nothing: v8::Global<v8::Function>,
    /// The engine's own `JSON.stringify`.
    stringify: v8::Global<v8::Function>,
    /// Events that one event may become.
    outputs: usize,
}

/// Functions in an isolate of their own.
pub(crate) struct Isolate {
    // Handles go before the runtime they belong to: fields are dropped in this order.
    parts: Parts,
    timers: Timers,
    runtime: JsRuntime,
    watch: Watch,
    stopped: Arc<StopReason>,
    console: Console,
    limits: Limits,
}

/// An event on its way through the chain.
enum Event<'a> {
    /// Not touched by a function yet.
    Text(&'a str),
    /// As the last function left it, back as text (for a function that lets events pass on an error).
    Written(Rc<str>),
    /// As the last function left it.
    Value(v8::Global<v8::Value>),
}

/// Why an event does not go on through the chain.
enum Interrupted {
    Fault(Box<Fault>),
    /// A function asked for another try, with the event as it got it where that is known.
    Retry(Box<Fault>, Option<Duration>, Option<Rc<str>>),
    /// The isolate was terminated.
    Stopped,
}

/// What one call gave.
enum Passed<'a> {
    Events(Vec<Event<'a>>),
    /// The function failed and its `onError` says that the event goes.
    Dropped(Fault),
}

/// How a call came back.
enum Called {
    Accepted(Accepted),
    /// The promise that the function returned, and the event that it was given.
    Waiting(v8::Global<v8::Promise>, v8::Global<v8::Value>),
}

impl Isolate {
    /// Runs one event through the chain, within its own limits and what is `left` to its batch; `None` when the latter
    /// ended first: it says nothing about the event.
    ///
    /// # Cancellation
    /// A dropped future leaves a function in the middle of its work: drop the isolate as well.
    pub(crate) async fn run(
        &mut self,
        index: usize,
        record: &Record<'_>,
        left: Option<Duration>,
        calls: &mut Calls,
    ) -> Option<Outcome<String>> {
        self.console.open(Some(index), self.limits.log_lines);
        let wall = Duration::from_millis(self.limits.wall_ms);
        let cut_short = left.is_some_and(|left| left < wall);
        let deadline = self.watch.arm(left.map_or(wall, |left| left.min(wall)));
        self.watch.meter(self.limits.cpu_ms.map(Duration::from_millis));
        let outcome = self.through(record, deadline, calls).await;
        // What a function left behind ends with its event.
        self.timers.clear();
        calls.clear();
        self.watch.disarm();
        Some(match outcome {
            Ok(outcome) => outcome,
            Err(Interrupted::Fault(fault)) => Outcome::dead_letter(*fault),
            // `through` says where the chain goes on.
            Err(Interrupted::Retry(fault, after, _)) => Outcome::retry(*fault, after.map(millis)),
            Err(Interrupted::Stopped) if cut_short && self.stopped.get() == Some(Stopped::Wall) => {
                return None;
            }
            Err(Interrupted::Stopped) => Outcome::dead_letter(self.stop_fault()),
        })
    }

    /// How many events of a batch may be in flight: as many as the function allows that allows the fewest.
    pub(crate) fn in_flight(&self) -> usize {
        let functions = self.parts.functions.iter();
        functions.map(|function| function.in_flight).min().unwrap_or(1)
    }

    /// Whether it was terminated: it must not run anything any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Heap in use, in bytes; QuickJS does not say.
    pub(crate) fn heap_bytes(&mut self) -> u64 {
        #[cfg(feature = "engine-v8")]
        let bytes = self.runtime.v8_isolate().get_heap_statistics().used_heap_size();
        #[cfg(feature = "engine-quickjs")]
        let bytes = 0_usize;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Lets the engine do what it put off (garbage collection, rejections that nobody looked at).
    pub(crate) async fn tidy(&mut self) {
        if self.is_spent() {
            return;
        }
        self.console.open(None, 0);
        self.watch.arm(Duration::from_millis(self.limits.wall_ms));
        if let Some(error) = settle::tick(&mut self.runtime).await {
            tracing::debug!(error, "a promise was rejected and nobody looked");
        }
        self.watch.disarm();
    }

    /// Names the function that ran: it may have been given too little by those before it, which only people can judge.
    fn stop_fault(&self) -> Fault {
        let (code, text) = match self.stopped.get() {
            Some(Stopped::Heap) => {
                let limit = self.limits.heap_bytes;
                (
                    FunctionCode::HeapLimit,
                    format!("used more than {limit} bytes of heap"),
                )
            }
            Some(Stopped::Cpu) => {
                let limit = self.limits.cpu_ms.unwrap_or_default();
                (
                    FunctionCode::CpuLimit,
                    format!("used more than {limit} ms of processor time"),
                )
            }
            Some(Stopped::Wall) | None => {
                let limit = self.limits.wall_ms;
                (FunctionCode::WallLimit, format!("took longer than {limit} ms"))
            }
        };
        match self.console.position() {
            Some(position) => self.parts.blame(position, code, text),
            None => Fault::new(code, text),
        }
    }

    async fn through(
        &mut self,
        record: &Record<'_>,
        deadline: Instant,
        calls: &mut Calls,
    ) -> Result<Outcome<String>, Interrupted> {
        let mut events = vec![Event::Text(record.event)];
        let mut failed = None;
        let first = usize::try_from(record.position).unwrap_or(usize::MAX);
        for position in first..self.parts.functions.len() {
            let alone = events.len() == 1;
            let mut next = Vec::with_capacity(events.len());
            for event in events {
                let context = record.context;
                match self.call(position, event, context, deadline, calls).await {
                    Ok(Passed::Events(events)) => next.extend(events),
                    Ok(Passed::Dropped(fault)) => failed = Some(fault),
                    Err(Interrupted::Retry(fault, after, kept)) => {
                        // With others beside it the chain cannot go on here without losing them.
                        let kept = kept.filter(|_| alone && position > 0);
                        return Ok(retry(position, *fault, after, kept.as_deref()));
                    }
                    Err(interrupted) => return Err(interrupted),
                }
                if next.len() > self.limits.outputs {
                    let text = value::too_many(self.limits.outputs);
                    return Err(Interrupted::Fault(Box::new(self.parts.blame(
                        position,
                        FunctionCode::OutputLimit,
                        text,
                    ))));
                }
            }
            if next.is_empty() {
                return Ok(Outcome {
                    fault: failed,
                    ..Outcome::dropped()
                });
            }
            events = next;
        }
        let last = self.parts.functions.len().saturating_sub(1);
        let limit = self.limits.output_bytes;
        let texts = self.within(last, |scope, parts| {
            Some(
                value::texts(scope, &parts.stringify, &events, limit)?
                    .map_err(|(code, text)| parts.blame(last, code, text)),
            )
        })?;
        Ok(Outcome::forward(texts))
    }

    /// Calls one function with one event.
    async fn call<'a>(
        &mut self,
        position: usize,
        event: Event<'a>,
        context: &str,
        deadline: Instant,
        calls: &mut Calls,
    ) -> Result<Passed<'a>, Interrupted> {
        self.console.enter(position);
        let function = &self.parts.functions[position];
        let (on_error, keeps) = (function.on_error, function.keeps);
        let left = deadline.saturating_duration_since(now());
        // Its own clock within the event's: what one function did not use is not taken from the next.
        let deadline = self
            .watch
            .arm(function.timeout.map_or(left, |timeout| timeout.min(left)));
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
        let called = match self.enter(position, &event, context) {
            Ok(Called::Waiting(promise, given)) => self.wait(position, promise, given, deadline, calls).await,
            Ok(Called::Accepted(accepted)) => Ok(accepted),
            Err(interrupted) => Err(interrupted),
        };
        match (called, on_error) {
            (Ok(Accepted::Same(value)), _) => Ok(Passed::Events(vec![Event::Value(value)])),
            (Ok(Accepted::Others(values)), _) => {
                Ok(Passed::Events(values.into_iter().map(Event::Value).collect()))
            }
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
            let texts = value::texts(scope, &parts.stringify, std::slice::from_ref(event), limit)?;
            Some(texts.map_err(|(code, text)| parts.blame(position, code, text)))
        })?;
        Ok(Rc::from(texts.first().map_or("{}", String::as_str)))
    }

    fn enter(&mut self, position: usize, event: &Event<'_>, context: &str) -> Result<Called, Interrupted> {
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
            // Microtasks that the call left behind are its own: they run on its clock.
            scope.perform_microtask_checkpoint();
            let Ok(promise) = v8::Local::<v8::Promise>::try_from(returned) else {
                return Some(
                    parts
                        .accept(scope, position, returned, event)
                        .map(Called::Accepted),
                );
            };
            match promise.state() {
                v8::PromiseState::Fulfilled => {
                    let result = promise.result(scope);
                    Some(parts.accept(scope, position, result, event).map(Called::Accepted))
                }
                v8::PromiseState::Pending | v8::PromiseState::Rejected => {
                    let nothing = v8::Local::new(scope, &parts.nothing);
                    promise.catch(scope, nothing)?;
                    let promise = v8::Global::new(scope, promise);
                    Some(Ok(Called::Waiting(promise, v8::Global::new(scope, event))))
                }
            }
        })
    }

    async fn wait(
        &mut self,
        position: usize,
        promise: v8::Global<v8::Promise>,
        event: v8::Global<v8::Value>,
        deadline: Instant,
        calls: &mut Calls,
    ) -> Result<Accepted, Interrupted> {
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
            Some(parts.accept(scope, position, result, event).map(Ok))
        })?
    }

    /// Enters the isolate. `work` gives `None` when JavaScript threw or was terminated.
    fn within<T>(
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
    /// A fault of the function at `position`, without a place in its code.
    fn blame(&self, position: usize, code: FunctionCode, message: impl Into<String>) -> Fault {
        let mut fault = Fault::new(code, message);
        if let Some(function) = self.functions.get(position) {
            fault.function = Some(function.id.clone());
            fault.function_version = Some(function.version);
        }
        fault
    }

    fn accept(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        position: usize,
        returned: v8::Local<'_, v8::Value>,
        event: v8::Local<'_, v8::Value>,
    ) -> Result<Accepted, Fault> {
        value::accept(scope, returned, event, self.outputs)
            .map_err(|(code, text)| self.blame(position, code, text))
    }
}

/// The outcome of an event that goes round again, beginning at `position` where its text is known.
fn retry(position: usize, fault: Fault, after: Option<Duration>, kept: Option<&str>) -> Outcome<String> {
    let resume = || {
        Some(Resume {
            position: u32::try_from(position).ok()?,
            event: kept?.to_owned(),
        })
    };
    Outcome {
        resume: resume(),
        ..Outcome::retry(fault, after.map(millis))
    }
}

/// What `onError` speaks about: the function's own failures, not the limits it ran into.
fn retriable(fault: &Fault) -> bool {
    matches!(
        fault.code,
        FunctionCode::Thrown | FunctionCode::InvalidReturn | FunctionCode::Unsettled
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
