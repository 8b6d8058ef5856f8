//! Connections to one destination.
//!
//! A line is one connection. The server itself ends it once it has lain idle for its lease, in or out of a
//! transaction: what a process that was stopped sends after that arrives nowhere.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_postgres::{Address, is_distrusted};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::error::Error;
use crate::{own, sql};

/// The schema in which event tables are made unless the destination says otherwise.
pub const DEFAULT_SCHEMA: &str = "millrace";

/// Where a destination is and what may be asked of it.
#[derive(Clone)]
pub struct Config {
    /// The destination's name in rows, part of the fences that its partitions have.
    pub database: String,
    /// The group that writes to it, the other part.
    pub group: String,
    /// `postgres://user:password@host:port/database`, or the key-value form; [`millrace_postgres`] says what is said of
    /// TLS in it.
    pub url: String,
    /// The schema of its event tables.
    pub schema: String,
    /// Most connections at a time.
    pub connections: usize,
    /// For making a connection, and for waiting until one is free.
    pub connect_timeout: Duration,
    /// For one statement that is no insert.
    pub query_timeout: Duration,
    /// For one insert on the server's side; the caller's own deadline may be shorter.
    pub insert_timeout: Duration,
    /// How long a connection may lie idle before the server ends it, in whole seconds, at least one.
    pub lease: Duration,
}

impl Config {
    /// The defaults: 4 connections, 3 s to connect, 10 s for a query, 15 s for an insert, a lease of 3 s.
    pub fn new(database: impl Into<String>, group: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            group: group.into(),
            url: url.into(),
            schema: DEFAULT_SCHEMA.to_owned(),
            connections: 4,
            connect_timeout: Duration::from_secs(3),
            query_timeout: Duration::from_secs(10),
            insert_timeout: Duration::from_secs(15),
            lease: Duration::from_secs(3),
        }
    }

    /// The destination. Connects to nothing.
    ///
    /// # Errors
    /// [`Error::Address`], which never shows the address.
    pub fn build(self) -> Result<Postgres, Error> {
        let address = Address::parse(&self.url);
        let mut address = address.map_err(|error| Error::Address(error.to_string()))?;
        let options = &mut address.options;
        options.connect_timeout(self.connect_timeout);
        options.application_name("millrace-bulker");
        Ok(Postgres {
            permits: Arc::new(Semaphore::new(self.connections.max(1))),
            idle: Arc::default(),
            epochs: Arc::default(),
            prepared: Arc::default(),
            address: Arc::new(address),
            config: Arc::new(self),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("database", &self.database)
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A destination. Clones share its connections.
#[derive(Clone)]
pub struct Postgres {
    pub(crate) config: Arc<Config>,
    address: Arc<Address>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
    /// The fence of each partition that this process has taken.
    pub(crate) epochs: Arc<Mutex<HashMap<u32, i64>>>,
    /// Whether its own tables are known to be there.
    prepared: Arc<tokio::sync::Mutex<bool>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.config).finish()
    }
}

struct Idle {
    client: Client,
    since: Instant,
}

/// One open connection. Dropping it closes it, and rolls back what it began.
pub struct Line {
    pub(crate) client: Client,
    /// The fence under which its insert goes.
    pub(crate) epoch: Option<i64>,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Whether the server answers.
    ///
    /// # Errors
    /// It does not, or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn ping(&self) -> Result<(), Error> {
        let line = self.open().await?;
        self.bounded(line.client.batch_execute("")).await?;
        self.keep(line);
        Ok(())
    }

    /// An open line for whatever is no insert.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or no connection became free.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub(crate) async fn open(&self) -> Result<Line, Error> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let permit = match tokio::time::timeout(self.config.connect_timeout, waiting).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(Error::Deadline),
        };
        let client = match self.idle_client() {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Line {
            client,
            epoch: None,
            _permit: permit,
        })
    }

    /// The line has nothing open and may be used again.
    pub(crate) fn keep(&self, line: Line) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.config.connections {
            idle.push(Idle {
                client: line.client,
                since: Instant::now(),
            });
        }
    }

    fn idle_client(&self) -> Option<Client> {
        // One that has lain for longer has hardly a lease any more.
        let longest = self.config.lease / 2;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|line| line.since.elapsed() < longest && !line.client.is_closed());
        idle.pop().map(|line| line.client)
    }

    async fn connect(&self) -> Result<Client, Error> {
        let connecting = self.address.options.connect(self.address.tls.clone());
        let (client, connection) = match tokio::time::timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) if error.code().is_some() => return Err(error.into()),
            Ok(Err(error)) if is_distrusted(&error) => return Err(Error::Distrusted(error)),
            Ok(Err(error)) => return Err(Error::Connect(error)),
            Err(_) => return Err(Error::Deadline),
        };
        // Ends with its client; what goes wrong the client sees.
        drop(tokio::spawn(async move { drop(connection.await) }));
        let seconds = |duration: Duration| duration.as_secs().max(1);
        let (lease, insert) = (seconds(self.config.lease), seconds(self.config.insert_timeout));
        // Servers before 14 have no end for idle sessions; there the fence alone keeps late blocks out. A commit that is
        // answered must survive a crash, whatever the account's defaults are.
        let settings = format!(
            "SELECT set_config(name, v, false) FROM pg_settings JOIN (VALUES ('idle_session_timeout', '{lease}s'), \
             ('idle_in_transaction_session_timeout', '{lease}s'), ('statement_timeout', '{insert}s'), \
             ('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE \
             current_setting('synchronous_commit') END), ('client_min_messages', 'warning')) AS wanted (n, v) ON n = name"
        );
        self.bounded(client.batch_execute(&settings)).await?;
        self.prepare(&client).await?;
        Ok(client)
    }

    /// Makes the destination's own tables, once for each process.
    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let mut prepared = self.prepared.lock().await;
        if !*prepared {
            self.bounded(client.batch_execute(&own::tables(&self.config.schema)))
                .await?;
            *prepared = true;
        }
        Ok(())
    }

    /// Waits for `answer` no longer than the query timeout.
    pub(crate) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.config.query_timeout, answer).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Deadline),
        }
    }

    /// A table's schema and name, quoted.
    pub(crate) fn quoted(&self, table: &str) -> String {
        format!("{}.{}", sql::name(&self.config.schema), sql::name(table))
    }
}
