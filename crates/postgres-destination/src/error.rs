//! What can go wrong between the bulker and a PostgreSQL destination, and what that says about trying again.

use millrace_warehouse::{Retry, TableName};
use tokio_postgres::error::SqlState;

use crate::own::IDENTITY_INDEX;

/// A request to PostgreSQL that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none, or asks for what is not offered.
    #[error("the address of the destination cannot be used: {0}")]
    Address(String),
    /// No connection could be opened.
    #[error("no connection to PostgreSQL")]
    Connect(#[source] tokio_postgres::Error),
    /// Whoever answers there has not proven to be the server that was asked for.
    #[error(
        "the server's certificate is not trusted: it must name the host of the address and be signed by an authority of \
         its `sslrootcert`, or without that by one that this system knows"
    )]
    Distrusted(#[source] tokio_postgres::Error),
    /// The connection broke.
    #[error("the connection to PostgreSQL broke")]
    Network(#[source] tokio_postgres::Error),
    /// No answer came in time, or no connection became free.
    #[error("PostgreSQL did not answer in time")]
    Deadline,
    /// The server answered with an error.
    #[error("PostgreSQL answered with error {}", code.code())]
    Server {
        /// Its code.
        code: SqlState,
        /// What the server said. It can quote values of rows, so it is never logged on the happy path.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Somebody else has taken the partition over since.
    #[error("another owner has taken partition {0} over at this destination")]
    Fenced(u32),
    /// The table cannot hold rows exactly once.
    #[error("table {table} cannot take events: {reason}")]
    UnfitTable {
        /// The table.
        table: TableName,
        /// What it lacks.
        reason: Unfit,
    },
    /// The table takes none of the batch's new columns the way it said it would.
    #[error("the columns of {table} keep changing while rows are encoded")]
    UnstableSchema {
        /// The table.
        table: TableName,
    },
}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no such table, or none that this account can see.
    #[error("it does not exist")]
    Missing,
    /// PostgreSQL would cut its name.
    #[error("its name has more than 63 bytes")]
    Name,
    /// It is a view, a foreign table or something else that keeps no rows of its own.
    #[error("it is no ordinary table")]
    Kind,
    /// A crash empties it, although its rows were answered for.
    #[error("it is unlogged, and would be empty after a crash: `ALTER TABLE … SET LOGGED`")]
    Unlogged,
    /// Nothing in it keeps a row from being there twice.
    #[error("it has no unique index on exactly (_journal, _partition, _seq, _sub)")]
    Index,
    /// A column that every row needs is not there or of another type.
    #[error("column {name} must be {wanted}, it is {found:?}")]
    Column {
        /// The column.
        name: String,
        /// The type it must have.
        wanted: &'static str,
        /// The type it has; nothing where there is no such column.
        found: Option<String>,
    },
    /// The database keeps text in an encoding that cannot hold all of Unicode.
    #[error("its database is encoded in {0}, and must be in UTF8")]
    Encoding(String),
}

impl Error {
    /// A short name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Connect(_) => "connect",
            Self::Distrusted(_) => "distrusted",
            Self::Network(_) => "network",
            Self::Deadline => "deadline",
            Self::Server { .. } if self.is_transient() => "server_transient",
            Self::Server { .. } if self.is_of_schema() => "server_schema",
            Self::Server { .. } => "server_permanent",
            Self::Fenced(_) => "fenced",
            Self::UnfitTable { .. } => "unfit_table",
            Self::UnstableSchema { .. } => "unstable_schema",
        }
    }

    /// Whether the same request may succeed later. It says nothing of whether an insert was applied.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect(_) | Self::Distrusted(_) | Self::Network(_) | Self::Deadline | Self::Fenced(_) => {
                Retry::Transient
            }
            Self::Server { .. } if self.is_transient() => Retry::Transient,
            Self::Server { .. } if self.is_of_schema() => Retry::AfterSchema,
            Self::UnstableSchema { .. } => Retry::AfterSchema,
            Self::Address(_) | Self::Server { .. } | Self::UnfitTable { .. } => Retry::Permanent,
        }
    }

    /// Whether a row may be the cause: one that breaks a constraint, that a trigger refuses, or that is too large.
    pub fn may_be_a_row(&self) -> bool {
        let Self::Server { code, .. } = self else {
            return false;
        };
        let class = |class| code.code().starts_with(class);
        let program_limit = *code == SqlState::PROGRAM_LIMIT_EXCEEDED;
        let code = [class("22"), class("23"), class("P0"), program_limit];
        code.contains(&true) && !self.is_a_known_row()
    }

    /// Whether the table holds a row of the block already: another transaction brought it.
    pub fn is_a_known_row(&self) -> bool {
        let Self::Server { code, source } = self else {
            return false;
        };
        let constraint = source.as_db_error().and_then(|error| error.constraint());
        *code == SqlState::UNIQUE_VIOLATION && constraint.is_some_and(|name| name.starts_with(IDENTITY_INDEX))
    }

    /// What the server said, for people who may see values of rows.
    pub fn said(&self) -> Option<String> {
        let Self::Server { source, .. } = self else {
            return None;
        };
        source.as_db_error().map(|error| error.message().to_owned())
    }

    /// Classes 08 (connection), 40 (serialization, deadlock), 53 (out of connections, memory or disk), 55 (locked) and
    /// 57 (cancelled, shutting down, not up yet), and a server that became read-only: all pass.
    fn is_transient(&self) -> bool {
        let Self::Server { code, .. } = self else {
            return false;
        };
        let code = code.code();
        ["08", "40", "53", "55", "57"]
            .iter()
            .any(|class| code.starts_with(class))
            || code == "25006"
    }

    /// Block and table disagree: the schema must be read again.
    fn is_of_schema(&self) -> bool {
        let Self::Server { code, .. } = self else {
            return false;
        };
        [
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_SCHEMA,
            SqlState::DATATYPE_MISMATCH,
            SqlState::INVALID_BINARY_REPRESENTATION,
        ]
        .contains(code)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) => Self::Server {
                code: code.clone(),
                source: error,
            },
            // Without an answer of the server it is the connection that failed.
            None => Self::Network(error),
        }
    }
}
