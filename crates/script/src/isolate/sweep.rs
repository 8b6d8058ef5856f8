//! Several events through one function without leaving the isolate between them.
//!
//! Entering the engine and leaving it costs as much as reading a small event. So where a chain is one function that gives no
//! promise, or is `async` and done without waiting for anything, a loop of our own JavaScript reads a few events at once and calls the function with one after the other; each
//! is written before the next one runs, so that what a function keeps of an event, or shares between events, changes
//! nothing that is done. After each the host is told: it takes the text, and gives the next event its own
//! clocks. Whatever is out of the ordinary (an exception, a promise that is not settled yet, an array, a result too large) ends the loop and is
//! judged like the result of a single call; then the loop goes on behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deno_core::{JsRuntime, v8};
use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Answer, Limits, Outcome, Record};
use millrace_event::redact::Redactor;

use super::call::{Called, Entered};
use super::promises::{Hooks, Promises};
use super::timers::Timers;
use super::value::{self, Refused};
use super::{Calls, Function, Interrupted, Isolate, calls};
use crate::account::Account;
use crate::batch::{cleaned, past_budget};
use crate::console::Console;
use crate::watchdog::{StopReason, Stopped, Watch, now};

/// Events that are read at once. More of them would outlive a collection of the young generation.
const MOST_EVENTS: usize = 32;

/// Bytes of text that are read at once; a larger event comes alone.
const MOST_BYTES: usize = 64 << 10;

/// What the loop tells the host.
#[derive(Clone)]
pub(super) struct Sweep(Rc<RefCell<State>>);

struct State {
    watch: Watch,
    stopped: Arc<StopReason>,
    promises: Promises,
    timers: Timers,
    console: Console,
    limits: Limits,
    timeout: Option<Duration>,
    /// The event that runs, of its batch.
    index: usize,
    /// Behind the last event that was read.
    end: usize,
    account: Account,
    /// What came of the events of the batch up to now.
    answer: Answer,
    /// Why the result at hand is none.
    refused: Option<Refused>,
    /// Why an outcome could not be written.
    failed: Option<PayloadError>,
}

/// Why a result was not written into the answer.
enum Unwritten {
    Refused(Refused),
    Failed(PayloadError),
}

impl From<PayloadError> for Unwritten {
    fn from(error: PayloadError) -> Self {
        Self::Failed(error)
    }
}

/// The functions of `bootstrap.js` for it.
pub(super) struct Loop {
    /// `(text of an array)` → how many it has.
    pub(super) take: v8::Global<v8::Function>,
    /// `(function, whether it takes its context, done, settled where it is async)` → nothing, or `[event, result]` that the
    /// host judges.
    pub(super) go: v8::Global<v8::Function>,
    /// `()` → [`WRITING`] while a result was being written, and [`PROMISED`] where a promise was made.
    pub(super) marks: v8::Global<v8::Function>,
    /// `(text of a result, or null for dropped)` → whether to stop; native.
    pub(super) done: v8::Global<v8::Function>,
    /// `(promise, other)` → what it is fulfilled with and nothing is left to do, else `other`; native.
    pub(super) settled: v8::Global<v8::Function>,
}

const WRITING: u32 = 1;
const PROMISED: u32 = 2;

/// How the loop ended.
enum Ended {
    /// No event is left, or none may run.
    Through,
    /// The event at hand is to be judged.
    At(Result<Called, Interrupted>, u32),
}

impl Sweep {
    pub(super) fn new(
        (watch, stopped): (Watch, Arc<StopReason>),
        promises: Promises,
        timers: Timers,
        console: Console,
        limits: Limits,
    ) -> Self {
        Self(Rc::new(RefCell::new(State {
            watch,
            stopped,
            promises,
            timers,
            console,
            limits,
            timeout: None,
            index: 0,
            end: 0,
            account: Account {
                clock: now(),
                left: None,
            },
            answer: Answer::default(),
            refused: None,
            failed: None,
        })))
    }

    /// The native functions of the loop: what it tells about each event, and what it asks about each promise.
    pub(super) fn functions<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
    ) -> Option<[v8::Local<'s, v8::Function>; 2]> {
        JsRuntime::op_state_from(scope).borrow_mut().put(self.clone());
        Some([
            v8::Function::new(scope, done)?,
            v8::Function::new(scope, settled)?,
        ])
    }

    /// Notes why the isolate is stopped.
    pub(super) fn stop(&self, reason: Stopped) {
        self.0.borrow().stopped.set(reason);
    }

    pub(super) fn of(scope: &v8::PinScope<'_, '_>) -> Option<Self> {
        let state = JsRuntime::op_state_from(scope);
        let state = state.borrow();
        state.try_borrow::<Self>().cloned()
    }
}

