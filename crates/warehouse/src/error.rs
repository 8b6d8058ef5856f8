//! What can go wrong between the bulker and ClickHouse, and what that says about trying again.

use std::fmt;

use crate::name::TableName;

/// The code of a ClickHouse exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u32);

/// What the code of an exception says about its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeClass {
    /// The server is overloaded, short of memory, shutting down or cut off from a peer: later may be better.
    Transient,
    /// Block and table disagree: the schema must be read again before anything else is tried.
    Schema,
    /// Somebody ended the query with `KILL QUERY`.
    Killed,
    /// The server refuses this user, or cannot be written to at all.
    Access,
    /// Anything else; it will not go away by itself.
    Permanent,
}

/// Whether the same request may succeed later without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It may.
    Transient,
    /// It may after the schema was read again.
    AfterSchema,
    /// It will not.
    Permanent,
}

impl Code {
    /// The session that a request names is not there, or not any more.
    pub const SESSION_NOT_FOUND: Self = Self(372);
    /// Another query of the session runs.
    pub const SESSION_IS_LOCKED: Self = Self(373);
    /// The table takes no rows: a replica without its coordinator, or made read-only by hand.
    pub const TABLE_IS_READ_ONLY: Self = Self(242);
    /// The table has more parts than it may have until they are merged.
    pub const TOO_MANY_PARTS: Self = Self(252);

