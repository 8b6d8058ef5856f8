//! Writing a sorted chunk: outcomes first, then the tables, then the copies; each answered before the next.
//!
//! A writer is shared by all partitions of a session. It keeps what it learned of each table's schema, and
//! never sends a block twice without having asked in between, unless it is certain that nothing was sent.

mod destination;
mod doubt;
mod ledger;
mod pause;
mod table;
mod tables;
mod trial;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::producer::Producer;
use millrace_ledger::{BadRow, Token};
use millrace_service::failpoint;
use millrace_store::destinations::Kind as DestinationKind;
use millrace_warehouse::{TableName, Warehouse, journals, outcomes};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::claim::Claim;
use crate::config;
use crate::copies::Copy;
use crate::credentials::Credentials;
use crate::destinations::Destinations;
use crate::error::Error;
use crate::metrics::{Kind, Metrics};
use crate::pace::Pace;
use crate::sort::{Context, PendingRow, Sorted, TableRows};
pub use destination::Fault;
use destination::{Block, Destination, Open, Outcome, Postgres, Sending};
use pause::Pause;
use table::{Prepared, Refused};
use tables::Tables;
use trial::Trial;

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
    /// Turns for inserts.
    pub pace: Pace,
    /// What tables are to be like.
    pub destinations: Arc<Destinations>,
    /// Whose turn it is to gather a predecessor's plan beyond its share of memory: one partition's.
    pub recovering: Semaphore,
    /// ClickHouse's tables, and its own.
    clickhouse: Arc<Tables<Warehouse>>,
    /// Those of PostgreSQL destinations.
    postgres: Open,
    /// What their addresses are sealed under.
    credentials: Arc<Credentials>,
    /// Tables that were given up, and when each may be tried again.
    broken: Mutex<HashMap<TableName, Instant>>,
    /// Tables whose server refused more rows than a plan can name.
    refusing: Mutex<HashSet<TableName>>,
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
    /// Leave to write.
    pub claim: &'a Claim,
    /// Whether KILL was answered and nothing of this job was in doubt since.
    pub quiet: AtomicBool,
    /// Whether anything of it was sent.
    pub begun: AtomicBool,
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
    /// These tables cannot be written although their server answers: give them up in the plan, then write again.
    Failing {
        /// The tables.
        tables: Vec<TableName>,
        /// Whether something was sent already.
        uncertain: bool,
    },
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

