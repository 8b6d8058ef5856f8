//! A batch through one chain version, whatever happens to the isolate on the way.

use std::sync::Arc;
use std::time::Duration;

use millrace_event::FunctionCode;
use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Batch, Fault, Load, Outcome};
use millrace_event::redact::Redactor;

use crate::account::Account;
use crate::console::Console;
use crate::isolate::{Calls, Isolate};
use crate::lanes::{Job, Share, Written};
use crate::outside::{Arrivals, Outside};
use crate::watchdog::{Watchdog, now};

/// Owns the isolate of one chain version and replaces it when it was stopped.
pub(crate) struct Runner {
    load: Load,
    watchdog: Watchdog,
    console: Console,
    calls: Calls,
    redactor: Redactor,
    isolate: Option<Isolate>,
    /// Why the code does not load; it will not load another time either.
    broken: Option<Fault>,
}

impl Runner {
    pub(crate) fn new(load: Load, watchdog: Watchdog, (outside, arrivals): (Outside, Arrivals)) -> Self {
        Self {
            redactor: Redactor::new(load.environment.0.get()),
            load,
            watchdog,
            console: Console::default(),
            calls: Calls::new(outside, arrivals),
            isolate: None,
            broken: None,
        }
    }

    /// Runs events one after the other, those that no other lane of the chain has; one outcome each. The job's place is
    /// the event and the function that run. Past the batch's budget events are not run, and go round again; loading is not part of it.
    ///
    /// # Errors
    /// An outcome does not fit in an answer.
    ///
    /// # Cancellation
    /// Not safe: drop the runner as well.
    pub(crate) async fn run(&mut self, batch: &Batch<'_>, job: &Job) -> Result<Share, PayloadError> {
        let Job {
            cursor, place, told, ..
        } = job;
        let mut written = Written::new(batch, job.alone);
        let next = || {
            let index = cursor.next();
            Some((index, batch.records.get(index)?))
        };
        let mut account = Account {
            clock: now(),
            left: batch.budget_ms.map(Duration::from_millis),
        };
        self.calls.open(told.clone());
        self.console.follow(Arc::clone(place));
        while let Some((index, record)) = next() {
            place.event(index);
            if account.is_empty() {
                written.push(index, &past_budget())?;
                continue;
            }
            let loads = self.isolate.is_none();
            let (isolate, calls, redactor) = match self.ready().await {
                Ok(ready) => ready,
                Err(fault) => {
                    // Whatever kept the code from loading would do so for each event: the rest shares the fault.
                    let outcome = cleaned(Outcome::dead_letter(fault), &self.redactor);
                    written.push(index, &outcome)?;
                    while let Some((index, _)) = next() {
                        written.push(index, &outcome)?;
                    }
                    break;
                }
            };
            if loads {
                account.clock = now();
            }
            let mut swept = 0;
            if job.alone && isolate.sweeps() && record.position == 0 {
                let records = batch.records.get(index..).unwrap_or_default();
                let answer = (&mut written.answer, redactor);
                swept = isolate.sweep(index, records, &mut account, calls, answer).await?;
                written.indices.extend(index..index + swept);
            }
            if swept == 0 {
                // One look at the clock for each event: the end of one is the beginning of the next.
                let outcome = isolate.run(index, record, account, calls).await;
                account.settle();
                written.push(index, &cleaned(outcome.unwrap_or_else(past_budget), redactor))?;
                swept = 1;
            }
            cursor.skip(swept - 1);
            self.isolate.take_if(|isolate| isolate.is_spent());
        }
        place.done();
        let mut in_flight = None;
        if let Some(isolate) = &mut self.isolate {
            isolate.tidy().await;
            in_flight = Some(isolate.in_flight());
        }
        self.isolate.take_if(|isolate| isolate.is_spent());
        self.calls.close();
        let mut logged = self.console.take();
        if !self.redactor.is_empty() {
            for line in &mut logged.lines {
                self.redactor.clean(&mut line.message);
            }
        }
        Ok(Share {
            written,
            logged,
            in_flight,
        })
    }

    /// Heap in use, in bytes; nothing while there is no isolate.
    pub(crate) fn heap_bytes(&mut self) -> u64 {
        self.isolate.as_mut().map_or(0, Isolate::heap_bytes)
    }

    async fn ready(&mut self) -> Result<(&mut Isolate, &mut Calls, &Redactor), Fault> {
        if let Some(fault) = &self.broken {
            return Err(fault.clone());
        }
        let isolate = match self.isolate.take() {
            Some(isolate) => isolate,
            None => match Isolate::load(&self.load, &self.watchdog, &self.console, &mut self.calls).await {
                Ok(isolate) => isolate,
                Err(fault) => {
                    if fault.code == FunctionCode::CompileError {
                        self.broken = Some(fault.clone());
                    }
                    return Err(fault);
                }
            },
        };
        Ok((self.isolate.insert(isolate), &mut self.calls, &self.redactor))
    }
}

/// An event that had no time beside those of others: it comes back, and is run then.
pub(crate) fn past_budget() -> Outcome<String> {
    let text = "its workspace used up the time that it has beside others in one batch";
    Outcome::retry(Fault::new(FunctionCode::WallLimit, text), None)
}

/// The outcome without the secrets that its fault cites.
pub(crate) fn cleaned(mut outcome: Outcome<String>, redactor: &Redactor) -> Outcome<String> {
    if let Some(fault) = &mut outcome.fault
        && !redactor.is_empty()
    {
        redactor.clean(&mut fault.message);
        fault.stack.iter_mut().for_each(|stack| redactor.clean(stack));
    }
    outcome
}
