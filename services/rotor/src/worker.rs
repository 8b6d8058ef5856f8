//! `millrace-rotor worker`: the process that holds the isolates.
//!
//! It owns nothing but the socket pair it was given as standard input, and with `--shared` the memory that it was given as
//! standard output: no Kafka, no network, no file, an empty environment. Its parent sends chains and batches and gets outcomes; the parent also keeps the deadline and the
//! memory cap, because nothing inside a process can promise to survive what runs in it.

mod chains;
mod frames;
mod sandbox;

use std::ffi::OsString;
use std::io::{Error, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Kind, Load, Log, Progress, Verdicts};
use millrace_script::{ChainError, Host, Said};
use millrace_service::{Causes, Clock, SystemClock};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use chains::{Chains, Ran};
use frames::{Frames, Next};
use millrace_rotor::region::Region;
use millrace_rotor::wire::{Wire, WireError, Writer};

/// The worker's only place to complain before it can speak in frames.
const EXIT_REFUSED: u8 = 70;

/// Chain versions kept ready in one worker unless it is told otherwise.
const DEFAULT_CHAINS: usize = 32;

/// How long one that nobody uses is kept unless it is told otherwise.
const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// How the worker was started.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    sandbox: bool,
    chains: usize,
    idle: Duration,
    /// Whether standard output is memory that the parent shares.
    shared: bool,
    probe: bool,
}

