//! The faults, each of which leaves everything running again.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use millrace_service::failpoint;
use millrace_testkit::broker::Broker;
use millrace_testkit::clickhouse::ClickHouse;
use millrace_testkit::pipeline::{Pipeline, SERVICES};
use millrace_testkit::process::Process;
use millrace_testkit::proxy::{self, Proxy};
use millrace_testkit::wait::until;
use rustix::process::Signal;

/// Session timeout of rotor and bulker; the least that a broker allows.
pub const SESSION: Duration = Duration::from_secs(6);
/// Longest that a member that joins, or one that is told to end, is waited for.
const MEMBER: Duration = Duration::from_secs(40);
/// Longest that a process is watched for the step at which it is to die.
const STEP: Duration = Duration::from_secs(20);

/// Furthest that a clock steps: copies that were made meanwhile are due that much later.
const MOST_STEP: Duration = Duration::from_secs(30);

/// The files that say by how much the services' clocks are off.
#[derive(Clone, Debug)]
pub struct Clocks(PathBuf);

impl Clocks {
    /// In a directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The setting that has a service go by its file.
    pub fn setting(&self, service: &str) -> (&'static str, String) {
        (failpoint::CLOCK, self.file(service).display().to_string())
    }

    fn file(&self, service: &str) -> PathBuf {
        self.0.join(format!("clock-{service}"))
    }

