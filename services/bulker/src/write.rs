//! Writing a sorted chunk: outcomes first, then the tables, then the copies; each answered before the next.
//!
//! A writer is shared by all partitions of a session. It keeps what it learned of each table's schema, and
//! never sends a block twice without having asked in between, unless it is certain that nothing was sent.

mod ledger;
mod pause;
mod table;
mod trial;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use millrace_event::topic::Topics;
use millrace_kafka::producer::Producer;
use millrace_ledger::{BadRow, Rows, Token};
use millrace_warehouse::{
    Block, Error as WarehouseError, Insert, Layout, Outcome, Schema, TableName, Warehouse, journals, outcomes,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::copies::Copy;
use crate::error::Error;
use crate::metrics::{Kind, Metrics};
use crate::sort::{Context, Sorted};
use pause::Pause;
use table::Refused;
use trial::Trial;

/// Schemas kept; past it all are forgotten and read again.
const MOST_SCHEMAS: usize = 10_000;

/// Writes chunks.
#[derive(Debug)]
pub struct Writer {
    /// The tables.
    pub warehouse: Warehouse,
    /// The copies.
    pub producer: Producer,
    /// The topics' names.
    pub topics: Topics,
    /// Deadlines and caps.
    pub limits: config::Insert,
    /// The group's name, part of every query's id.
    pub group: String,
    /// What is counted.
    pub metrics: Metrics,
    /// The store of outcomes.
    pub outcomes: TableName,
    /// The store of watermarks that left the metadata.
    pub journals: TableName,
    schemas: Mutex<HashMap<TableName, Arc<Schema>>>,
    /// Tables that were given up, and when each may be tried again.
    broken: Mutex<HashMap<TableName, Instant>>,
}

/// One chunk on its way.
#[derive(Debug)]
pub struct Job<'a> {
    /// The partition and its time.
    pub context: Context<'a>,
    /// What its records ask for.
    pub sorted: &'a Sorted<'a>,
    /// Whether any of it may have been written before: then the tables are asked first.
    pub uncertain: bool,
    /// Cancelled when the partition is being taken away.
    pub revoked: &'a CancellationToken,
    /// Makes this job's query ids its own.
    pub commit_no: u64,
    /// The first offset of its plan: makes its decisions' tokens its own.
    pub first: u64,
}

/// How a job ended.
#[derive(Debug)]
pub enum Written {
    /// All of it is where it belongs, and answered.
    All,
    /// These rows fit no table and are not named in the plan yet: name them, then write again.
    Refused {
        /// The rows, in the order of the log.
        rows: Vec<RefusedRow>,
        /// Whether something was written already.
        uncertain: bool,
    },
    /// This table cannot be written although its server answers: give it up in the plan, then write again.
    Failing(TableName),
}

/// A row that fits no table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedRow {
    /// The offset of its record.
    pub offset: u64,
    /// How a plan names it.
    pub row: BadRow,
    /// The table that it does not fit.
    pub table: TableName,
}

