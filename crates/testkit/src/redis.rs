//! Where Redis is, a prefix that keeps one test's keys from another's, and a server of a test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::process::{Process, Program, free_address};
use crate::wait::until;

const START: Duration = Duration::from_secs(60);

/// The variable that names the server.
pub const VARIABLE: &str = "MILLRACE_TEST_REDIS";

/// The address of the server, `redis://…`.
///
/// # Errors
/// When the variable is missing: a test without its server fails.
#[expect(
    clippy::disallowed_methods,
    reason = "the address of the test stack is no configuration of a service"
)]
pub fn url() -> Result<String> {
    std::env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set: this test needs Redis, see `./dev env`"))
}

/// A prefix for keys that no other test has.
pub fn prefix() -> String {
    format!("test:{}:", Uuid::new_v4().simple())
}

/// A server that keeps nothing on disk, for tests that kill it or count its commands. Killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// Starts one; its log is in `directory`.
    ///
    /// # Errors
    /// `redis-server` is not installed, or does not come up within a minute.
    pub async fn start(directory: &Path) -> Result<Self> {
        let address = free_address()?;
        let (port, home) = (address.port().to_string(), directory.display().to_string());
        let argv = [
            "redis-server",
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            &home,
        ];
        let process = Process::start(Program {
            name: "redis".into(),
            argv: argv.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            log: directory.join("redis.log"),
        })?;
        let server = Self { process, address };
        server.answering().await?;
        Ok(server)
    }

    /// `redis://host:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it; what it held is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts it again after it was killed, empty.
    ///
    /// # Errors
    /// It does not come up within a minute.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.answering().await
    }

    /// How often clients called a command, such as `evalsha`, since the server started. What scripts call counts too.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn calls(&self, command: &str) -> Result<u64> {
        let stats = self.ask("INFO commandstats").await?;
        let start = format!("cmdstat_{}:calls=", command.to_ascii_lowercase());
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        let Some(count) = line.and_then(|line| line.split(',').next()) else {
            return Ok(0);
        };
        Ok(count.parse()?)
    }

    /// The keys whose names match a pattern and whose values are `value`, with what is left of their lifetimes.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn lifetimes(&self, pattern: &str, value: &str) -> Result<BTreeMap<String, Duration>> {
        // Names and numbers, a line each; values of another kind than text are none that was asked for.
        let script = r#"local lines = {}
            for _, key in ipairs(redis.call("KEYS", ARGV[1])) do
                if redis.call("TYPE", key).ok == "string" and redis.call("GET", key) == ARGV[2] then
                    lines[#lines + 1] = key .. " " .. redis.call("PTTL", key)
                end
            end
            return table.concat(lines, "\n")"#
            .replace('\n', " ");
        let said = self.ask(&format!("EVAL '{script}' 0 {pattern} {value}")).await?;
        let line = |line: &str| {
            let (key, left) = line.rsplit_once(' ').context("a name and a number")?;
            Ok((key.to_owned(), Duration::from_millis(left.parse()?)))
        };
        said.lines().filter(|text| !text.is_empty()).map(line).collect()
    }

    async fn answering(&self) -> Result<()> {
        until("redis answers", START, || async {
            Ok((self.ask("PING").await? == "PONG").then_some(()))
        })
        .await
    }

    /// Sends one command without arguments that need quotes; the answer as text.
    async fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        // `+PONG`, or `$<length>` and that many bytes; then `+OK` to the farewell.
        let answer = answer.trim_end().trim_end_matches("+OK").trim_end();
        let text = match answer.strip_prefix('$') {
            Some("0") => Some(""),
            Some(bulk) => bulk.split_once("\r\n").map(|(_, text)| text),
            None => answer.strip_prefix('+'),
        };
        Ok(text.context("an answer of another kind")?.to_owned())
    }
}
