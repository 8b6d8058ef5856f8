//! One table's rows of one chunk: encode, insert, and after any doubt kill, ask, and insert the rest.

use std::collections::{BTreeMap, BTreeSet};

use millrace_event::JournalId;
use millrace_event::code::RowCode;
use millrace_event::envelope::Reason;
use millrace_ledger::Rows;
use millrace_ledger::rows::Step;
use millrace_warehouse::{Block, Limits, Outcome, Retry, Row, RowError, RowId};

use super::trial::Trial;
use super::{RefusedRow, Writer};
use crate::copies::{self, Copy};
use crate::error::Error;
use crate::sort::PendingRow;

/// Rows that fit no table.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<RefusedRow>);

impl Refused {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
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
            refused.0.push(RefusedRow {
                offset: row.record.offset,
                row: row.as_bad_row(),
                table: trial.table.clone(),
            });
        }
        Ok(blocks)
    }

    async fn try_encode(
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
        let letter =
            |(index, row): (usize, &PendingRow<'_>)| row.dead_letter(&context, &why(faults.get(&index)));
        Ok(named.iter().enumerate().map(letter).collect())
    }

    /// Writes rows into their table and returns when it is certain that each is there once, or that some must
    /// be named first. `ready` are the rows encoded, where nothing of them can have been sent.
    pub(super) async fn write_table(
        &self,
        trial: &mut Trial<'_>,
        mut state: Rows<RowId>,
        rows: &[&PendingRow<'_>],
        mut ready: Option<Vec<Block>>,
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let job = trial.job;
        loop {
            match state.step() {
                Step::Done => return Ok(()),
                Step::Kill => {
                    self.kill(job.context.partition, job.revoked).await?;
                    state.killed();
                }
                Step::Ask => {
                    let missing = pending(rows, &state);
                    let held = self.ask(trial, &missing).await?;
                    state.held(&held);
                    let found = missing.len() - state.missing().len();
                    self.metrics.rows_found.inc_by(u64::try_from(found).unwrap_or(0));
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
                    self.send_blocks(trial, &mut state, blocks).await?;
                }
            }
        }
    }

    /// Sends blocks until all are applied or one is in doubt.
    async fn send_blocks(
        &self,
        trial: &mut Trial<'_>,
        state: &mut Rows<RowId>,
        blocks: Vec<Block>,
    ) -> Result<(), Error> {
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
                        return trial.failed(&error, "a block may not be written").await;
                    }
                }
            }
        }
        Ok(())
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

/// Why a row was named. It may fit by now; named is named.
fn why(error: Option<&RowError>) -> Reason<'static> {
    match error {
        Some(error) => copies::reason(
            RowCode::ColumnConflict,
            error.to_string(),
            Some(error.field.clone()),
        ),
        None => copies::reason(
            RowCode::ColumnConflict,
            "the row did not fit its table".to_owned(),
            None,
        ),
    }
}
