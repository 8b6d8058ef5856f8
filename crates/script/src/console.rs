//! What functions log: bounded lines, kept until the batch is done.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use deno_core::{JsRuntime, v8};
use millrace_event::frame::{LogLevel, LogLine, Usage};

use crate::place::Place;

/// Characters kept of one line.
const LINE_CHARS: usize = 4096;

/// Lines kept of one batch, whatever its events are allowed one by one.
pub(crate) const BATCH_LINES: usize = 1000;

/// The lines of one batch, and its account.
#[derive(Debug, Default)]
pub struct Logged {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// Lines that were over a limit.
    pub discarded: u64,
    /// What the batch used.
    pub usage: Usage,
}

/// Where the isolate's `log` and `console` write to; shared between the isolate and the batch that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    logged: Logged,
    index: Option<usize>,
    position: Option<usize>,
    lines_left: usize,
    /// Told the same as the lines: where the batch is.
    place: Option<Arc<Place>>,
}

impl Console {
    /// What is logged from here on belongs to this event, up to `lines`.
    pub(crate) fn open(&self, index: Option<usize>, lines: usize) {
        let mut inner = self.0.borrow_mut();
        inner.index = index;
        inner.position = None;
        inner.lines_left = lines;
        if let (Some(index), Some(place)) = (index, &inner.place) {
            place.event(index);
        }
    }

    /// Tells this place from here on which function runs.
    pub(crate) fn follow(&self, place: Arc<Place>) {
        self.0.borrow_mut().place = Some(place);
    }

    /// What is logged from here on is this function's.
    pub(crate) fn enter(&self, position: usize) {
        let mut inner = self.0.borrow_mut();
        inner.position = Some(position);
        if let Some(place) = &inner.place {
            place.function(position);
        }
    }

    /// The function that runs, or ran the last.
    pub(crate) fn position(&self) -> Option<usize> {
        self.0.borrow().position
    }

    /// Takes what was logged so far.
    pub(crate) fn take(&self) -> Logged {
        std::mem::take(&mut self.0.borrow_mut().logged)
    }

    fn write(&self, level: LogLevel, message: String) {
        let mut inner = self.0.borrow_mut();
        if inner.lines_left == 0 || inner.logged.lines.len() >= BATCH_LINES {
            inner.logged.discarded += 1;
            return;
        }
        inner.lines_left -= 1;
        let (index, position) = (inner.index, inner.position);
        inner.logged.lines.push(LogLine {
            index,
            position: position.and_then(|position| u32::try_from(position).ok()),
            level,
            message,
        });
    }

    /// The native function behind `log` and `console`: `(level, text)`, both made by our own JavaScript.
    pub(crate) fn function<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
    ) -> Option<v8::Local<'s, v8::Function>> {
        JsRuntime::op_state_from(scope).borrow_mut().put(self.clone());
        v8::Function::new(scope, write_line)
    }
}

fn write_line(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _returned: v8::ReturnValue<'_>,
) {
    let level = match args.get(0).uint32_value(scope) {
        Some(0) => LogLevel::Debug,
        Some(2) => LogLevel::Warn,
        Some(3) => LogLevel::Error,
        _ => LogLevel::Info,
    };
    // The text was cut by our JavaScript; it is cut again because a boundary checks for itself.
    let text = args.get(1).to_rust_string_lossy(scope);
    let text = if text.len() <= LINE_CHARS {
        text
    } else {
        text.chars().take(LINE_CHARS).collect()
    };
    let state = JsRuntime::op_state_from(scope);
    let console = state.borrow().try_borrow::<Console>().cloned();
    if let Some(console) = console {
        console.write(level, text);
    }
}
