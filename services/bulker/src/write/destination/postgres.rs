//! PostgreSQL: one transaction for each block, a fence for each partition, rehearsals that are rolled back.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use millrace_event::{JournalId, Timestamp};
pub(crate) use millrace_postgres_destination::Postgres;
use millrace_postgres_destination::{Block, Error, Insert, Line, Outcome as Answer};
use millrace_store::destinations::{Configured, Settings as Stored};
use millrace_warehouse::{AsRow, Limits, Retry, RowId, Schema, TableName};

use super::super::tables::Tables;
use super::{Destination, Fault, Faults, Outcome, Sending, Settings, Wanted};
use crate::credentials::Credentials;

impl Fault for Error {
    fn kind(&self) -> &'static str {
        self.kind()
    }

    fn retry(&self) -> Retry {
        self.retry()
    }

    /// Nobody waits for a server that its own tables alone are on.
    fn is_of_one_table(&self) -> bool {
        true
    }

    fn may_be_a_row(&self) -> bool {
        self.may_be_a_row()
    }

    fn said(&self) -> Option<String> {
        self.said()
    }

    fn view(&self) -> Option<String> {
        None
    }
}

impl super::Block for Block {
    fn rows(&self) -> &[RowId] {
        self.rows()
    }

    fn part(&self) -> String {
        String::new()
    }
}

impl Destination for Postgres {
    type Layout = ();
    type Block = Block;
    type Line = Line;
    type Error = Error;

    const IS_ESSENTIAL: bool = false;
    const HAS_VIEWS: bool = false;

    fn wanted(settings: Settings<'_>, columns: usize) -> Wanted<()> {
        let configured = settings.and_then(|settings| settings.as_ref().ok());
        let own = configured.and_then(|configured| match &configured.settings {
            Stored::Postgres(settings) => settings.columns,
            Stored::ClickHouse(_) => None,
        });
        Wanted {
            layout: Ok(()),
            limits: Limits {
                columns: own.map_or(columns, usize::from),
            },
            version: configured.map_or(0, |configured| configured.destination.config_version),
        }
    }

    fn unreadable(_table: &TableName, reason: &str) -> Error {
        Error::Address(reason.to_owned())
    }

    async fn ping(&self) -> Result<(), Error> {
        self.ping().await
    }

    async fn create_table(&self, table: &TableName, (): &()) -> Result<Schema, Error> {
        self.create_table(table).await
    }

    async fn encode(
        &self,
        table: &TableName,
        (): &(),
        schema: Arc<Schema>,
        limits: Limits,
        at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> Result<(Vec<Block>, Faults, Arc<Schema>), Error> {
        let encoded = self.encode(table, schema, limits, at, rows).await?;
        Ok((encoded.blocks, encoded.refused, encoded.schema))
    }

    async fn line(&self, partition: u32) -> Result<Line, Error> {
        self.line(partition).await
    }

    async fn insert_over(&self, line: Line, sending: Sending<'_, Block>) -> Outcome<Error> {
        let insert = Insert {
            table: sending.table,
            block: sending.block,
            token: sending.token,
            partition: sending.partition,
            first_offset: sending.first_offset,
            deadline: sending.deadline,
            rehearsal: sending.rehearsal,
        };
        match self.insert_over(line, insert).await {
            Answer::Applied => Outcome::Applied,
            Answer::Definite(error) => Outcome::Definite(error),
            Answer::Ambiguous(error) => Outcome::Ambiguous(error),
        }
    }

    async fn end_running(&self, partition: u32, _prefix: &str) -> Result<(), Error> {
        self.take_over(partition).await
    }

    async fn which(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: &[u64],
    ) -> Result<BTreeSet<(u64, u16)>, Error> {
        self.which(table, journal, partition, seqs).await
    }

    async fn open_rehearsal(&self, table: &TableName, _name: TableName) -> Result<TableName, Error> {
        Ok(table.clone())
    }

    async fn close_rehearsal(&self, _name: &TableName) -> Result<(), Error> {
        Ok(())
    }
}

/// The PostgreSQL destinations that this session writes to, each opened at its first row.
///
/// One that is configured anew is opened anew. There are as many as the installation has rows for.
#[derive(Debug, Default)]
pub(in crate::write) struct Open(Mutex<HashMap<String, Opened>>);

#[derive(Debug)]
struct Opened {
    version: u64,
    tables: Arc<Tables<Postgres>>,
}

impl Open {
    /// The tables of a destination that rows were written to.
    pub(in crate::write) fn opened(&self, database: &str) -> Option<Arc<Tables<Postgres>>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(database).map(|opened| Arc::clone(&opened.tables))
    }

    /// The tables of a destination.
    ///
    /// # Errors
    /// Its address cannot be had, in words for a log; they hold nothing of it.
    pub(in crate::write) fn tables(
        &self,
        database: &str,
        configured: &Configured,
        group: &str,
        credentials: &Credentials,
    ) -> Result<Arc<Tables<Postgres>>, String> {
        let version = configured.destination.config_version;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.get(database).filter(|opened| opened.version >= version) {
            return Ok(Arc::clone(&opened.tables));
        }
        let postgres = credentials.open(database, configured, group)?;
        let tables = Arc::new(Tables::new(postgres));
        let opened = Opened {
            version,
            tables: Arc::clone(&tables),
        };
        open.insert(database.to_owned(), opened);
        Ok(tables)
    }
}
