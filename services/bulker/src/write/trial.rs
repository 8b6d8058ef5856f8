//! How long one table may fail before the others go on without it.

use std::sync::Arc;
use std::time::Duration;

use millrace_warehouse::{Limits, TableName};
use tokio::time::Instant;

use super::destination::{Destination, Fault as _, Wanted};
use super::pause::Pause;
use super::tables::Tables;
use super::{Job, Writer};
use crate::error::Error;

/// How long a table that was given up is left alone before a chunk tries it again.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Tables of which it is kept that they refused rows; past it all are forgotten.
const MOST_REFUSING: usize = 10_000;

/// One chunk's attempts at one table.
///
/// A server without which nothing goes on, and that does not answer, is no failing table: then everybody waits. A table that was given up once is
/// given up again at its first failure, and not even tried for a while: nobody waits for it twice.
#[derive(Debug)]
pub(super) struct Trial<'a, D: Destination> {
    pub(super) job: &'a Job<'a>,
    pub(super) table: &'a TableName,
    /// The destination that it is on.
    pub(super) tables: Arc<Tables<D>>,
    /// The version of its destination's settings; 0 without any.
    pub(super) settings: u64,
    /// What these make of the table.
    layout: Result<D::Layout, String>,
    /// How many columns it may get.
    pub(super) limits: Limits,
    writer: &'a Writer,
    pause: Pause,
    failing_since: Option<Instant>,
    schema_doubted: bool,
}

impl<'a, D: Destination> Trial<'a, D> {
    /// # Errors
    /// [`Error::TableFailing`] where the table is being left alone.
    pub(super) fn new(
        writer: &'a Writer,
        job: &'a Job<'a>,
        table: &'a TableName,
        tables: Arc<Tables<D>>,
    ) -> Result<Self, Error> {
        let asked = job.sorted.tables.get(table);
        let is_wanted = asked.is_some_and(|asked| !asked.rows.is_empty());
        if is_wanted && writer.is_left_alone(table) {
            return Err(Error::TableFailing(table.clone()));
        }
        let settings = asked.and_then(|asked| asked.destination.as_ref());
        let Wanted {
            layout,
            limits,
            version,
        } = D::wanted(settings, writer.limits.columns);
        Ok(Self {
            job,
            table,
            tables,
            settings: version,
            layout,
            limits,
            writer,
            pause: Pause::new(&writer.limits),
            failing_since: None,
            schema_doubted: false,
        })
    }

    /// What the table is to be like.
    ///
    /// # Errors
    /// Its destination's settings cannot be read: until they can, it is not known.
    pub(super) fn layout(&self) -> Result<&D::Layout, D::Error> {
        let layout = self.layout.as_ref();
        layout.map_err(|reason| D::unreadable(self.table, reason))
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Error::TableFailing`] once it has failed for too long, [`Error::Revoked`].
    pub(super) async fn failed(&mut self, error: &D::Error, what: &'static str) -> Result<(), Error> {
        self.job.claim.trouble(error, what, self.table);
        self.pause.wait(&self.job.claim.revoked).await?;
        if D::IS_ESSENTIAL && self.tables.destination.ping().await.is_err() {
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
            return Err(self.writer.leave_alone(self.table));
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

impl Writer {
    /// Takes note that a table's server refused more of a plan's rows than the plan can name.
    pub fn note_refusals(&self, table: &TableName) {
        let mut refusing = self.refusing();
        if refusing.len() >= MOST_REFUSING {
            refusing.clear();
        }
        refusing.insert(table.clone());
    }

    /// Whether rows that come back to this table are to be tried before their plan is written: its server refused some,
    /// and a plan of which nothing was written can still be cut until all that are bad can be named. Known to this
    /// session alone: where the rows come back to another, they go round once more.
    pub(super) fn is_refusing(&self, table: &TableName) -> bool {
        self.refusing().contains(table)
    }

    /// Whether a table was given up and is not to be tried yet.
    fn is_left_alone(&self, table: &TableName) -> bool {
        let again_at = self.broken().get(table).copied();
        again_at.is_some_and(|again_at| Instant::now() < again_at)
    }

    /// Gives a table up: the error that says so.
    pub(super) fn leave_alone(&self, table: &TableName) -> Error {
        self.broken().insert(table.clone(), Instant::now() + LEFT_ALONE);
        tracing::error!(%table, "a table is given up: its rows go to the retry topics");
        Error::TableFailing(table.clone())
    }
}