    /// What the code says about the cause.
    ///
    /// Lists come from ClickHouse's `ErrorCodes.cpp` and from what a 26.7 server answers to Native inserts.
    pub const fn class(self) -> CodeClass {
        match self.0 {
            // TIMEOUT_EXCEEDED, TOO_SLOW, TOO_MANY_SIMULTANEOUS_QUERIES, NO_FREE_CONNECTION, SOCKET_TIMEOUT,
            // NETWORK_ERROR, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS,
            // ALL_CONNECTION_TRIES_FAILED, TOO_FEW_LIVE_REPLICAS, UNKNOWN_STATUS_OF_INSERT, ABORTED,
            // UNSATISFIED_QUORUM…, SESSION_NOT_FOUND, SESSION_IS_LOCKED, SERVER_OVERLOADED, KEEPER_EXCEPTION, POCO_EXCEPTION, UNKNOWN_EXCEPTION.
            159
            | 160
            | 164
            | 202
            | 203
            | 209
            | 210
            | 241..=243
            | 252
            | 279
            | 285
            | 286
            | 319
            | 372
            | 373
            | 236
            | 425
            | 745
            | 999
            | 1000
            | 1001
            | 1002 => CodeClass::Transient,
            // UNKNOWN_IDENTIFIER, NO_SUCH_COLUMN_IN_TABLE, NUMBER_OF_COLUMNS_DOESNT_MATCH, CANNOT_PARSE_TEXT,
            // TYPE_MISMATCH, UNKNOWN_TABLE, UNKNOWN_DATABASE, INCORRECT_DATA, CANNOT_CONVERT_TYPE.
            6 | 16 | 20 | 47 | 53 | 60 | 70 | 81 | 117 => CodeClass::Schema,
            394 => CodeClass::Killed,
            // UNKNOWN_USER, READONLY, WRONG_PASSWORD, REQUIRED_PASSWORD, ACCESS_DENIED, AUTHENTICATION_FAILED.
            192..=194 | 497 | 516 => CodeClass::Access,
            _ => CodeClass::Permanent,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl CodeClass {
    /// The class as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "server_transient",
            Self::Schema => "server_schema",
            Self::Killed => "server_killed",
            Self::Access => "server_access",
            Self::Permanent => "server_permanent",
        }
    }
}

/// A request to ClickHouse that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened: the server has seen nothing of the request.
    #[error("no connection to ClickHouse")]
    Connect(#[source] clickhouse::error::Error),
    /// The connection broke, or what came back could not be read. What was sent may have been done.
    #[error("the connection to ClickHouse broke")]
    Network(#[source] clickhouse::error::Error),
    /// No answer came in time. What was sent may have been done, or may still be running.
    #[error("ClickHouse did not answer in time")]
    Deadline,
    /// The server answered with an exception.
    #[error("ClickHouse answered with exception {code}")]
    Server {
        /// Its code.
        code: Code,
        /// What the server said. It can quote values of rows, so it is never logged on the happy path.
        #[source]
        source: clickhouse::error::Error,
    },
    /// The request could not be built, or the answer has another shape than the query asked for.
    #[error("the request to ClickHouse or its answer is malformed")]
    Malformed(#[source] clickhouse::error::Error),
    /// The table is missing something without which rows could be there twice.
    #[error("table {table} cannot take events: {reason}")]
    UnfitTable {
        /// The table.
        table: TableName,
        /// What it lacks.
        reason: UnfitReason,
    },
    /// The table takes none of the batch's new columns the way it said it would.
    #[error("the columns of {table} keep changing while rows are encoded")]
    UnstableSchema {
        /// The table.
        table: TableName,
    },
    /// A migration that this build carries and the one recorded in the database are not the same text.
    #[error("migration {version} was changed after it had been applied")]
    ChangedMigration {
        /// Its number.
        version: u32,
    },
    /// The database records a migration that this build does not carry.
    #[error("migration {version} was applied by a newer build")]
    UnknownMigration {
        /// Its number.
        version: u32,
    },
}

/// What a table lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitReason {
    /// There is no such table.
    #[error("it does not exist")]
    Missing,
    /// A column cannot be moved to another type.
    #[error("a column cannot be of another type: {0}")]
    Retype(String),
    /// A workspace's view of a shared table would have its name.
    #[error("a view of a shared table was to have its name, and it is a {0}")]
    NotAView(String),
    /// What it is to be like cannot be read: a newer release set it, perhaps.
    #[error("the setting {0}")]
    Settings(String),
    /// Its engine does not write rows itself, so a token would be taken and not kept.
    #[error("its engine {0} is not one of the MergeTree family")]
    Engine(String),
    /// Without a window the server takes a deduplication token and ignores it.
    #[error("non_replicated_deduplication_window is {found}, at least {wanted} is needed")]
    Window {
        /// What the table has; 0 where it is not set.
        found: u64,
        /// What is needed.
        wanted: u64,
    },
    /// Rows of one month would be spread over several partitions, and a token covers one.
    #[error("its partition key is {0}, and must be {wanted} or nothing", wanted = crate::layout::PARTITION_KEY)]
    PartitionKey(String),
    /// Every attempt at a block would put its rows into the view's target once more.
    #[error(
        "view {view} writes to {target}, whose deduplication window is {found}; at least {wanted} is needed"
    )]
    ViewTarget {
        /// The view.
        view: String,
        /// The table that it writes to.
        target: String,
        /// The window that the target has; 0 where it has none.
        found: u64,
        /// What is needed.
        wanted: u64,
    },
    /// A column that every row needs is not there or of another type.
    #[error("column {name} must be {wanted}, it is {found:?}")]
    Column {
        /// The column.
        name: &'static str,
        /// The type it must have.
        wanted: &'static str,
        /// The type it has; nothing where there is no such column.
        found: Option<String>,
    },
}

