//! One worker process, seen from its parent.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_event::FunctionCode;
use millrace_event::frame::payload::{PayloadError, Records};
use millrace_event::frame::{Batch, Fault, Kind, Load, Log, Progress, Verdicts};
use millrace_service::Clock;

use super::calls::Calls;
use super::cgroup::Group;
use super::complaints::Complaints;
use super::watch::{LOOK, Watch};
use super::{Chain, Config, Metrics, Ran};
use crate::region::Region;
use crate::wire::{Received, Wire, WireError};

/// How long a worker may take to become ready.
const READY: Duration = Duration::from_secs(20);

/// How long a worker may leave a frame unread before it counts as dead.
const WRITE: Duration = Duration::from_secs(10);

/// How long the system may take to end a process whose socket is closed.
const REAP: Duration = Duration::from_millis(500);

/// Why no worker could be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("a worker process cannot be started")]
    Spawn(#[source] std::io::Error),
    #[error("a worker ended before it was ready ({status}): {complaint}")]
    Ended { status: ExitStatus, complaint: String },
    #[error("a worker was not ready in time")]
    Late,
    #[error("a worker does not speak the protocol")]
    Wire(#[from] WireError),
}

/// A running worker. Dropping it kills and reaps the process.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    wire: Wire,
    calls: Calls,
    complaints: Option<Complaints>,
    last_id: u64,
    memory: PathBuf,
    /// Its control group, and how many were killed there before it.
    group: Option<(Arc<Group>, u64)>,
    rss_limit: u64,
}

/// A worker is lost; the fault is for the event, if there was only one.
#[derive(Debug)]
pub(super) struct Death(pub(super) Fault);

