//! One thread, one worker, one batch at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::FunctionCode;
use millrace_event::frame::payload::Records;
use millrace_event::frame::{Fault, Outcome};
use millrace_service::{Clock, Condition};
use tokio::sync::mpsc;

use super::cgroup::{Group, groups};
use super::metrics::Reason;
use super::process::{Death, Worker};
use super::{Chain, Config, Job, Kill, Metrics, Ran, is_past_budget};
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
    /// Of its workers; removed behind the last one.
    group: Option<Arc<Group>>,
    /// Wall time that the batch at hand took up to now.
    spent: Duration,
    /// Of that, processor time and waits, and all of the time with workers that died.
    cost: Duration,
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
            group: None,
            spent: Duration::ZERO,
            cost: Duration::ZERO,
        }
    }

    /// The thread: takes batches until the pool is closed.
    pub(super) fn serve(mut self) {
        if let Some(groups) = self.config.cgroups.then(groups).flatten() {
            match groups.create(self.config.rss_limit) {
                Ok(group) => self.group = Some(Arc::new(group)),
                Err(error) => {
                    tracing::warn!(seat = self.number, %error, "no control group, its worker's memory is looked at")
                }
            }
        }
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
                let outcomes = ran.outcomes.iter_mut().enumerate();
                for (index, outcome) in outcomes.filter(|(_, outcome)| !outcome.intact) {
                    if let Some(source) = job.events.event(index) {
                        restore(source, outcome);
                    }
                }
                // Whoever asked may have left in the meantime.
                drop(job.done.send(ran));
            }
        }
    }

    /// The outcomes of a batch; `None` when nobody waits for them any more.
    fn run(&mut self, job: &Job) -> Option<Ran> {
        let mut all = Ran::default();
        (self.spent, self.cost) = (Duration::ZERO, Duration::ZERO);
        for events in portions(&job.events) {
            if let Some(rest) = self.not_run(job, events.len(), &all) {
                all.append(rest);
                continue;
            }
            match self.attempt(job, events.clone())? {
                Ok(done) => all.append(done),
                Err(death) if events.len() == 1 => all.append(self.blamed(job, events, death)?),
                Err(death) => {
                    self.metrics.reruns.inc();
                    if job.budget.is_some() {
                        // Under a budget the events may never run again one by one: the kill counts all the same.
                        all.kills.push(Kill::of(&death.0));
                    }
                    for event in events.map(|index| index..index + 1) {
                        if let Some(rest) = self.not_run(job, 1, &all) {
                            all.append(rest);
                            continue;
                        }
                        match self.attempt(job, event.clone())? {
                            Ok(done) => all.append(done),
                            Err(death) => all.append(self.blamed(job, event, death)?),
                        }
                    }
                }
            }
        }
        all.cut = all.outcomes.iter().any(is_past_budget);
        all.took = if all.cut { self.spent } else { self.cost };
        Some(all)
    }

    /// What becomes of events that are not worth a worker any more: each kill costs the others the start of one, and
    /// past the budget nothing is run.
    fn not_run(&self, job: &Job, events: usize, ran: &Ran) -> Option<Ran> {
        let fault = if ran.kills.len() >= self.config.kills.get() {
            let text = "not run: others of its batch killed too many workers";
            Fault::new(FunctionCode::Quarantined, text)
        } else if job.budget.is_some_and(|budget| self.spent >= budget) {
            let text = "its workspace used up the time that it has beside others in one batch";
            Fault::new(FunctionCode::WallLimit, text)
        } else {
            return None;
        };
        let retry = || {
            let mut fault = fault.clone();
            if let [only] = job.chain.load.functions.as_slice() {
                fault.function = Some(only.id.clone());
                fault.function_version = Some(only.version);
            }
            Outcome::retry(fault, None)
        };
        Some(Ran::of(std::iter::repeat_with(retry).take(events)))
    }

    /// What becomes of one event whose worker died. The death may not be this event's doing: the system may be short
    /// of memory, an operator may have killed the worker, or isolates that were there before took the memory. So
    /// the event is blamed when it happens again in a fresh worker. A deadline needs no second proof.
    fn blamed(&mut self, job: &Job, event: Range<usize>, death: Death) -> Option<Ran> {
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
        let kills = vec![Kill::of(&fault)];
        if job.budget.is_some_and(|budget| self.spent >= budget) {
            // Whether it would have ended within its own limit nobody has seen.
            let rest = Ran::of([Outcome::retry(fault, None)]);
            return Some(Ran { kills, ..rest });
        }
        Some(Ran {
            kills,
            ..Ran::of([Outcome::dead_letter(fault)])
        })
    }

    /// Runs events in a worker, which is lost on a death; `None` when nobody waits any more.
    fn attempt(&mut self, job: &Job, events: Range<usize>) -> Option<Result<Ran, Death>> {
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
        let left = job.budget.map(|budget| budget.saturating_sub(self.spent));
        let count = events.len();
        let result = worker.run(
            &job.chain,
            (&job.events, events),
            left,
            &self.config,
            self.clock.as_ref(),
            &self.metrics,
        );
        let took = self.clock.instant() - began;
        self.metrics.batch_seconds.observe(took.as_secs_f64());
        self.spent += took;
        self.cost += match &result {
            Ok(Ran { usage, .. }) => took.min(Duration::from_micros(
                usage.cpu_us.saturating_add(usage.waited_us),
            )),
            Err(Death(_)) => took,
        };
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
                events = count,
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
        match Worker::spawn(&self.config, self.group.clone(), self.clock.as_ref()) {
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

/// Cuts a batch so that no frame comes near the limit; each portion has at least one event.
fn portions(events: &Records) -> Vec<Range<usize>> {
    let (mut portions, mut start, mut size) = (Vec::new(), 0, 0_usize);
    for index in 0..events.len() {
        size = size.saturating_add(events.event_len(index));
        if size > BATCH_BYTES && index > start {
            portions.push(start..index);
            (start, size) = (index, events.event_len(index));
        }
    }
    if start < events.len() {
        portions.push(start..events.len());
    }
    portions
}