impl Writer {
    /// A writer with nothing learned yet.
    ///
    /// # Errors
    /// The database's name is none.
    pub fn new(
        warehouse: Warehouse,
        producer: Producer,
        configuration: &config::Configuration,
        metrics: Metrics,
    ) -> Result<Self, millrace_warehouse::name::InvalidName> {
        let database: millrace_warehouse::Database = configuration.clickhouse.database.parse()?;
        Ok(Self {
            warehouse,
            producer,
            topics: configuration.topics.clone(),
            limits: configuration.insert.clone(),
            group: configuration.consumer.group.clone(),
            metrics,
            outcomes: outcomes::table(database.clone())?,
            journals: journals::table(database)?,
            schemas: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// What the ids of a partition's queries begin with.
    pub fn query_prefix(&self, partition: u32) -> String {
        format!("millrace-{}-{partition}-", self.group)
    }

    /// Writes a chunk and returns when everything has answered.
    ///
    /// # Errors
    /// [`Error::Revoked`] or [`Error::Copy`]; what was written is found by whoever recovers the plan.
    ///
    /// # Cancellation
    /// Leaves the chunk uncertain.
    pub async fn write(&self, job: &Job<'_>) -> Result<Written, Error> {
        match self.try_write(job).await {
            Err(Error::TableFailing(table)) => Ok(Written::Failing(table)),
            other => other,
        }
    }

    async fn try_write(&self, job: &Job<'_>) -> Result<Written, Error> {
        let mut encoded = Vec::new();
        let mut refused = Refused::default();
        let mut copies = Vec::new();
        let mut counts = [0_usize; 2];
        for (table, asked) in &job.sorted.tables {
            let mut trial = Trial::new(self, job, table)?;
            copies.extend(self.dead_letters(&mut trial, &asked.dead).await?);
            copies.extend(asked.handed_over.iter().map(|row| row.hand_over(&job.context)));
            counts[0] += asked.dead.len();
            counts[1] += asked.handed_over.len();
            // Rows that may be in the table already are looked for before any of them is judged.
            let certain = !job.uncertain && !asked.came_back;
            let rows: Vec<_> = asked.rows.iter().collect();
            let blocks = match certain {
                true => Some(self.encode(&mut trial, &rows, &mut refused).await?),
                false => None,
            };
            encoded.push((trial, rows, blocks));
        }
        if !refused.is_empty() {
            return Ok(Written::Refused {
                rows: refused.into_rows(),
                uncertain: job.uncertain,
            });
        }
        self.write_outcomes(job).await?;
        for (mut trial, rows, blocks) in encoded {
            let ids = rows.iter().map(|row| row.id);
            let state = match blocks {
                Some(_) => Rows::fresh(ids),
                None => Rows::uncertain(ids),
            };
            self.write_table(&mut trial, state, &rows, blocks, &mut refused)
                .await?;
        }
        if !refused.is_empty() {
            return Ok(Written::Refused {
                rows: refused.into_rows(),
                uncertain: true,
            });
        }
        let [dead, handed_over] = counts.map(|count| u64::try_from(count).unwrap_or(0));
        self.metrics.rows_refused.inc_by(dead);
        self.metrics.rows_handed_over.inc_by(handed_over);
        self.write_copies(job, job.sorted.copies.iter().chain(&copies))
            .await?;
        Ok(Written::All)
    }

    /// Ends what a predecessor left running and returns when the server has answered for it.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn kill(&self, partition: u32, revoked: &CancellationToken) -> Result<(), Error> {
        let prefix = self.query_prefix(partition);
        let mut pause = Pause::new(&self.limits);
        loop {
            match self.warehouse.kill(&prefix).await {
                Ok(killed) if killed.is_answered() => return Ok(()),
                Ok(killed) => {
                    tracing::warn!(partition, left = ?killed.left, "queries could not be killed yet")
                }
                Err(error) => log(&error, "queries could not be killed", &prefix),
            }
            pause.wait(revoked).await?;
        }
    }

    /// Sends a block of events once. Its token is a function of the table, the month and the rows.
    async fn insert(&self, job: &Job<'_>, table: &TableName, block: &Block) -> Result<Outcome, Error> {
        let rows = block.rows().iter().map(|row| (row.identity, row.sub));
        let token = Token::of(&table.to_string(), &block.month().to_string(), 0, rows);
        self.insert_as(job, table, block, token).await
    }

    async fn insert_as(
        &self,
        job: &Job<'_>,
        table: &TableName,
        block: &Block,
        token: Token,
    ) -> Result<Outcome, Error> {
        if job.revoked.is_cancelled() {
            return Err(Error::Revoked);
        }
        let token = token.to_string();
        let query_id = format!(
            "{}{}-{token}",
            self.query_prefix(job.context.partition),
            job.commit_no
        );
        let deadline = self.limits.deadline;
        let insert = Insert {
            table,
            block,
            token: &token,
            query_id: &query_id,
            deadline,
        };
        let outcome = self.warehouse.insert(insert).await;
        self.metrics
            .inserts
            .get_or_create(&Kind {
                kind: outcome.as_str(),
            })
            .inc();
        Ok(outcome)
    }

    async fn write_copies<'c>(
        &self,
        job: &Job<'_>,
        copies: impl Iterator<Item = &'c Copy>,
    ) -> Result<(), Error> {
        let mut topics: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for copy in copies {
            topics
                .entry(copy.topic.as_str())
                .or_default()
                .push(copy.record.clone());
        }
        for (topic, records) in topics {
            self.producer
                .send(topic, job.context.partition, records)
                .await
                .map_err(Error::Copy)?;
        }
        Ok(())
    }

    /// The table's schema as it was last read; made, checked and read at the first use.
    async fn schema(&self, trial: &mut Trial<'_>) -> Result<Arc<Schema>, Error> {
        let table = trial.table;
        let known = self.schemas().get(table).map(Arc::clone);
        if let Some(schema) = known {
            return Ok(schema);
        }
        loop {
            match self.warehouse.create_table(table, &Layout::default()).await {
                Ok(schema) => {
                    let schema = Arc::new(schema);
                    self.learn(table, &schema);
                    return Ok(schema);
                }
                Err(error) => trial.failed(&error, "a table cannot take events").await?,
            }
        }
    }

    fn learn(&self, table: &TableName, schema: &Arc<Schema>) {
        let mut schemas = self.schemas();
        if schemas.len() >= MOST_SCHEMAS {
            schemas.clear();
        }
        schemas.insert(table.clone(), Arc::clone(schema));
    }

    fn forget(&self, table: &TableName) {
        self.schemas().remove(table);
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Instant>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schemas(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Arc<Schema>>> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing is lost by any of these: the chunk waits and is tried again.
fn log(error: &WarehouseError, what: &'static str, whose: impl std::fmt::Display) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(kind = error.kind(), error = %error, source, %whose, "{what}");
}
