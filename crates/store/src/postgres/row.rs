//! Rows into domain types: what cannot be is [`Error::Corrupt`], never a panic.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_event::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSql;

use crate::{Entity, Error, Part};

const fn corrupt(what: &'static str) -> Error {
    Error::Corrupt {
        part: Part::Postgres,
        what,
    }
}

/// Typed access to the columns of a row, by name.
pub(crate) trait Fields {
    /// The column as its SQL type gives it.
    fn field<'row, T: FromSql<'row>>(&'row self, column: &'static str) -> Result<T, Error>;

    /// A text column read as a domain type.
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, Error> {
        self.field::<&str>(column)?.parse().map_err(|_| corrupt(column))
    }

    /// A version, which counts from 1.
    fn version(&self, column: &'static str) -> Result<u32, Error> {
        u32::try_from(self.field::<i32>(column)?).map_err(|_| corrupt(column))
    }

    /// A `timestamptz`.
    fn time(&self, column: &'static str) -> Result<Timestamp, Error> {
        let time: SystemTime = self.field(column)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| corrupt(column))?;
        i64::try_from(since.as_millis())
            .ok()
            .and_then(Timestamp::from_millis)
            .ok_or(corrupt(column))
    }

    /// A `jsonb` column read as a domain type.
    fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, Error> {
        serde_json::from_value(self.field(column)?).map_err(|_| corrupt(column))
    }
}

impl Fields for Row {
    fn field<'row, T: FromSql<'row>>(&'row self, column: &'static str) -> Result<T, Error> {
        self.try_get(column).map_err(|_| corrupt(column))
    }
}

/// Turns the violation of a unique constraint into [`Error::Taken`].
pub(crate) trait Taken<T> {
    /// `entity` and `name` are what was to be made.
    fn or_taken(self, entity: Entity, name: impl ToString) -> Result<T, Error>;
}

impl<T> Taken<T> for Result<T, tokio_postgres::Error> {
    fn or_taken(self, entity: Entity, name: impl ToString) -> Result<T, Error> {
        self.map_err(|error| {
            if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
                Error::Taken {
                    entity,
                    name: name.to_string(),
                    by: String::new(),
                }
            } else {
                error.into()
            }
        })
    }
}
