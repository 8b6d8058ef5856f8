//! A ClickHouse of a test's own, for tests that kill it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::Client;
use crate::process::{Process, Program, free_address};
use crate::stack::{PACKAGE, address};
use crate::wait::until;

const START: Duration = Duration::from_secs(60);
/// Where the stack's downloads are, if anywhere unusual.
const CACHE: [&str; 3] = ["MILLRACE_CACHE", "XDG_CACHE_HOME", "HOME"];

/// A single server. Killed when it is dropped.
#[derive(Debug)]
pub struct ClickHouse {
    process: Process,
    listen: SocketAddr,
}

impl ClickHouse {
    /// Starts one that keeps everything below `directory`.
    ///
    /// # Errors
    /// The stack's package does not know how to start one, or it does not come up within a minute.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_for(directory, None).await
    }

    /// As [`Self::start`], with users, profiles and quotas of a test's own: the server's `users.xml`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_for(directory: &Path, users: Option<&str>) -> Result<Self> {
        let (listen, native) = (free_address()?, free_address()?);
        let data = directory.join("clickhouse");
        std::fs::create_dir_all(&data)?;
        if let Some(users) = users {
            std::fs::write(data.join("users.xml"), users)?;
        }
        let argv = [
            "python3",
            "-B",
            "-m",
            "stack",
            "clickhouse-at",
            &data.display().to_string(),
            &listen.port().to_string(),
            &native.port().to_string(),
        ]
        .map(str::to_owned);
        let mut environment = vec![("PYTHONPATH".to_owned(), address(PACKAGE)?)];
        environment.extend(std::env::vars().filter(|(name, _)| CACHE.contains(&name.as_str())));
        let process = Process::start(Program {
            name: "clickhouse".into(),
            argv: argv.to_vec(),
            environment,
            log: directory.join("clickhouse.log"),
        })?;
        let server = Self { process, listen };
        server.answering().await?;
        Ok(server)
    }

    /// Its HTTP interface, `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
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
        self.answering().await
    }

    async fn answering(&self) -> Result<()> {
        let (client, url) = (Client::default(), format!("{}/ping", self.url()));
        let up = until("ClickHouse answers", START, || async {
            Ok((client.get(&url).await?.status == 200).then_some(()))
        });
        up.await.with_context(|| self.process.tail())
    }
}
