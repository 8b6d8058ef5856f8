//! The schema's history: ordered, checked against what was applied, one runner at a time.
//!
//! Each migration runs in a transaction of its own together with the row that records it, under an advisory
//! lock that the transaction holds. Runners that start at once take turns, and one that dies leaves nothing
//! half done.

use deadpool_postgres::Transaction;
use millrace_event::Timestamp;
use sha2::{Digest, Sha256};

use super::{Fields, Postgres, within};
use crate::Error;

/// A step of the schema, forth and back.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place, from 1, without gaps.
    pub version: i32,
    /// What it is about, as in the names of its files.
    pub name: &'static str,
    /// SQL that takes the step.
    pub up: &'static str,
    /// SQL that takes it back.
    pub down: &'static str,
}

macro_rules! migration {
    ($version:literal, $file:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!(
                "../../../../migrations/postgres/",
                $file,
                "_",
                $name,
                ".up.sql"
            )),
            down: include_str!(concat!(
                "../../../../migrations/postgres/",
                $file,
                "_",
                $name,
                ".down.sql"
            )),
        }
    };
}

/// Every migration, in order. A file that is not in this list fails a test of this crate.
pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001", "workspaces"),
    migration!(2, "0002", "credentials"),
    migration!(3, "0003", "functions"),
    migration!(4, "0004", "rules"),
    migration!(5, "0005", "key_ip"),
    migration!(6, "0006", "reach"),
    migration!(7, "0007", "quarantine"),
    migration!(8, "0008", "destinations"),
];

/// Any number that no other program takes as its lock in this database.
const LOCK: i64 = 0x6d69_6c6c_7261_6365;

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its place.
    pub version: i32,
    /// What it is about.
    pub name: String,
    /// When it was applied; `None` while it is pending.
    pub applied_at: Option<Timestamp>,
    /// False for one that a newer program applied.
    pub known: bool,
}

struct Applied {
    version: i32,
    name: String,
    checksum: Vec<u8>,
    at: Timestamp,
}

impl Migration {
    fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.up.as_bytes()).to_vec()
    }

    fn wrong(&self, reason: &'static str) -> Error {
        Error::Migration {
            version: self.version,
            name: self.name.to_owned(),
            reason,
        }
    }
}

/// Applies what is pending; gives what it applied.
///
/// # Errors
/// When a migration fails (nothing of it stays), or one that was applied has another text now.
///
/// # Cancellation
/// The migration that runs is rolled back; those before it stay.
pub async fn up(postgres: &Postgres) -> Result<Vec<&'static Migration>, Error> {
    let mut done = Vec::new();
    loop {
        let step = within(postgres.migration_timeout, async {
            let mut client = postgres.client().await?;
            let transaction = client.transaction().await?;
            prepare(&transaction).await?;
            let applied = history(&transaction).await?;
            check(&applied)?;
            let Some(next) = MIGRATIONS
                .iter()
                .find(|known| !applied.iter().any(|a| a.version == known.version))
            else {
                transaction.commit().await?;
                return Ok(None);
            };
            transaction.batch_execute(next.up).await?;
            let row = "INSERT INTO migrations (version, name, checksum) VALUES ($1, $2, $3)";
            transaction
                .execute(row, &[&next.version, &next.name, &next.checksum()])
                .await?;
            transaction.commit().await?;
            Ok(Some(next))
        })
        .await?;
        match step {
            Some(migration) => done.push(migration),
            None => return Ok(done),
        }
    }
}

/// Takes back the newest `steps` migrations, newest first; gives what it took back.
///
/// # Errors
/// When a migration fails (nothing of it is taken back), or the newest one is not known to this program.
///
/// # Cancellation
/// The migration that runs stays applied; those taken back before it stay so.
pub async fn down(postgres: &Postgres, steps: usize) -> Result<Vec<&'static Migration>, Error> {
    let mut done = Vec::new();
    while done.len() < steps {
        let step = within(postgres.migration_timeout, async {
            let mut client = postgres.client().await?;
            let transaction = client.transaction().await?;
            prepare(&transaction).await?;
            let applied = history(&transaction).await?;
            let Some(newest) = applied.last() else {
                transaction.commit().await?;
                return Ok(None);
            };
            let Some(known) = MIGRATIONS.iter().find(|known| known.version == newest.version) else {
                let reason = "was applied by a newer program, which must take it back";
                return Err(Error::Migration {
                    version: newest.version,
                    name: newest.name.clone(),
                    reason,
                });
            };
            check(&applied)?;
            transaction.batch_execute(known.down).await?;
            transaction
                .execute("DELETE FROM migrations WHERE version = $1", &[&known.version])
                .await?;
            transaction.commit().await?;
            Ok(Some(known))
        })
        .await?;
        match step {
            Some(migration) => done.push(migration),
            None => break,
        }
    }
    Ok(done)
}

/// The whole history, pending migrations included, oldest first.
///
/// # Errors
/// When Postgres does not answer.
pub async fn status(postgres: &Postgres) -> Result<Vec<Status>, Error> {
    let applied = postgres
        .call(async {
            let mut client = postgres.client().await?;
            let transaction = client.transaction().await?;
            let exists = transaction
                .query_one("SELECT to_regclass('migrations') IS NOT NULL AS there", &[])
                .await?;
            if exists.field::<bool>("there")? {
                history(&transaction).await
            } else {
                Ok(Vec::new())
            }
        })
        .await?;
    let mut lines: Vec<Status> = MIGRATIONS
        .iter()
        .map(|known| Status {
            version: known.version,
            name: known.name.to_owned(),
            applied_at: applied.iter().find(|a| a.version == known.version).map(|a| a.at),
            known: true,
        })
        .collect();
    let newer = applied
        .into_iter()
        .filter(|a| MIGRATIONS.iter().all(|known| known.version != a.version));
    lines.extend(newer.map(|a| Status {
        version: a.version,
        name: a.name,
        applied_at: Some(a.at),
        known: false,
    }));
    Ok(lines)
}

/// Takes the lock, lifts the time limit of ordinary calls, and makes the table of the history.
async fn prepare(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction
        .batch_execute("SET LOCAL statement_timeout = 0")
        .await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS migrations (
                version    integer PRIMARY KEY,
                name       text NOT NULL,
                checksum   bytea NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )",
        )
        .await?;
    Ok(())
}

async fn history(transaction: &Transaction<'_>) -> Result<Vec<Applied>, Error> {
    let query = "SELECT version, name, checksum, applied_at FROM migrations ORDER BY version";
    let rows = transaction.query(query, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: row.field("version")?,
                name: row.field("name")?,
                checksum: row.field("checksum")?,
                at: row.time("applied_at")?,
            })
        })
        .collect()
}

fn check(applied: &[Applied]) -> Result<(), Error> {
    for known in MIGRATIONS {
        if let Some(applied) = applied.iter().find(|applied| applied.version == known.version)
            && applied.checksum != known.checksum()
        {
            return Err(
                known.wrong("was changed after it was applied; restore its text and add a new migration")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_migration_file_is_in_the_list_and_versions_have_no_gaps() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/postgres");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let listed: BTreeSet<String> = MIGRATIONS
            .iter()
            .flat_map(|known| {
                ["up", "down"].map(|way| format!("{:04}_{}.{way}.sql", known.version, known.name))
            })
            .collect();
        assert_eq!(files, listed);
        let versions: Vec<i32> = MIGRATIONS.iter().map(|known| known.version).collect();
        assert_eq!(versions, (1..).take(MIGRATIONS.len()).collect::<Vec<i32>>());
    }
}