impl State {
    /// Gives the event at hand its own clocks and lines.
    fn open(&self) {
        let wall = self.account.wall(&self.limits);
        let wall = self.timeout.map_or(wall, |timeout| timeout.min(wall));
        let cpu = self.limits.cpu_ms.map(Duration::from_millis);
        self.console.open(Some(self.index), self.limits.log_lines);
        self.console.enter(0);
        self.promises.open();
        self.watch.arm_event(self.account.clock + wall, cpu);
    }

    /// The event at hand is done; says whether to stop.
    fn done(&mut self) -> bool {
        self.timers.clear();
        self.account.settle();
        self.index += 1;
        if self.index >= self.end || self.account.is_empty() {
            return true;
        }
        self.open();
        false
    }
}

/// `(text, or null)` → whether to stop
fn done(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut returned: v8::ReturnValue<'_>,
) {
    let Some(sweep) = Sweep::of(scope) else {
        return returned.set_bool(true);
    };
    let result = args.get(0);
    let mut state = sweep.0.borrow_mut();
    let limit = state.limits.output_bytes;
    let written = if result.is_null() {
        state.answer.push(&Outcome::dropped()).map_err(Unwritten::Failed)
    } else {
        let write = |out: &mut Vec<u8>| value::append(scope, result, limit, out).map_err(Unwritten::Refused);
        state.answer.forward(write)
    };
    let stop = match written {
        Ok(()) => state.done(),
        Err(Unwritten::Refused(refused)) => {
            state.refused = Some(refused);
            true
        }
        Err(Unwritten::Failed(error)) => {
            state.failed = Some(error);
            true
        }
    };
    returned.set_bool(stop);
}

/// `(promise, other)` → what came of it, or `other`
fn settled(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut returned: v8::ReturnValue<'_>,
) {
    // On the clock of the event whose they are; what goes on without an end is stopped by it.
    scope.perform_microtask_checkpoint();
    let goes_on = Sweep::of(scope).is_some_and(|sweep| sweep.0.borrow().stopped.get().is_none())
        && !scope.is_execution_terminating()
        && !calls::are_waiting(scope);
    match v8::Local::<v8::Promise>::try_from(args.get(0)) {
        Ok(promise) if goes_on && promise.state() == v8::PromiseState::Fulfilled => {
            returned.set(promise.result(scope));
        }
        _ => returned.set(args.get(1)),
    }
}

impl Isolate {
    /// Whether events can be swept: there is one function, and it gave no promise yet, unless it is async.
    pub(crate) const fn sweeps(&self) -> bool {
        self.sweeping
    }

