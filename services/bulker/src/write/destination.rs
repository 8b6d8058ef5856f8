//! What writing needs of a destination, whichever it is.
//!
//! Plans, tokens, doubts and giving up are the writer's, and the same for all of them. A destination makes tables and
//! columns, takes a block under a token, says which rows a table holds, and ends what an earlier owner may still have
//! running. It never repeats an insert by itself, and never calls one definite that may have left rows.

mod clickhouse;
mod postgres;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::{JournalId, Timestamp};
use millrace_store::destinations::{Configured, InvalidSetting};
use millrace_warehouse::{AsRow, Limits, Retry, RowError, RowId, Schema, TableName};

pub(super) use postgres::{Open, Postgres};

/// The settings of a table's destination, where it has a row of its own and that can be read.
pub(super) type Settings<'a> = Option<&'a Result<Arc<Configured>, InvalidSetting>>;

/// Rows that no block has, by their index, each with the field that does not fit.
pub(super) type Faults = Vec<(usize, RowError)>;

/// Blocks, the rows that none of them has, and the schema that they are of.
pub(super) type Encoded<B> = (Vec<B>, Faults, Arc<Schema>);

/// What went wrong at a destination.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// A short name for metrics.
    fn kind(&self) -> &'static str;
    /// Whether the same may succeed later; says nothing of whether an insert was applied.
    fn retry(&self) -> Retry;
    /// Whether it is about one table, and says nothing of others on the same server.
    fn is_of_one_table(&self) -> bool;
    /// Whether a row may be the cause.
    fn may_be_a_row(&self) -> bool;
    /// What the server said, for people who may see values of rows.
    fn said(&self) -> Option<String>;
    /// The view that an insert failed in.
    fn view(&self) -> Option<String>;
}

/// Rows that are ready to be sent.
pub(super) trait Block: Clone + Debug + Send + Sync {
    /// Which, in their order.
    fn rows(&self) -> &[RowId];
    /// The part of its table that it goes to, for tables that know tokens by parts.
    fn part(&self) -> String;
}

/// A block on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending<'a, B> {
    pub(super) table: &'a TableName,
    pub(super) block: &'a B,
    pub(super) token: &'a str,
    pub(super) query_id: &'a str,
    pub(super) partition: u32,
    /// Of the plan that it belongs to.
    pub(super) first_offset: u64,
    pub(super) deadline: Duration,
    /// Whether nothing of it may stay.
    pub(super) rehearsal: bool,
}

/// What is known of an insert afterwards.
#[derive(Debug)]
#[must_use]
pub(super) enum Outcome<E> {
    /// The rows are in the table.
    Applied,
    /// Nothing of it was sent, or nothing can have stayed.
    Definite(E),
    /// The rows may be in the table, or on their way to it.
    Ambiguous(E),
}

impl<E> Outcome<E> {
    /// As a metric's label.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Definite(_) => "definite",
            Self::Ambiguous(_) => "ambiguous",
        }
    }
}

/// What a destination's settings say of a table.
#[derive(Debug)]
pub(super) struct Wanted<L> {
    /// What it is to be like; why that is not known, where settings cannot be read.
    pub(super) layout: Result<L, String>,
    /// How many columns it may get.
    pub(super) limits: Limits,
    /// The settings' version; 0 without any.
    pub(super) version: u64,
}

/// A server with tables.
pub(super) trait Destination: Debug + Send + Sync + 'static {
    /// What a table is to be like.
    type Layout: Debug + Send + Sync;
    /// Rows that are ready to be sent.
    type Block: Block;
    /// An open way in: what is sent over it reaches the server soon or never.
    type Line: Send;
    /// What goes wrong.
    type Error: Fault;

    /// Whether nothing can go on without it. While any other is away, its tables alone wait.
    const IS_ESSENTIAL: bool;
    /// Whether views stand behind its tables, which may lack rows that the table has.
    const HAS_VIEWS: bool;

    /// What settings say of a table; `columns` where they say nothing of them.
    fn wanted(settings: Settings<'_>, columns: usize) -> Wanted<Self::Layout>;

    /// The error that says that a table's settings cannot be read.
    fn unreadable(table: &TableName, reason: &str) -> Self::Error;

    /// Whether the server answers.
    fn ping(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes a table where it is missing, checks it, and reads its columns.
    fn create_table(
        &self,
        table: &TableName,
        layout: &Self::Layout,
    ) -> impl Future<Output = Result<Schema, Self::Error>> + Send;

    /// Encodes rows, adding the columns that their table lacks; also the schema as it is then.
    fn encode(
        &self,
        table: &TableName,
        layout: &Self::Layout,
        schema: Arc<Schema>,
        limits: Limits,
        at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> impl Future<Output = Result<Encoded<Self::Block>, Self::Error>> + Send;

    /// Opens a way in for one insert.
    fn line(&self, partition: u32) -> impl Future<Output = Result<Self::Line, Self::Error>> + Send;

    /// Sends a block once.
    fn insert_over(
        &self,
        line: Self::Line,
        sending: Sending<'_, Self::Block>,
    ) -> impl Future<Output = Outcome<Self::Error>> + Send;

    /// Ends everything that may still run for a partition, and keeps out what an earlier owner of it would send.
    fn end_running(
        &self,
        partition: u32,
        prefix: &str,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Which rows of these events a table holds, as `(seq, sub)`.
    fn which(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: &[u64],
    ) -> impl Future<Output = Result<BTreeSet<(u64, u16)>, Self::Error>> + Send;

    /// Makes a place where rows can be tried as the table would take them, under that name if it needs one.
    fn open_rehearsal(
        &self,
        table: &TableName,
        name: TableName,
    ) -> impl Future<Output = Result<TableName, Self::Error>> + Send;

    /// Removes it.
    fn close_rehearsal(&self, name: &TableName) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
