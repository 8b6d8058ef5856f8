//! One table's rows of one chunk: encode, insert, and after any doubt kill, ask, and insert the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_event::JournalId;
use millrace_event::code::RowCode;
use millrace_event::envelope::Reason;
use millrace_ledger::Rows;
use millrace_ledger::rows::Step;
use millrace_service::failpoint;
use millrace_warehouse::{Retry, RowError, RowId, TableName};

use super::destination::{Block as _, Destination, Fault as _, Faults, Outcome};
use super::doubt::Doubt;
use super::trial::Trial;
use super::{RefusedRow, Writer};
use crate::copies::{self, Copy};
use crate::error::Error;
use crate::sort::PendingRow;

/// What is to be written of one table's rows, before any of it is sent.
#[derive(Debug)]
pub(super) struct Prepared<B> {
    state: Rows<RowId>,
    /// The missing rows, encoded.
    blocks: Vec<B>,
}

/// Rows that fit no table.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<RefusedRow>);

impl Refused {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, row: &PendingRow<'_>, table: &TableName) {
        self.0.push(RefusedRow {
            offset: row.record.offset,
            row: row.as_bad_row(),
            table: table.clone(),
        });
    }

    pub(super) fn into_rows(mut self) -> Vec<RefusedRow> {
        self.0.sort_unstable();
        self.0
    }
}

