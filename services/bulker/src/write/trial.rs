//! How long one table may fail before the others go on without it.

use std::time::Duration;

use millrace_warehouse::{Error as WarehouseError, TableName};
use tokio::time::Instant;

use super::pause::Pause;
use super::{Job, Writer};
use crate::error::Error;

/// How long a table that was given up is left alone before a chunk tries it again.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// One chunk's attempts at one table.
///
/// A server that does not answer is no failing table: then everybody waits. A table that was given up once is
/// given up again at its first failure, and not even tried for a while: nobody waits for it twice.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) table: &'a TableName,
    writer: &'a Writer,
    pause: Pause,
    failing_since: Option<Instant>,
    schema_doubted: bool,
}

impl<'a> Trial<'a> {
    /// # Errors
    /// [`Error::TableFailing`] where the table is being left alone.
    pub(super) fn new(writer: &'a Writer, job: &'a Job<'a>, table: &'a TableName) -> Result<Self, Error> {
        let asked = job.sorted.tables.get(table);
        let wanted = asked.is_some_and(|asked| !asked.rows.is_empty());
        let again_at = writer.broken().get(table).copied();
        if wanted && again_at.is_some_and(|again_at| Instant::now() < again_at) {
            return Err(Error::TableFailing(table.clone()));
        }
        Ok(Self {
            job,
            table,
            writer,
            pause: Pause::new(&writer.limits),
            failing_since: None,
            schema_doubted: false,
        })
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Error::TableFailing`] once it has failed for too long, [`Error::Revoked`].
    pub(super) async fn failed(&mut self, error: &WarehouseError, what: &'static str) -> Result<(), Error> {
        self.job.claim.trouble(error, what, self.table);
        self.pause.wait(&self.job.claim.revoked).await?;
        if self.writer.warehouse.ping().await.is_err() {
            self.failing_since = None;
            return Ok(());
        }
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        let broken = self.writer.broken().contains_key(self.table);
        let limits = &self.writer.limits;
        let patience = match error.is_of_one_table() {
            true => limits.table_patience.min(limits.give_up_after),
            false => limits.give_up_after,
        };
        if broken || now.duration_since(since) >= patience {
            let again_at = now + LEFT_ALONE;
            self.writer.broken().insert(self.table.clone(), again_at);
            tracing::error!(table = %self.table, "a table is given up: its rows go to the retry topics");
            return Err(Error::TableFailing(self.table.clone()));
        }
        Ok(())
    }

    /// Whether nobody asked this before: the schema that a block was refused for may have been an old one, once.
    pub(super) fn schema_is_new(&mut self) -> bool {
        !std::mem::replace(&mut self.schema_doubted, true)
    }

    /// The table took rows.
    pub(super) fn succeeded(&self) {
        if self.writer.broken().remove(self.table).is_some() {
            tracing::info!(table = %self.table, "a table that was given up takes rows again");
        }
    }
}