    fn step(&self, service: &str, milliseconds: i64) -> Result<()> {
        // Replaced whole, as it is read at any moment.
        let new = self.0.join("clock.new");
        std::fs::write(&new, milliseconds.to_string())?;
        Ok(std::fs::rename(new, self.file(service))?)
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and started again.
    Kill(&'static str),
    /// Started anew with a failpoint: killed at a named step, or held there for longer than a session.
    Step(&'static str),
    /// SIGSTOP for longer than a session, often with another member that takes over, then SIGCONT.
    Stop(&'static str),
    /// Members that join and leave, by SIGTERM or SIGKILL.
    Storm(&'static str),
    /// The broker killed and started again.
    Broker,
    /// ClickHouse killed and started again.
    ClickHouse,
    /// No file of ingest grows any more for some seconds, as on a full disk; at times in the middle of a record.
    Disk,
    /// The wall clock of a service steps by up to half a minute, and some seconds later back.
    Clock,
    /// For some seconds, every few requests to a server: carried out with the answer swallowed, or cut in the middle.
    Requests(Server),
}

/// A server behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Kafka.
    Broker,
    /// ClickHouse.
    ClickHouse,
}

/// Every kind; a run deals them like a pack of cards, shuffled anew each time it is through.
pub const ALL: [Fault; 15] = [
    Fault::Kill("ingest"),
    Fault::Kill("rotor"),
    Fault::Kill("bulker"),
    Fault::Step("rotor"),
    Fault::Step("bulker"),
    Fault::Stop("rotor"),
    Fault::Stop("bulker"),
    Fault::Storm("rotor"),
    Fault::Storm("bulker"),
    Fault::Broker,
    Fault::ClickHouse,
    Fault::Disk,
    Fault::Clock,
    Fault::Requests(Server::Broker),
    Fault::Requests(Server::ClickHouse),
];

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill(service) => write!(f, "{service} killed"),
            Self::Step(service) => write!(f, "{service} killed or held at a named step"),
            Self::Stop(service) => write!(f, "{service} stopped past its session"),
            Self::Storm(service) => write!(f, "{service} members join and leave"),
            Self::Broker => f.write_str("broker killed"),
            Self::ClickHouse => f.write_str("ClickHouse killed"),
            Self::Disk => f.write_str("disk of ingest full"),
            Self::Clock => f.write_str("a clock stepped, and back"),
            Self::Requests(Server::Broker) => f.write_str("requests to the broker broken"),
            Self::Requests(Server::ClickHouse) => f.write_str("requests to ClickHouse broken"),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// SIGKILLs by process.
    pub kills: BTreeMap<String, u64>,
    /// Failpoints that were hit.
    pub steps: BTreeMap<String, u64>,
    /// Requests that were broken.
    pub requests: u64,
}

impl Tally {
    fn killed(&mut self, process: &str) {
        *self.kills.entry(process.to_owned()).or_default() += 1;
    }
}

/// Everything that can be broken.
#[derive(Debug)]
pub struct World {
    /// The services.
    pub pipeline: Pipeline,
    /// Kafka.
    pub broker: Broker,
    /// ClickHouse.
    pub clickhouse: ClickHouse,
    /// Between all processes and Kafka.
    pub to_broker: Proxy,
    /// Between all processes and ClickHouse.
    pub to_clickhouse: Proxy,
    /// Where the clocks of the services are stepped.
    pub clocks: Clocks,
    /// Chance.
    pub chance: Rng,
    /// What was done so far.
    pub tally: Tally,
}

impl World {
    /// Carries out a fault and mends it.
    ///
    /// # Errors
    /// A part does not come back, or a service ended by itself.
    pub async fn carry_out(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill(service) => self.kill(service).await?,
            Fault::Step(service) => self.step(service).await?,
            Fault::Stop(service) => self.stop(service).await?,
            Fault::Storm(service) => self.storm(service).await?,
            Fault::Disk => self.fill_the_disk().await?,
            Fault::Clock => self.step_a_clock().await?,
            Fault::Broker => {
                self.broker.kill().await?;
                self.tally.killed("broker");
                self.pause(500, 4000).await;
                self.broker.start_again().await?;
            }
            Fault::ClickHouse => {
                self.clickhouse.kill().await?;
                self.tally.killed("ClickHouse");
                self.pause(500, 4000).await;
                self.clickhouse.start_again().await?;
            }
            // Every producer and member has many requests under way at Kafka, and few are at ClickHouse.
            Fault::Requests(Server::Broker) => self.break_requests(self.to_broker.clone(), 5, 40).await,
            Fault::Requests(Server::ClickHouse) => {
                self.break_requests(self.to_clickhouse.clone(), 2, 6).await
            }
        }
        *self.tally.faults.entry(fault.to_string()).or_default() += 1;
        for service in SERVICES {
            let process = self.pipeline.process(service);
            if let Some(status) = process.ended()? {
                bail!("{service} ended by itself with {status}:\n{}", process.tail());
            }
        }
        Ok(())
    }

    /// Waits between so many milliseconds.
    pub async fn pause(&mut self, least: u64, most: u64) {
        let time = Duration::from_millis(self.chance.u64(least..most));
        tokio::time::sleep(time).await;
    }

    async fn fill_the_disk(&mut self) -> Result<()> {
        let journal = self.pipeline.directory().join("journal").display().to_string();
        let found = self.pipeline.millctl(&["journal", "inspect", &journal]).await?;
        let segments = found["segments"].as_array();
        let written = segments.and_then(|segments| segments.last()?["bytes"].as_u64());
        // Behind what is written now, so that records fit for a moment and one is cut.
        let room = written.context("a segment is open")? + self.chance.u64(0..100_000);
        self.pipeline.process("ingest").limit_files(Some(room))?;
        self.pause(1500, 5000).await;
        self.pipeline.process("ingest").limit_files(None)
    }

    async fn step_a_clock(&mut self) -> Result<()> {
        let service = *self.chance.choice(&SERVICES).context("there are services")?;
        let most = i64::try_from(MOST_STEP.as_millis())?;
        self.clocks.step(service, self.chance.i64(-most..=most))?;
        self.pause(1500, 5000).await;
        self.clocks.step(service, 0)
    }

    async fn break_requests(&mut self, proxy: Proxy, least: u64, most: u64) {
        let fault = match self.chance.bool() {
            true => proxy::Fault::SwallowAnswer,
            false => proxy::Fault::Cut,
        };
        let (every, seen, before) = (self.chance.u64(least..most), AtomicU64::new(0), proxy.hits());
        proxy.arm(fault, u32::MAX, move |_| {
            (seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every)
        });
        self.pause(2000, 6000).await;
        proxy.calm();
        self.tally.requests += proxy.hits() - before;
    }

    async fn kill(&mut self, service: &'static str) -> Result<()> {
        self.pipeline.process(service).kill().await?;
        self.tally.killed(service);
        self.pause(0, 1500).await;
        self.pipeline.process(service).start_again()
    }

    async fn step(&mut self, service: &'static str) -> Result<()> {
        let prefix = format!("{service}::");
        let sites: Vec<_> = failpoint::NAMES
            .iter()
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let site = *self.chance.choice(&sites).context("the service has sites")?;
        let (skip, held) = (self.chance.u32(0..4), self.chance.u8(0..4) == 0);
        let action = if held {
            format!("pause:{}", (SESSION + Duration::from_secs(2)).as_millis())
        } else {
            "kill".to_owned()
        };
        let armed = match skip {
            0 => format!("{site}=1*return({action})"),
            skip => format!("{site}={skip}*off->1*return({action})"),
        };
        let process = self.pipeline.process(service);
        let before = process.hits(site);
        process.kill().await?;
        process.arm(Some(&armed));
        process.start_again()?;
        process.arm(None);
        // A step of failures alone may never come.
        let hit = until("the step", STEP, || {
            let hits = process.hits(site);
            async move { Ok((hits > before).then_some(())) }
        })
        .await
        .is_ok();
        self.tally.killed(service);
        if hit {
            *self.tally.steps.entry((*site).to_owned()).or_default() += 1;
        }
        let process = self.pipeline.process(service);
        if hit && held {
            return Ok(());
        }
        match process.ended()? {
            Some(status) if status.signal() != Some(Signal::KILL.as_raw()) => {
                bail!("{service} ended by itself with {status}:\n{}", process.tail())
            }
            Some(_) => {}
            None => {
                // A step that was not met yet would be met in the middle of another fault.
                if !hit {
                    process.signal(Signal::KILL)?;
                }
                process.killed(STEP).await?;
            }
        }
        self.tally.killed(service);
        process.start_again()
    }

    async fn stop(&mut self, service: &'static str) -> Result<()> {
        let successor = match self.chance.u8(0..3) {
            0 => None,
            _ => self.member(service).await?,
        };
        self.pipeline.process(service).signal(Signal::STOP)?;
        let time = SESSION + Duration::from_millis(self.chance.u64(1000..4000));
        tokio::time::sleep(time).await;
        self.pipeline.process(service).signal(Signal::CONT)?;
        self.pause(500, 3000).await;
        self.leave(service, successor).await
    }

    async fn storm(&mut self, service: &'static str) -> Result<()> {
        for _ in 0..self.chance.u8(2..4) {
            let member = self.member(service).await?;
            self.pause(200, 3000).await;
            self.leave(service, member).await?;
        }
        Ok(())
    }

    /// Another member, ready; `None` where it does not become ready in time, because the machine is slow or the one
    /// that it depends on does not answer yet.
    async fn member(&mut self, service: &'static str) -> Result<Option<Process>> {
        let (mut process, url) = self.pipeline.another(service)?;
        let client = self.pipeline.client.clone();
        let url = format!("{url}/ready");
        let ready = tokio::time::timeout(MEMBER, process.ready(&client, &url)).await;
        match ready {
            Ok(Ok(())) => Ok(Some(process)),
            _ => match process.ended()? {
                Some(status) => bail!(
                    "another {service} ended by itself with {status}:\n{}",
                    process.tail()
                ),
                None => Ok(None),
            },
        }
    }

    async fn leave(&mut self, service: &'static str, member: Option<Process>) -> Result<()> {
        let Some(mut member) = member else { return Ok(()) };
        if self.chance.bool() {
            let status = member.terminate(MEMBER).await?;
            if !status.success() {
                bail!(
                    "another {service} was told to end and did so with {status}:\n{}",
                    member.tail()
                );
            }
            return Ok(());
        }
        member.kill().await?;
        self.tally.killed(service);
        Ok(())
    }
}
