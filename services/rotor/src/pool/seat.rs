//! One thread, one worker, one batch at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Outcome};
use millrace_service::{Clock, Condition};
use tokio::sync::mpsc;

use super::metrics::Reason;
use super::process::{Death, Worker};
use super::{Chain, Config, EventInput, Job, Kill, Metrics, Ran};
use crate::restore::restore;

/// Event text handed to a worker in one frame, in bytes; a larger batch goes in several.
const BATCH_BYTES: usize = 8 << 20;

/// The waits between failed starts of a worker: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) struct Seat {
    number: usize,
    config: Arc<Config>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    condition: Condition,
    worker: Option<Worker>,
}

impl Seat {
    pub(super) fn new(
        number: usize,
        config: Arc<Config>,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
        condition: Condition,
    ) -> Self {
        Self {
            number,
            config,
            metrics,
            clock,
            jobs,
            condition,
            worker: None,
        }
    }

    /// The thread: takes batches until the pool is closed.
    pub(super) fn serve(mut self) {
        self.start();
        loop {
            // Free seats queue for the lock; the one that holds it waits for the next batch.
            let job = self
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .blocking_recv();
            let Some(job) = job else { return };
            if let Some(mut ran) = self.run(&job) {
                for (outcome, input) in ran.outcomes.iter_mut().zip(&job.events) {
                    restore(&input.event, outcome);
                }
                // Whoever asked may have left in the meantime.
                drop(job.done.send(ran));
            }
        }
    }

    /// The outcomes of a batch; `None` when nobody waits for them any more.
    fn run(&mut self, job: &Job) -> Option<Ran> {
        let mut all = Ran::default();
        for events in portions(&job.events) {
            if self.has_killed_enough(&all) {
                all.append(held(job, events));
                continue;
            }
            match self.attempt(job, events)? {
                Ok(done) => all.append(done),
                Err(death) if events.len() == 1 => all.append(self.blamed(job, events, death)?),
                Err(_) => {
                    self.metrics.reruns.inc();
                    for event in events.chunks(1) {
                        if self.has_killed_enough(&all) {
                            all.append(held(job, event));
                            continue;
                        }
                        match self.attempt(job, event)? {
                            Ok(done) => all.append(done),
                            Err(death) => all.append(self.blamed(job, event, death)?),
                        }
                    }
                }
            }
        }
        Some(all)
    }

    /// Whether the rest of a batch is not worth its workers: each kill costs the others the start of one.
    fn has_killed_enough(&self, ran: &Ran) -> bool {
        ran.kills.len() >= self.config.kills.get()
    }

    /// What becomes of one event whose worker died. The death may not be this event's doing: the system may be short
    /// of memory, an operator may have killed the worker, or isolates that were there before took the memory. So
    /// the event is blamed when it happens again in a fresh worker. A deadline needs no second proof.
    fn blamed(&mut self, job: &Job, event: &[EventInput], death: Death) -> Option<Ran> {
        let Death(mut fault) = death;
        let doubtful = [
            FunctionCode::WorkerCrashed,
            FunctionCode::RssLimit,
            FunctionCode::HeapLimit,
        ];
        if doubtful.contains(&fault.code) {
            match self.attempt(job, event)? {
                Ok(done) => return Some(done),
                Err(Death(again)) => fault = again,
            }
        }
        if let (None, [only]) = (&fault.function, job.chain.load.functions.as_slice()) {
            fault.function = Some(only.id.clone());
            fault.function_version = Some(only.version);
        }
        let kill = Kill {
            code: fault.code,
            function: fault.function.clone().zip(fault.function_version),
        };
        Some(Ran {
            kills: vec![kill],
            ..Ran::of([Outcome::dead_letter(fault)])
        })
    }

    /// Runs events in a worker, which is lost on a death; `None` when nobody waits any more.
    fn attempt(&mut self, job: &Job, events: &[EventInput]) -> Option<Result<Ran, Death>> {
        let mut wait = BACKOFF.0;
        while self.worker.is_none() && !self.start() {
            if job.done.is_closed() {
                return None;
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(BACKOFF.1);
        }
        if job.done.is_closed() {
            return None;
        }
        let worker = self.worker.as_mut()?;
        let began = self.clock.instant();
        let result = worker.run(
            &job.chain,
            events,
            &self.config,
            self.clock.as_ref(),
            &self.metrics,
        );
        self.metrics
            .batch_seconds
            .observe((self.clock.instant() - began).as_secs_f64());
        if let Err(Death(fault)) = &result {
            let reason = fault.code.as_str();
            self.metrics.deaths.get_or_create(&Reason { reason }).inc();
            let Chain { load, .. } = job.chain.as_ref();
            tracing::warn!(
                seat = self.number,
                pid = worker.pid(),
                workspace = load.workspace,
                chain = load.chain,
                version = load.version,
                events = events.len(),
                reason,
                detail = fault.message,
                complaint = worker.complaint(),
                "lost a worker"
            );
            self.worker = None;
        }
        Some(result)
    }

    fn start(&mut self) -> bool {
        match Worker::spawn(&self.config, self.clock.as_ref()) {
            Ok(worker) => {
                self.metrics.started.inc();
                self.condition.holds();
                tracing::debug!(seat = self.number, pid = worker.pid(), "worker is ready");
                self.worker = Some(worker);
                true
            }
            Err(error) => {
                self.metrics.start_failures.inc();
                self.condition.fails(error.to_string());
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(seat = self.number, %error, cause, "no worker, its batch waits");
                false
            }
        }
    }
}

/// Events that are not run, behind those that killed too many workers: they come back when their functions are not held
/// back any more.
fn held(job: &Job, events: &[EventInput]) -> Ran {
    let text = "not run: others of its batch killed too many workers";
    let mut fault = Fault::new(FunctionCode::Quarantined, text);
    if let [only] = job.chain.load.functions.as_slice() {
        fault.function = Some(only.id.clone());
        fault.function_version = Some(only.version);
    }
    Ran::of(events.iter().map(|_| Outcome::retry(fault.clone(), None)))
}

/// Cuts a batch so that no frame comes near the limit; each portion has at least one event.
fn portions(events: &[EventInput]) -> impl Iterator<Item = &[EventInput]> {
    let mut size = 0_usize;
    events.chunk_by(move |_, next| {
        size = size.saturating_add(next.event.get().len());
        let within = size <= BATCH_BYTES;
        if !within {
            size = 0;
        }
        within
    })
}
