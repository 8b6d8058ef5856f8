//! One table's rows of one chunk: encode, insert, and after any doubt kill, ask, and insert the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use millrace_event::JournalId;
use millrace_event::code::RowCode;
use millrace_event::envelope::Reason;
use millrace_ledger::Rows;
use millrace_ledger::rows::Step;
use millrace_warehouse::{Block, Limits, Outcome, Retry, Row, RowError, RowId, TableName};

use super::doubt::Doubt;
use super::trial::Trial;
use super::{Job, RefusedRow, Writer};
use crate::copies::{self, Copy};
use crate::error::Error;
use crate::sort::PendingRow;

/// What is to be written of one table's rows, before any of it is sent.
#[derive(Debug)]
pub(super) struct Prepared {
    state: Rows<RowId>,
    /// The missing rows, encoded.
    blocks: Vec<Block>,
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
    pub(super) async fn encode(
        &self,
        trial: &mut Trial<'_>,
        rows: &[&PendingRow<'_>],
        refused: &mut Refused,
    ) -> Result<Vec<Block>, Error> {
        let (blocks, faults) = self.try_encode(trial, rows).await?;
        for (index, error) in faults {
            let Some(row) = rows.get(index) else { continue };
            tracing::warn!(table = %trial.table, field = error.field, kind = %error.kind, "a row does not fit its table");
            refused.push(row, trial.table);
        }
        Ok(blocks)
    }

    pub(super) async fn try_encode(
        &self,
        trial: &mut Trial<'_>,
        rows: &[&PendingRow<'_>],
    ) -> Result<(Vec<Block>, Vec<(usize, RowError)>), Error> {
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let encodable: Vec<Row<'_>> = rows.iter().map(|row| row.as_row()).collect();
        let limits = Limits {
            columns: self.limits.columns,
        };
        let (table, at) = (trial.table, trial.job.context.at);
        loop {
            let schema = self.schema(trial).await?;
            match self.warehouse.encode(table, schema, limits, at, &encodable).await {
                Ok(encoded) => {
                    self.learn(table, &encoded.schema);
                    return Ok((encoded.blocks, encoded.refused));
                }
                Err(error) => {
                    self.forget(table);
                    trial.failed(&error, "rows could not be encoded").await?;
                }
            }
        }
    }

    /// The dead letters of rows that the plan names.
    pub(super) async fn dead_letters(
        &self,
        trial: &mut Trial<'_>,
        named: &[PendingRow<'_>],
    ) -> Result<Vec<Copy>, Error> {
        let rows: Vec<_> = named.iter().collect();
        let (_, faults) = self.try_encode(trial, &rows).await?;
        let faults: BTreeMap<usize, RowError> = faults.into_iter().collect();
        let context = trial.job.context;
        let mut letters = Vec::with_capacity(named.len());
        for (index, row) in named.iter().enumerate() {
            let reason = match faults.get(&index) {
                Some(error) => copies::reason(
                    RowCode::ColumnConflict,
                    error.to_string(),
                    Some(error.field.clone()),
                ),
                None => rejected(self.objection(trial, row).await?),
            };
            letters.push(row.dead_letter(&context, &reason));
        }
        Ok(letters)
    }

    /// Finds out which of these rows are to be written and encodes them, without sending anything: while that is so, a
    /// plan with too many bad rows can still be cut. Rows that are not `certain` to be new are looked for before any of
    /// them is judged.
    pub(super) async fn prepare(
        &self,
        trial: &mut Trial<'_>,
        rows: &[&PendingRow<'_>],
        certain: bool,
        refused: &mut Refused,
    ) -> Result<Prepared, Error> {
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
                Step::Kill => self.end_running(trial.job, &mut state).await?,
                Step::Ask => self.look_for(trial, rows, &mut state).await?,
                Step::Insert => {
                    let blocks = self.encode(trial, &pending(rows, &state), refused).await?;
                    return Ok(Prepared { state, blocks });
                }
            }
        }
    }

    /// Writes rows into their table and returns when it is certain that each is there once, or that some must
    /// be named first.
    pub(super) async fn write_table(
        &self,
        trial: &mut Trial<'_>,
        prepared: Prepared,
        rows: &[&PendingRow<'_>],
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let Prepared { mut state, blocks } = prepared;
        let mut ready = Some(blocks);
        let mut doubt = None;
        loop {
            match state.step() {
                Step::Done => return Ok(()),
                Step::Kill => self.end_running(trial.job, &mut state).await?,
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

    /// Ends what may still run. One answer will do for all tables, until another insert is in doubt.
    async fn end_running(&self, job: &Job<'_>, state: &mut Rows<RowId>) -> Result<(), Error> {
        if !job.quiet.load(Ordering::SeqCst) {
            self.kill(job.claim).await?;
            job.quiet.store(true, Ordering::SeqCst);
        }
        state.killed();
        Ok(())
    }

    /// Asks the table for the rows that are not known to be there.
    async fn look_for(
        &self,
        trial: &mut Trial<'_>,
        rows: &[&PendingRow<'_>],
        state: &mut Rows<RowId>,
    ) -> Result<(), Error> {
        let missing = pending(rows, state);
        let held = self.ask(trial, &missing).await?;
        state.held(&held);
        let found = missing.len() - state.missing().len();
        self.metrics.rows_found.inc_by(u64::try_from(found).unwrap_or(0));
        Ok(())
    }

    /// Sends blocks until all are applied or one is in doubt: that one.
    async fn send_blocks(
        &self,
        trial: &mut Trial<'_>,
        state: &mut Rows<RowId>,
        blocks: Vec<Block>,
    ) -> Result<Option<Doubt>, Error> {
        for block in blocks {
            loop {
                match self.insert(trial.job, trial.table, &block).await? {
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
                            self.forget(trial.table);
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
    async fn ask(&self, trial: &mut Trial<'_>, rows: &[&PendingRow<'_>]) -> Result<BTreeSet<RowId>, Error> {
        // A table that is not there yet is made here, so that the question has an answer.
        drop(self.schema(trial).await?);
        let mut journals: BTreeMap<JournalId, Vec<u64>> = BTreeMap::new();
        for row in rows {
            journals
                .entry(row.id.identity.journal)
                .or_default()
                .push(row.id.identity.seq);
        }
        let mut held = BTreeSet::new();
        let partition = trial.job.context.partition;
        for (journal, mut seqs) in journals {
            seqs.sort_unstable();
            seqs.dedup();
            let answer = loop {
                match self.warehouse.which(trial.table, journal, partition, &seqs).await {
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
