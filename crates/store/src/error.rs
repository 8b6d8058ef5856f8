//! What can go wrong with a store, by what the caller can do about it.

use std::time::Duration;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        })
    }
}

/// What a name or an id was meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// A workspace.
    Workspace,
    /// A source of events.
    Source,
    /// A place where rows go.
    Destination,
    /// A database and table of a destination.
    Table,
    /// A function.
    Function,
    /// A version of a function.
    FunctionVersion,
    /// A write key.
    Key,
    /// A service token.
    Token,
    /// A field of events.
    Field,
    /// A field's other name.
    Alias,
    /// A secret.
    Secret,
    /// An address that functions may fetch from.
    Origin,
    /// A chain that is held back.
    Quarantine,
}

impl std::fmt::Display for Entity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Workspace => "workspace",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Table => "table",
            Self::Function => "function",
            Self::FunctionVersion => "function version",
            Self::Key => "write key",
            Self::Token => "service token",
            Self::Field => "field",
            Self::Alias => "alias",
            Self::Secret => "secret",
            Self::Origin => "fetch origin",
            Self::Quarantine => "quarantined chain",
        })
    }
}

/// Whether the same call can succeed later without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It can.
    Transient,
    /// It cannot.
    Permanent,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address or another setting of a store cannot be used.
    #[error("the configuration of {part} cannot be used: {reason}")]
    Configuration {
        /// Which store.
        part: Part,
        /// What is wrong with it; never the address, which may hold a password.
        reason: String,
    },
    /// The store cannot be reached, or the connection broke; whether the call took effect is not known.
    #[error("{part} cannot be reached")]
    Unavailable {
        /// Which store.
        part: Part,
        /// What the client saw.
        #[source]
        source: Source,
    },
    /// No answer in time; whether the call took effect is not known.
    #[error("{part} did not answer within {after:?}")]
    Timeout {
        /// Which store.
        part: Part,
        /// How long it was given.
        after: Duration,
    },
    /// Another transaction was in the way; nothing was changed.
    #[error("{part} gave up a transaction in favour of another")]
    Contended {
        /// Which store.
        part: Part,
        /// What it answered.
        #[source]
        source: Source,
    },
    /// The schema is not there, or older than this program: migrations are pending.
    #[error("{part} lacks a part of the schema")]
    Unmigrated {
        /// Which store.
        part: Part,
        /// What it answered.
        #[source]
        source: Source,
    },
    /// The store answered with an error.
    #[error("{part} refused a call")]
    Refused {
        /// Which store.
        part: Part,
        /// What it answered.
        #[source]
        source: Source,
    },
    /// The store holds something that cannot be, or answered in an unknown form.
    #[error("{part} holds a value that cannot be: {what}")]
    Corrupt {
        /// Which store.
        part: Part,
        /// Which value.
        what: &'static str,
    },
    /// No such thing.
    #[error("no {entity} `{name}`")]
    NotFound {
        /// What it was meant to be.
        entity: Entity,
        /// As it was asked for.
        name: String,
    },
    /// The name is taken by something else.
    #[error("the {entity} `{name}` is taken{by}")]
    Taken {
        /// What it was meant to be.
        entity: Entity,
        /// As it was asked for.
        name: String,
        /// By whom, as the end of a sentence; may be empty.
        by: String,
    },
    /// There is no earlier version to return to.
    #[error("function `{name}` has no earlier promotion to return to")]
    NothingToRollBack {
        /// The function.
        name: String,
    },
    /// A value is outside of what is allowed.
    #[error("{what} {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A setting of a destination is none, or cannot have that value.
    #[error("the setting {0}")]
    Setting(#[from] millrace_event::destination::InvalidSetting),
    /// The schema's history is not the one that this program knows.
    #[error("migration {version} ({name}) {reason}")]
    Migration {
        /// Its number.
        version: i32,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Entropy(getrandom::Error),
}

impl Error {
    /// The same for somebody else who asked the same; sources as text.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Timeout { part, after } => Self::Timeout {
                part: *part,
                after: *after,
            },
            Self::Corrupt { part, what } => Self::Corrupt { part: *part, what },
            Self::Refused { part, source } => Self::Refused {
                part: *part,
                source: source.to_string().into(),
            },
            Self::Unavailable { part, source } => Self::Unavailable {
                part: *part,
                source: source.to_string().into(),
            },
            other => Self::Unavailable {
                part: Part::Redis,
                source: other.to_string().into(),
            },
        }
    }

    /// The label of this error in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Configuration { .. } => "configuration",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } => "timeout",
            Self::Contended { .. } => "contended",
            Self::Unmigrated { .. } => "unmigrated",
            Self::Refused { .. } => "refused",
            Self::Corrupt { .. } => "corrupt",
            Self::NotFound { .. } => "not_found",
            Self::Taken { .. } => "taken",
            Self::NothingToRollBack { .. } => "nothing_to_roll_back",
            Self::Invalid { .. } | Self::Setting(_) => "invalid",
            Self::Migration { .. } => "migration",
            Self::Entropy(_) => "entropy",
        }
    }

    /// Whether waiting can help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Contended { .. } => Retry::Transient,
            Self::Configuration { .. }
            | Self::Unmigrated { .. }
            | Self::Refused { .. }
            | Self::Corrupt { .. }
            | Self::NotFound { .. }
            | Self::Taken { .. }
            | Self::NothingToRollBack { .. }
            | Self::Invalid { .. }
            | Self::Setting(_)
            | Self::Migration { .. }
            | Self::Entropy(_) => Retry::Permanent,
        }
    }

    pub(crate) fn not_found(entity: Entity, name: impl ToString) -> Self {
        Self::NotFound {
            entity,
            name: name.to_string(),
        }
    }
}