/// A table's rows before any of them is sent.
#[derive(Debug)]
enum Ready<'a> {
    ClickHouse(ReadyRows<'a, Warehouse>),
    Postgres(ReadyRows<'a, Postgres>),
}

#[derive(Debug)]
struct ReadyRows<'a, D: Destination> {
    trial: Trial<'a, D>,
    rows: Vec<&'a PendingRow<'a>>,
    prepared: Prepared<D::Block>,
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
        partitions: u32,
        destinations: Arc<Destinations>,
        credentials: Arc<Credentials>,
    ) -> Result<Self, millrace_warehouse::name::InvalidName> {
        let database: millrace_warehouse::Database = configuration.clickhouse.database.parse()?;
        let clickhouse = Arc::new(Tables::new(warehouse.clone()));
        Ok(Self {
            warehouse,
            producer,
            topics: configuration.topics.clone(),
            limits: configuration.insert.clone(),
            group: configuration.consumer.group.clone(),
            metrics,
            outcomes: outcomes::table(database.clone())?,
            journals: journals::table(database)?,
            pace: Pace::new(configuration.insert.per_second, partitions),
            destinations,
            recovering: Semaphore::new(1),
            clickhouse,
            postgres: Open::default(),
            credentials,
            broken: Mutex::default(),
            refusing: Mutex::default(),
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
            Err(Error::TableFailing(table)) => Ok(Written::Failing {
                tables: vec![table],
                uncertain: job.uncertain || job.begun.load(Ordering::SeqCst),
            }),
            other => other,
        }
    }

    async fn try_write(&self, job: &Job<'_>) -> Result<Written, Error> {
        let mut ready = Vec::new();
        let mut refused = Refused::default();
        let mut copies = Vec::new();
        let mut counts = [0_usize; 2];
        let mut failing = Vec::new();
        for (table, asked) in &job.sorted.tables {
            copies.extend(asked.handed_over.iter().map(|row| row.hand_over(&job.context)));
            counts[0] += asked.dead.len();
            counts[1] += asked.handed_over.len();
            if asked.rows.is_empty() && asked.dead.is_empty() {
                continue;
            }
            let prepared = self
                .get_ready(job, (table, asked), &mut refused, &mut copies)
                .await;
            match prepared {
                Ok(prepared) => ready.push(prepared),
                Err(Error::TableFailing(table)) => failing.push(table),
                Err(error) => return Err(error),
            }
        }
        if !failing.is_empty() {
            return Ok(Written::Failing {
                tables: failing,
                uncertain: job.uncertain,
            });
        }
        if !refused.is_empty() {
            return Ok(Written::Refused {
                rows: refused.into_rows(),
                uncertain: job.uncertain,
            });
        }
        self.write_outcomes(job).await?;
        failpoint!(async "bulker::after_outcomes");
        for ready in ready {
            match ready {
                Ready::ClickHouse(ready) => self.write_ready(ready, &mut refused).await?,
                Ready::Postgres(ready) => self.write_ready(ready, &mut refused).await?,
            }
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
        failpoint!(async "bulker::before_copies");
        self.write_copies(job, job.sorted.copies.iter().chain(&copies))
            .await?;
        failpoint!(async "bulker::after_copies");
        job.sorted.tally.count(&self.metrics);
        Ok(Written::All)
    }

    /// Gets a table's rows ready where they are to go.
    async fn get_ready<'w>(
        &'w self,
        job: &'w Job<'w>,
        (table, asked): (&'w TableName, &'w TableRows<'w>),
        refused: &mut Refused,
        copies: &mut Vec<Copy>,
    ) -> Result<Ready<'w>, Error> {
        let configured = asked
            .destination
            .as_ref()
            .and_then(|settings| settings.as_ref().ok());
        let postgres = configured.filter(|one| one.settings.kind() == DestinationKind::Postgres);
        let Some(configured) = postgres else {
            let tables = Arc::clone(&self.clickhouse);
            let ready = self.get_ready_in(tables, job, (table, asked), refused, copies);
            return Ok(Ready::ClickHouse(Box::pin(ready).await?));
        };
        let database = table.database().as_str();
        match self
            .postgres
            .tables(database, configured, &self.group, &self.credentials)
        {
            Ok(tables) => {
                let ready = self.get_ready_in(tables, job, (table, asked), refused, copies);
                Ok(Ready::Postgres(Box::pin(ready).await?))
            }
            Err(reason) => {
                tracing::warn!(%table, reason, "a destination cannot be opened");
                job.claim
                    .waits_for(format!("destination of {table} cannot be opened: {reason}"));
                Err(self.leave_alone(table))
            }
        }
    }

    async fn get_ready_in<'w, D: Destination>(
        &'w self,
        tables: Arc<Tables<D>>,
        job: &'w Job<'w>,
        (table, asked): (&'w TableName, &'w TableRows<'w>),
        refused: &mut Refused,
        copies: &mut Vec<Copy>,
    ) -> Result<ReadyRows<'w, D>, Error> {
        let mut trial = Trial::new(self, job, table, tables)?;
        copies.extend(self.dead_letters(&mut trial, &asked.dead).await?);
        let rows: Vec<_> = asked.rows.iter().collect();
        let certain = !job.uncertain && !asked.came_back;
        let prepared = self.prepare(&mut trial, &rows, certain, refused).await?;
        Ok(ReadyRows {
            trial,
            rows,
            prepared,
        })
    }

    async fn write_ready<D: Destination>(
        &self,
        ready: ReadyRows<'_, D>,
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let ReadyRows {
            mut trial,
            rows,
            prepared,
        } = ready;
        self.write_table(&mut trial, prepared, &rows, refused).await
    }

    /// How late an insert of somebody who was stopped may still arrive.
    pub fn latest_arrival(&self) -> Duration {
        self.limits.latest_arrival.max(self.warehouse.latest_arrival())
    }

    /// Ends what a predecessor left running and returns when the server has answered for it.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn kill(&self, claim: &Claim) -> Result<(), Error> {
        let partition = claim.partition;
        let prefix = self.query_prefix(partition);
        let mut pause = Pause::new(&self.limits);
        loop {
            match self.warehouse.kill(&prefix).await {
                Ok(killed) if killed.is_answered() => return Ok(()),
                Ok(killed) => {
                    tracing::warn!(partition, left = ?killed.left, "queries could not be killed yet");
                    claim.waits_for(format!("{} queries could not be killed yet", killed.left.len()));
                }
                Err(error) => claim.trouble(&error, "queries could not be killed", &prefix),
            }
            pause.wait(&claim.revoked).await?;
        }
    }

    /// Sends a block of events once. Its token is a function of the table, its part and the rows.
    async fn insert<D: Destination>(
        &self,
        trial: &Trial<'_, D>,
        block: &D::Block,
    ) -> Result<Outcome<D::Error>, Error> {
        failpoint!(async "bulker::before_insert");
        let outcome = self.insert_into(trial, trial.table, block, false).await;
        failpoint!(async "bulker::after_insert");
        outcome
    }

    async fn insert_into<D: Destination>(
        &self,
        trial: &Trial<'_, D>,
        table: &TableName,
        block: &D::Block,
        rehearsal: bool,
    ) -> Result<Outcome<D::Error>, Error> {
        let token = token(table, block);
        self.insert_as(trial.job, &trial.tables, (table, rehearsal), block, token)
            .await
    }

    async fn insert_as<D: Destination>(
        &self,
        job: &Job<'_>,
        tables: &Tables<D>,
        (table, rehearsal): (&TableName, bool),
        block: &D::Block,
        token: Token,
    ) -> Result<Outcome<D::Error>, Error> {
        if D::IS_ESSENTIAL {
            self.take_turn(job).await?;
        }
        let destination = &tables.destination;
        let line = match destination.line(job.context.partition).await {
            Ok(line) => line,
            Err(error) => return Ok(Outcome::Definite(error)),
        };
        // The line is open. What is sent over it from here on reaches the server soon or never.
        job.claim.check()?;
        job.begun.store(true, Ordering::SeqCst);
        failpoint!(async "bulker::insert_checked");
        let token = token.to_string();
        let query_id = format!(
            "{}{}-{token}",
            self.query_prefix(job.context.partition),
            job.commit_no
        );
        let sending = Sending {
            table,
            block,
            token: &token,
            query_id: &query_id,
            partition: job.context.partition,
            first_offset: job.first,
            deadline: self.limits.deadline,
            rehearsal,
        };
        let outcome = destination.insert_over(line, sending).await;
        match outcome {
            Outcome::Applied => job.claim.standing.moved(),
            Outcome::Ambiguous(_) => job.quiet.store(false, Ordering::SeqCst),
            Outcome::Definite(_) => {}
        }
        self.metrics
            .inserts
            .get_or_create(&Kind {
                kind: outcome.as_str(),
            })
            .inc();
        Ok(outcome)
    }

    async fn take_turn(&self, job: &Job<'_>) -> Result<(), Error> {
        let turn = self.pace.take();
        if !turn.is_zero() {
            tokio::select! {
                biased;
                () = job.claim.revoked.cancelled() => return Err(Error::Revoked),
                () = tokio::time::sleep(turn) => {}
            }
        }
        Ok(())
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

    fn refusing(&self) -> std::sync::MutexGuard<'_, HashSet<TableName>> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Instant>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of a block of events; every attempt by anyone has the same one.
fn token(table: &TableName, block: &impl Block) -> Token {
    let of = |part| {
        let rows = block.rows().iter().map(|row| (row.identity, row.sub));
        Token::of(&table.to_string(), &block.part(), part, rows)
    };
    failpoint!("control::token", return of(failpoint::fresh()));
    of(0)
}
