//! Several events through one function without leaving the isolate between them.
//!
//! Entering the engine and leaving it costs as much as reading a small event. So where a chain is one function that gives no
//! promise, a loop of our own JavaScript reads a few events at once and calls the function with one after the other; each
//! is written before the next one runs, so that what a function keeps of an event, or shares between events, changes
//! nothing that is done. After each the host is told: it takes the text, and gives the next event its own
//! clocks. Whatever is out of the ordinary (an exception, a promise, an array, a result too large) ends the loop and is
//! judged like the result of a single call; then the loop goes on behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use deno_core::{JsRuntime, v8};
use millrace_event::frame::{Limits, Outcome, Record};

use super::call::{Called, Entered};
use super::timers::Timers;
use super::value::{self, Refused};
use super::{Calls, Function, Interrupted, Isolate};
use crate::account::Account;
use crate::console::Console;
use crate::watchdog::{Watch, now};

/// Events that are read at once. More of them would outlive a collection of the young generation.
const MOST_EVENTS: usize = 32;

/// Bytes of text that are read at once; a larger event comes alone.
const MOST_BYTES: usize = 64 << 10;

/// What the loop tells the host.
#[derive(Clone)]
pub(super) struct Sweep(Rc<RefCell<State>>);

struct State {
    watch: Watch,
    timers: Timers,
    console: Console,
    limits: Limits,
    timeout: Option<Duration>,
    /// The event that runs, of its batch.
    index: usize,
    /// Behind the last event that was read.
    end: usize,
    account: Account,
    outcomes: Vec<Outcome<String>>,
    /// Why the result at hand is none.
    refused: Option<Refused>,
}

/// The functions of `bootstrap.js` for it.
pub(super) struct Loop {
    /// `(text of an array)` → how many it has.
    pub(super) take: v8::Global<v8::Function>,
    /// `(function, whether it takes its context, done)` → nothing, or `[event, result]` that the host judges.
    pub(super) go: v8::Global<v8::Function>,
    /// `()` → [`WRITING`] while a result was being written, and [`PROMISED`] where a promise was made.
    pub(super) marks: v8::Global<v8::Function>,
    /// `(text of a result, or null for dropped)` → whether to stop; native.
    pub(super) done: v8::Global<v8::Function>,
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
    pub(super) fn new(watch: Watch, timers: Timers, console: Console, limits: Limits) -> Self {
        Self(Rc::new(RefCell::new(State {
            watch,
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
            outcomes: Vec::new(),
            refused: None,
        })))
    }

    /// The native function that the loop tells about each event.
    pub(super) fn function<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
    ) -> Option<v8::Local<'s, v8::Function>> {
        JsRuntime::op_state_from(scope).borrow_mut().put(self.clone());
        v8::Function::new(scope, done)
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
        self.watch.arm_event(self.account.clock + wall, cpu);
    }

    /// The event at hand is done; says whether to stop.
    fn done(&mut self, outcome: Outcome<String>) -> bool {
        self.outcomes.push(outcome);
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
    let sweep = {
        let state = JsRuntime::op_state_from(scope);
        let state = state.borrow();
        state.try_borrow::<Sweep>().cloned()
    };
    let Some(sweep) = sweep else {
        return returned.set_bool(true);
    };
    let result = args.get(0);
    let outcome = if result.is_null() {
        Ok(Outcome::dropped())
    } else {
        let limit = sweep.0.borrow().limits.output_bytes;
        value::text(scope, result, limit).map(|text| Outcome::forward(vec![text]))
    };
    let mut state = sweep.0.borrow_mut();
    let stop = match outcome {
        Ok(outcome) => state.done(outcome),
        Err(refused) => {
            state.refused = Some(refused);
            true
        }
    };
    returned.set_bool(stop);
}

impl Isolate {
    /// Whether events can be swept: there is one function, and it gave no promise yet.
    pub(crate) const fn sweeps(&self) -> bool {
        self.sweeping
    }

    /// Runs some events from the first of `records` on, whose place in the batch is `index`; what came of them, `None` for
    /// one that the batch's time ended in. Fewer than there are, but one at least.
    ///
    /// # Cancellation
    /// As [`Isolate::run`].
    pub(crate) async fn sweep(
        &mut self,
        index: usize,
        records: &[Record<'_>],
        account: &mut Account,
        calls: &mut Calls,
    ) -> Vec<Option<Outcome<String>>> {
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
        let mut ended = match taken {
            Ok(Some(taken)) if usize::try_from(taken) == Ok(values) => self.go(),
            Err(Interrupted::Stopped) => Ended::At(Err(Interrupted::Stopped), 0),
            // Some text is no JSON: who it is shows when they run one by one.
            Ok(_) | Err(_) => {
                self.watch.disarm();
                self.sweeping = false;
                return Vec::new();
            }
        };
        let mut all = Vec::with_capacity(count);
        loop {
            {
                let mut state = self.sweep.0.borrow_mut();
                *account = state.account;
                all.extend(state.outcomes.drain(..).map(Some));
            }
            let Ended::At(called, marks) = ended else { break };
            let Some(record) = records.get(all.len()) else {
                break;
            };
            if marks & PROMISED != 0 {
                self.sweeping = false;
                deno_core::scope!(scope, self.runtime);
                scope.set_promise_hooks(None, None, None, None);
            }
            let entered = Entered {
                called,
                writing: marks & WRITING != 0,
                began: account.clock,
            };
            let outcome = self.conclude(record, *account, Some(entered), calls).await;
            account.settle();
            all.push(outcome);
            if self.is_spent() || !self.sweeping || account.is_empty() || all.len() >= count {
                break;
            }
            {
                let mut state = self.sweep.0.borrow_mut();
                state.index = index + all.len();
                state.account = *account;
                state.open();
            }
            ended = self.go();
        }
        self.watch.disarm();
        all
    }

    /// Lets the loop go on.
    fn go(&mut self) -> Ended {
        let mut writing = false;
        let gone = self.within(0, |scope, parts| {
            let Some(function) = parts.functions.first() else {
                return Some(Ok(None));
            };
            let this = v8::undefined(scope).into();
            let entry = v8::Local::new(scope, &function.entry);
            let takes_context = v8::Boolean::new(scope, function.takes_context);
            let done = v8::Local::new(scope, &parts.sweep.done);
            let go = v8::Local::new(scope, &parts.sweep.go);
            let returned = go.call(scope, this, &[entry.into(), takes_context.into(), done.into()])?;
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

/// Whether events can be swept as far as the functions' own kinds say: there is one, and it is not known to give promises.
/// Whether it makes some is told from now on; the engine makes them by a slower way where it has to tell. QuickJS gains
/// nothing by all this, and keeps its hooks by thread.
pub(super) fn begins_to_sweep(
    scope: &mut v8::PinScope<'_, '_>,
    functions: &[Function],
    promised: &v8::Global<v8::Function>,
) -> bool {
    let [only] = functions else { return false };
    let may = cfg!(feature = "engine-v8") && !v8::Local::new(scope, &only.entry).is_async_function();
    if may {
        let promised = v8::Local::new(scope, promised);
        scope.set_promise_hooks(Some(promised), None, None, None);
    }
    may
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
