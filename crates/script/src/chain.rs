//! A chain version on a thread of its own.
//!
//! Isolates must leave a thread in the reverse order in which they came, so a thread that held several could not
//! give up the one used least. One thread for each also gives each its own stack and its own CPU clock.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Batch, Call, Load, MAX_CALLS, Outcome, Progress, Usage};

use crate::batch::Runner;
use crate::console::Logged;
use crate::outside::{Outside, Replies};
use crate::place::Place;
use crate::watchdog::{Watchdog, now};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(20);

/// Why a chain cannot run a batch. All of these are faults of the process and not of a function.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The system gives no thread or no runtime for it.
    #[error("no thread for a chain")]
    Start(#[source] std::io::Error),
    /// The batch is not what the protocol says.
    #[error("a batch cannot be read")]
    Batch(#[from] PayloadError),
    /// Whoever is told about a running batch cannot be told.
    #[error("what happens in a batch cannot be told")]
    Tell(#[source] std::io::Error),
    /// The chain's thread is gone.
    #[error("the thread of a chain ended")]
    Gone,
}

/// What is said while a batch runs.
#[derive(Debug)]
pub enum Said<'a> {
    /// How far it is.
    Progress(Progress),
    /// A function asks for something outside; the reply goes to [`Replies`] under this id.
    Call(u64, &'a Call),
    /// Nobody waits for this call any more.
    Cancel(u64),
}

/// What a chain's thread tells while it runs a batch.
pub(crate) enum Told {
    Call(u64, Call),
    Cancel(u64),
    Done(Result<(Vec<Outcome<String>>, Logged), ChainError>),
}

pub(crate) struct Job {
    batch: Vec<u8>,
    progress: Arc<Place>,
    told: SyncSender<Told>,
}

/// The functions of one chain version, ready to run. Dropping it ends the thread after the batch it runs.
#[derive(Debug)]
pub struct Chain {
    jobs: SyncSender<Job>,
}

impl Chain {
    pub(crate) fn new() -> (Self, Receiver<Job>) {
        let (jobs, incoming) = mpsc::sync_channel(1);
        (Self { jobs }, incoming)
    }

    /// Runs a batch, the bytes of a [`Batch`], and blocks until each of its events has an outcome. Meanwhile
    /// `tell` is told every few milliseconds how far it is, and of each call that a function makes; when it is told
    /// that the engine is exhausted, this never returns and the process is to be ended.
    ///
    /// # Errors
    /// When the batch cannot be read, the thread ended, or `tell` gave up.
    pub fn run(
        &self,
        batch: Vec<u8>,
        mut tell: impl FnMut(Said<'_>) -> std::io::Result<()>,
    ) -> Result<(Vec<Outcome<String>>, Logged), ChainError> {
        let (told, happens) = mpsc::sync_channel(MAX_CALLS);
        let progress = Arc::new(Place::new());
        let job = Job {
            batch,
            progress: Arc::clone(&progress),
            told,
        };
        self.jobs.send(job).map_err(|_| ChainError::Gone)?;
        loop {
            match happens.recv_timeout(TICK) {
                Ok(Told::Done(result)) => return result,
                Ok(Told::Call(id, call)) => tell(Said::Call(id, &call)).map_err(ChainError::Tell)?,
                Ok(Told::Cancel(id)) => tell(Said::Cancel(id)).map_err(ChainError::Tell)?,
                Err(RecvTimeoutError::Disconnected) => return Err(ChainError::Gone),
                Err(RecvTimeoutError::Timeout) => {
                    let (index, position) = progress.get();
                    tell(Said::Progress(Progress {
                        index,
                        position,
                        exhausted: crate::isolate::is_exhausted(),
                    }))
                    .map_err(ChainError::Tell)?;
                }
            }
        }
    }
}

/// The thread: runs batches until the [`Chain`] is gone.
pub(crate) fn serve(load: Load, watchdog: Watchdog, replies: Replies, incoming: &Receiver<Job>) {
    // The engine posts delayed tasks (garbage collection) to the runtime that is entered where its isolate is
    // made, so the runtime must live at least as long as the isolate.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            if let Ok(job) = incoming.recv() {
                answer(&job.told, Err(ChainError::Start(error)));
            }
            return;
        }
    };
    let _entered = runtime.enter();
    let mut runner = Runner::new(load, watchdog, Outside::new(replies));
    while let Ok(job) = incoming.recv() {
        let result = match Batch::decode(&job.batch) {
            Ok(batch) => {
                let (began, cpu) = (now(), thread_cpu());
                let (outcomes, mut logged) = runtime.block_on(runner.run(&batch, &job.progress, &job.told));
                logged.usage = Usage {
                    cpu_us: micros(thread_cpu().saturating_sub(cpu)),
                    wall_us: micros(now() - began),
                    heap_bytes: runner.heap_bytes(),
                };
                Ok((outcomes, logged))
            }
            Err(error) => Err(ChainError::Batch(error)),
        };
        answer(&job.told, result);
    }
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whoever asked may be gone; the batch was run all the same.
fn answer(told: &SyncSender<Told>, result: Result<(Vec<Outcome<String>>, Logged), ChainError>) {
    drop(told.send(Told::Done(result)));
}