impl Worker {
    /// Starts a worker and waits until it is ready. Blocks.
    pub(super) fn spawn(
        config: &Config,
        group: Option<Arc<Group>>,
        clock: &dyn Clock,
    ) -> Result<Self, SpawnError> {
        let (ours, theirs) = UnixStream::pair().map_err(SpawnError::Spawn)?;
        ours.set_read_timeout(Some(LOOK)).map_err(SpawnError::Spawn)?;
        ours.set_write_timeout(Some(WRITE)).map_err(SpawnError::Spawn)?;
        let (region, shared) = Region::create().map_err(SpawnError::Spawn)?;
        // The running program and not its path: an upgrade on disk must not pair two versions.
        let itself = PathBuf::from("/proc/self/exe");
        let mut child = Command::new(config.program.as_ref().unwrap_or(&itself))
            .arg("worker")
            .args(["--sandbox", if config.sandbox { "on" } else { "off" }])
            .args(["--chains", &config.chains.to_string()])
            .args(["--idle-seconds", &config.idle.as_secs().max(1).to_string()])
            .arg("--shared")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(shared)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SpawnError::Spawn)?;
        let memory = PathBuf::from(format!("/proc/{}/statm", child.id()));
        let group = group.map(|group| {
            if let Err(error) = group.admit(child.id()) {
                tracing::warn!(pid = child.id(), %error, "a worker is not in its control group");
            }
            let kills = group.kills();
            (group, kills)
        });
        let complaints = child
            .stderr
            .take()
            .map(Complaints::new)
            .transpose()
            .map_err(SpawnError::Spawn)?;
        let mut worker = Self {
            child,
            wire: Wire::new(ours, Some(region)).map_err(SpawnError::Spawn)?,
            calls: Calls::new(config.outside.clone()).map_err(SpawnError::Spawn)?,
            complaints,
            last_id: 0,
            memory,
            group,
            rss_limit: config.rss_limit,
        };
        let deadline = clock.instant() + READY;
        loop {
            match worker.wire.receive()? {
                Received::Frame {
                    kind: Kind::Progress,
                    id: 0,
                    ..
                } => return Ok(worker),
                Received::Frame { .. } | Received::Nothing if clock.instant() < deadline => {}
                Received::Frame { .. } | Received::Nothing => return Err(SpawnError::Late),
                Received::Closed => {
                    let status = worker.reap(clock).map_err(SpawnError::Spawn)?;
                    let complaint = worker.complaint().unwrap_or_default();
                    return Err(SpawnError::Ended { status, complaint });
                }
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error lately.
    pub(super) fn complaint(&mut self) -> Option<String> {
        self.complaints.as_mut()?.take()
    }

    /// Runs events in this worker, within a budget for all of them. Blocks until each has an outcome or the worker is
    /// lost; a lost worker must be dropped.
    pub(super) fn run(
        &mut self,
        chain: &Chain,
        (events, range): (&Records, Range<usize>),
        budget: Option<Duration>,
        config: &Config,
        clock: &dyn Clock,
        metrics: &Metrics,
    ) -> Result<Ran, Death> {
        let mut watch = Watch::new(chain, config, budget, clock.instant());
        let budget = budget.map(|budget| u64::try_from(budget.as_millis()).unwrap_or(u64::MAX));
        let Load {
            chain: id, version, ..
        } = &chain.load;
        let head = Batch::head(id, *version, budget, range.len()).map_err(|error| nonsense(&error))?;
        let batch = [&*head, events.bytes(range.clone())];
        let sources = Sources { events, range };
        self.watched(chain, &sources, batch, clock, metrics, &mut watch)
            .map_err(|Death(fault)| Death(watch.name(fault, chain)))
    }

    fn watched(
        &mut self,
        chain: &Chain,
        sources: &Sources<'_>,
        batch: [&[u8]; 2],
        clock: &dyn Clock,
        metrics: &Metrics,
        watch: &mut Watch,
    ) -> Result<Ran, Death> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(Kind::Batch, id, &batch, clock)?;
        let mut loaded = false;
        let mut ran = Ran::default();
        loop {
            while let Some((id, reply)) = self.calls.finished() {
                let reply = serde_json::to_vec(&reply).map_err(|error| nonsense(&error))?;
                self.send(Kind::Reply, id, &[&reply], clock)?;
            }
            let received = self.hear().map_err(|error| nonsense(&error))?;
            match received {
                Received::Closed => return Err(self.ended(clock)),
                Received::Nothing => {}
                Received::Frame {
                    kind: Kind::Progress,
                    id: about,
                    payload,
                } if about == id => match serde_json::from_slice::<Progress>(&payload) {
                    Ok(progress) if progress.exhausted => {
                        let text = "used more memory than the engine has";
                        return Err(Death(Fault::new(FunctionCode::HeapLimit, text)));
                    }
                    Ok(progress) => watch.moved(progress, clock.instant()),
                    Err(error) => return Err(nonsense(&error)),
                },
                Received::Frame {
                    kind: Kind::Log,
                    id: about,
                    payload,
                } if about == id => {
                    log(&payload, chain, metrics, &mut ran);
                }
                Received::Frame {
                    kind: Kind::Verdicts,
                    id: about,
                    payload,
                } if about == id => match sources.verdicts(&payload) {
                    Ok(Verdicts::Outcomes(outcomes)) if outcomes.len() == sources.range.len() => {
                        self.complaints.as_mut().map(Complaints::read);
                        self.calls.abandon();
                        ran.outcomes = outcomes;
                        return Ok(ran);
                    }
                    Ok(Verdicts::Outcomes(_)) => return Err(nonsense(&"wrong number of outcomes")),
                    Ok(Verdicts::UnknownChain) if !loaded => {
                        loaded = true;
                        self.send(Kind::Load, id, &[&chain.payload], clock)?;
                        self.send(Kind::Batch, id, &batch, clock)?;
                    }
                    Ok(Verdicts::UnknownChain) => return Err(nonsense(&"a chain does not load")),
                    Err(error) => return Err(nonsense(&error)),
                },
                Received::Frame {
                    kind: Kind::Call,
                    id: call,
                    payload,
                } => {
                    let begun = self.calls.begin(call, &payload, chain);
                    begun.map_err(|error| nonsense(&error))?;
                }
                Received::Frame {
                    kind: Kind::Cancel,
                    id: call,
                    ..
                } => self.calls.cancel(call),
                Received::Frame { kind, .. } => {
                    return Err(nonsense(&format!("an unexpected {kind:?} frame")));
                }
            }
            if let Some(fault) = watch.look(clock.instant(), || self.resident()) {
                return Err(Death(fault));
            }
        }
    }

    /// What the worker says next; nothing when a call is finished before, or when it is time to look at the clock.
    fn hear(&mut self) -> Result<Received, WireError> {
        if let Some(received) = self.wire.buffered()? {
            return Ok(received);
        }
        if self
            .calls
            .wait(&self.wire, LOOK)
            .map_err(WireError::Socket)?
            .socket
        {
            return self.wire.receive();
        }
        Ok(Received::Nothing)
    }

    fn send(&mut self, kind: Kind, id: u64, payload: &[&[u8]], clock: &dyn Clock) -> Result<(), Death> {
        match self.wire.send_parts(kind, id, payload) {
            Ok(()) => Ok(()),
            Err(WireError::Frame(error)) => {
                let text = format!("cannot be handed to a worker: {error}");
                Err(Death(Fault::new(FunctionCode::OutputLimit, text)))
            }
            Err(WireError::Socket(_) | WireError::Payload(_)) => Err(self.ended(clock)),
        }
    }

    /// Resident memory in bytes; `None` when the process is gone or the system does not say.
    fn resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(&self.memory).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
    }

