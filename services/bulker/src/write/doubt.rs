//! After an insert without a clear answer, once the table was asked: was it a view, a row, or the table?

use std::collections::BTreeSet;

use millrace_ledger::Rows;
use millrace_ledger::metadata::{MAX_BAD_ROWS, table_hash};
use millrace_warehouse::name::InvalidName;
use millrace_warehouse::{Retry, RowId, TableName};

use super::Writer;
use super::destination::{Block as _, Destination, Fault as _, Outcome};
use super::table::Refused;
use super::trial::Trial;
use crate::error::Error;
use crate::sort::PendingRow;

/// A block that was sent, and what came instead of an answer.
#[derive(Debug)]
pub(super) struct Doubt<D: Destination> {
    pub(super) block: D::Block,
    pub(super) error: D::Error,
}

impl Writer {
    /// What follows from a doubt now that KILL was answered and the table was asked. Rows that only the server
    /// refuses are noted in `refused`; then nothing else is to be written before they are named.
    pub(super) async fn settle_doubt<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        doubt: Doubt<D>,
        rows: &[&PendingRow<'_>],
        state: &Rows<RowId>,
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let Doubt { block, error } = doubt;
        if block.rows().iter().all(|row| !state.missing().contains(row)) {
            trial.succeeded();
            if D::HAS_VIEWS {
                self.complete_views(trial, &block, &error).await?;
            }
            return Ok(());
        }
        let first_time = trial.schema_is_new();
        let schema = matches!(error.retry(), Retry::AfterSchema);
        if error.may_be_a_row() && !(schema && first_time) {
            let sent: BTreeSet<_> = block.rows().iter().copied().collect();
            let sent: Vec<_> = rows
                .iter()
                .copied()
                .filter(|row| sent.contains(&row.id))
                .collect();
            let bad = self.find_bad_rows(trial, &sent).await?;
            if !bad.is_empty() {
                for row in bad {
                    tracing::warn!(table = %trial.table, error = %error, "the server refuses a row");
                    refused.push(row, trial.table);
                }
                return Ok(());
            }
        }
        trial.failed(&error, "a block may not be written").await
    }

    /// The table holds the block although its insert failed: what failed came behind it. The same block under the
    /// same token goes to the views alone, and to each of them once. A view that fails again is left to whoever reads
    /// the alarm; the table is complete.
    async fn complete_views<D: Destination>(
        &self,
        trial: &Trial<'_, D>,
        block: &D::Block,
        first: &D::Error,
    ) -> Result<(), Error> {
        let (Outcome::Definite(error) | Outcome::Ambiguous(error)) = self.insert(trial, block).await? else {
            tracing::info!(table = %trial.table, error = %first, "the views of a table have its block after all");
            return Ok(());
        };
        self.kill(trial.job.claim).await?;
        self.metrics.view_failures.inc();
        let view = error.view().or_else(|| first.view()).unwrap_or_default();
        tracing::error!(
            table = %trial.table,
            view,
            rows = block.rows().len(),
            error = %error,
            "a view did not take rows that its table holds: it must be mended and filled again"
        );
        Ok(())
    }

    /// The rows that the server refuses, by halving against a clone of the table that keeps nothing; none where the
    /// clone takes them all: then it is the table. Stops at one more than a plan can name.
    pub(super) async fn find_bad_rows<'r, 'a, D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        rows: &[&'r PendingRow<'a>],
    ) -> Result<Vec<&'r PendingRow<'a>>, Error> {
        let Some(clone) = self.clone_of(trial).await else {
            return Ok(Vec::new());
        };
        let mut bad = Vec::new();
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            match self.rehearse(trial, &clone, part).await? {
                None => {}
                Some(_) if part.len() == 1 => bad.extend(part),
                Some(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            if bad.len() > MAX_BAD_ROWS {
                break;
            }
        }
        self.drop_clone(trial, &clone).await;
        Ok(bad)
    }

    /// What the server says of a row that the plan names; nothing where it has no objection by now, or cannot be
    /// asked. The `clone` is made for the first one; who has it removes it.
    pub(super) async fn objection<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        row: &PendingRow<'_>,
        clone: &mut Option<TableName>,
    ) -> Result<Option<String>, Error> {
        if clone.is_none() {
            *clone = self.clone_of(trial).await;
        }
        let Some(clone) = clone else { return Ok(None) };
        let error = self.rehearse(trial, clone, &[row]).await?;
        Ok(error.and_then(|error| error.said()))
    }

    /// Inserts rows into the clone. Why it refused them, if it did.
    async fn rehearse<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
        clone: &TableName,
        rows: &[&PendingRow<'_>],
    ) -> Result<Option<D::Error>, Error> {
        let (blocks, _) = self.try_encode(trial, rows).await?;
        for block in blocks {
            loop {
                match self.insert_into(trial, clone, &block, true).await? {
                    Outcome::Applied => break,
                    Outcome::Definite(error) | Outcome::Ambiguous(error) if error.may_be_a_row() => {
                        return Ok(Some(error));
                    }
                    // Nothing is written by it, so it may be sent again at once.
                    Outcome::Definite(error) | Outcome::Ambiguous(error) => {
                        trial.failed(&error, "a row could not be tried").await?;
                    }
                }
            }
        }
        Ok(None)
    }

    async fn clone_of<D: Destination>(&self, trial: &Trial<'_, D>) -> Option<TableName> {
        let clone = self.clone_name(trial).ok()?;
        let destination = &trial.tables.destination;
        match destination.open_rehearsal(trial.table, clone).await {
            Ok(clone) => Some(clone),
            Err(error) => {
                trial
                    .job
                    .claim
                    .trouble(&error, "a table could not be cloned", trial.table);
                None
            }
        }
    }

    /// A name that no other partition and no other group uses.
    fn clone_name<D: Destination>(&self, trial: &Trial<'_, D>) -> Result<TableName, InvalidName> {
        let prefix = self.query_prefix(trial.job.context.partition);
        let name = format!("clone_{:016x}", table_hash(&format!("{prefix}{}", trial.table)));
        TableName::new(self.outcomes.database().clone(), &name)
    }

    pub(super) async fn drop_clone<D: Destination>(&self, trial: &Trial<'_, D>, clone: &TableName) {
        if let Err(error) = trial.tables.destination.close_rehearsal(clone).await {
            tracing::warn!(%clone, error = %error, "a clone could not be removed; the next one of its name replaces it");
        }
    }
}
