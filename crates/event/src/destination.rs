//! Settings of a destination: what its row in Postgres may say, read strictly, and what it means where it says nothing.
//!
//! A setting that is not set is left to the process that uses it, so that a better default reaches everybody. What is
//! stored is checked when it is set and again whenever it is read: a newer release may have written it.

mod clickhouse;
mod codec;
/// A table in PostgreSQL.
pub mod postgres;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use clickhouse::{ClickHouse, Cluster, Compression, MAX_COLUMNS, TableLayout, Ttl};
pub use codec::Codec;
pub use postgres::{Postgres, SealedUrl};

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A table in ClickHouse.
    ClickHouse,
    /// A table in PostgreSQL.
    Postgres,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::ClickHouse, Self::Postgres];

    /// Its spelling in the store and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| InvalidSetting::new("kind", "is `clickhouse` or `postgres`"))
    }
}

/// A setting that is none, or has a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` {reason}")]
pub struct InvalidSetting {
    /// The setting as it was named.
    pub name: String,
    /// What is wrong with it and what would be right, as the end of a sentence.
    pub reason: String,
}

impl InvalidSetting {
    /// A fault of that setting.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
        }
    }
}

/// The settings of a destination, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Settings {
    /// Of a table in ClickHouse.
    ClickHouse(ClickHouse),
    /// Of a table in PostgreSQL.
    Postgres(Postgres),
}

impl Settings {
    /// Nothing set.
    pub fn none(kind: Kind) -> Self {
        match kind {
            Kind::ClickHouse => Self::ClickHouse(ClickHouse::default()),
            Kind::Postgres => Self::Postgres(Postgres::default()),
        }
    }

    /// Reads what is stored.
    ///
    /// # Errors
    /// The first setting that is not known, has a value that it cannot have, or contradicts another.
    pub fn read(kind: Kind, object: &Map<String, Value>) -> Result<Self, InvalidSetting> {
        let mut settings = Self::none(kind);
        for (name, value) in object {
            settings.set(name, value)?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// What they are settings of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ClickHouse(_) => Kind::ClickHouse,
            Self::Postgres(_) => Kind::Postgres,
        }
    }

    /// Sets one; `null` unsets it. Whether it goes with the others is for [`Self::check`] to say.
    ///
    /// # Errors
    /// It is not known, or cannot have that value.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), InvalidSetting> {
        match self {
            Self::ClickHouse(settings) => settings.set(name, value),
            Self::Postgres(settings) => settings.set(name, value),
        }
    }

    /// Refuses settings that contradict one another.
    ///
    /// # Errors
    /// The one that does not go with another.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        match self {
            Self::ClickHouse(settings) => settings.check(),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// As they are stored: only what is set.
    pub fn to_json(&self) -> Value {
        // Names and values of a closed form: nothing in them can fail to serialize.
        serde_json::to_value(self).unwrap_or_else(|_| Value::Object(Map::new()))
    }

    /// Those of a table in ClickHouse, where it is one.
    pub const fn clickhouse(&self) -> Option<&ClickHouse> {
        match self {
            Self::ClickHouse(settings) => Some(settings),
            Self::Postgres(_) => None,
        }
    }
}

/// Reads a value; `null` is no value.
fn value<T: serde::de::DeserializeOwned>(
    name: &str,
    value: &Value,
    allowed: &str,
) -> Result<Option<T>, InvalidSetting> {
    serde_json::from_value(value.clone())
        .map_err(|_| InvalidSetting::new(name, format!("is {allowed}, not {value}")))
}

fn unknown(kind: Kind, name: &str, names: &[&str]) -> InvalidSetting {
    let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    InvalidSetting::new(
        name,
        format!(
            "is no setting of a {kind} destination; these are: {}",
            known.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests;
