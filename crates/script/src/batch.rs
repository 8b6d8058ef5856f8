//! A batch through one chain version, whatever happens to the isolate on the way.

use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Load, Outcome, Record};

use crate::console::{Console, Logged};
use crate::isolate::Isolate;
use crate::watchdog::Watchdog;

/// Owns the isolate of one chain version and replaces it when it was stopped.
pub(crate) struct Runner {
    load: Load,
    watchdog: Watchdog,
    console: Console,
    isolate: Option<Isolate>,
    /// Why the code does not load; it will not load another time either.
    broken: Option<Fault>,
}

impl Runner {
    pub(crate) fn new(load: Load, watchdog: Watchdog) -> Self {
        Self {
            load,
            watchdog,
            console: Console::default(),
            isolate: None,
            broken: None,
        }
    }

    /// Runs events one after the other; one outcome each, in order. `progress` holds the index of the event that
    /// is being run.
    ///
    /// # Cancellation
    /// Not safe: drop the runner as well.
    pub(crate) async fn run(
        &mut self,
        records: &[Record<'_>],
        progress: &AtomicUsize,
    ) -> (Vec<Outcome>, Logged) {
        let mut outcomes = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            progress.store(index, Ordering::Release);
            let outcome = match self.ready().await {
                Ok(isolate) => isolate.run(index, record).await,
                Err(fault) => {
                    // Whatever kept the code from loading would do so for each event: the rest shares the fault.
                    let rest = records.len() - outcomes.len();
                    outcomes.extend(std::iter::repeat_n(Outcome::dead_letter(fault), rest));
                    break;
                }
            };
            outcomes.push(outcome);
            self.isolate.take_if(|isolate| isolate.is_spent());
        }
        if let Some(isolate) = &mut self.isolate {
            isolate.tidy().await;
        }
        self.isolate.take_if(|isolate| isolate.is_spent());
        (outcomes, self.console.take())
    }

    /// Heap in use, in bytes; nothing while there is no isolate.
    pub(crate) fn heap_bytes(&mut self) -> u64 {
        self.isolate.as_mut().map_or(0, Isolate::heap_bytes)
    }

    async fn ready(&mut self) -> Result<&mut Isolate, Fault> {
        if let Some(fault) = &self.broken {
            return Err(fault.clone());
        }
        let isolate = match self.isolate.take() {
            Some(isolate) => isolate,
            None => match Isolate::load(&self.load, &self.watchdog, &self.console).await {
                Ok(isolate) => isolate,
                Err(fault) => {
                    if fault.code == FunctionCode::CompileError {
                        self.broken = Some(fault.clone());
                    }
                    return Err(fault);
                }
            },
        };
        Ok(self.isolate.insert(isolate))
    }
}
