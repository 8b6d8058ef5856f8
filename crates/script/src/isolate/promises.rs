//! Promises that are pending: how many one event may have.
//!
//! The engine tells our own JavaScript of every promise that is made and settled, and of every reaction that runs. An `await`
//! makes one more promise, which nobody holds and which never settles: it is over with its reaction. One that is settled
//! twice (an async function that returns a promise) counts as one less, so the count may be below what is pending, and is
//! not above it. What counts is a few instructions of our script for each promise (`./dev bench rotor` has an async function).

use deno_core::v8;

use super::sweep::Sweep;
use crate::watchdog::Stopped;

/// Two numbers of four bytes that the hooks of `bootstrap.js` see as well: how many promises are left to the event that runs,
/// and how many it has.
#[derive(Clone)]
pub(super) struct Promises {
    shared: v8::SharedRef<v8::BackingStore>,
    most: Option<i32>,
}

/// The functions of `bootstrap.js` that the engine calls.
pub(super) struct Hooks {
    /// A promise is made, by a function that is not known to make any.
    first: v8::Global<v8::Function>,
    /// One is made, its reaction is about to run, has run, one is settled.
    counting: [v8::Global<v8::Function>; 4],
}

impl Promises {
    /// At most so many; without a limit nothing is counted.
    pub(super) fn new(most: Option<usize>) -> Self {
        Self {
            shared: v8::ArrayBuffer::new_backing_store_from_vec(vec![0; 8]).make_shared(),
            most: most.map(|most| i32::try_from(most).unwrap_or(i32::MAX)),
        }
    }

    /// As the hooks see it.
    pub(super) fn buffer<'s>(&self, scope: &mut v8::PinScope<'s, '_>) -> v8::Local<'s, v8::ArrayBuffer> {
        v8::ArrayBuffer::with_backing_store(scope, &self.shared)
    }

    /// The next event has all of them.
    pub(super) fn open(&self) {
        let bytes = self.most.unwrap_or(i32::MAX).to_ne_bytes();
        for (cell, byte) in self.shared.iter().zip(bytes.iter().chain(&bytes)) {
            cell.set(*byte);
        }
    }
}

impl Hooks {
    /// In the order in which `bootstrap.js` gives them.
    pub(super) fn new([first, made, before, after, settled]: [v8::Global<v8::Function>; 5]) -> Self {
        Self {
            first,
            counting: [made, before, after, settled],
        }
    }

    /// From now on the engine tells whether any promise is made, too.
    pub(super) fn tell_the_first(&self, scope: &mut v8::PinScope<'_, '_>) {
        let first = v8::Local::new(scope, &self.first);
        let [_, before, after, settled] = self.locals(scope);
        scope.set_promise_hooks(Some(first), Some(before), Some(after), Some(settled));
    }

    /// From now on they are counted, where there is a limit, and nothing else.
    pub(super) fn count(&self, scope: &mut v8::PinScope<'_, '_>, promises: &Promises) {
        if promises.most.is_none() {
            return scope.set_promise_hooks(None, None, None, None);
        }
        let [made, before, after, settled] = self.locals(scope);
        scope.set_promise_hooks(Some(made), Some(before), Some(after), Some(settled));
    }

    fn locals<'s>(&self, scope: &mut v8::PinScope<'s, '_>) -> [v8::Local<'s, v8::Function>; 4] {
        self.counting.each_ref().map(|hook| v8::Local::new(scope, hook))
    }
}

/// `()`: there are too many.
pub(super) fn over(
    scope: &mut v8::PinScope<'_, '_>,
    _args: v8::FunctionCallbackArguments<'_>,
    _returned: v8::ReturnValue<'_>,
) {
    if let Some(sweep) = Sweep::of(scope) {
        sweep.stop(Stopped::Promises);
        scope.terminate_execution();
    }
}