impl Writer {
    /// Encodes rows; those that do not fit are noted.
    pub(super) async fn encode<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&PendingRow<'_>],
        refused: &mut Refused,
    ) -> Result<Vec<D::Block>, Error> {
        let (blocks, faults) = self.try_encode(trial, rows).await?;
        for (index, error) in faults {
            let Some(row) = rows.get(index) else { continue };
            tracing::warn!(table = %trial.table, field = error.field, kind = %error.kind, "a row does not fit its table");
            refused.push(row, trial.table);
        }
        Ok(blocks)
    }

    pub(super) async fn try_encode<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&PendingRow<'_>],
    ) -> Result<(Vec<D::Block>, Faults), Error> {
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let limits = trial.limits;
        let (table, at) = (trial.table, trial.job.context.at);
        let mut read_again = false;
        loop {
            let schema = self.schema(trial).await?;
            let tables = Arc::clone(&trial.tables);
            let encoding = match trial.layout() {
                Ok(layout) => {
                    let destination = &tables.destination;
                    destination.encode(table, layout, schema, limits, at, rows).await
                }
                Err(error) => Err(error),
            };
            match encoding {
                Ok((blocks, faults, schema)) => {
                    tables.learn(table, &schema, trial.settings);
                    if faults.is_empty() || read_again {
                        return Ok((blocks, faults));
                    }
                    // A column may have moved to another type since the table was read: a row is judged by what is there.
                    read_again = true;
                    tables.forget(table);
                    if self.schema(trial).await? == schema {
                        return Ok((blocks, faults));
                    }
                }
                Err(error) => {
                    tables.forget(table);
                    trial.failed(&error, "rows could not be encoded").await?;
                }
            }
        }
    }

    /// The dead letters of rows that the plan names.
    pub(super) async fn dead_letters<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        named: &[PendingRow<'_>],
    ) -> Result<Vec<Copy>, Error> {
        let rows: Vec<_> = named.iter().collect();
        let faults = match self.try_encode(trial, &rows).await {
            Ok((_, faults)) => faults,
            // It was there when they were named. That they are not written does not wait for it.
            Err(Error::TableFailing(_)) if !D::IS_ESSENTIAL => Faults::new(),
            Err(error) => return Err(error),
        };
        let faults: BTreeMap<usize, RowError> = faults.into_iter().collect();
        let context = trial.job.context;
        let mut letters = Vec::with_capacity(named.len());
        let mut clone = None;
        for (index, row) in named.iter().enumerate() {
            let reason = match faults.get(&index) {
                Some(error) => copies::reason(
                    RowCode::ColumnConflict,
                    error.to_string(),
                    Some(error.field.clone()),
                ),
                None => rejected(self.objection(trial, row, &mut clone).await?),
            };
            letters.push(row.dead_letter(&context, &reason));
        }
        if let Some(clone) = &clone {
            self.drop_clone(trial, clone).await;
        }
        Ok(letters)
    }

    /// Finds out which of these rows are to be written and encodes them, without sending anything: while that is so, a
    /// plan with too many bad rows can still be cut. Rows that are not `certain` to be new are looked for before any of
    /// them is judged.
    pub(super) async fn prepare<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&PendingRow<'_>],
        certain: bool,
        refused: &mut Refused,
    ) -> Result<Prepared<D::Block>, Error> {
        let ids = rows.iter().map(|row| row.id);
        let mut state = match certain {
            true => Rows::fresh(ids),
            false => Rows::uncertain(ids),
        };
        loop {
            match state.step() {
                Step::Done => {
                    let blocks = Vec::new();
                    return Ok(Prepared { state, blocks });
                }
                Step::Kill => self.end_running(trial, &mut state).await?,
                Step::Ask => self.look_for(trial, rows, &mut state).await?,
                Step::Insert => {
                    let missing = pending(rows, &state);
                    let before = refused.0.len();
                    let blocks = self.encode(trial, &missing, refused).await?;
                    // Rows that came back may be those of which the server refused more than a plan can name: now their
                    // plan can still be cut. Where it refused none, that would be an insert more for nothing.
                    let came_back = !certain && !trial.job.uncertain;
                    if came_back && self.is_refusing(trial.table) && refused.0.len() == before {
                        for row in self.find_bad_rows(trial, &missing).await? {
                            refused.push(row, trial.table);
                        }
                    }
                    return Ok(Prepared { state, blocks });
                }
            }
        }
    }

    /// Writes rows into their table and returns when it is certain that each is there once, or that some must
    /// be named first.
    pub(super) async fn write_table<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        prepared: Prepared<D::Block>,
        rows: &[&PendingRow<'_>],
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let Prepared { mut state, blocks } = prepared;
        let mut ready = Some(blocks);
        let mut doubt = None;
        loop {
            match state.step() {
                Step::Done => return Ok(()),
                Step::Kill => self.end_running(trial, &mut state).await?,
                Step::Ask => {
                    self.look_for(trial, rows, &mut state).await?;
                    if let Some(doubt) = doubt.take() {
                        let before = refused.0.len();
                        self.settle_doubt(trial, doubt, rows, &state, refused).await?;
                        if refused.0.len() > before {
                            return Ok(());
                        }
                    }
                }
                Step::Insert => {
                    let blocks = match ready.take() {
                        Some(blocks) => blocks,
                        None => {
                            let before = refused.0.len();
                            let blocks = self.encode(trial, &pending(rows, &state), refused).await?;
                            if refused.0.len() > before {
                                // They must be named before the rest is written, whose token is another one.
                                return Ok(());
                            }
                            blocks
                        }
                    };
                    doubt = self.send_blocks(trial, &mut state, blocks).await?;
                }
            }
        }
    }

    /// Ends what may still run. Where everybody waits for the server, one answer will do for all tables until another
    /// insert is in doubt. Where nobody else does, a server that gives none is a table that fails: its rows are asked
    /// about when they come back, behind another end of what runs.
    async fn end_running<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        state: &mut Rows<RowId>,
    ) -> Result<(), Error> {
        let job = trial.job;
        if !D::IS_ESSENTIAL {
            let prefix = self.query_prefix(job.context.partition);
            let tables = Arc::clone(&trial.tables);
            while let Err(error) = tables.destination.end_running(job.claim.partition, &prefix).await {
                trial
                    .failed(&error, "what may still run could not be ended")
                    .await?;
            }
        } else if !job.quiet.load(Ordering::SeqCst) {
            self.kill(job.claim).await?;
            job.quiet.store(true, Ordering::SeqCst);
        }
        state.killed();
        Ok(())
    }

    /// Asks the table for the rows that are not known to be there.
    async fn look_for<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&PendingRow<'_>],
        state: &mut Rows<RowId>,
    ) -> Result<(), Error> {
        let missing = pending(rows, state);
        let held = self.ask(trial, &missing).await?;
        state.held(&held);
        let found = missing.len() - state.missing().len();
        self.metrics.rows_found.inc_by(u64::try_from(found).unwrap_or(0));
        if found > 0 {
            tracing::info!(
                table = %trial.table,
                found,
                "rows were in their table already: a view whose insert was cut short may lack them"
            );
        }
        Ok(())
    }

    /// Sends blocks until all are applied or one is in doubt: that one.
    async fn send_blocks<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        state: &mut Rows<RowId>,
        blocks: Vec<D::Block>,
    ) -> Result<Option<Doubt<D>>, Error> {
        for block in blocks {
            loop {
                match self.insert(trial, &block).await? {
                    Outcome::Applied => {
                        state.applied(block.rows());
                        let written = u64::try_from(block.rows().len()).unwrap_or(0);
                        self.metrics.rows.inc_by(written);
                        trial.succeeded();
                        break;
                    }
                    Outcome::Definite(error) => trial.failed(&error, "a block was not sent").await?,
                    Outcome::Ambiguous(error) => {
                        if matches!(error.retry(), Retry::AfterSchema) {
                            trial.tables.forget(trial.table);
                        }
                        state.in_doubt();
                        return Ok(Some(Doubt { block, error }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Which of these rows the table holds.
    async fn ask<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&PendingRow<'_>],
    ) -> Result<BTreeSet<RowId>, Error> {
        // A table that is not there yet is made here, so that the question has an answer.
        drop(self.schema(trial).await?);
        failpoint!(async "control::question", return Ok(BTreeSet::new()));
        let mut journals: BTreeMap<JournalId, Vec<u64>> = BTreeMap::new();
        for row in rows {
            journals
                .entry(row.id.identity.journal)
                .or_default()
                .push(row.id.identity.seq);
        }
        let mut held = BTreeSet::new();
        let (partition, tables) = (trial.job.context.partition, Arc::clone(&trial.tables));
        for (journal, mut seqs) in journals {
            seqs.sort_unstable();
            seqs.dedup();
            let answer = loop {
                match tables
                    .destination
                    .which(trial.table, journal, partition, &seqs)
                    .await
                {
                    Ok(answer) => break answer,
                    Err(error) => trial.failed(&error, "a table could not be asked").await?,
                }
            };
            let id = |(seq, sub)| RowId {
                identity: millrace_event::Identity {
                    journal,
                    partition,
                    seq,
                },
                sub,
            };
            held.extend(answer.into_iter().map(id));
        }
        Ok(held)
    }
}

/// The rows that are not known to be there, in the order of the log.
fn pending<'r, 'a>(rows: &[&'r PendingRow<'a>], state: &Rows<RowId>) -> Vec<&'r PendingRow<'a>> {
    // Mostly it is all of them.
    if state.missing().len() == rows.len() {
        return rows.to_vec();
    }
    rows.iter()
        .copied()
        .filter(|row| state.missing().contains(&row.id))
        .collect()
}

/// Why a row was named that the encoder has no fault to find with. It may fit by now; named is named.
fn rejected(objection: Option<String>) -> Reason<'static> {
    let message = objection.unwrap_or_else(|| "the row did not fit its table".to_owned());
    copies::reason(RowCode::RowRejected, message, None)
}
