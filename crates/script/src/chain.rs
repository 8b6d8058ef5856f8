//! A chain version on threads of its own: one lane for each event that may be in flight, one where its functions ask for
//! no more.
//!
//! Isolates must leave a thread in the reverse order in which they came, so a thread that held several could not
//! give up the one used least. One thread for each also gives each its own stack and its own CPU clock: an event in one
//! lane neither waits for one in another nor pays for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Answer, Batch, Call, Load, MAX_CALLS, MAX_FLIGHT, Progress, Usage};

use crate::batch::Runner;
use crate::console::Logged;
use crate::host::Starter;
use crate::lanes::{Cursor, Job, Lane, Places, Share, together};
use crate::outside::{Outside, Replies};
use crate::watchdog::{Watchdog, now};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(20);

/// Why a chain cannot run a batch. All of these are faults of the process and not of a function.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The system gives no thread or no runtime for it.
    #[error("no thread for a chain")]
    Start(#[source] std::io::Error),
    /// The batch is not what the protocol says, or what came of it does not fit in an answer.
    #[error("a batch cannot be read or answered")]
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
    Done(Box<Result<Share, ChainError>>),
}

/// The functions of one chain version, ready to run. Dropping it ends its threads after the batch they run.
#[derive(Debug)]
pub struct Chain {
    starter: Starter,
    lanes: Mutex<Lanes>,
}

/// The threads there are, and how many there should be.
#[derive(Debug)]
struct Lanes {
    running: Vec<Lane>,
    wanted: usize,
}

impl Chain {
    /// With its first lane.
    pub(crate) fn open(starter: Starter) -> Result<Self, ChainError> {
        let lanes = Lanes {
            running: vec![starter.start()?],
            wanted: 1,
        };
        Ok(Self {
            starter,
            lanes: Mutex::new(lanes),
        })
    }

    /// How many isolates it keeps.
    pub fn isolates(&self) -> usize {
        self.lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .running
            .len()
    }

    /// Runs a batch, the bytes of a [`Batch`], and blocks until each of its events has an outcome, in order. Meanwhile
    /// `tell` is told every few milliseconds how far it is, and of each call that a function makes; when it is told
    /// that the engine is exhausted, this never returns and the process is to be ended.
    ///
    /// # Errors
    /// When the batch cannot be read, the thread ended, or `tell` gave up.
    pub fn run(
        &self,
        batch: impl Into<Bytes>,
        mut tell: impl FnMut(Said<'_>) -> std::io::Result<()>,
    ) -> Result<(Answer, Logged), ChainError> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        while lanes.running.len() < lanes.wanted {
            let lane = self.starter.start()?;
            lanes.running.push(lane);
        }
        let (told, happens) = mpsc::sync_channel(MAX_CALLS);
        let (batch, cursor) = (batch.into(), Arc::new(Cursor::default()));
        let mut places = Places::new(lanes.running.len(), now());
        for (number, lane) in lanes.running.iter().enumerate() {
            lane.take(Job {
                batch: batch.clone(),
                cursor: Arc::clone(&cursor),
                alone: lanes.running.len() == 1,
                place: places.of(number),
                told: told.clone(),
            })?;
        }
        drop(told);
        let mut shares = Vec::new();
        while shares.len() < lanes.running.len() {
            match happens.recv_timeout(TICK) {
                Ok(Told::Done(share)) => shares.push((*share)?),
                Ok(Told::Call(id, call)) => tell(Said::Call(id, &call)).map_err(ChainError::Tell)?,
                Ok(Told::Cancel(id)) => tell(Said::Cancel(id)).map_err(ChainError::Tell)?,
                Err(RecvTimeoutError::Disconnected) => return Err(ChainError::Gone),
                Err(RecvTimeoutError::Timeout) => {
                    tell(Said::Progress(places.slowest(now()))).map_err(ChainError::Tell)?;
                }
            }
        }
        let in_flight = shares.iter().find_map(|share| share.in_flight);
        lanes.wanted = in_flight.map_or(lanes.wanted, |most| most.clamp(1, MAX_FLIGHT));
        Ok(together(shares))
    }
}

/// A lane: runs its part of batches until the [`Chain`] is gone.
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
        let (began, cpu) = (now(), thread_cpu());
        let (ran, waited) = match Batch::decode(&job.batch) {
            Ok(batch) => runtime.block_on(timed(runner.run(&batch, &job))),
            Err(error) => (Err(error), Duration::ZERO),
        };
        let share = ran.map(|mut share| {
            share.logged.usage = Usage {
                cpu_us: micros(thread_cpu().saturating_sub(cpu)),
                wall_us: micros(now() - began),
                waited_us: micros(waited),
                heap_bytes: runner.heap_bytes(),
            };
            share
        });
        answer(&job.told, share.map_err(ChainError::Batch));
    }
}

/// A future with the time in which it waited for others.
async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let (mut waited, mut since) = (Duration::ZERO, None);
    let mut future = pin!(future);
    let done = poll_fn(|context| {
        waited += since.take().map_or(Duration::ZERO, |since| now() - since);
        let polled = future.as_mut().poll(context);
        since = polled.is_pending().then(now);
        polled
    });
    (done.await, waited)
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
fn answer(told: &SyncSender<Told>, share: Result<Share, ChainError>) {
    drop(told.send(Told::Done(Box::new(share))));
}
