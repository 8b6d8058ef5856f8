//! What became of an event.

use std::fmt::Debug;

use serde_json::value::RawValue;

use super::{EventText, Fault};
use crate::code::Verdict;

/// How events that came of one are held.
pub trait OutputText: Clone + Debug {
    /// How the event is held with which a chain goes on.
    type Kept: Clone + Debug;
}

impl OutputText for EventText {
    type Kept = Box<RawValue>;
}

impl OutputText for String {
    type Kept = Self;
}

/// What became of one event, with events as text that was read as JSON; for a worker, as the engine wrote them.
#[derive(Clone, Debug)]
pub struct Outcome<T: OutputText = EventText> {
    /// What was decided.
    pub verdict: Verdict,
    /// With `forward`: the events it became, at least one.
    pub events: Vec<T>,
    /// With `retry` and `dead_letter`: why. With `drop`: which function.
    pub fault: Option<Fault>,
    /// With `retry`: the delay that the function asked for, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// With `retry`: where the chain can go on. Without it the next attempt begins at the first function.
    pub resume: Option<Resume<T::Kept>>,
    /// Whether each text here is known to be the event's own, byte for byte, with at most members added to its objects.
    pub intact: bool,
}

/// Where a chain goes on: at the function that asked for another try, with the event as that function got it.
#[derive(Clone, Debug)]
pub struct Resume<T = Box<RawValue>> {
    /// The function's place in the chain, from 0.
    pub position: u32,
    /// The event's text.
    pub event: T,
}

impl<T: OutputText> Outcome<T> {
    /// The events go on.
    pub fn forward<E: Into<T>>(events: Vec<E>) -> Self {
        Self {
            events: events.into_iter().map(Into::into).collect(),
            ..Self::of(Verdict::Forward)
        }
    }

    /// A function dropped the event on purpose.
    pub fn dropped() -> Self {
        Self::of(Verdict::Drop)
    }

    /// The event is set aside.
    pub fn dead_letter(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::of(Verdict::DeadLetter)
        }
    }

    /// The event goes round again.
    pub fn retry(fault: Fault, after_ms: Option<u64>) -> Self {
        Self {
            fault: Some(fault),
            retry_after_ms: after_ms,
            ..Self::of(Verdict::Retry)
        }
    }

    /// A verdict, and nothing with it.
    const fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            events: Vec::new(),
            fault: None,
            retry_after_ms: None,
            resume: None,
            intact: false,
        }
    }
}
