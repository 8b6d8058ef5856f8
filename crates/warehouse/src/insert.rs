//! The insert: one block, one request, one of three outcomes.

use std::time::Duration;

use clickhouse::Compression;
use tokio::time::{Instant, timeout_at};

use crate::batch::Block;
use crate::client::{MAX_STATEMENT_BYTES, Warehouse};
use crate::error::{Code, Error};
use crate::line::Line;
use crate::name::TableName;
use crate::native::frame;

/// What every insert sends, whatever the user's profile says: the server's defaults corrupt or disarm silently.
///
/// With them an unknown column is dropped and answered 200, 1.9 becomes 1, an asynchronous insert is answered
/// before it is written, and a token can be ignored.
///
/// A replicated table (experimental) answers once most replicas have the block, one block after another, so that the
/// question, which asks for sequential consistency, sees it on any of them. Other tables pass over that.
///
/// However many rows an insert brings, the server puts them together to one block, which is written or not, under its
/// token.
const SETTINGS: [(&str, &str); 11] = [
    ("async_insert", "0"),
    ("deduplicate_insert", "enable"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("input_format_skip_unknown_fields", "0"),
    ("input_format_native_allow_types_conversion", "0"),
    ("input_format_null_as_default", "0"),
    ("insert_quorum", "auto"),
    ("insert_quorum_parallel", "0"),
    ("min_insert_block_size_rows", "1000000000"),
    ("min_insert_block_size_bytes", "0"),
];

/// The client's own time-out comes first, because only that one ends its background task.
const GRACE: Duration = Duration::from_millis(100);

/// One block on its way into one table.
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The rows.
    pub block: &'a Block,
    /// The token by which the table knows this block again.
    pub token: &'a str,
    /// The query's id, by which `KILL QUERY` finds it.
    pub query_id: &'a str,
    /// How long the whole request may take, from its start to the answer.
    pub deadline: Duration,
}

/// What is known about an insert afterwards.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The server says the rows are in the table, or were already by this token.
    Applied,
    /// The server has seen nothing of it: no connection, or no request.
    Definite(Error),
    /// Anything else. The rows may be in the table, may not be, or may be on their way: first `KILL QUERY`, then
    /// the question. The error's code says what to do after that.
    Ambiguous(Error),
}

impl Outcome {
    /// The outcome as a metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Definite(_) => "definite",
            Self::Ambiguous(_) => "ambiguous",
        }
    }

    /// Why it is not known to be applied.
    pub const fn error(&self) -> Option<&Error> {
        match self {
            Self::Applied => None,
            Self::Definite(error) | Self::Ambiguous(error) => Some(error),
        }
    }

    /// No error proves that nothing was written, but for those that came before the request went out.
    fn of(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Self::Applied,
            Err(error) => match &error {
                Error::Connect(_)
                // The lease is looked at before anything of the query is.
                | Error::Server { code: Code::SESSION_NOT_FOUND | Code::SESSION_IS_LOCKED, .. }
                | Error::Malformed(
                    clickhouse::error::Error::InvalidParams(_) | clickhouse::error::Error::Unsupported(_),
                ) => Self::Definite(error),
                _ => Self::Ambiguous(error),
            },
        }
    }
}

impl Warehouse {
    /// Sends a block, once, over a line of its own. For callers that own what they write to: see [`Self::insert_over`].
    ///
    /// # Cancellation
    /// As [`Self::insert_over`].
    pub async fn insert(&self, insert: Insert<'_>) -> Outcome {
        match self.line().await {
            Ok(line) => self.insert_over(line, insert).await,
            Err(error) => Outcome::Definite(error),
        }
    }

    /// Sends a block, once, over a line that was open before the caller made sure that it may write.
    ///
    /// # Cancellation
    /// As ambiguous as an error: the server may go on with the insert after the connection is gone.
    pub async fn insert_over(&self, line: Line, insert: Insert<'_>) -> Outcome {
        let end = Instant::now() + insert.deadline;
        let result = match timeout_at(end + GRACE, Self::send(&line, insert, end)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Deadline),
        };
        if result.is_ok() {
            self.keep(line);
        }
        Outcome::of(result)
    }

    async fn send(line: &Line, insert: Insert<'_>, end: Instant) -> Result<(), Error> {
        // The columns' names can be more than a URL may hold, so the statement goes on in the body: the server puts
        // a line feed between both. The one at the end is the last byte that is not the block's.
        let statement = format!("INSERT INTO {}", insert.table.quoted());
        let continued = format!("({}) FORMAT Native\n", insert.block.columns());
        // The client compresses nothing: blocks come in frames, and an insert costs this task no more than the sending.
        let client = line.client.clone().with_compression(Compression::None);
        let mut request = client
            .insert_formatted_with(statement)
            .with_setting("decompress", "1");
        for (name, value) in SETTINGS {
            request = request.with_setting(name, value);
        }
        request = request
            .with_setting("insert_deduplication_token", insert.token)
            .with_setting("query_id", insert.query_id)
            .with_setting("session_id", line.lease.as_str())
            .with_setting("session_check", "1")
            .with_setting("max_query_size", MAX_STATEMENT_BYTES)
            // The client ends its background task on its own time-out only; without one it would outlive us.
            .with_timeouts(
                Some(insert.deadline),
                Some(end.saturating_duration_since(Instant::now())),
            );
        for frame in frame::compress(continued.as_bytes(), insert.block.compression()) {
            request.send(frame).await?;
        }
        for frame in insert.block.frames() {
            request.send(frame.clone()).await?;
        }
        let left = end.saturating_duration_since(Instant::now());
        Ok(request.with_timeouts(None, Some(left)).end().await?)
    }
}
