//! The ledger's own tables, `outcomes` and `journals`. They are never given up: where they fail, the partition
//! waits.

use std::collections::{BTreeSet, HashMap};

use millrace_event::{Identity, JournalId};
use millrace_ledger::{Leaving, Token, Watermark};
use millrace_warehouse::outcomes::{self, Decider, Key};
use millrace_warehouse::{Block, TableName, journals};

use super::destination::Outcome;
use super::pause::Pause;
use super::{Job, Writer};
use crate::claim::Claim;
use crate::error::Error;

impl Writer {
    /// Which records decided these attempts.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn ask_deciders(&self, keys: &[Key], claim: &Claim) -> Result<HashMap<Key, Decider>, Error> {
        let mut pause = Pause::new(&self.limits);
        loop {
            match self.warehouse.deciders(&self.outcomes, keys).await {
                Ok(deciders) => return Ok(deciders),
                Err(error) => claim.trouble(&error, "outcomes could not be asked", self.outcomes.table()),
            }
            pause.wait(&claim.revoked).await?;
        }
    }

    /// What was written about these journals when they left the metadata, as of `position` or before.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn look_up(
        &self,
        position: u64,
        unknown: BTreeSet<JournalId>,
        claim: &Claim,
    ) -> Result<Vec<(JournalId, Option<Watermark>)>, Error> {
        let partition = claim.partition;
        let mut found = Vec::with_capacity(unknown.len());
        for journal in unknown {
            let mut pause = Pause::new(&self.limits);
            let written = loop {
                let asked =
                    self.warehouse
                        .watermark(&self.journals, &self.group, partition, journal, position);
                match asked.await {
                    Ok(written) => break written,
                    Err(error) => claim.trouble(&error, "a journal could not be looked up", journal),
                }
                pause.wait(&claim.revoked).await?;
            };
            let watermark = written.map(|written| {
                Watermark::from_parts(written.next, written.holes).ok_or(Error::Watermark(journal))
            });
            found.push((journal, watermark.transpose()?));
        }
        Ok(found)
    }

    pub(super) async fn write_outcomes(&self, job: &Job<'_>) -> Result<(), Error> {
        for block in outcomes::encode(&job.sorted.decisions) {
            // An event is decided once for each attempt: its identity alone would make two of them one block.
            let part = format!("{}@{}", block.month(), job.first);
            let rows = block.rows().iter().map(|row| (row.identity, row.sub));
            let token = Token::of(&self.outcomes.to_string(), &part, 0, rows);
            self.write_own(job, &self.outcomes, &block, token).await?;
        }
        Ok(())
    }

    /// Writes watermarks that the next commit leaves out. Everything else of the chunk was answered before.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn write_journals(&self, job: &Job<'_>, leaving: &[Leaving]) -> Result<(), Error> {
        if leaving.is_empty() {
            return Ok(());
        }
        let partition = job.context.partition;
        let rows: Vec<_> = leaving
            .iter()
            .map(|left| journals::Watermark {
                partition,
                journal: left.journal,
                position: left.position,
                next: left.watermark.next(),
                holes: left.watermark.holes().collect(),
            })
            .collect();
        let block = journals::encode(&self.group, &rows);
        let part = format!("{}@{}", self.group, job.first);
        let named = leaving.iter().map(|left| {
            let identity = Identity {
                journal: left.journal,
                partition,
                seq: left.position,
            };
            (identity, 0)
        });
        let token = Token::of(&self.journals.to_string(), &part, 0, named);
        self.write_own(job, &self.journals, &block, token).await?;
        let count = u64::try_from(leaving.len()).unwrap_or(0);
        self.metrics.journals_written.inc_by(count);
        Ok(())
    }

    async fn write_own(
        &self,
        job: &Job<'_>,
        table: &TableName,
        block: &Block,
        token: Token,
    ) -> Result<(), Error> {
        let mut pause = Pause::new(&self.limits);
        loop {
            match self
                .insert_as(job, &self.clickhouse, (table, false), block, token)
                .await?
            {
                Outcome::Applied => return Ok(()),
                Outcome::Definite(error) => {
                    job.claim
                        .trouble(&error, "a block of the ledger was not sent", table)
                }
                // The same rows under the same token again, and a row that is there twice says the same twice.
                Outcome::Ambiguous(error) => {
                    job.claim
                        .trouble(&error, "a block of the ledger may not be written", table);
                    self.kill(job.claim).await?;
                }
            }
            pause.wait(&job.claim.revoked).await?;
        }
    }
}
