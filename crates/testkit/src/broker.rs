//! A Kafka broker of a test's own, for tests that stop it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Process, Program, free_address, listens};
use crate::proxy::Proxy;
use crate::stack::{KAFKA_JARS, address};

const START: Duration = Duration::from_secs(60);

/// A single broker with its controller. Killed when it is dropped.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    listen: SocketAddr,
    /// What its clients are told to connect to.
    advertised: SocketAddr,
}

impl Broker {
    /// Formats its storage below `directory` and starts it.
    ///
    /// # Errors
    /// There are no jars, no Java, or it does not come up within a minute.
    pub async fn start(directory: &Path) -> Result<Self> {
        let listen = free_address()?;
        Self::start_at(directory, listen, listen).await
    }

    /// As [`Self::start`], behind a proxy: clients are told to connect to that one and nowhere else.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_behind(directory: &Path, proxy: &Proxy) -> Result<Self> {
        let listen = free_address()?;
        proxy.lead_to(listen.to_string());
        Self::start_at(directory, listen, proxy.address()).await
    }

    async fn start_at(directory: &Path, listen: SocketAddr, advertised: SocketAddr) -> Result<Self> {
        let controller = free_address()?;
        let properties = directory.join("server.properties");
        std::fs::write(&properties, settings(directory, [listen, advertised, controller]))?;
        let properties = properties.display().to_string();
        let classpath = format!("{}/*", address(KAFKA_JARS)?);
        format_storage(&classpath, &properties).await?;
        let argv = [
            "java",
            "-Xmx512m",
            "-Djava.awt.headless=true",
            "-cp",
            &classpath,
            "kafka.Kafka",
            &properties,
        ];
        let process = Process::start(Program {
            name: "kafka".into(),
            argv: argv.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            log: directory.join("kafka.log"),
        })?;
        let broker = Self {
            process,
            listen,
            advertised,
        };
        broker.listening().await?;
        Ok(broker)
    }

    /// Where its clients find it, `host:port`.
    pub fn address(&self) -> String {
        self.advertised.to_string()
    }

    /// Stops it with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts it again, with what it had.
    ///
    /// # Errors
    /// It does not come up within a minute.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.listening().await
    }

    async fn listening(&self) -> Result<()> {
        listens(self.listen, START)
            .await
            .with_context(|| self.process.tail())
    }
}

/// Has a broker refuse batches of a topic that are larger than so many bytes; it obeys some time after this.
///
/// # Errors
/// There are no jars, no Java, or the broker does not do it within a minute; with what was said.
pub async fn limit_messages(broker: &str, topic: &str, bytes: usize) -> Result<()> {
    let mut command = tokio::process::Command::new("java");
    let limit = format!("max.message.bytes={bytes}");
    command
        .args(["-Xmx128m", "-cp", &format!("{}/*", address(KAFKA_JARS)?)])
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", broker])
        .args(["--alter", "--topic", topic, "--add-config", &limit])
        .kill_on_drop(true);
    let output = tokio::time::timeout(START, command.output()).await??;
    if !output.status.success() {
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        bail!("{topic} could not be limited: {said}");
    }
    Ok(())
}

async fn format_storage(classpath: &str, properties: &str) -> Result<()> {
    let mut command = tokio::process::Command::new("java");
    command
        .args(["-Xmx256m", "-cp", classpath, "kafka.tools.StorageTool", "format"])
        // Any 16 bytes in URL-safe base64 will do: the cluster is nobody else's.
        .args(["-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties])
        .kill_on_drop(true);
    let output = tokio::time::timeout(START, command.output()).await??;
    if !output.status.success() {
        bail!(
            "the broker's storage could not be formatted: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn settings(directory: &Path, [listen, advertised, controller]: [SocketAddr; 3]) -> String {
    let logs = directory.join("kafka").display().to_string();
    let (listeners, advertised) = (
        format!("PLAINTEXT://{listen},CONTROLLER://{controller}"),
        format!("PLAINTEXT://{advertised}"),
    );
    let voters = format!("1@{controller}");
    [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.quorum.voters", voters.as_str()),
        ("listeners", listeners.as_str()),
        ("advertised.listeners", advertised.as_str()),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("controller.listener.names", "CONTROLLER"),
        ("log.dirs", logs.as_str()),
        ("offsets.topic.replication.factor", "1"),
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("broker.session.timeout.ms", "4000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("auto.create.topics.enable", "false"),
        ("log.cleaner.dedupe.buffer.size", "16777216"),
    ]
    .map(|(key, value)| format!("{key}={value}\n"))
    .concat()
}
