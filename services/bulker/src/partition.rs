//! One assigned partition, from its assignment to its revocation.

use std::sync::Arc;
use std::time::Duration;

use millrace_event::Timestamp;
use millrace_kafka::Record;
use millrace_kafka::group::{CommitError, Partition};
use millrace_ledger::ledger::Commit;
use millrace_ledger::metadata::table_hash;
use millrace_ledger::{Leaving, Ledger, MetadataError, Plan, Recovery, Stop};
use millrace_service::{Clock, Condition, Traceparent};
use tracing::Instrument as _;

use crate::config::Configuration;
use crate::error::Error;
use crate::gather::{Filled, Gatherer};
use crate::sort::{self, Context, Sorted};
use crate::write::{Job, RefusedRow, Writer, Written};

/// How often a commit is tried before the session is given up.
const COMMIT_ATTEMPTS: usize = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// The task of a partition.
#[derive(Debug)]
pub struct Task {
    partition: Partition,
    ledger: Ledger,
    gatherer: Gatherer,
    writer: Arc<Writer>,
    clock: Arc<dyn Clock>,
    /// Counts the commits of this assignment: part of the query ids.
    commits: u64,
}

/// Works on a partition until it is taken away.
///
/// # Errors
/// Anything but [`Error::Revoked`] means that the session cannot go on as it is.
///
/// # Cancellation
/// Leaves the plan to the next owner.
pub async fn run(
    mut partition: Partition,
    writer: Arc<Writer>,
    clock: Arc<dyn Clock>,
    configuration: &Configuration,
    healthy: &Condition,
) -> Result<(), Error> {
    let number = partition.number;
    let queue = std::mem::replace(&mut partition.records, tokio::sync::mpsc::channel(1).1);
    let (ledger, recovery) = match restore(&partition, &writer) {
        Ok(restored) => restored,
        Err(reason) => {
            writer.metrics.stopped.inc();
            tracing::error!(partition = number, %reason, "the partition stops");
            healthy.fails(format!("partition {number} stopped: {reason}"));
            // It stays ours, so that nobody else reads past what is not understood.
            partition.revoked.cancelled().await;
            if writer.metrics.stopped.dec() == 1 {
                healthy.holds();
            }
            return Ok(());
        }
    };
    tracing::info!(partition = number, offset = ledger.settled_offset(), recovery = ?recovery, "partition assigned");
    let gatherer = Gatherer::new(queue, configuration.chunk.clone());
    let mut task = Task {
        partition,
        ledger,
        gatherer,
        writer,
        clock,
        commits: 0,
    };
    let ended = task.work(recovery, configuration.insert.latest_arrival).await;
    tracing::info!(
        partition = number,
        offset = task.ledger.settled_offset(),
        "partition released"
    );
    match ended {
        Err(Error::Revoked) => Ok(()),
        other => other,
    }
}

/// The ledger as the last commit left it, or why it cannot be gone on from.
fn restore(partition: &Partition, writer: &Writer) -> Result<(Ledger, Recovery), Stop> {
    let committed = partition.committed.as_ref();
    let committed = committed.map(|held| (held.offset, held.metadata.as_str()));
    let assigned = Ledger::assign(
        partition.number,
        committed,
        partition.log_start..partition.log_end,
    )?;
    if assigned.lost > 0 {
        writer.metrics.lost_offsets.inc_by(assigned.lost);
        let lost = assigned.lost;
        tracing::error!(
            partition = partition.number,
            lost,
            "retention deleted records before they were read"
        );
    }
    Ok((assigned.ledger, assigned.recovery))
}

