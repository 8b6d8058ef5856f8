//! Migrations of the bulker's own tables, carried in the binary.
//!
//! Each is a pair of files in `migrations/clickhouse/`, `NNNN_name.up.sql` and `.down.sql`, of statements that end
//! with `;` at the end of a line. ClickHouse has no transactions over DDL, so every statement must be safe to run
//! twice (`IF NOT EXISTS`, `IF EXISTS`): what was interrupted is run again from its start. Event tables are not
//! made here: they follow their events.

use std::collections::BTreeMap;

use crate::client::Warehouse;
use crate::error::Error;
use crate::layout::{self, Layout};
use crate::name::Database;

/// The database that holds the bulker's own tables unless configured otherwise.
pub const DATABASE: &str = "millrace";

/// One step from a schema to the next, and back.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number; they are applied in this order.
    pub version: u32,
    /// What it does, from its file's name.
    pub name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($version:literal, $file:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../../migrations/clickhouse/", $file, ".up.sql")),
            down: include_str!(concat!("../../../migrations/clickhouse/", $file, ".down.sql")),
        }
    };
}

/// All migrations, in order.
pub const MIGRATIONS: [Migration; 3] = [
    migration!(1, "0001_ledger", "ledger"),
    migration!(2, "0002_accounts", "accounts"),
    migration!(3, "0003_replays", "replays"),
];

/// Where a migration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The migration's number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether it is applied.
    pub applied: bool,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct RecordRow {
    version: u32,
    name: String,
    applied: bool,
    checksum: u64,
}

impl Migration {
    /// FNV-1a 64 of the up and the down file.
    fn checksum(&self) -> u64 {
        self.up
            .bytes()
            .chain([0])
            .chain(self.down.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }
}

impl Warehouse {
    /// Applies what is not applied yet, in order, and returns what it applied.
    ///
    /// # Errors
    /// The server does not answer or refuses; a migration was changed after it had been applied, or one is
    /// applied that this build does not know.
    ///
    /// # Cancellation
    /// A migration may be applied in part; calling again runs it from its start.
    pub async fn migrate_up(&self, database: &Database) -> Result<Vec<Status>, Error> {
        self.execute(&layout::create_database(database, &Layout::default()))
            .await?;
        self.execute(&create_records(database)).await?;
        let recorded = self.records(database).await?;
        check(&recorded)?;
        let mut done = Vec::new();
        for migration in &MIGRATIONS {
            if recorded
                .get(&migration.version)
                .is_some_and(|record| record.applied)
            {
                continue;
            }
            self.run(database, migration, true).await?;
            done.push(Status {
                version: migration.version,
                name: migration.name.to_owned(),
                applied: true,
            });
        }
        Ok(done)
    }

    /// Takes back the migration that was applied last, and returns it; nothing where none is applied.
    ///
    /// # Errors
    /// As [`Self::migrate_up`].
    ///
    /// # Cancellation
    /// As [`Self::migrate_up`].
    pub async fn migrate_down(&self, database: &Database) -> Result<Option<Status>, Error> {
        self.execute(&layout::create_database(database, &Layout::default()))
            .await?;
        self.execute(&create_records(database)).await?;
        let recorded = self.records(database).await?;
        check(&recorded)?;
        let applied = |migration: &&Migration| {
            recorded
                .get(&migration.version)
                .is_some_and(|record| record.applied)
        };
        let Some(migration) = MIGRATIONS.iter().rev().find(applied) else {
            return Ok(None);
        };
        self.run(database, migration, false).await?;
        Ok(Some(Status {
            version: migration.version,
            name: migration.name.to_owned(),
            applied: false,
        }))
    }

    /// Where every migration stands, those included that a newer build applied. Changes nothing.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn migration_status(&self, database: &Database) -> Result<Vec<Status>, Error> {
        let recorded = match self.records(database).await {
            Ok(recorded) => recorded,
            // UNKNOWN_TABLE, UNKNOWN_DATABASE: nothing was ever applied here.
            Err(error) if error.code().is_some_and(|code| matches!(code.0, 60 | 81)) => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let mut status: BTreeMap<u32, Status> = BTreeMap::new();
        for record in recorded.into_values() {
            let RecordRow {
                version,
                name,
                applied,
                ..
            } = record;
            status.insert(
                version,
                Status {
                    version,
                    name,
                    applied,
                },
            );
        }
        for migration in &MIGRATIONS {
            status.entry(migration.version).or_insert_with(|| Status {
                version: migration.version,
                name: migration.name.to_owned(),
                applied: false,
            });
        }
        Ok(status.into_values().collect())
    }

    async fn run(&self, database: &Database, migration: &Migration, up: bool) -> Result<(), Error> {
        let client = self.client().clone().with_database(database.as_str());
        for statement in statements(if up { migration.up } else { migration.down }) {
            self.bounded(client.query(&statement.replace('?', "??")).execute())
                .await?;
        }
        let record = client
            .query("INSERT INTO migrations (version, name, applied, checksum) SETTINGS async_insert = 0 VALUES (?, ?, ?, ?)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(up)
            .bind(migration.checksum());
        self.bounded(record.execute()).await
    }

    /// The last record of each migration.
    async fn records(&self, database: &Database) -> Result<BTreeMap<u32, RecordRow>, Error> {
        let sql = format!(
            "SELECT version, argMax(name, at) AS name, argMax(applied, at) AS applied, argMax(checksum, at) AS checksum \
             FROM {}.migrations GROUP BY version",
            database.quoted()
        );
        let rows: Vec<RecordRow> = self.bounded(self.client().query(&sql).fetch_all()).await?;
        Ok(rows.into_iter().map(|row| (row.version, row)).collect())
    }
}

fn create_records(database: &Database) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {}.migrations (version UInt32, name String, applied Bool, checksum UInt64, \
         at DateTime64(6, 'UTC') DEFAULT now64(6)) ENGINE = MergeTree ORDER BY (version, at)",
        database.quoted()
    )
}

fn check(recorded: &BTreeMap<u32, RecordRow>) -> Result<(), Error> {
    for record in recorded.values().filter(|record| record.applied) {
        let version = record.version;
        let known = MIGRATIONS.iter().find(|migration| migration.version == version);
        let migration = known.ok_or(Error::UnknownMigration { version })?;
        if migration.checksum() != record.checksum {
            return Err(Error::ChangedMigration { version });
        }
    }
    Ok(())
}

/// The statements of a file: each ends with `;` at the end of a line; lines that start with `--` are left out.
fn statements(file: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    for line in file.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let (text, ends) = match line.trim_end().strip_suffix(';') {
            Some(text) => (text, true),
            None => (line, false),
        };
        if let Some(last) = statements.last_mut() {
            last.push_str(text);
            last.push('\n');
        }
        if ends {
            statements.push(String::new());
        }
    }
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_at_semicolons_that_end_a_line() {
        let file = "-- a comment;\nCREATE TABLE a\n(\n  x String DEFAULT ';'\n);\n\nDROP TABLE b;\n-- end\n";
        assert_eq!(
            statements(file),
            [
                "CREATE TABLE a\n(\n  x String DEFAULT ';'\n)\n",
                "\nDROP TABLE b\n"
            ]
        );
    }

    #[test]
    fn versions_count_up_without_gaps() {
        for (expected, migration) in (1..).zip(&MIGRATIONS) {
            assert_eq!(migration.version, expected, "{}", migration.name);
            assert!(!statements(migration.up).is_empty() && !statements(migration.down).is_empty());
        }
    }
}
