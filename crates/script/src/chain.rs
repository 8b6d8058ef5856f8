//! A chain version on a thread of its own.
//!
//! Isolates must leave a thread in the reverse order in which they came, so a thread that held several could not
//! give up the one used least. One thread for each also gives each its own stack and its own CPU clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use millrace_event::frame::{Batch, Load, Outcome, Progress, Usage};

use crate::batch::Runner;
use crate::console::Logged;
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
    Batch(#[source] serde_json::Error),
    /// Whoever is told about progress cannot be told.
    #[error("progress cannot be reported")]
    Tick(#[source] std::io::Error),
    /// The chain's thread is gone.
    #[error("the thread of a chain ended")]
    Gone,
}

pub(crate) struct Job {
    batch: Vec<u8>,
    progress: Arc<AtomicUsize>,
    done: SyncSender<Result<(Vec<Outcome>, Logged), ChainError>>,
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

    /// Runs a batch, the JSON text of a [`Batch`], and blocks until each of its events has an outcome. Meanwhile
    /// `tick` is told every few milliseconds how far it is; when it is told that the engine is exhausted, this
    /// never returns and the process is to be ended.
    ///
    /// # Errors
    /// When the batch cannot be read, the thread ended, or `tick` gave up.
    pub fn run(
        &self,
        batch: Vec<u8>,
        mut tick: impl FnMut(Progress) -> std::io::Result<()>,
    ) -> Result<(Vec<Outcome>, Logged), ChainError> {
        let (done, outcome) = mpsc::sync_channel(1);
        let progress = Arc::new(AtomicUsize::new(0));
        let job = Job {
            batch,
            progress: Arc::clone(&progress),
            done,
        };
        self.jobs.send(job).map_err(|_| ChainError::Gone)?;
        loop {
            match outcome.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(ChainError::Gone),
                Err(RecvTimeoutError::Timeout) => {
                    let index = progress.load(Ordering::Acquire);
                    tick(Progress {
                        index,
                        exhausted: crate::isolate::is_exhausted(),
                    })
                    .map_err(ChainError::Tick)?;
                }
            }
        }
    }
}

/// The thread: runs batches until the [`Chain`] is gone.
pub(crate) fn serve(load: Load, watchdog: Watchdog, incoming: &Receiver<Job>) {
    // The engine posts delayed tasks (garbage collection) to the runtime that is entered where its isolate is
    // made, so the runtime must live at least as long as the isolate.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            if let Ok(job) = incoming.recv() {
                answer(&job.done, Err(ChainError::Start(error)));
            }
            return;
        }
    };
    let _entered = runtime.enter();
    let mut runner = Runner::new(load, watchdog);
    while let Ok(job) = incoming.recv() {
        let result = match serde_json::from_slice::<Batch<'_>>(&job.batch) {
            Ok(batch) => {
                let (began, cpu) = (now(), thread_cpu());
                let (outcomes, mut logged) = runtime.block_on(runner.run(&batch.records, &job.progress));
                logged.usage = Usage {
                    cpu_us: micros(thread_cpu().saturating_sub(cpu)),
                    wall_us: micros(now() - began),
                    heap_bytes: runner.heap_bytes(),
                };
                Ok((outcomes, logged))
            }
            Err(error) => Err(ChainError::Batch(error)),
        };
        answer(&job.done, result);
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
fn answer(
    done: &SyncSender<Result<(Vec<Outcome>, Logged), ChainError>>,
    result: Result<(Vec<Outcome>, Logged), ChainError>,
) {
    drop(done.send(result));
}