/// Why a worker ends other than by its parent's wish.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("usage: worker [--sandbox on|off] [--chains N] [--idle-seconds N] [--shared] [--probe]")]
    Usage,
    #[error("standard input is not a socket")]
    Socket(#[source] Error),
    #[error("standard output is not memory to share")]
    Region(#[source] Error),
    #[error("the process cannot be prepared")]
    Prepare(#[source] Error),
    #[error("the sandbox cannot be installed")]
    Sandbox(#[from] sandbox::SandboxError),
    #[error("the engine cannot be started")]
    Engine(#[source] Error),
    #[error("the parent cannot be spoken with")]
    Wire(#[from] WireError),
    #[error("a frame makes no sense here")]
    Frame(#[source] serde_json::Error),
    #[error("verdicts cannot be written")]
    Payload(#[from] PayloadError),
    #[error("a {0:?} frame makes no sense here")]
    Kind(Kind),
    #[error("a chain cannot be run")]
    Chain(#[from] ChainError),
}

/// The whole process, given the arguments after `worker`. Ends when the parent closes the socket.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = Causes(&error).to_string();
            // Nobody is left to tell when standard error is closed as well.
            drop(writeln!(std::io::stderr(), "worker: {text}"));
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), WorkerError> {
    let options = Options::parse(arguments)?;
    prepare().map_err(WorkerError::Prepare)?;
    if options.probe {
        return probe(options.sandbox);
    }
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(WorkerError::Socket)?;
    let stream = UnixStream::from(stdin);
    stream.peer_addr().map_err(WorkerError::Socket)?;
    let region = options
        .shared
        .then(region)
        .transpose()
        .map_err(WorkerError::Region)?;
    if options.sandbox {
        sandbox::install()?;
        sandbox::verify(stream.as_fd())?;
    }
    let host = Host::start().map_err(WorkerError::Engine)?;
    let (reader, mut wire) = Wire::new(stream, region).map_err(WorkerError::Socket)?.split();
    let mut frames = Frames::start(reader, host.replies()).map_err(WorkerError::Prepare)?;
    wire.send(Kind::Progress, 0, &Progress::default())?;
    serve(
        &mut wire,
        &mut frames,
        &mut Chains::new(host, options.chains, options.idle),
    )
}

/// The memory that the parent shares. What is written to standard output from here on goes where errors go, and not there.
fn region() -> Result<Region, Error> {
    let region = Region::open(std::io::stdout())?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(region)
}

/// Dies with the parent, dies first when memory is short, leaves no core behind.
fn prepare() -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // Any process may make itself the likelier victim. Where /proc is missing or read-only it just is not one:
    // the parent's memory cap comes first anyway.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    Ok(())
}

/// Prints what the sandbox refuses, as JSON, and ends: for operators and for tests.
fn probe(sandboxed: bool) -> Result<(), WorkerError> {
    let (stream, _other) = UnixStream::pair().map_err(WorkerError::Socket)?;
    if sandboxed {
        sandbox::install()?;
    }
    let report = sandbox::probe(stream.as_fd());
    let text = serde_json::to_string(&report).map_err(WorkerError::Frame)?;
    writeln!(std::io::stdout(), "{text}").map_err(WorkerError::Prepare)
}

fn serve(wire: &mut Writer, frames: &mut Frames, chains: &mut Chains) -> Result<(), WorkerError> {
    let clock = SystemClock;
    loop {
        let (kind, id, payload) = match frames.next(chains.tidy(clock.instant()))? {
            Next::Frame(frame) => frame,
            Next::Late => continue,
            Next::Closed => return Ok(()),
        };
        match kind {
            Kind::Load => {
                let load: Load = serde_json::from_slice(&payload).map_err(WorkerError::Frame)?;
                chains.load(load, clock.instant())?;
            }
            Kind::Batch => batch((wire, frames), chains, id, payload, &clock)?,
            Kind::Progress
            | Kind::Verdicts
            | Kind::Call
            | Kind::Reply
            | Kind::Log
            | Kind::Cancel
            | Kind::Shared => {
                return Err(WorkerError::Kind(kind));
            }
        }
    }
}

fn batch(
    (wire, frames): (&mut Writer, &mut Frames),
    chains: &mut Chains,
    id: u64,
    payload: Bytes,
    clock: &dyn Clock,
) -> Result<(), WorkerError> {
    let mut told = Progress::default();
    let ran = chains.run(payload, clock, |said| {
        let sent = match said {
            Said::Progress(progress) if progress == told => Ok(()),
            Said::Progress(progress) => {
                told = progress;
                wire.send(Kind::Progress, id, &progress)
            }
            Said::Call(call, what) => {
                frames.lend();
                wire.send(Kind::Call, call, what)
            }
            Said::Cancel(call) => wire.send_bytes(Kind::Cancel, call, &[]),
        };
        sent.map_err(Error::other)
    })?;
    match ran {
        Ran::Done(answer, logged) => {
            let log = Log {
                lines: logged.lines,
                discarded: logged.discarded,
                usage: Some(logged.usage),
            };
            wire.hold(Kind::Log, id, &log)?;
            wire.send_bytes(Kind::Verdicts, id, &answer.finish()?)?;
        }
        Ran::UnknownChain => wire.send_bytes(Kind::Verdicts, id, &Verdicts::unknown_chain())?,
    }
    Ok(())
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, WorkerError> {
        let mut options = Self {
            sandbox: true,
            chains: DEFAULT_CHAINS,
            idle: DEFAULT_IDLE,
            shared: false,
            probe: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().and_then(|value| value.into_string().ok());
            match argument.to_str() {
                Some("--probe") => options.probe = true,
                Some("--shared") => options.shared = true,
                Some("--sandbox") => match value().as_deref() {
                    Some("on") => options.sandbox = true,
                    Some("off") => options.sandbox = false,
                    _ => return Err(WorkerError::Usage),
                },
                Some("--idle-seconds") => match value().and_then(|value| value.parse().ok()) {
                    Some(seconds) if seconds > 0 => options.idle = Duration::from_secs(seconds),
                    _ => return Err(WorkerError::Usage),
                },
                Some("--chains") => match value().and_then(|value| value.parse().ok()) {
                    Some(chains) if chains > 0 => options.chains = chains,
                    _ => return Err(WorkerError::Usage),
                },
                _ => return Err(WorkerError::Usage),
            }
        }
        Ok(options)
    }
}