    fn ended(&mut self, clock: &dyn Clock) -> Death {
        let how = match self.reap(clock) {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("signal {signal}"),
                (None, Some(code)) => format!("status {code}"),
                (None, None) => "unknown".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        if self
            .group
            .as_ref()
            .is_some_and(|(group, before)| group.kills() > *before)
        {
            let text = format!(
                "its process wanted more memory than {} bytes, which are allowed",
                self.rss_limit
            );
            return Death(Fault::new(FunctionCode::RssLimit, text));
        }
        Death(Fault::new(
            FunctionCode::WorkerCrashed,
            format!("the worker process died ({how})"),
        ))
    }

    /// Waits for a process that is ending by itself, so that its own status is seen; then kills it.
    fn reap(&mut self, clock: &dyn Clock) -> std::io::Result<ExitStatus> {
        let deadline: Instant = clock.instant() + REAP;
        while clock.instant() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

/// The events of a batch that a worker runs.
struct Sources<'a> {
    events: &'a Records,
    range: Range<usize>,
}

impl Sources<'_> {
    /// What a worker says about them.
    fn verdicts(&self, payload: &Bytes) -> Result<Verdicts, PayloadError> {
        Verdicts::decode_beside(payload, |index| self.events.event_bytes(self.range.start + index))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn nonsense(what: &dyn std::fmt::Display) -> Death {
    Death(Fault::new(
        FunctionCode::WorkerCrashed,
        format!("the worker process cannot be understood: {what}"),
    ))
}

fn log(payload: &[u8], chain: &Chain, metrics: &Metrics, ran: &mut Ran) {
    let Ok(log) = serde_json::from_slice::<Log>(payload) else {
        return;
    };
    metrics
        .log_lines
        .inc_by(u64::try_from(log.lines.len()).unwrap_or(u64::MAX));
    metrics.log_lines_discarded.inc_by(log.discarded);
    ran.discarded = log.discarded;
    let (workspace, chain) = (&chain.load.workspace, &chain.load.chain);
    ran.usage = log.usage.unwrap_or_default();
    for line in &log.lines {
        tracing::debug!(workspace, chain, level = ?line.level, message = line.message, "a function logged");
    }
    ran.lines = log.lines;
}
