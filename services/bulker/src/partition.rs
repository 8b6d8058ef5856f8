//! One assigned partition, from its assignment to its revocation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millrace_event::Timestamp;
use millrace_kafka::Record;
use millrace_kafka::group::{CommitError, Partition};
use millrace_ledger::ledger::Commit;
use millrace_ledger::metadata::table_hash;
use millrace_ledger::{Leaving, Ledger, MetadataError, Plan, Recovery, Stop};
use millrace_service::{Clock, Condition, Traceparent, failpoint};
use millrace_warehouse::TableName;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::audit::Account;
use crate::claim::Claim;
use crate::config::Configuration;
use crate::error::Error;
use crate::gather::{Filled, Gatherer};
use crate::room::Room;
use crate::sort::{self, Context, Sorted};
use crate::watch::Watch;
use crate::write::{Job, RefusedRow, Writer, Written};

/// How often a commit is tried before the session is given up.
const COMMIT_ATTEMPTS: usize = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// The task of a partition.
#[derive(Debug)]
pub struct Task {
    partition: Partition,
    room: Room,
    ledger: Ledger,
    claim: Claim,
    writer: Arc<Writer>,
    clock: Arc<dyn Clock>,
    /// Counts the commits of this assignment: part of the query ids.
    commits: u64,
    account: Account,
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
    watch: &Watch,
) -> Result<(), Error> {
    let number = partition.number;
    let queue = std::mem::replace(&mut partition.records, tokio::sync::mpsc::channel(1).1);
    let (ledger, recovery) = match restore(&partition, &writer) {
        Ok(restored) => restored,
        Err(reason) => {
            writer.metrics.stopped.inc();
            let advice = format!("`millctl ledger adopt --partition {number}` lets it go on");
            tracing::error!(partition = number, %reason, advice, "the partition stops");
            healthy.fails(format!("partition {number} stopped: {reason}; {advice}"));
            // It stays ours, so that nobody else reads past what is not understood.
            partition.revoked.cancelled().await;
            if writer.metrics.stopped.dec() == 1 {
                healthy.holds();
            }
            return Ok(());
        }
    };
    tracing::info!(partition = number, offset = ledger.settled_offset(), recovery = ?recovery, "partition assigned");
    let mut gatherer = Gatherer::new(queue, configuration.chunk.clone());
    let claim = Claim::new(&partition, ledger.settled_offset());
    let _watched = watch.over(number, &claim);
    writer.pace.assigned();
    let account = Account::new(&configuration.audit, writer.metrics.audit.clone());
    let mut task = Task {
        room: Room::new(Arc::clone(&partition.share)),
        partition,
        ledger,
        claim,
        writer,
        clock,
        commits: 0,
        account,
    };
    let ended = task.work(recovery, &mut gatherer).await;
    task.writer.pace.released();
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
    async fn work(&mut self, recovery: Recovery, gatherer: &mut Gatherer) -> Result<(), Error> {
        if let Recovery::Finish(plan) = recovery {
            self.finish(plan, gatherer).await?;
        }
        loop {
            self.fill(gatherer).await?;
            let mut chunk = gatherer.take();
            let Some(last) = chunk.last().map(|record| record.offset) else {
                continue;
            };
            let mut commit = self.ledger.plan(last)?;
            // Chunk after chunk: as long as the next one is ready in time, its plan shares the commit.
            loop {
                failpoint!(async "bulker::before_plan");
                self.commit(commit).await?;
                failpoint!(async "bulker::after_plan");
                let started = self.clock.instant();
                self.write_beside(chunk, gatherer).await?;
                let elapsed = self.clock.instant().duration_since(started);
                self.writer.metrics.chunk_seconds.observe(elapsed.as_secs_f64());
                self.writer.metrics.chunks.inc();
                failpoint!(async "bulker::before_commit");
                if !next_is_ready(gatherer).await {
                    let commit = self.settle(None).await?;
                    self.commit(commit).await?;
                    failpoint!(async "bulker::after_commit");
                    break;
                }
                self.room.limit(gatherer);
                chunk = gatherer.take();
                commit = self.settle(chunk.last().map(|record| record.offset)).await?;
            }
        }
    }

    /// Writes a chunk while the next one is gathered, and gives its room back.
    async fn write_beside(&mut self, mut chunk: Vec<Record>, gatherer: &mut Gatherer) -> Result<(), Error> {
        // What comes meanwhile has the share alone.
        self.room.limit(gatherer);
        let rest = tokio::select! {
            biased;
            rest = async {
                let rest = self.write(&mut chunk, false).await?;
                self.look().await?;
                Ok::<_, Error>(rest)
            } => rest?,
            never = gatherer.ahead() => match never {},
        };
        gatherer.put_back(rest);
        self.room.release(chunk);
        Ok(())
    }

    async fn fill(&mut self, gatherer: &mut Gatherer) -> Result<(), Error> {
        self.room.limit(gatherer);
        loop {
            tokio::select! {
                biased;
                () = self.partition.revoked.cancelled() => return Err(Error::Revoked),
                filled = gatherer.fill() => {
                    if filled == Filled::Ended {
                        return Err(Error::Revoked);
                    }
                    if !self.widen(gatherer).await? {
                        return Ok(());
                    }
                }
                () = self.account.falls_due() => self.look().await?,
            }
        }
    }

    async fn widen(&mut self, gatherer: &mut Gatherer) -> Result<bool, Error> {
        tokio::select! {
            biased;
            () = self.partition.revoked.cancelled() => Err(Error::Revoked),
            widened = self.room.widen(gatherer) => Ok(widened),
        }
    }

    /// Compares what was written with what the tables hold, where that is due. Nothing of this partition is on its way
    /// meanwhile.
    async fn look(&mut self) -> Result<(), Error> {
        let (number, revoked) = (self.partition.number, &self.partition.revoked);
        self.account.look(&self.writer, number, revoked).await
    }

    /// Finishes what a predecessor planned and may have written in part.
    async fn finish(&mut self, plan: Plan, gatherer: &mut Gatherer) -> Result<(), Error> {
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
            () = tokio::time::sleep(self.writer.latest_arrival()) => {}
        }
        self.writer.kill(&self.claim).await?;
        let writer = Arc::clone(&self.writer);
        let turn = self.gather_plan(&writer, plan.last, gatherer).await?;
        let mut chunk = gatherer.take_to(plan.last);
        let rest = self.write(&mut chunk, true).await?;
        gatherer.put_back(rest);
        let commit = self.settle(None).await?;
        self.commit(commit).await?;
        self.room.release(chunk);
        self.room.must_go_on(false);
        drop(turn);
        Ok(())
    }

    /// Gathers a predecessor's plan to its end. It may need more room than this partition's share; one partition at a
    /// time gets it, and has its turn until the plan is written.
    async fn gather_plan<'w>(
        &self,
        writer: &'w Writer,
        last: u64,
        gatherer: &mut Gatherer,
    ) -> Result<Option<SemaphorePermit<'w>>, Error> {
        let turn = tokio::select! {
            biased;
            filled = gatherer.fill_to(last) => match filled {
                Filled::Closed => return Ok(None),
                Filled::Ended => return Err(Error::Revoked),
            },
            turn = writer.recovering.acquire() => turn.ok(),
        };
        self.room.must_go_on(true);
        match gatherer.fill_to(last).await {
            Filled::Closed => Ok(turn),
            Filled::Ended => Err(Error::Revoked),
        }
    }

    /// Ends the plan, after everything it wrote was answered; the plan of the next chunk shares the commit.
    async fn settle(&mut self, next: Option<u64>) -> Result<Commit, Error> {
        let settlement = self.ledger.settlement();
        self.write_leaving(settlement.leaving()).await?;
        let commit = self.ledger.settled(settlement, next)?;
        self.account.holes(self.ledger.missing_numbers());
        Ok(commit)
    }

    async fn write_leaving(&self, leaving: &[Leaving]) -> Result<(), Error> {
        if leaving.is_empty() {
            return Ok(());
        }
        let sorted = Sorted::default();
        let job = self.job(&sorted, false);
        self.writer.write_journals(&job, leaving).await
    }

    /// Writes the planned chunk. Where more rows are bad than a plan can name, the plan is cut shorter; returns the
    /// records behind it.
    async fn write(&mut self, chunk: &mut Vec<Record>, uncertain: bool) -> Result<Vec<Record>, Error> {
        let mut uncertain = uncertain;
        let mut rest = Vec::new();
        loop {
            match self.write_once(chunk, uncertain).await? {
                Written::All => return Ok(rest),
                Written::Refused { rows, uncertain: now } => {
                    uncertain = now;
                    let (commit, mut cut) = self.name(&rows, chunk, uncertain)?;
                    cut.append(&mut rest);
                    rest = cut;
                    self.commit(commit).await?;
                    failpoint!(async "bulker::after_naming");
                }
                Written::Failing {
                    tables,
                    uncertain: now,
                } => {
                    uncertain = now;
                    if uncertain {
                        // Nothing of them may arrive after their rows were handed over.
                        self.writer.kill(&self.claim).await?;
                    }
                    let (commit, mut cut) = self.give_up(&tables, chunk, uncertain)?;
                    cut.append(&mut rest);
                    rest = cut;
                    self.commit(commit).await?;
                    failpoint!(async "bulker::after_giving_up");
                }
            }
        }
    }

    fn job<'a>(&'a self, sorted: &'a Sorted<'a>, uncertain: bool) -> Job<'a> {
        Job {
            context: context(&self.writer, self.partition.number, self.clock.as_ref()),
            sorted,
            uncertain,
            claim: &self.claim,
            quiet: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            commit_no: self.commits,
            first: self.ledger.settled_offset(),
        }
    }

    async fn write_once(&mut self, chunk: &[Record], uncertain: bool) -> Result<Written, Error> {
        let parsed = sort::parse(chunk);
        let questions = sort::questions(&parsed);
        let answers = match questions.is_empty() {
            true => std::collections::HashMap::new(),
            false => self.writer.ask_deciders(&questions, &self.claim).await?,
        };
        self.ledger.decide_again();
        let unknown = self.ledger.unknown(sort::arrivals(&parsed));
        let (number, position) = (self.partition.number, self.ledger.settled_offset());
        for (journal, written) in self.writer.look_up(position, unknown, &self.claim).await? {
            self.ledger.learn(journal, written);
        }
        let writer = Arc::clone(&self.writer);
        let targets = writer.destinations.of(&parsed, &self.claim).await?;
        let context = context(&writer, number, self.clock.as_ref());
        let sorted = sort::sort(&context, &mut self.ledger, &parsed, (&answers, &targets))?;
        let spans = trace(&sorted.traces, number);
        let first = spans.first().cloned().unwrap_or_else(tracing::Span::none);
        let job = self.job(&sorted, uncertain);
        let written = self.writer.write(&job).instrument(first).await?;
        if matches!(written, Written::All) {
            self.account.note(&sorted, Instant::now());
        }
        Ok(written)
    }

    fn name(
        &mut self,
        rows: &[RefusedRow],
        chunk: &mut Vec<Record>,
        uncertain: bool,
    ) -> Result<(Commit, Vec<Record>), Error> {
        let named = self.ledger.name_bad_rows(rows.iter().map(|row| row.row));
        let too_many = matches!(
            named,
            Err(MetadataError::TooManyBadRows(_) | MetadataError::TooLarge(_))
        );
        if !too_many {
            return Ok((named?, Vec::new()));
        }
        let middle = rows.get(rows.len() / 2);
        if uncertain {
            // Some of the rows may be written, so the plan must stay as long as it is: a table that refuses so
            // many is a failing one. Its rows come back one by one, in plans that can be cut.
            let table = middle.map_or_else(String::new, |row| row.table.to_string());
            if let Some(row) = middle {
                self.writer.note_refusals(&row.table);
            }
            return Ok((self.ledger.give_up(table_hash(&table))?, Vec::new()));
        }
        let first = chunk.first().map_or(0, |record| record.offset);
        // Half of the bad rows stay inside; every cut makes the next plan fit better.
        match middle.map(|row| row.offset).filter(|offset| *offset > first) {
            Some(cut) => {
                let keep = chunk.iter().take_while(|record| record.offset < cut).count();
                Ok((self.ledger.plan(cut - 1)?, chunk.split_off(keep)))
            }
            None => Ok((named?, Vec::new())),
        }
    }

    /// Gives tables up. Where more fail than a plan can name and nothing of it was sent, the plan is cut to its half.
    fn give_up(
        &mut self,
        tables: &[TableName],
        chunk: &mut Vec<Record>,
        uncertain: bool,
    ) -> Result<(Commit, Vec<Record>), Error> {
        let mut given_up = Err(MetadataError::TooLarge(0));
        for table in tables {
            given_up = self.ledger.give_up(table_hash(&table.to_string()));
            if given_up.is_err() {
                break;
            }
        }
        match (given_up, chunk.get(chunk.len() / 2).map(|record| record.offset)) {
            (Err(MetadataError::TooLarge(_)), Some(cut)) if !uncertain && chunk.len() > 1 => {
                let rest = chunk.split_off(chunk.len() / 2);
                Ok((self.ledger.plan(cut - 1)?, rest))
            }
            (given_up, _) => Ok((given_up?, Vec::new())),
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
                Ok(()) => {
                    self.claim.standing.settled(commit.offset);
                    return Ok(());
                }
                Err(CommitError::NotOwned) => return Err(Error::Revoked),
                Err(error) => {
                    tracing::warn!(partition = self.partition.number, %error, "a commit was not confirmed");
                    self.claim
                        .waits_for(format!("a commit was not confirmed: {error}"));
                    last_error = error;
                }
            }
            match self.partition.fetch_committed().await {
                Ok(Some(held)) if held.offset == commit.offset && held.metadata == commit.metadata => {
                    self.claim.standing.settled(commit.offset);
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

/// Whether a whole further chunk is there already, as large as chunks may be.
async fn next_is_ready(gatherer: &mut Gatherer) -> bool {
    tokio::select! {
        biased;
        filled = gatherer.fill() => filled == Filled::Closed && !gatherer.is_cut_short(),
        () = std::future::ready(()) => false,
    }
}

fn context<'a>(writer: &'a Writer, partition: u32, clock: &dyn Clock) -> Context<'a> {
    Context {
        topics: &writer.topics,
        partition,
        at: Timestamp::clamped_from_millis(clock.now().as_millisecond()),
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
