//! Names of databases and tables, checked once and quoted wherever they are put into SQL.

use std::fmt;
use std::str::FromStr;

/// Longer names are refused: ClickHouse keeps them as file names.
const MAX_BYTES: usize = 128;

/// The name of a database: ASCII letters, digits, `_` and `-`, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Database(String);

/// The name of a table within its database, written `database.table`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    database: Database,
    table: String,
}

impl Database {
    /// The name as it is written, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name quoted for SQL.
    pub fn quoted(&self) -> String {
        format!("`{}`", self.0)
    }
}

impl FromStr for Database {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        identifier(text).map(Self)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TableName {
    /// The table `table` of `database`.
    ///
    /// # Errors
    /// `table` is not a name of the form that [`Database`] has too.
    pub fn new(database: Database, table: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            database,
            table: identifier(table)?,
        })
    }

    /// The database that holds the table.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The table's name without its database.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Both names quoted for SQL.
    pub fn quoted(&self) -> String {
        format!("`{}`.`{}`", self.database.0, self.table)
    }
}

impl FromStr for TableName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (database, table) = text.split_once('.').ok_or_else(|| InvalidName(text.to_owned()))?;
        Self::new(database.parse()?, table)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database.0, self.table)
    }
}

/// A name that is empty, too long, or made of other characters than ASCII letters, digits, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of ASCII letters, digits, underscores and hyphens")]
pub struct InvalidName(String);

fn identifier(text: &str) -> Result<String, InvalidName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(allowed) {
        return Err(InvalidName(text.chars().take(MAX_BYTES).collect()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_quoted_part_by_part() {
        let name: TableName = "ws_demo.events-2".parse().expect("a name");
        assert_eq!(name.quoted(), "`ws_demo`.`events-2`");
        assert_eq!(name.to_string(), "ws_demo.events-2");
    }

    #[test]
    fn nothing_that_could_leave_its_quotes_is_a_name() {
        for text in [
            "", "events", ".events", "db.", "a.b.c", "a.b`c", "a.b c", "a.é", "a.b\\c", "a.b?",
        ] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
        assert!("x".repeat(129).parse::<Database>().is_err());
    }
}
