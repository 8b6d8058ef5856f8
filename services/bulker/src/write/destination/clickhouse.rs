//! ClickHouse: blocks by month, KILL, clones that keep nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_event::{JournalId, Timestamp};
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::{
    AsRow, Block, Error, Insert, Layout, Limits, Line, Outcome as Answer, Retry, RowId, Schema, TableName,
    Warehouse,
};

use super::{Destination, Fault, Faults, Outcome, Sending, Settings, Wanted};

impl Fault for Error {
    fn kind(&self) -> &'static str {
        self.kind()
    }

    fn retry(&self) -> Retry {
        self.retry()
    }

    fn is_of_one_table(&self) -> bool {
        self.is_of_one_table()
    }

    fn may_be_a_row(&self) -> bool {
        self.may_be_a_row()
    }

    fn said(&self) -> Option<String> {
        self.said()
    }

    fn view(&self) -> Option<String> {
        self.view()
    }
}

impl super::Block for Block {
    fn rows(&self) -> &[RowId] {
        self.rows()
    }

    fn part(&self) -> String {
        self.month().to_string()
    }
}

impl Destination for Warehouse {
    type Layout = Layout;
    type Block = Block;
    type Line = Line;
    type Error = Error;

    const IS_ESSENTIAL: bool = true;
    const HAS_VIEWS: bool = true;

    fn wanted(settings: Settings<'_>, columns: usize) -> Wanted<Layout> {
        let wanted = |layout, columns, version| Wanted {
            layout,
            limits: Limits { columns },
            version,
        };
        let configured = match settings {
            None => return wanted(Ok(Layout::default()), columns, 0),
            Some(Err(error)) => return wanted(Err(error.to_string()), columns, 0),
            Some(Ok(configured)) => configured,
        };
        let version = configured.destination.config_version;
        match configured.settings.clickhouse() {
            None => wanted(Ok(Layout::default()), columns, version),
            Some(settings) => {
                let columns = settings.columns.map_or(columns, usize::from);
                wanted(Ok(Layout::from(settings)), columns, version)
            }
        }
    }

    fn unreadable(table: &TableName, reason: &str) -> Error {
        Error::UnfitTable {
            table: table.clone(),
            reason: UnfitReason::Settings(reason.to_owned()),
        }
    }

    async fn ping(&self) -> Result<(), Error> {
        self.ping().await
    }

    async fn create_table(&self, table: &TableName, layout: &Layout) -> Result<Schema, Error> {
        self.create_table(table, layout).await
    }

    async fn encode(
        &self,
        table: &TableName,
        layout: &Layout,
        schema: Arc<Schema>,
        limits: Limits,
        at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> Result<(Vec<Block>, Faults, Arc<Schema>), Error> {
        let encoded = self.encode_as(table, layout, schema, limits, at, rows).await?;
        Ok((encoded.blocks, encoded.refused, encoded.schema))
    }

    async fn line(&self, _partition: u32) -> Result<Line, Error> {
        self.line().await
    }

    async fn insert_over(&self, line: Line, sending: Sending<'_, Block>) -> Outcome<Error> {
        let insert = Insert {
            table: sending.table,
            block: sending.block,
            token: sending.token,
            query_id: sending.query_id,
            deadline: sending.deadline,
        };
        match self.insert_over(line, insert).await {
            Answer::Applied => Outcome::Applied,
            Answer::Definite(error) => Outcome::Definite(error),
            Answer::Ambiguous(error) => Outcome::Ambiguous(error),
        }
    }

    async fn end_running(&self, _partition: u32, prefix: &str) -> Result<(), Error> {
        let killed = self.kill(prefix).await?;
        match killed.is_answered() {
            true => Ok(()),
            false => {
                tracing::warn!(left = ?killed.left, "queries could not be killed yet");
                Err(Error::Deadline)
            }
        }
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

    async fn open_rehearsal(&self, table: &TableName, name: TableName) -> Result<TableName, Error> {
        self.make_clone(table, &name).await?;
        Ok(name)
    }

    async fn close_rehearsal(&self, name: &TableName) -> Result<(), Error> {
        self.drop_clone(name).await
    }
}
