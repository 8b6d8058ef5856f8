//! `setTimeout`: timers of the event that runs. They end with it: nothing of one event runs on another's account.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use deno_core::{JsRuntime, v8};

use super::native::throw;
use crate::watchdog::now;

/// Timers that may wait at once.
const MOST: usize = 64;

/// A timer waits at most so long; an event's own limit comes before.
const LONGEST: f64 = 86_400_000.0;

/// The timers of one isolate.
#[derive(Clone, Default)]
pub(super) struct Timers(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    last: u32,
    /// In the order in which they are due; equal ones in the order in which they were set.
    waiting: BTreeMap<(Instant, u32), v8::Global<v8::Function>>,
}

impl Timers {
    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.borrow().waiting.keys().next().map(|(due, _)| *due)
    }

    /// Takes the next one if it is due.
    pub(super) fn take_due(&self, now: Instant) -> Option<v8::Global<v8::Function>> {
        let mut inner = self.0.borrow_mut();
        let (due, _) = *inner.waiting.keys().next()?;
        if due > now {
            return None;
        }
        inner.waiting.pop_first().map(|(_, callback)| callback)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().waiting.clear();
    }
}

fn timers(scope: &v8::PinScope<'_, '_>) -> Option<Timers> {
    let state = JsRuntime::op_state_from(scope);
    let state = state.borrow();
    state.try_borrow::<Timers>().cloned()
}

/// `(callback, milliseconds)` → number
pub(super) fn set_timer(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut returned: v8::ReturnValue<'_>,
) {
    let Ok(callback) = v8::Local::<v8::Function>::try_from(args.get(0)) else {
        return throw(scope, "setTimeout needs a function");
    };
    let millis = args.get(1).number_value(scope).filter(|millis| *millis > 0.0);
    let delay = Duration::from_secs_f64(millis.unwrap_or(0.0).min(LONGEST) / 1000.0);
    let Some(timers) = timers(scope) else { return };
    let callback = v8::Global::new(scope, callback);
    let number = {
        let mut inner = timers.0.borrow_mut();
        if inner.waiting.len() >= MOST {
            None
        } else {
            inner.last = inner.last.wrapping_add(1);
            let number = inner.last;
            inner.waiting.insert((now() + delay, number), callback);
            Some(number)
        }
    };
    match number {
        Some(number) => returned.set(v8::Integer::new_from_unsigned(scope, number).into()),
        None => throw(scope, "too many timers are waiting"),
    }
}

/// `(number)`
pub(super) fn cancel_timer(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _returned: v8::ReturnValue<'_>,
) {
    let Some(number) = args.get(0).uint32_value(scope) else {
        return;
    };
    if let Some(timers) = timers(scope) {
        timers
            .0
            .borrow_mut()
            .waiting
            .retain(|(_, waiting), _| *waiting != number);
    }
}
