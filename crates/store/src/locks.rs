//! One at a time, over all processes: advisory locks in Postgres.
//!
//! A lock is a courtesy, not a fence: whoever does not get it in time, or finds Postgres away, may go on. What is done
//! under it has to be right without it as well, and is only cheaper with it.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};

use crate::{Error, Postgres};

/// Locks by name.
#[derive(Clone, Debug)]
pub struct Locks {
    postgres: Postgres,
}

/// A lock that is held. Dropping it closes its connection, and with it the server lets go.
#[derive(Debug)]
pub struct Lock {
    _connection: ClientWrapper,
}

impl Locks {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Waits at most `patience` for the lock of that name; nothing where somebody else has it for longer.
    ///
    /// # Errors
    /// When Postgres does not answer.
    ///
    /// # Cancellation
    /// The lock is not held, or let go.
    pub async fn take(&self, name: &str, patience: Duration) -> Result<Option<Lock>, Error> {
        self.postgres
            .call(async {
                // Not given back to the pool: a lock belongs to its connection.
                let connection = Object::take(self.postgres.client().await?);
                let wait = patience.as_millis().max(1);
                connection
                    .batch_execute(&format!("SET lock_timeout = {wait}"))
                    .await?;
                let lock = "SELECT pg_advisory_lock(hashtextextended('millrace ' || $1, 0))";
                match connection.execute(lock, &[&name]).await.map_err(Error::from) {
                    Ok(_) => Ok(Some(Lock {
                        _connection: connection,
                    })),
                    Err(Error::Contended { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
    }
}
