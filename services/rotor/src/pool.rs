//! Worker processes and what they cost.
//!
//! A pool has a fixed number of seats, each a thread with at most one worker process. A seat takes a batch from a
//! bounded queue, hands it to its worker over a socket pair, watches the clock and the worker's memory, and kills
//! the worker past either. A worker's death costs its batch only: the batch runs again record by record in a
//! fresh worker, the record that kills gets the fault, the others their own outcome. Nothing JavaScript does ends
//! this process, and a worker that cannot be started holds its batch until one can: no event is lost or blamed.
//!
//! What a function asks for outside of its worker is carried out here while its batch runs: see [`crate::outside`].
//! What functions did not touch comes out as it went in: see [`crate::restore`].
//!
//! A function may therefore run more than once for one event; only the last outcome is given.

mod calls;
mod cgroup;
mod complaints;
mod metrics;
mod process;
mod seat;
mod watch;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_event::frame::payload::Records;
use millrace_event::frame::{Fault, Load, LogLine, Outcome, Usage};
use millrace_event::{FunctionCode, Verdict};
use millrace_service::{Clock, Condition};
use tokio::sync::{mpsc, oneshot};

pub use metrics::Metrics;

use crate::outside::{Outside, Reach};

/// How the pool is built.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker processes.
    pub workers: NonZeroUsize,
    /// Batches that wait for a free worker; more wait in [`Pool::run`].
    pub queue: NonZeroUsize,
    /// Whether workers must install their sandbox. `false` is for hosts without seccomp.
    pub sandbox: bool,
    /// Chain versions that one worker keeps ready.
    pub chains: NonZeroUsize,
    /// How long a worker keeps a chain version that nobody uses; whole seconds.
    pub idle: Duration,
    /// Resident memory at which a worker is killed, in bytes.
    pub rss_limit: u64,
    /// Whether workers get control groups, where there are any, that have so much memory.
    pub cgroups: bool,
    /// What a worker gets on top of an event's own limit before it is killed.
    pub grace: Duration,
    /// Workers that the events of one batch may kill; the rest of them is not run then.
    pub kills: NonZeroUsize,
    /// What functions reach outside of their worker.
    pub outside: Outside,
    /// The program to start with `worker`; this very program when there is none.
    pub program: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            queue: NonZeroUsize::MIN.saturating_add(63),
            sandbox: true,
            chains: NonZeroUsize::MIN.saturating_add(31),
            idle: Duration::from_secs(300),
            rss_limit: 512 << 20,
            cgroups: true,
            grace: Duration::from_millis(500),
            kills: NonZeroUsize::MIN.saturating_add(4),
            outside: Outside::default(),
            program: None,
        }
    }
}

/// A chain version, as workers load it.
#[derive(Debug)]
pub struct Chain {
    load: Load,
    /// The load frame's payload, written once.
    payload: Vec<u8>,
    reach: Arc<Reach>,
}

impl Chain {
    /// A chain version ready to be sent, of functions that reach what is their workspace's own.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn new(load: Load) -> Result<Self, serde_json::Error> {
        let reach = Reach {
            workspace: load.workspace.clone(),
            origins: Vec::new(),
        };
        Self::with_reach(load, Arc::new(reach))
    }

    /// A chain version ready to be sent.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn with_reach(load: Load, reach: Arc<Reach>) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(&load)?;
        Ok(Self { load, payload, reach })
    }

    /// What its functions may reach outside of their worker.
    pub fn reach(&self) -> &Arc<Reach> {
        &self.reach
    }

    /// What it was made of.
    pub fn load(&self) -> &Load {
        &self.load
    }
}

/// The pool is closed: no batch is run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker pool is closed")]
pub struct Closed;

/// Why a pool cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("no thread for a worker")]
pub struct StartError(#[source] std::io::Error);

struct Job {
    chain: Arc<Chain>,
    events: Records,
    /// Wall time for all of them; those past it go round again.
    budget: Option<Duration>,
    /// Closed when nobody waits for the outcomes any more.
    done: oneshot::Sender<Ran>,
}

/// What running a batch gave.
#[derive(Debug, Default)]
pub struct Ran {
    /// One for each event, in order.
    pub outcomes: Vec<Outcome>,
    /// What functions logged; the index is the event's place in the batch. Lines of workers that died are lost.
    pub lines: Vec<LogLine>,
    /// Lines that were over the limits of the worker.
    pub discarded: u64,
    /// What it used, in all its workers but those that died.
    pub usage: Usage,
    /// The events that killed their worker each time they ran.
    pub kills: Vec<Kill>,
    /// What it took of its seat: processor time and waits, and all of the time with workers that died; all of it by the clock
    /// where it was cut off.
    pub took: Duration,
    /// Whether it was cut off: the budget ended before its events did.
    pub cut: bool,
}

/// A worker's death that one event is to blame for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// How it died.
    pub code: FunctionCode,
    /// The function that ran, and its version, where they are known.
    pub function: Option<(String, u32)>,
}

