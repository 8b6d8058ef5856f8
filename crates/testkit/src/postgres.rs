//! A database of its own for each test, on the server that `MILLRACE_TEST_POSTGRES` names, and a server of a
//! test's own.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::process::{Process, Program, free_address};
use crate::stack::{PACKAGE, address};
use crate::wait::until;

const START: Duration = Duration::from_secs(60);

/// The variable that names the server and an account that may create databases.
pub const VARIABLE: &str = "MILLRACE_TEST_POSTGRES";

/// An empty database; dropped with this value, whoever is still connected to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: String,
    url: String,
}

impl Database {
    /// Makes one.
    ///
    /// # Errors
    /// When the variable is missing or the server does not answer: a test without its server fails.
    pub async fn create() -> Result<Self> {
        Self::create_on(server()?).await
    }

    /// Makes one on another server, `postgres://…`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn create_on(server: String) -> Result<Self> {
        let name = format!("test_{}", Uuid::new_v4().simple());
        execute(&server, &format!("CREATE DATABASE {name}")).await?;
        let url = with_database(&server, &name)?;
        Ok(Self { name, server, url })
    }

    /// `postgres://…` of this database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection of the test's own, for what the code under test does not offer.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A thread of its own, because a runtime cannot be entered from within another.
        let (server, statement) = (
            self.server.clone(),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(execute(&server, &statement))
        });
        // A database that stays behind is litter, and no reason to fail a test that has passed.
        drop(dropping.join());
    }
}

/// A server of a test's own. Killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    /// Starts one.
    ///
    /// # Errors
    /// The stack's package does not know how to start one, or it does not come up within a minute.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// As [`Self::start`], offering TLS with the certificate that [`crate::tls::authority`] signed.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_tls() -> Result<Self> {
        Self::start_with(Some(&crate::tls::certificates())).await
    }

    async fn start_with(certificates: Option<&Path>) -> Result<Self> {
        let listen = free_address()?;
        // A server that runs as another user than root must get to its files.
        let directory = tempfile::Builder::new()
            .prefix("millrace-postgres-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()?;
        let data = directory.path().join("postgres");
        std::fs::create_dir_all(&data)?;
        let (home, port) = (data.display().to_string(), listen.port().to_string());
        let argv = ["python3", "-B", "-m", "stack", "postgres-at", &home, &port];
        let mut argv = argv.map(str::to_owned).to_vec();
        argv.extend(certificates.map(|certificates| certificates.display().to_string()));
        let process = Process::start(Program {
            name: "postgres".into(),
            argv,
            environment: vec![("PYTHONPATH".to_owned(), address(PACKAGE)?)],
            log: directory.path().join("postgres.log"),
        })?;
        let server = Self {
            process,
            address: listen,
            _directory: directory,
        };
        server.answering().await?;
        Ok(server)
    }

    /// `postgres://test@host:port/postgres`.
    pub fn url(&self) -> String {
        format!("postgres://test@{}/postgres", self.address)
    }

    /// Ends it and all of its connections at once, without a checkpoint; what was committed is there at the next
    /// start.
    ///
    /// # Errors
    /// It does not run, or not end.
    pub async fn kill(&mut self) -> Result<()> {
        // SIGKILL would leave its children behind for a moment, and no server starts beside them.
        self.process.signal(Signal::QUIT)?;
        until("the end of postgres", START, || {
            std::future::ready(self.process.ended().map(|status| status.map(drop)))
        })
        .await
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// It does not come up within a minute.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.answering().await
    }

    async fn answering(&self) -> Result<()> {
        until("postgres answers", START, || async {
            connect(&self.url()).await.map(|_| Some(()))
        })
        .await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the address of the test stack is no configuration of a service"
)]
fn server() -> Result<String> {
    std::env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set: this test needs PostgreSQL, see `./dev env`"))
}

async fn execute(server: &str, statement: &str) -> Result<()> {
    let client = connect(server).await?;
    client
        .batch_execute(statement)
        .await
        .with_context(|| statement.to_owned())
}

async fn connect(url: &str) -> Result<Client> {
    let config: Config = url
        .parse()
        .with_context(|| format!("{VARIABLE} is not the address of a server"))?;
    let (client, connection) = config
        .connect(NoTls)
        .await
        .context("PostgreSQL does not answer")?;
    // Ends when the client is dropped; what goes wrong the client sees.
    drop(tokio::spawn(connection));
    Ok(client)
}

/// The same URL with another database.
fn with_database(server: &str, name: &str) -> Result<String> {
    let (address, options) = match server.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = address
        .split_once("://")
        .with_context(|| format!("{VARIABLE} is not a URL"))?;
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    Ok(format!("{scheme}://{host}/{name}{options}"))
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_the_url_is_changed() {
        for (server, url) in [
            ("postgres://u:p@h:5432/postgres", "postgres://u:p@h:5432/t"),
            ("postgres://u@h", "postgres://u@h/t"),
            (
                "postgres://u@h/x?sslmode=disable",
                "postgres://u@h/t?sslmode=disable",
            ),
        ] {
            assert_eq!(with_database(server, "t").expect("a url"), url);
        }
    }
}