impl Error {
    /// A short name for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Network(_) => "network",
            Self::Deadline => "deadline",
            Self::Server { code, .. } => code.class().as_str(),
            Self::Malformed(_) => "malformed",
            Self::UnfitTable { .. } => "unfit_table",
            Self::UnstableSchema { .. } => "unstable_schema",
            Self::ChangedMigration { .. } => "changed_migration",
            Self::UnknownMigration { .. } => "unknown_migration",
        }
    }

    /// Whether the same request may succeed later. For an insert this says nothing about whether it was
    /// applied: see [`crate::insert::Outcome`].
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Connect(_) | Self::Network(_) | Self::Deadline => Retry::Transient,
            Self::Server { code, .. } => match code.class() {
                CodeClass::Transient | CodeClass::Killed => Retry::Transient,
                CodeClass::Schema => Retry::AfterSchema,
                CodeClass::Access | CodeClass::Permanent => Retry::Permanent,
            },
            Self::UnstableSchema { .. } => Retry::AfterSchema,
            Self::Malformed(_)
            | Self::UnfitTable { .. }
            | Self::ChangedMigration { .. }
            | Self::UnknownMigration { .. } => Retry::Permanent,
        }
    }

    /// Whether it is about one table, and says nothing of others on the same server.
    pub const fn is_of_one_table(&self) -> bool {
        match self {
            Self::UnfitTable { .. } | Self::UnstableSchema { .. } => true,
            Self::Server { code, .. } => match code.class() {
                CodeClass::Transient => matches!(*code, Code::TABLE_IS_READ_ONLY | Code::TOO_MANY_PARTS),
                CodeClass::Killed => false,
                CodeClass::Schema | CodeClass::Access | CodeClass::Permanent => true,
            },
            _ => false,
        }
    }

    /// Whether a row may be the cause: one that breaks a constraint, or for which a default cannot be computed.
    pub const fn may_be_a_row(&self) -> bool {
        match self {
            Self::Server { code, .. } => matches!(code.class(), CodeClass::Schema | CodeClass::Permanent),
            _ => false,
        }
    }

    /// What the server said, for people who may see values of rows.
    pub fn said(&self) -> Option<String> {
        match self {
            Self::Server { source, .. } => Some(source.to_string()),
            _ => None,
        }
    }

    /// The view that an insert failed in, `database.view`, where the server names one. Its rows are then in the table.
    pub fn view(&self) -> Option<String> {
        let said = self.said()?;
        let (_, behind) = said.split_once("while pushing to view ")?;
        let name = behind.split([' ', '(', ',']).next()?;
        Some(name.trim_end_matches(['.', ':']).to_owned())
    }

    /// The exception's code, where the server sent one.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<clickhouse::error::Error> for Error {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error as Client;
        match &error {
            Client::TimedOut => Self::Deadline,
            Client::Network(source) => {
                let connect = source
                    .downcast_ref::<hyper_util::client::legacy::Error>()
                    .is_some_and(hyper_util::client::legacy::Error::is_connect);
                if connect {
                    Self::Connect(error)
                } else {
                    Self::Network(error)
                }
            }
            Client::BadResponse(text) => match code_of(text) {
                Some(code) => Self::Server { code, source: error },
                // A proxy's answer, or one without a readable body: as uncertain as a broken connection.
                None => Self::Network(error),
            },
            Client::Decompression(_) => Self::Network(error),
            _ => Self::Malformed(error),
        }
    }
}

/// The code in an exception's text, `Code: 60. DB::Exception: …`. The client puts the code from the header
/// `X-ClickHouse-Exception-Code` into this form where there is no readable body.
fn code_of(text: &str) -> Option<Code> {
    let (_, behind) = text.split_once("Code: ")?;
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Error {
        clickhouse::error::Error::BadResponse(text.to_owned()).into()
    }

    #[test]
    fn the_code_is_read_from_the_exception() {
        let error =
            from_text("Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE) (version 26.7)");
        assert_eq!(error.code(), Some(Code(60)));
        assert_eq!(
            (error.kind(), error.retry()),
            ("server_schema", Retry::AfterSchema)
        );
        assert_eq!(from_text("Code: 252").retry(), Retry::Transient);
        assert_eq!(from_text("Code: 497").retry(), Retry::Permanent);
    }

    #[test]
    fn the_view_that_failed_is_named() {
        let error = from_text(
            "Code: 395. DB::Exception: Value is non-zero: while executing 'FUNCTION x : 1': while pushing to view ws.v \
             (5e683840-6fac-4ff6-ac99-2b4e17fe9f05). (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7)",
        );
        assert_eq!(error.view().as_deref(), Some("ws.v"));
        let error =
            from_text("Code: 395. DB::Exception: non-zero: while pushing to view ws.v. (X) (version 26.7)");
        assert_eq!(error.view().as_deref(), Some("ws.v"));
        assert_eq!(from_text("Code: 395. DB::Exception: non-zero").view(), None);
    }

    #[test]
    fn an_answer_without_a_code_is_as_uncertain_as_a_broken_connection() {
        let error = from_text("502 Bad Gateway");
        assert_eq!((error.kind(), error.code()), ("network", None));
    }

    #[test]
    fn the_display_of_an_error_does_not_quote_what_the_server_said() {
        let error = from_text("Code: 53. DB::Exception: secret value of a row");
        assert!(!error.to_string().contains("secret"));
        assert!(
            std::error::Error::source(&error)
                .expect("kept")
                .to_string()
                .contains("secret")
        );
    }
}
