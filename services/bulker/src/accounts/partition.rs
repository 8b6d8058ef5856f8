//! One partition of a topic that is no event's: gather, insert, commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::{Identity, JournalId};
use millrace_kafka::Record;
use millrace_kafka::group::{CommitError, Partition};
use millrace_ledger::Token;
use millrace_service::Causes;
use millrace_warehouse::system::{SystemRows, SystemTable};
use millrace_warehouse::{Block, Error, Insert, Outcome, RowId, TableName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::{Instant, timeout_at};

use super::Accounts;
use crate::metrics::Kind;

const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The partition was taken away; what was not committed is somebody else's.
struct Revoked;

struct Task {
    accounts: Arc<Accounts>,
    partition: Partition,
    kind: SystemTable,
    table: TableName,
    journal: JournalId,
    /// Counts the inserts of this assignment: part of the query ids.
    inserts: u64,
}

/// Serves a partition until it is taken away.
///
/// # Cancellation
/// What was not committed is read again.
pub(super) async fn serve(accounts: Arc<Accounts>, partition: Partition) {
    let kind = accounts.table_of(&partition.topic);
    let Ok(table) = kind.table(accounts.database.clone()) else {
        return;
    };
    let journal = JournalId::of_topic(&partition.topic, &accounts.config.incarnation);
    let mut task = Task {
        accounts,
        partition,
        kind,
        table,
        journal,
        inserts: 0,
    };
    let Err(Revoked) = task.work().await;
}

impl Task {
    async fn work(&mut self) -> Result<std::convert::Infallible, Revoked> {
        // Below this offset a predecessor may have written without committing.
        let doubtful = self.partition.log_end;
        let first = self.partition.committed.as_ref().map_or(0, |held| held.offset);
        if first < doubtful {
            self.kill().await?;
        }
        loop {
            let records = self.gather().await?;
            let Some(last) = records.last().map(|record| record.offset) else {
                continue;
            };
            let offsets: Vec<u64> = records.iter().map(|record| record.offset).collect();
            let held = match offsets.first().is_some_and(|first| *first < doubtful) {
                true => self.held(&offsets).await?,
                false => BTreeSet::new(),
            };
            for block in self.encode(&records, &held) {
                self.insert(&block).await?;
            }
            match self.partition.commit(last + 1, "").await {
                Ok(()) => {}
                Err(CommitError::NotOwned) => return Err(Revoked),
                Err(error @ CommitError::Unknown(_)) => {
                    // The next commit covers it, or the next owner asks.
                    let (topic, partition) = (&self.partition.topic, self.partition.number);
                    tracing::warn!(topic, partition, cause = %Causes(&error), "a commit was not confirmed");
                }
            }
        }
    }

    /// Records until there are enough, or the first of them has waited long enough. At most one batch of the
    /// consumer's more than `accounts.rows`.
    async fn gather(&mut self) -> Result<Vec<Record>, Revoked> {
        let revoked = self.partition.revoked.clone();
        let mut records = tokio::select! {
            biased;
            () = revoked.cancelled() => return Err(Revoked),
            records = self.partition.records.recv() => records.ok_or(Revoked)?,
        };
        let end = Instant::now() + self.accounts.config.time;
        while records.len() < self.accounts.config.rows {
            let more = tokio::select! {
                biased;
                () = revoked.cancelled() => return Err(Revoked),
                more = timeout_at(end, self.partition.records.recv()) => more,
            };
            match more {
                Ok(more) => records.extend(more.ok_or(Revoked)?),
                Err(_) => break,
            }
        }
        Ok(records)
    }

    fn encode(&self, records: &[Record], held: &BTreeSet<(u64, u16)>) -> Vec<Block> {
        let mut rows = SystemRows::new(self.kind);
        for record in records {
            if held.contains(&(record.offset, 0)) {
                self.count(&self.accounts.metrics.found, 1);
                continue;
            }
            let identity = Identity {
                journal: self.journal,
                partition: self.partition.number,
                seq: record.offset,
            };
            if let Err(error) = rows.push(RowId { identity, sub: 0 }, &record.value) {
                self.count(&self.accounts.metrics.unreadable, 1);
                let (topic, partition, offset) =
                    (&self.partition.topic, self.partition.number, record.offset);
                tracing::error!(topic, partition, offset, cause = %Causes(&error), "a record has no row");
            }
        }
        rows.finish()
    }

    /// Inserts a block and returns when the table has it: every attempt carries its token.
    async fn insert(&mut self, block: &Block) -> Result<(), Revoked> {
        let ids = block.rows().iter().map(|row| (row.identity, row.sub));
        let token = Token::of(&self.table.to_string(), &block.month().to_string(), 0, ids).to_string();
        let mut pause = FIRST_PAUSE;
        loop {
            self.inserts += 1;
            let query_id = format!("{}{}-{token}", self.query_prefix(), self.inserts);
            let insert = Insert {
                table: &self.table,
                block,
                token: &token,
                query_id: &query_id,
                deadline: self.accounts.deadline,
            };
            match self.accounts.warehouse.insert(insert).await {
                Outcome::Applied => {
                    self.count(&self.accounts.metrics.rows, block.rows().len());
                    return Ok(());
                }
                Outcome::Definite(error) | Outcome::Ambiguous(error) => {
                    self.failed(&error, "a block could not be inserted", &mut pause)
                        .await?;
                }
            }
        }
    }

    async fn held(&self, offsets: &[u64]) -> Result<BTreeSet<(u64, u16)>, Revoked> {
        let mut pause = FIRST_PAUSE;
        loop {
            let (journal, partition) = (self.journal, self.partition.number);
            match self
                .accounts
                .warehouse
                .which(&self.table, journal, partition, offsets)
                .await
            {
                Ok(held) => return Ok(held),
                Err(error) => {
                    self.failed(&error, "a table could not be asked", &mut pause)
                        .await?
                }
            }
        }
    }

    /// Ends what a predecessor left running.
    async fn kill(&self) -> Result<(), Revoked> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accounts.warehouse.kill(&self.query_prefix()).await {
                Ok(killed) if killed.is_answered() => return Ok(()),
                Ok(_) => self.wait(&mut pause).await?,
                Err(error) => {
                    self.failed(&error, "queries could not be killed", &mut pause)
                        .await?
                }
            }
        }
    }

    async fn failed(&self, error: &Error, what: &'static str, pause: &mut Duration) -> Result<(), Revoked> {
        self.count(&self.accounts.metrics.failures, 1);
        let partition = self.partition.number;
        tracing::warn!(table = %self.table, partition, cause = %Causes(error), pause = ?pause, "{what}");
        self.wait(pause).await
    }

    async fn wait(&self, pause: &mut Duration) -> Result<(), Revoked> {
        let now = *pause;
        *pause = (now * 2).min(self.accounts.longest_pause);
        tokio::select! {
            biased;
            () = self.partition.revoked.cancelled() => Err(Revoked),
            () = tokio::time::sleep(now) => Ok(()),
        }
    }

    fn query_prefix(&self) -> String {
        let (group, table, partition) = (
            &self.accounts.group.group,
            self.kind.as_str(),
            self.partition.number,
        );
        format!("millrace-{group}-{table}-{partition}-")
    }

    fn count(&self, family: &Family<Kind, Counter>, rows: usize) {
        let kind = self.kind.as_str();
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        family.get_or_create(&Kind { kind }).inc_by(rows);
    }
}
