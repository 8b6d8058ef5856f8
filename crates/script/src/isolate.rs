//! One isolate: the functions of one chain version, loaded and called.
//!
//! Everything around a function is native: the event is parsed and written by the engine's own JSON, results are
//! told apart by their internal type, and exceptions are caught here and not in JavaScript. A function can
//! overwrite `JSON`, `Array.prototype` or `Promise.prototype.then` and only its own code will notice.
//!
//! An isolate lives on the thread that made it, within a Tokio runtime. Once it was stopped it is spent.

mod call;
mod calls;
mod engine;
mod fault;
mod load;
mod native;
mod promises;
mod settle;
mod signature;
pub(crate) mod snapshot;
mod sweep;
mod timers;
mod typescript;
mod value;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deno_core::{JsRuntime, v8};
use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Limits, Outcome, Record, Resume};

use crate::account::Account;
use crate::console::Console;
use crate::isolate::call::{Entered, Passed, Turn};
use crate::isolate::promises::{Hooks, Promises};
use crate::isolate::sweep::{Loop, Sweep};
use crate::isolate::timers::Timers;
use crate::isolate::value::Accepted;
use crate::watchdog::{StopReason, Stopped, Watch};

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
    sweep: Loop,
    hooks: Hooks,
    /// Events that one event may become.
    outputs: usize,
    /// Bytes of all of them together.
    output_bytes: usize,
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
    sweep: Sweep,
    promises: Promises,
    /// Whether events can be swept, for all that is known up to now.
    sweeping: bool,
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

impl Isolate {
    /// Runs one event, whose place in the batch is `index`, through the chain, within its own limits and what is left to its
    /// batch; `None` when the latter ended first: it says nothing about the event.
    ///
    /// # Cancellation
    /// A dropped future leaves a function in the middle of its work: drop the isolate as well.
    pub(crate) async fn run(
        &mut self,
        index: usize,
        record: &Record<'_>,
        account: Account,
        calls: &mut Calls,
    ) -> Option<Outcome<String>> {
        self.console.open(Some(index), self.limits.log_lines);
        let cpu = self.limits.cpu_ms.map(Duration::from_millis);
        self.promises.open();
        self.watch
            .arm_event(account.clock + account.wall(&self.limits), cpu);
        self.conclude(record, account, None, calls).await
    }

    /// What comes of an event whose clocks run already, and whose first function may have been called.
    async fn conclude(
        &mut self,
        record: &Record<'_>,
        account: Account,
        made: Option<Entered>,
        calls: &mut Calls,
    ) -> Option<Outcome<String>> {
        let deadline = account.clock + account.wall(&self.limits);
        let outcome = self.through(record, deadline, made, calls).await;
        // What a function left behind ends with its event.
        self.timers.clear();
        calls.clear();
        self.watch.disarm();
        Some(match outcome {
            Ok(outcome) => outcome,
            Err(Interrupted::Fault(fault)) => Outcome::dead_letter(*fault),
            // `through` says where the chain goes on.
            Err(Interrupted::Retry(fault, after, _)) => Outcome::retry(*fault, after.map(millis)),
            Err(Interrupted::Stopped)
                if account.cuts_short(&self.limits) && self.stopped.get() == Some(Stopped::Wall) =>
            {
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
            Some(Stopped::Promises) => {
                let limit = self.limits.promises.unwrap_or_default();
                (
                    FunctionCode::PromiseLimit,
                    format!("had more than {limit} promises pending"),
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
        mut made: Option<Entered>,
        calls: &mut Calls,
    ) -> Result<Outcome<String>, Interrupted> {
        let mut events = vec![Event::Text(record.event)];
        let mut failed = None;
        let first = usize::try_from(record.position).unwrap_or(usize::MAX);
        for position in first..self.parts.functions.len() {
            let alone = events.len() == 1;
            let last = alone && position + 1 == self.parts.functions.len();
            let mut next = Vec::with_capacity(events.len());
            for event in events {
                let context = record.context;
                let turn = Turn {
                    position,
                    last,
                    deadline,
                    rearm: position > first || !alone,
                };
                match self.call(turn, event, context, made.take(), calls).await {
                    Ok(Passed::Texts(texts)) => return Ok(Outcome::forward(texts)),
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
                value::written(scope, &parts.stringify, &events, limit)?
                    .map_err(|(code, text)| parts.blame(last, code, text)),
            )
        })?;
        Ok(Outcome::forward(texts))
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

    fn accept<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        position: usize,
        returned: v8::Local<'s, v8::Value>,
        event: v8::Local<'s, v8::Value>,
    ) -> Result<Accepted<'s>, Fault> {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