    /// Runs some events from the first of `records` on, whose place in the batch is `index`, and writes what came of them,
    /// without secrets; how many: fewer than there are, but one at least, unless they cannot be swept.
    ///
    /// # Errors
    /// An outcome does not fit in an answer.
    ///
    /// # Cancellation
    /// As [`Isolate::run`].
    pub(crate) async fn sweep(
        &mut self,
        index: usize,
        records: &[Record<'_>],
        account: &mut Account,
        calls: &mut Calls,
        (answer, redactor): (&mut Answer, &Redactor),
    ) -> Result<usize, PayloadError> {
        let takes_context = self.parts.functions.first().is_some_and(|f| f.takes_context);
        let (text, count) = read_at_once(records, takes_context);
        let records = records.get(..count).unwrap_or_default();
        {
            let mut state = self.sweep.0.borrow_mut();
            state.timeout = self.parts.functions.first().and_then(|f| f.timeout);
            (state.index, state.end) = (index, index + count);
            state.account = *account;
            state.open();
        }
        let values = if takes_context { 2 * count } else { count };
        let taken = self.within(0, |scope, parts| {
            let text = v8::String::new(scope, &text)?;
            let this = v8::undefined(scope).into();
            let taken = v8::Local::new(scope, &parts.sweep.take).call(scope, this, &[text.into()])?;
            Some(Ok(taken.uint32_value(scope)))
        });
        drop(text);
        let before = answer.len();
        let mut ended = match taken {
            Ok(Some(taken)) if usize::try_from(taken) == Ok(values) => self.go(answer)?,
            Err(Interrupted::Stopped) => Ended::At(Err(Interrupted::Stopped), 0),
            // Some text is no JSON: who it is shows when they run one by one.
            Ok(_) | Err(_) => {
                self.watch.disarm();
                self.sweeping = false;
                return Ok(0);
            }
        };
        loop {
            *account = self.sweep.0.borrow().account;
            let Ended::At(called, marks) = ended else { break };
            let Some(record) = records.get(answer.len() - before) else {
                break;
            };
            if marks & PROMISED != 0 {
                self.sweeping = false;
                deno_core::scope!(scope, self.runtime);
                self.parts.hooks.count(scope, &self.promises);
            }
            let entered = Entered {
                called,
                writing: marks & WRITING != 0,
                began: account.clock,
            };
            let outcome = self.conclude(record, *account, Some(entered), calls).await;
            account.settle();
            answer.push(&cleaned(outcome.unwrap_or_else(past_budget), redactor))?;
            let done = answer.len() - before;
            if self.is_spent() || !self.sweeping || account.is_empty() || done >= count {
                break;
            }
            {
                let mut state = self.sweep.0.borrow_mut();
                state.index = index + done;
                state.account = *account;
                state.open();
            }
            ended = self.go(answer)?;
        }
        self.watch.disarm();
        Ok(answer.len() - before)
    }

    /// Lets the loop go on, and write into the answer.
    fn go(&mut self, answer: &mut Answer) -> Result<Ended, PayloadError> {
        std::mem::swap(&mut self.sweep.0.borrow_mut().answer, answer);
        let ended = self.loops();
        let mut state = self.sweep.0.borrow_mut();
        std::mem::swap(&mut state.answer, answer);
        state.failed.take().map_or(Ok(ended), Err)
    }

    fn loops(&mut self) -> Ended {
        let mut writing = false;
        let gone = self.within(0, |scope, parts| {
            let Some(function) = parts.functions.first() else {
                return Some(Ok(None));
            };
            let this = v8::undefined(scope).into();
            let entry = v8::Local::new(scope, &function.entry);
            let takes_context = v8::Boolean::new(scope, function.takes_context);
            let done = v8::Local::new(scope, &parts.sweep.done);
            let settled = if entry.is_async_function() {
                v8::Local::new(scope, &parts.sweep.settled).into()
            } else {
                this
            };
            let go = v8::Local::new(scope, &parts.sweep.go);
            let arguments = [entry.into(), takes_context.into(), done.into(), settled];
            let returned = go.call(scope, this, &arguments)?;
            let Ok(pair) = v8::Local::<v8::Array>::try_from(returned) else {
                return Some(Ok(None));
            };
            let (event, result) = (pair.get_index(scope, 0)?, pair.get_index(scope, 1)?);
            let called = parts.judged(scope, (0, true), result, event, &mut writing)?;
            Some(called.map(Some))
        });
        let refused = self.sweep.0.borrow_mut().refused.take();
        let called = match (gone, refused) {
            (Ok(None), None) => return Ended::Through,
            (Ok(None), Some((code, text))) => {
                Err(Interrupted::Fault(Box::new(self.parts.blame(0, code, text))))
            }
            (Ok(Some(called)), _) => Ok(called),
            (Err(Interrupted::Stopped), _) => return Ended::At(Err(Interrupted::Stopped), 0),
            (Err(interrupted), _) => Err(interrupted),
        };
        let marks = self.within(0, |scope, parts| {
            let this = v8::undefined(scope).into();
            let marks = v8::Local::new(scope, &parts.sweep.marks).call(scope, this, &[])?;
            Some(Ok(marks.uint32_value(scope)))
        });
        let marks = marks.ok().flatten().unwrap_or_default();
        Ended::At(called, if writing { marks | WRITING } else { marks })
    }
}

/// Whether events can be swept: there is one function. Whether one that is not async makes promises is told from now on; all
/// others have them counted. QuickJS gains nothing by all this, and keeps its hooks by thread.
pub(super) fn begins_to_sweep(
    scope: &mut v8::PinScope<'_, '_>,
    functions: &[Function],
    hooks: &Hooks,
    promises: &Promises,
) -> bool {
    if cfg!(feature = "engine-quickjs") {
        return false;
    }
    match functions {
        [only] if !v8::Local::new(scope, &only.entry).is_async_function() => hooks.tell_the_first(scope),
        _ => hooks.count(scope, promises),
    }
    functions.len() == 1
}

/// The text of an array of the events that are read at once, each with its context behind it where that is taken, and how
/// many they are: one at least.
fn read_at_once(records: &[Record<'_>], takes_context: bool) -> (String, usize) {
    let size = |record: &Record<'_>| {
        let context = if takes_context {
            record.context.len() + 1
        } else {
            0
        };
        record.event.len() + 1 + context
    };
    let (mut bytes, mut count) = (0, 0);
    for record in records.iter().take(MOST_EVENTS) {
        let more = size(record);
        // One that goes on in the middle of a chain is no beginning.
        if count > 0 && (bytes + more > MOST_BYTES || record.position != 0) {
            break;
        }
        (bytes, count) = (bytes + more, count + 1);
    }
    let mut text = String::with_capacity(bytes + 2);
    for record in records.iter().take(count) {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(record.event);
        if takes_context {
            text.push(',');
            text.push_str(record.context);
        }
    }
    text.push(']');
    (text, count)
}