impl Task {
    async fn work(&mut self, recovery: Recovery, latest_arrival: Duration) -> Result<(), Error> {
        if let Recovery::Finish(plan) = recovery {
            self.finish(plan, latest_arrival).await?;
        }
        loop {
            self.fill().await?;
            let mut chunk = self.gatherer.take();
            let Some(last) = chunk.last().map(|record| record.offset) else {
                continue;
            };
            let mut commit = self.ledger.plan(last)?;
            // Chunk after chunk: as long as the next one is ready in time, its plan shares the commit.
            loop {
                self.commit(commit).await?;
                let started = self.clock.instant();
                self.write(&mut chunk, false).await?;
                let elapsed = self.clock.instant().duration_since(started);
                self.writer.metrics.chunk_seconds.observe(elapsed.as_secs_f64());
                self.writer.metrics.chunks.inc();
                if !self.next_is_ready().await {
                    let commit = self.settle(None).await?;
                    self.commit(commit).await?;
                    break;
                }
                chunk = self.gatherer.take();
                commit = self.settle(chunk.last().map(|record| record.offset)).await?;
            }
        }
    }

    /// Whether a whole further chunk is there already.
    async fn next_is_ready(&mut self) -> bool {
        tokio::select! {
            biased;
            filled = self.gatherer.fill() => filled == Filled::Closed,
            () = std::future::ready(()) => false,
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            () = self.partition.revoked.cancelled() => Err(Error::Revoked),
            filled = self.gatherer.fill() => match filled {
                Filled::Closed => Ok(()),
                Filled::Ended => Err(Error::Revoked),
            },
        }
    }

    /// Finishes what a predecessor planned and may have written in part.
    async fn finish(&mut self, plan: Plan, latest_arrival: Duration) -> Result<(), Error> {
        self.writer.metrics.recoveries.inc();
        let number = self.partition.number;
        tracing::info!(
            partition = number,
            first = plan.first,
            last = plan.last,
            "finishing a predecessor's plan"
        );
        let revoked = self.partition.revoked.clone();
        tokio::select! {
            biased;
            () = revoked.cancelled() => return Err(Error::Revoked),
            () = tokio::time::sleep(latest_arrival) => {}
        }
        self.writer.kill(number, &revoked).await?;
        if self.gatherer.fill_to(plan.last).await == Filled::Ended {
            return Err(Error::Revoked);
        }
        let mut chunk = self.gatherer.take_to(plan.last);
        self.write(&mut chunk, true).await?;
        let commit = self.settle(None).await?;
        self.commit(commit).await
    }

    /// Ends the plan, after everything it wrote was answered; the plan of the next chunk shares the commit.
    async fn settle(&mut self, next: Option<u64>) -> Result<Commit, Error> {
        let settlement = self.ledger.settlement();
        self.write_leaving(settlement.leaving()).await?;
        Ok(self.ledger.settled(settlement, next)?)
    }

    async fn write_leaving(&self, leaving: &[Leaving]) -> Result<(), Error> {
        if leaving.is_empty() {
            return Ok(());
        }
        let sorted = Sorted::default();
        let job = self.job(&sorted, false);
        self.writer.write_journals(&job, leaving).await
    }

    /// Writes the planned chunk. Where more rows are bad than a plan can name, the plan is cut shorter and the
    /// records behind it are put back.
    async fn write(&mut self, chunk: &mut Vec<Record>, uncertain: bool) -> Result<(), Error> {
        let mut uncertain = uncertain;
        loop {
            match self.write_once(chunk, uncertain).await? {
                Written::All => return Ok(()),
                Written::Refused { rows, uncertain: now } => {
                    uncertain = now;
                    let commit = self.name(&rows, chunk, uncertain)?;
                    self.commit(commit).await?;
                }
                Written::Failing(table) => {
                    // Nothing of it may arrive after its rows were handed over.
                    uncertain = true;
                    self.writer
                        .kill(self.partition.number, &self.partition.revoked)
                        .await?;
                    let commit = self.ledger.give_up(table_hash(&table.to_string()))?;
                    self.commit(commit).await?;
                }
            }
        }
    }