impl Kill {
    fn of(fault: &Fault) -> Self {
        Self {
            code: fault.code,
            function: fault.function.clone().zip(fault.function_version),
        }
    }
}

/// Whether an event was not run, or not to its end, because the budget was used up. Nothing else sends an event round again
/// for a limit.
pub(crate) fn is_past_budget(outcome: &Outcome) -> bool {
    let code = outcome.fault.as_ref().map(|fault| fault.code);
    outcome.verdict == Verdict::Retry && code == Some(FunctionCode::WallLimit)
}

impl Ran {
    /// Takes what came of the events behind those that are here.
    pub(crate) fn append(&mut self, mut next: Self) {
        let before = self.outcomes.len();
        for line in &mut next.lines {
            line.index = line.index.map(|index| index + before);
        }
        self.outcomes.append(&mut next.outcomes);
        self.lines.append(&mut next.lines);
        self.kills.append(&mut next.kills);
        self.discarded += next.discarded;
        self.took += next.took;
        self.cut |= next.cut;
        self.usage.cpu_us += next.usage.cpu_us;
        self.usage.wall_us += next.usage.wall_us;
        self.usage.waited_us += next.usage.waited_us;
        self.usage.heap_bytes = self.usage.heap_bytes.max(next.usage.heap_bytes);
    }

    fn of(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        Self {
            outcomes: outcomes.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// The pool's handle. Dropping it ends the seats and their workers, each after the batch it runs.
#[derive(Debug)]
pub struct Pool {
    jobs: mpsc::Sender<Job>,
    workers: NonZeroUsize,
}

impl Pool {
    /// Starts the seats; each starts its worker at once, so that the first batch finds it ready. `condition` holds
    /// while workers can be started.
    ///
    /// # Errors
    /// When the system gives no thread. A worker that cannot be started is not an error here: seats keep trying.
    pub fn start(
        config: Config,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        condition: &Condition,
    ) -> Result<Self, StartError> {
        let (jobs, incoming) = mpsc::channel(config.queue.get());
        let incoming = Arc::new(Mutex::new(incoming));
        let workers = config.workers;
        let config = Arc::new(config);
        for number in 0..workers.get() {
            let seat = seat::Seat::new(
                number,
                Arc::clone(&config),
                metrics.clone(),
                Arc::clone(&clock),
                Arc::clone(&incoming),
                condition.clone(),
            );
            // The worker dies with the thread that started it, so a seat's thread is its own and not the runtime's.
            std::thread::Builder::new()
                .name(format!("seat-{number}"))
                .spawn(move || seat.serve())
                .map_err(StartError)?;
        }
        Ok(Self { jobs, workers })
    }

    /// How many batches can run at once.
    pub fn workers(&self) -> NonZeroUsize {
        self.workers
    }

    /// Runs events through a chain, in order; one outcome each, in order. Waits while the queue is full, and as
    /// long as no worker can be started.
    ///
    /// # Errors
    /// When the pool is closed.
    ///
    /// # Cancellation
    /// Safe: a batch that nobody waits for is not started, or is left between two of its runs. Functions may have
    /// seen its events.
    pub async fn run(&self, chain: Arc<Chain>, events: Records) -> Result<Vec<Outcome>, Closed> {
        Ok(self.account(chain, events).await?.outcomes)
    }

    /// [`Pool::run`], with what was logged and used.
    ///
    /// # Errors
    /// When the pool is closed.
    ///
    /// # Cancellation
    /// As [`Pool::run`].
    pub async fn account(&self, chain: Arc<Chain>, events: Records) -> Result<Ran, Closed> {
        self.account_within(chain, events, None).await
    }

    /// [`Pool::account`] within a budget of wall time for all events together: those past it, and the one that it ends
    /// in, get the verdict `retry`. Loading code and starting the first worker do not count.
    ///
    /// # Errors
    /// When the pool is closed.
    ///
    /// # Cancellation
    /// As [`Pool::run`].
    pub async fn account_within(
        &self,
        chain: Arc<Chain>,
        events: Records,
        budget: Option<Duration>,
    ) -> Result<Ran, Closed> {
        if events.is_empty() {
            return Ok(Ran::default());
        }
        let (done, outcomes) = oneshot::channel();
        self.jobs
            .send(Job {
                chain,
                events,
                budget,
                done,
            })
            .await
            .map_err(|_| Closed)?;
        outcomes.await.map_err(|_| Closed)
    }
}
