//! The insert: one block in one transaction, with one of three outcomes.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use millrace_warehouse::{Retry, TableName};
use tokio::time::{Instant, timeout_at};

use crate::client::{Line, Postgres};
use crate::encode::Block;
use crate::error::Error;
use crate::fence::Standing;

/// Bytes that are handed to the connection at once.
const PIECE_BYTES: usize = 256 << 10;

/// One block on its way into one table.
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The rows.
    pub block: &'a Block,
    /// The token by which the destination knows this block again: 32 hexadecimal digits.
    pub token: &'a str,
    /// The partition whose rows they are.
    pub partition: u32,
    /// The first offset of the plan that they belong to.
    pub first_offset: u64,
    /// How long the whole may take.
    pub deadline: Duration,
    /// Whether it is only tried: all of it happens, and nothing of it stays.
    pub rehearsal: bool,
}

/// What is known about an insert afterwards.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The rows are in the table, or were already by this token.
    Applied,
    /// Nothing of it is in the table, and the same may be tried again.
    Definite(Error),
    /// Its rows may be in the table, by this insert or by another: take the partition over, then ask.
    Ambiguous(Error),
}

impl Postgres {
    /// Inserts a block once.
    ///
    /// # Cancellation
    /// The rows may be in the table or not.
    pub async fn insert_over(&self, line: Line, insert: Insert<'_>) -> Outcome {
        let end = Instant::now() + insert.deadline;
        let committing = std::sync::atomic::AtomicBool::new(false);
        let result = match timeout_at(end, self.send(&line, insert, &committing)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Deadline),
        };
        match result {
            Ok(()) => {
                self.keep(line);
                Outcome::Applied
            }
            // The line closes, and with it ends the transaction. What the table itself objects to is a question for
            // the table.
            Err(error) if !committing.into_inner() && is_without_trace(&error) => Outcome::Definite(error),
            Err(error) => Outcome::Ambiguous(error),
        }
    }

    async fn send(
        &self,
        line: &Line,
        insert: Insert<'_>,
        committing: &std::sync::atomic::AtomicBool,
    ) -> Result<(), Error> {
        let standing = Standing {
            partition: insert.partition,
            table: insert.table.table(),
            token: (!insert.rehearsal).then_some(insert.token),
            first_offset: insert.first_offset,
            rows: insert.block.rows().len(),
        };
        if !self.begin(line, &standing).await? {
            line.client.batch_execute("ROLLBACK").await?;
            return Ok(());
        }
        let statement = format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary)",
            self.quoted(insert.table.table()),
            insert.block.columns()
        );
        let sink = line.client.copy_in::<_, Bytes>(&statement).await?;
        let mut sink = pin!(sink);
        let mut body = insert.block.body().clone();
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            sink.send(piece).await?;
        }
        sink.finish().await?;
        if insert.rehearsal {
            line.client.batch_execute("ROLLBACK").await?;
            return Ok(());
        }
        committing.store(true, std::sync::atomic::Ordering::SeqCst);
        line.client.batch_execute("COMMIT").await?;
        Ok(())
    }
}

/// Before the commit: whether the error is about the way there, and not about what the table holds or is.
fn is_without_trace(error: &Error) -> bool {
    !matches!(error, Error::Fenced(_)) && matches!(error.retry(), Retry::Transient)
}