    fn job<'a>(&'a self, sorted: &'a Sorted<'a>, uncertain: bool) -> Job<'a> {
        Job {
            context: context(&self.writer, self.partition.number, self.clock.as_ref()),
            sorted,
            uncertain,
            revoked: &self.partition.revoked,
            commit_no: self.commits,
            first: self.ledger.settled_offset(),
        }
    }

    async fn write_once(&mut self, chunk: &[Record], uncertain: bool) -> Result<Written, Error> {
        let parsed = sort::parse(chunk);
        let revoked = self.partition.revoked.clone();
        let questions = sort::questions(&parsed);
        let answers = match questions.is_empty() {
            true => std::collections::HashMap::new(),
            false => self.writer.ask_deciders(&questions, &revoked).await?,
        };
        self.ledger.decide_again();
        let unknown = self.ledger.unknown(&sort::arrivals(&parsed));
        let (number, position) = (self.partition.number, self.ledger.settled_offset());
        for (journal, written) in self.writer.look_up(number, position, unknown, &revoked).await? {
            self.ledger.learn(journal, written);
        }
        let writer = Arc::clone(&self.writer);
        let context = context(&writer, number, self.clock.as_ref());
        let sorted = sort::sort(&context, &mut self.ledger, &parsed, &answers)?;
        let spans = trace(&sorted.traces, number);
        let first = spans.first().cloned().unwrap_or_else(tracing::Span::none);
        let job = self.job(&sorted, uncertain);
        self.writer.write(&job).instrument(first).await
    }

    fn name(
        &mut self,
        rows: &[RefusedRow],
        chunk: &mut Vec<Record>,
        uncertain: bool,
    ) -> Result<Commit, Error> {
        let named = self.ledger.name_bad_rows(rows.iter().map(|row| row.row));
        let too_many = matches!(
            named,
            Err(MetadataError::TooManyBadRows(_) | MetadataError::TooLarge(_))
        );
        if !too_many {
            return Ok(named?);
        }
        let middle = rows.get(rows.len() / 2);
        if uncertain {
            // Some of the rows may be written, so the plan must stay as long as it is: a table that refuses so
            // many is a failing one. Its rows come back one by one, in plans that can be cut.
            let table = middle.map_or_else(String::new, |row| row.table.to_string());
            return Ok(self.ledger.give_up(table_hash(&table))?);
        }
        let first = chunk.first().map_or(0, |record| record.offset);
        // Half of the bad rows stay inside; every cut makes the next plan fit better.
        match middle.map(|row| row.offset).filter(|offset| *offset > first) {
            Some(cut) => {
                let keep = chunk.iter().take_while(|record| record.offset < cut).count();
                self.gatherer.put_back(chunk.split_off(keep));
                Ok(self.ledger.plan(cut - 1)?)
            }
            None => Ok(named?),
        }
    }

    /// Commits, and where the answer is not known asks what the group holds.
    async fn commit(&mut self, commit: Commit) -> Result<(), Error> {
        self.commits += 1;
        let mut last_error = CommitError::NotOwned;
        for _ in 0..COMMIT_ATTEMPTS {
            match self
                .partition
                .commit(commit.offset, commit.metadata.as_str())
                .await
            {
                Ok(()) => return Ok(()),
                Err(CommitError::NotOwned) => return Err(Error::Revoked),
                Err(error) => {
                    tracing::warn!(partition = self.partition.number, %error, "a commit was not confirmed");
                    last_error = error;
                }
            }
            match self.partition.fetch_committed().await {
                Ok(Some(held)) if held.offset == commit.offset && held.metadata == commit.metadata => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => last_error = error,
            }
            tokio::time::sleep(COMMIT_PAUSE).await;
        }
        Err(Error::Commit(last_error))
    }
}

fn context<'a>(writer: &'a Writer, partition: u32, clock: &dyn Clock) -> Context<'a> {
    Context {
        topics: &writer.topics,
        partition,
        at: Timestamp::clamped_from_millis(clock.now().as_millisecond()),
        metrics: &writer.metrics,
    }
}

/// A span in the trace of each of the chunk's first events, open while the chunk is written.
fn trace(traces: &[&str], partition: u32) -> Vec<tracing::Span> {
    traces
        .iter()
        .filter_map(|text| text.parse::<Traceparent>().ok())
        .map(|parent| {
            let span = tracing::info_span!("insert", partition);
            parent.adopt(&span);
            span
        })
        .collect()
}
