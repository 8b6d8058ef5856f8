//! Real binaries: started, watched, terminated and killed by their id.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use uuid::Uuid;

use crate::http::Client;
use crate::wait::until;

const READY: Duration = Duration::from_secs(60);

/// A binary of this workspace, of the build that the caller is of; `cargo build` must have made it.
///
/// # Errors
/// It is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the test does not know where it is")?;
    // target/<profile>/deps/<test>, target/<profile>/<program> → target/<profile>/<name>
    let directory = own.parent().map(|parent| match parent.ends_with("deps") {
        true => parent.parent().unwrap_or(parent),
        false => parent,
    });
    let path = directory
        .context("the test is not in a target directory")?
        .join(name);
    if !path.is_file() {
        bail!(
            "{} is missing; build the services first: `cargo build --workspace`",
            path.display()
        );
    }
    Ok(path)
}

/// A program as it is shipped, which `./dev build-release` makes.
///
/// # Errors
/// It is not there.
pub fn release(name: &str) -> Result<PathBuf> {
    let path = binary(name)?
        .parent()
        .and_then(Path::parent)
        .context("a program is in the directory of its profile")?
        .join("dist")
        .join(name);
    if !path.is_file() {
        bail!("{} is missing; `./dev build-release` makes it", path.display());
    }
    Ok(path)
}

/// Ports below those that systems give to outgoing connections: of these nobody takes one by chance between the look here
/// and the start of who is to listen there.
const PORTS: Range<u16> = 12_000..32_000;

/// An address on loopback that nobody listens on.
///
/// # Errors
/// The machine has none left.
pub fn free_address() -> Result<SocketAddr> {
    let width = u128::from(PORTS.end - PORTS.start);
    for _ in 0..1000 {
        let offset = u16::try_from(Uuid::new_v4().as_u128() % width)?;
        // Two tests that look at the same moment look at different ones.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", PORTS.start + offset)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
}

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it is called in messages.
    pub name: String,
    /// The binary and its arguments.
    pub argv: Vec<String>,
    /// Its environment, beside `PATH`.
    pub environment: Vec<(String, String)>,
    /// Where its output goes; appended over restarts.
    pub log: PathBuf,
}

/// A started process. Killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Option<Child>,
}

impl Process {
    /// Starts `program`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: Program) -> Result<Self> {
        let mut process = Self { program, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it again after it ended.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} still runs", self.program.name);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.program.log)?;
        let (binary, arguments) = self
            .program
            .argv
            .split_first()
            .context("a program needs a binary")?;
        let child = Command::new(binary)
            .args(arguments)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| name == "PATH" || name == "RUST_BACKTRACE"))
            .envs(self.program.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// How it is started.
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// Arms failpoints for the next start, `name=action;…` as `millrace_service::failpoint` has them, or none.
    pub fn arm(&mut self, failpoints: Option<&str>) {
        self.set("FAILPOINTS", failpoints);
    }

    /// How often its log says that it hit a failpoint, over all its starts.
    pub fn hits(&self, failpoint: &str) -> usize {
        let text = std::fs::read(&self.program.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let hit = |line: &&str| line.contains("failpoint hit") && line.contains(failpoint);
        text.lines().filter(hit).count()
    }

    /// Waits until it was ended by SIGKILL, which it may send itself.
    ///
    /// # Errors
    /// It does not end within `patience`, or in another way; with the end of its log.
    pub async fn killed(&mut self, patience: Duration) -> Result<()> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.end(patience).await?;
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("{} ended with {status}:\n{}", self.program.name, self.tail());
        }
        Ok(())
    }

    /// Its id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until `url` answers 200.
    ///
    /// # Errors
    /// It ended, or does not within a minute; with the end of its log.
    pub async fn ready(&mut self, client: &Client, url: &str) -> Result<()> {
        let what = format!("{} ready at {url}", self.program.name);
        let end = tokio::time::Instant::now() + READY;
        loop {
            if let Ok(answer) = client.get(url).await
                && answer.status == http::StatusCode::OK
            {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status}:\n{}", self.program.name, self.tail());
            }
            if tokio::time::Instant::now() >= end {
                bail!("{what}: not within {READY:?}:\n{}", self.tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.end(Duration::from_secs(10)).await.map(drop)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not run, or not end within `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.end(patience).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self
            .child
            .as_ref()
            .with_context(|| format!("{} does not run", self.program.name))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// From now on it can write no file beyond so many bytes, as on a full disk; `None` gives the room back.
    ///
    /// # Errors
    /// It does not run, or the system does not allow it.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let child = self
            .child
            .as_ref()
            .with_context(|| format!("{} does not run", self.program.name))?;
        // Of what a child may take at most it has as much as its parent.
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit {
            current: bytes.or(maximum),
            maximum,
        };
        prlimit(Some(Pid::from_child(child)), Resource::Fsize, limit)?;
        Ok(())
    }

    /// Sets a variable of its environment, or takes it away, for the next start.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let environment = &mut self.program.environment;
        environment.retain(|(known, _)| known != name);
        environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not run, or not end within `patience`; with the end of its log.
    pub async fn end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.program.name);
        let child = self
            .child
            .as_mut()
            .with_context(|| format!("{} does not run", self.program.name))?;
        let end = tokio::time::Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if tokio::time::Instant::now() >= end {
                bail!("{what}: not within {patience:?}:\n{}", self.tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Where its output is.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// The end of its output.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.program.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // Both fail only where it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs a program to its end, whatever its exit status.
///
/// # Errors
/// It cannot be started, or does not end within a minute.
pub async fn ended(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<Output> {
    let mut command = tokio::process::Command::new(binary(name)?);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(tokio::time::timeout(Duration::from_secs(60), command.output()).await??)
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or does not end with 0 within a minute; with what it said.
pub async fn output(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<String> {
    let output = ended(name, arguments, environment).await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{name} {} ended with {}: {said}",
            arguments.join(" "),
            output.status
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until something listens on `address`.
///
/// # Errors
/// Not within `patience`.
pub async fn listens(address: SocketAddr, patience: Duration) -> Result<()> {
    until(
        &format!("something listens on {address}"),
        patience,
        || async move {
            Ok(tokio::net::TcpStream::connect(address)
                .await
                .is_ok()
                .then_some(()))
        },
    )
    .await
}

/// The processes that `parent` started and that still run; none where the system has no `/proc`.
pub fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // After the name in parentheses: the state, then the parent.
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        let state = fields.next().unwrap_or("Z");
        if fields.next() == Some(&parent) && state != "Z" {
            found.push(pid);
        }
    }
    found
}
