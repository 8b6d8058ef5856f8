//! One thread that ends what runs too long.
//!
//! Each isolate has a [`Watch`]. It is armed before an event enters the isolate and disarmed when the event's
//! outcome is known, so whatever runs in between (functions, their microtasks, getters and `toJSON` of what they
//! returned) is on the same clock. Past the deadline the thread terminates the isolate. Builtins of the engine do
//! not notice a termination before they return; the owner of the process must keep a deadline of its own.
//!
//! Resolution is [`TICK`]; while nothing is armed the thread sleeps without waking.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use deno_core::v8;

use crate::cpu::ThreadClock;

/// How often armed watches are looked at.
const TICK: Duration = Duration::from_millis(5);

/// Why an isolate was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stopped {
    /// The deadline passed.
    Wall = 1,
    /// The heap came near its limit.
    Heap = 2,
    /// The processor time is used up.
    Cpu = 3,
    /// Too many promises are pending.
    Promises = 4,
}

/// The thread's handle. The thread lives as long as the process: start one and share it.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    slots: Mutex<Slots>,
    wake: Condvar,
    /// Set before the thread decides to sleep, so that whoever arms a watch afterwards wakes it.
    idle: AtomicBool,
}

/// How much processor time a thread may use. It counts from the first look on, so that what is over before costs no
/// question: the thread's clock is one of the kernel's, and an event has up to a tick more.
#[derive(Debug)]
struct Meter {
    clock: ThreadClock,
    limit: Duration,
    until: Option<Duration>,
}

impl Meter {
    fn is_over(&mut self) -> bool {
        let Some(used) = self.clock.read() else {
            return false;
        };
        used >= *self.until.get_or_insert(used + self.limit)
    }
}

/// Slots of isolates that are gone leave at the next look.
#[derive(Debug, Default)]
struct Slots {
    watched: Vec<Weak<Mutex<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    deadline: Option<Instant>,
    /// The account of the isolate's thread; `None`: the deadline alone counts.
    cpu: Option<Meter>,
    isolate: v8::IsolateHandle,
    stopped: Arc<StopReason>,
}

/// Why an isolate was stopped, shared with the engine's heap callback. The first reason stays.
#[derive(Debug, Default)]
pub(crate) struct StopReason(AtomicU8);

impl StopReason {
    pub(crate) fn set(&self, reason: Stopped) {
        if self.get().is_none() {
            self.0.store(reason as u8, Ordering::SeqCst);
        }
    }

    pub(crate) fn get(&self) -> Option<Stopped> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            2 => Some(Stopped::Heap),
            3 => Some(Stopped::Cpu),
            4 => Some(Stopped::Promises),
            _ => Some(Stopped::Wall),
        }
    }
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            slots: Mutex::new(Slots::default()),
            wake: Condvar::new(),
            idle: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watched.guard())?;
        Ok(Self { shared })
    }

    pub(crate) fn watch(&self, isolate: v8::IsolateHandle, stopped: Arc<StopReason>) -> Watch {
        let slot = Arc::new(Mutex::new(Slot {
            deadline: None,
            cpu: None,
            isolate,
            stopped,
        }));
        lock(&self.shared.slots).watched.push(Arc::downgrade(&slot));
        Watch {
            slot,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Shared {
    fn guard(&self) {
        let mut slots = lock(&self.slots);
        loop {
            self.idle.store(true, Ordering::SeqCst);
            if look(&mut slots, now()) {
                self.idle.store(false, Ordering::SeqCst);
                slots = match self.wake.wait_timeout(slots, TICK) {
                    Ok((slots, _)) => slots,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            } else {
                slots = self.wake.wait(slots).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Stops what is past its deadline; says whether anything is still armed.
fn look(slots: &mut Slots, now: Instant) -> bool {
    let mut armed = false;
    slots.watched.retain(|slot| {
        let Some(slot) = slot.upgrade() else { return false };
        let mut slot = lock(&slot);
        let slot = &mut *slot;
        match slot.deadline {
            Some(deadline) if deadline <= now => {
                slot.stopped.set(Stopped::Wall);
                slot.isolate.terminate_execution();
                slot.deadline = None;
            }
            Some(_) if slot.cpu.as_mut().is_some_and(Meter::is_over) => {
                slot.stopped.set(Stopped::Cpu);
                slot.isolate.terminate_execution();
                slot.deadline = None;
            }
            Some(_) => armed = true,
            None => {}
        }
        true
    });
    armed
}

/// One isolate's place with the watchdog.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    slot: Arc<Mutex<Slot>>,
    shared: Arc<Shared>,
}

impl Watch {
    /// Gives what follows `limit` of wall time; returns the deadline.
    pub(crate) fn arm(&self, limit: Duration) -> Instant {
        let deadline = now() + limit;
        self.until(deadline);
        deadline
    }

    fn wake(&self) {
        if self.shared.idle.swap(false, Ordering::SeqCst) {
            // The thread holds this lock except while it waits, so the notification finds it waiting.
            let _slots = lock(&self.shared.slots);
            self.shared.wake.notify_all();
        }
    }

    /// Gives what follows, until it is disarmed, the time until `deadline`, and so much processor time of this thread,
    /// which must be the isolate's.
    pub(crate) fn arm_event(&self, deadline: Instant, cpu: Option<Duration>) {
        let meter = cpu.and_then(|limit| {
            Some(Meter {
                clock: ThreadClock::own()?,
                limit,
                until: None,
            })
        });
        let mut slot = lock(&self.slot);
        slot.deadline = Some(deadline);
        slot.cpu = meter;
        drop(slot);
        self.wake();
    }

    /// Sets another deadline.
    pub(crate) fn until(&self, deadline: Instant) {
        lock(&self.slot).deadline = Some(deadline);
        self.wake();
    }

    /// Takes the deadline away; after this the watchdog does not stop the isolate any more.
    pub(crate) fn disarm(&self) {
        let mut slot = lock(&self.slot);
        slot.deadline = None;
        slot.cpu = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monotonic clock: a deadline for code that really runs can only be measured in real time.
#[expect(
    clippy::disallowed_methods,
    reason = "running code is timed in real time, tests included"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
