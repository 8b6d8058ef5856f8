//! The connection pool that every repository shares.
//!
//! Bounded in connections and in time: waiting for a connection, making one and the call itself each have a
//! limit, and the server is told the call's limit too, so that a query never outlives its caller for long.

pub mod migrate;
mod row;

use std::future::Future;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Transaction,
};
use millrace_postgres::Address;
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;

use crate::{Error, Part};

pub(crate) use row::{Fields, Taken};

/// Where Postgres is and what a call may cost.
#[derive(Clone)]
pub struct Config {
    /// `postgres://user:password@host:port/database`, or the key-value form; [`millrace_postgres`] says what is said of
    /// TLS in it.
    pub url: String,
    /// Most connections at a time.
    pub connections: usize,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// For one call of a repository, waiting for a connection included.
    pub call_timeout: Duration,
    /// For one migration.
    pub migration_timeout: Duration,
}

impl Config {
    /// The defaults: 8 connections, 3 s to connect, 5 s for a call, 10 min for a migration.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 8,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(5),
            migration_timeout: Duration::from_secs(600),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A handle on the pool; clones share it.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: Pool,
    call_timeout: Duration,
    migration_timeout: Duration,
    keeps: bool,
}

impl Postgres {
    /// Makes the pool. Connects to nothing: a process can start while Postgres is away.
    ///
    /// # Errors
    /// When the address cannot be read, or the pool would have no connections.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Configuration {
            part: Part::Postgres,
            reason,
        };
        let Address { mut options, tls } =
            Address::parse(&config.url).map_err(|error| invalid(error.to_string()))?;
        if config.connections == 0 {
            return Err(invalid("at least one connection is needed".to_owned()));
        }
        // Twice the caller's own limit, so that the caller's ends first and has one meaning.
        let limit = config.call_timeout.as_millis().saturating_mul(2).max(1);
        let given = options.get_options().unwrap_or_default().to_owned();
        options.options(format!("-c statement_timeout={limit} {given}"));
        options.connect_timeout(config.connect_timeout);
        if options.get_application_name().is_none() {
            options.application_name("millrace");
        }
        let manager = Manager::from_config(
            options,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(config.connections)
            .wait_timeout(Some(config.call_timeout))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            pool,
            call_timeout: config.call_timeout,
            migration_timeout: config.migration_timeout,
            keeps: true,
        })
    }

    /// The same pool to try things on: what a call changes is taken back before it ends, and its answer is as if it
    /// had been kept. So what a trial says is what the server says, faults included.
    ///
    /// It is meant for what people set. What services write while they work (fields learned, kills counted) and
    /// migrations are kept all the same.
    #[must_use]
    pub fn trying(&self) -> Self {
        Self {
            keeps: false,
            ..self.clone()
        }
    }

    /// Ends a transaction: it is kept, unless this handle is for [trying](Self::trying).
    pub(crate) async fn keep(&self, transaction: Transaction<'_>) -> Result<(), Error> {
        match self.keeps {
            true => transaction.commit().await?,
            false => transaction.rollback().await?,
        }
        Ok(())
    }

    /// Asks the server for an answer, for readiness.
    ///
    /// # Errors
    /// When it gives none in time.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(async {
            let client = self.client().await?;
            client.simple_query("").await?;
            Ok(())
        })
        .await
    }

    /// Closes the pool; calls that wait for a connection fail, those that have one finish.
    pub fn close(&self) {
        self.pool.close();
    }

    pub(crate) async fn client(&self) -> Result<deadpool_postgres::Client, Error> {
        self.pool.get().await.map_err(|error| self.pool_error(error))
    }

    /// Gives `work` the time of one call.
    ///
    /// # Cancellation
    /// A dropped call leaves its query to the server's own limit; a transaction that was open is rolled back.
    pub(crate) async fn call<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.call_timeout, work).await
    }

    fn pool_error(&self, error: PoolError) -> Error {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(TimeoutType::Wait) => Error::Timeout {
                part: Part::Postgres,
                after: self.call_timeout,
            },
            other => Error::Unavailable {
                part: Part::Postgres,
                source: Box::new(other),
            },
        }
    }
}

/// A transaction that only reads, and all of it as it was at one moment.
///
/// # Errors
/// When Postgres does not answer.
pub(crate) async fn one_moment(
    client: &mut deadpool_postgres::Client,
) -> Result<deadpool_postgres::Transaction<'_>, Error> {
    Ok(client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout {
            part: Part::Postgres,
            after: limit,
        }),
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let part = Part::Postgres;
        let Some(code) = error.code() else {
            // Without an answer of the server it is the connection that failed.
            return Self::Unavailable {
                part,
                source: Box::new(error),
            };
        };
        let (contended, away, unmigrated) = (is_contention(code), is_outage(code), is_missing(code));
        let source = Box::new(error);
        if contended {
            Self::Contended { part, source }
        } else if away {
            Self::Unavailable { part, source }
        } else if unmigrated {
            Self::Unmigrated { part, source }
        } else {
            Self::Refused { part, source }
        }
    }
}

/// The statements of this crate name nothing else than what its migrations make.
fn is_missing(code: &SqlState) -> bool {
    [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
    ]
    .contains(code)
}

fn is_contention(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ]
    .contains(code)
}

/// Classes 08 (connection), 53 (out of connections, memory or disk) and 57 (cancelled at its time limit,
/// shutting down, not up yet), and a server that became read-only: all pass.
fn is_outage(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("08") || code.starts_with("53") || code.starts_with("57") || code == "25006"
}
