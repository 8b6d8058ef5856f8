//! Who may write for a partition at this destination.
//!
//! A row of `owners` holds the partition's epoch. A transaction that inserts holds that row's lock from its start to its
//! end, and goes on only where the epoch is its own. Whoever takes the partition over raises the epoch: that waits for
//! the lock, so what a predecessor began is over, and what it would begin later is refused.

use std::sync::PoisonError;

use tokio_postgres::SimpleQueryMessage;

use crate::client::{Line, Postgres};
use crate::error::Error;
use crate::own::OWN_SCHEMA;
use crate::sql;

/// How long a block's token is kept. A block is repeated within seconds of its first attempt, or after a question.
const TOKENS_KEPT: &str = "1 hour";

impl Postgres {
    /// An open line for an insert of this partition. The first one takes the partition over.
    ///
    /// # Errors
    /// The server cannot be reached or refuses; nothing was sent of any insert.
    ///
    /// # Cancellation
    /// The partition may be taken over or not; calling again is safe.
    pub async fn line(&self, partition: u32) -> Result<Line, Error> {
        let mut line = self.open().await?;
        let known = self.epoch(partition);
        let epoch = match known {
            Some(epoch) => epoch,
            None => self.take(&line, partition).await?,
        };
        line.epoch = Some(epoch);
        Ok(line)
    }

    /// Takes the partition over: once this has answered nothing runs that an earlier owner began, and nothing that it
    /// would begin is let in.
    ///
    /// # Errors
    /// The server does not answer, or something still runs: nothing is known then.
    ///
    /// # Cancellation
    /// The partition may be taken over or not; calling again is safe.
    pub async fn take_over(&self, partition: u32) -> Result<(), Error> {
        let line = self.open().await?;
        self.take(&line, partition).await?;
        self.keep(line);
        Ok(())
    }

    async fn take(&self, line: &Line, partition: u32) -> Result<i64, Error> {
        let config = &self.config;
        let sql = format!(
            "INSERT INTO {OWN_SCHEMA}.owners AS o (destination, consumer_group, partition, epoch) \
             VALUES ($1, $2, $3, 1) ON CONFLICT (destination, consumer_group, partition) \
             DO UPDATE SET epoch = o.epoch + 1, taken_at = now() RETURNING epoch"
        );
        let taking = async {
            let statement = line.client.prepare(&sql).await?;
            let row = line
                .client
                .query_one(
                    &statement,
                    &[&config.database, &config.group, &i64::from(partition)],
                )
                .await?;
            row.try_get::<_, i64>(0)
        };
        let epoch = self.bounded(taking).await?;
        let forgetting =
            format!("DELETE FROM {OWN_SCHEMA}.blocks WHERE written_at < now() - interval '{TOKENS_KEPT}'");
        self.bounded(line.client.batch_execute(&forgetting)).await?;
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.insert(partition, epoch);
        Ok(epoch)
    }

    fn epoch(&self, partition: u32) -> Option<i64> {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.get(&partition).copied()
    }

    /// Begins a transaction behind the fence, with the block's token put down. Whether the token was new.
    pub(crate) async fn begin(&self, line: &Line, block: &Standing<'_>) -> Result<bool, Error> {
        let config = &self.config;
        let Standing {
            partition,
            table,
            token,
            first_offset,
            rows,
        } = block;
        let (destination, group) = (sql::text(&config.database), sql::text(&config.group));
        let mut sql = format!(
            "BEGIN; SELECT epoch FROM {OWN_SCHEMA}.owners WHERE destination = {destination} \
             AND consumer_group = {group} AND partition = {partition} FOR UPDATE"
        );
        if let Some(token) = token {
            sql.push_str(&format!(
                "; INSERT INTO {OWN_SCHEMA}.blocks (token, destination, \"table\", consumer_group, partition, \
                 first_offset, rows) VALUES ('{token}', {destination}, {}, {group}, {partition}, {first_offset}, {rows}) \
                 ON CONFLICT DO NOTHING RETURNING 'new'",
                sql::text(table)
            ));
        }
        let answers = self.bounded(line.client.simple_query(&sql)).await?;
        let rows: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let held = rows.first().and_then(|epoch| epoch.parse::<i64>().ok());
        if held.is_none() || held != line.epoch {
            let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
            epochs.remove(partition);
            return Err(Error::Fenced(*partition));
        }
        Ok(token.is_none() || rows.len() > 1)
    }
}

/// What a transaction says of its block.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) partition: u32,
    pub(crate) table: &'a str,
    /// None for a block that is only tried.
    pub(crate) token: Option<&'a str>,
    pub(crate) first_offset: u64,
    pub(crate) rows: usize,
}
