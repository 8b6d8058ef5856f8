//! HTTP load for loopback: many kept connections, few instructions, and times that hide nothing.
//!
//! Two ways to load a server. *Closed*: every connection sends its next request when it has its answer, which
//! finds the throughput. *Open*: requests are due at a fixed rate whatever the server does, and the time counts
//! from the moment a request was due, so that a server that stalls is charged for those who had to wait.
//!
//! Both are bounded: in requests, in time, in connections, and the open one in requests that wait.

mod connection;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use millrace_service::{Clock as _, SystemClock};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::measure::Histogram;
use connection::Connection;

/// Most due requests of an open run that wait for a connection; more are counted as never sent.
const WAITING: usize = 100_000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes request number `n`, head and body, into an empty buffer.
pub type Requests = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// Whom to load, and with what.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Connections, all of them kept.
    pub connections: usize,
    /// Numbers go on from here, so that runs in a row do not send the same.
    pub first: u64,
    /// What to send.
    pub requests: Requests,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("address", &self.address)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// When a run ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Requests.
    pub requests: u64,
    /// Time.
    pub time: Duration,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Requests that were due and never sent, because too many waited.
    pub unsent: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From due (open) or sent (closed) to answered.
    pub latency: Histogram,
}

impl Run {
    /// Answers of 200.
    pub fn succeeded(&self) -> u64 {
        self.answers.get(&200).copied().unwrap_or(0)
    }

    /// All answers.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// The run itself, if every answer was 200.
    ///
    /// # Errors
    /// One was not.
    pub fn all_succeeded(self) -> Result<Self> {
        if self.unsent > 0 || self.answers.keys().any(|status| *status != 200) {
            bail!(
                "not every answer was 200: {:?}, {} unsent",
                self.answers,
                self.unsent
            );
        }
        Ok(self)
    }

    fn merge(&mut self, other: &Self) {
        for (status, count) in &other.answers {
            *self.answers.entry(*status).or_default() += count;
        }
        self.latency.merge(&other.latency);
    }
}

/// Every connection sends as fast as it is answered.
///
/// # Errors
/// The server does not take a connection, breaks one, or does not answer within a minute.
pub async fn closed(load: &Load, bound: Bound) -> Result<Run> {
    let number = Arc::new(AtomicU64::new(0));
    let start = SystemClock.instant();
    let end = start + bound.time;
    let mut workers = JoinSet::new();
    for mut connection in connect(load).await? {
        let (number, requests, first) = (Arc::clone(&number), Arc::clone(&load.requests), load.first);
        workers.spawn(async move {
            let mut run = Run::default();
            let mut request = Vec::new();
            loop {
                let next = number.fetch_add(1, Ordering::Relaxed);
                let sent = SystemClock.instant();
                if next >= bound.requests || sent >= end {
                    return Ok::<_, anyhow::Error>(run);
                }
                request.clear();
                requests(first + next, &mut request);
                let status = within(connection.exchange(&request)).await?;
                *run.answers.entry(status).or_default() += 1;
                run.latency
                    .record(SystemClock.instant().saturating_duration_since(sent));
            }
        });
    }
    gather(workers, start).await
}

/// Sends `rate` requests per second, whatever the server does.
///
/// # Errors
/// As [`closed`].
pub async fn open(load: &Load, rate: u32, bound: Bound) -> Result<Run> {
    let due = Arc::new(Due::default());
    let connections = connect(load).await?;
    let start = SystemClock.instant();
    let pacer = {
        let due = Arc::clone(&due);
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || due.pace(rate, bound, start))?
    };
    let number = Arc::new(AtomicU64::new(load.first));
    let mut workers = JoinSet::new();
    for mut connection in connections {
        let (number, requests, due) = (Arc::clone(&number), Arc::clone(&load.requests), Arc::clone(&due));
        workers.spawn(async move {
            let mut run = Run::default();
            let mut request = Vec::new();
            while let Some(was_due) = due.next().await {
                request.clear();
                requests(number.fetch_add(1, Ordering::Relaxed), &mut request);
                let status = within(connection.exchange(&request)).await?;
                *run.answers.entry(status).or_default() += 1;
                run.latency
                    .record(SystemClock.instant().saturating_duration_since(was_due));
            }
            Ok::<_, anyhow::Error>(run)
        });
    }
    let mut run = gather(workers, start).await;
    due.ended.store(true, Ordering::Relaxed);
    let unsent = pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
    if let Ok(run) = &mut run {
        run.unsent = unsent;
    }
    run
}

/// Requests that are due and wait for a connection.
#[derive(Debug)]
struct Due {
    waiting: Mutex<VecDeque<Instant>>,
    /// As many permits as requests wait; closed at the end.
    permits: Semaphore,
    ended: AtomicBool,
}

impl Default for Due {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            permits: Semaphore::new(0),
            ended: AtomicBool::new(false),
        }
    }
}

impl Due {
    /// Has requests become due, on a thread of its own: the runtime's timers are too coarse. Says how many had
    /// no room to wait.
    fn pace(&self, rate: u32, bound: Bound, start: Instant) -> u64 {
        let apart = Duration::from_secs(1) / rate.max(1);
        let (mut next, mut sent, mut unsent) = (start, 0, 0);
        while sent + unsent < bound.requests && !self.ended.load(Ordering::Relaxed) {
            let now = SystemClock.instant();
            if now.saturating_duration_since(start) >= bound.time {
                break;
            }
            if next > now {
                std::thread::sleep(next - now);
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() < WAITING {
                waiting.push_back(next);
                drop(waiting);
                self.permits.add_permits(1);
                sent += 1;
            } else {
                unsent += 1;
            }
            next += apart;
        }
        self.ended.store(true, Ordering::Relaxed);
        // Wakes those who wait; what is in the queue is still taken.
        self.permits.close();
        unsent
    }

    async fn next(&self) -> Option<Instant> {
        let permit = self.permits.acquire().await;
        let due = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if let Ok(permit) = permit {
            permit.forget();
        }
        due
    }
}

async fn connect(load: &Load) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(within(Connection::open(load.address)).await?);
    }
    Ok(connections)
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .with_context(|| format!("no answer within {PATIENCE:?}"))?
}

async fn gather(mut workers: JoinSet<Result<Run>>, start: Instant) -> Result<Run> {
    let mut all = Run::default();
    while let Some(run) = workers.join_next().await {
        all.merge(&run??);
    }
    all.elapsed = SystemClock.instant().saturating_duration_since(start);
    Ok(all)
}
