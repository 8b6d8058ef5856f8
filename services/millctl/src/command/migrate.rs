//! `millctl migrate …`

mod new;

use std::fmt;

use anyhow::{Context, Result};
use millrace_store::postgres::migrate as postgres;
use serde::Serialize;
use serde_json::json;

use crate::cli::{Migrate, Store};
use crate::output::Answer;
use crate::parts::Parts;

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Clickhouse => "clickhouse",
        })
    }
}

impl Store {
    /// The one that was named, or both, in the order in which they are migrated.
    fn chosen(only: Option<Self>) -> Vec<Self> {
        only.map_or_else(|| vec![Self::Postgres, Self::Clickhouse], |store| vec![store])
    }
}

/// A migration as it is shown.
#[derive(Serialize)]
struct Line {
    store: String,
    version: u64,
    name: String,
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_at: Option<String>,
}

impl Line {
    fn of(store: Store, version: impl TryInto<u64>, name: &str, applied: bool) -> Self {
        let version = version.try_into().unwrap_or_default();
        Self {
            store: store.to_string(),
            version,
            name: name.to_owned(),
            applied,
            applied_at: None,
        }
    }

    fn title(&self) -> String {
        format!("{} {:04} {}", self.store, self.version, self.name)
    }
}

pub(super) async fn run(command: Migrate, parts: &Parts) -> Result<Answer> {
    match command {
        Migrate::Up { store } => {
            let mut done = Vec::new();
            for store in Store::chosen(store) {
                done.extend(
                    up(store, parts)
                        .await
                        .with_context(|| format!("{store} is not up to date"))?,
                );
            }
            let mut lines: Vec<String> = done
                .iter()
                .map(|line| format!("{}: applied", line.title()))
                .collect();
            if lines.is_empty() {
                lines.push("nothing is pending".to_owned());
            }
            Answer::lines(json!({ "applied": done }), lines)
        }
        Migrate::Down { store, steps } => {
            let done = down(store, steps, parts)
                .await
                .with_context(|| format!("{store} is not taken back"))?;
            let mut lines: Vec<String> = done
                .iter()
                .map(|line| format!("{}: taken back", line.title()))
                .collect();
            if lines.is_empty() {
                lines.push("nothing is applied".to_owned());
            }
            Answer::lines(json!({ "taken_back": done }), lines)
        }
        Migrate::Status { store } => {
            let mut all = Vec::new();
            for store in Store::chosen(store) {
                all.extend(status(store, parts).await?);
            }
            let state = |line: &Line| if line.applied { "applied" } else { "pending" }.to_owned();
            let at = |line: &Line| line.applied_at.clone().unwrap_or_default();
            let rows: Vec<Vec<String>> = all
                .iter()
                .map(|line| {
                    vec![
                        line.store.clone(),
                        format!("{:04}", line.version),
                        line.name.clone(),
                        state(line),
                        at(line),
                    ]
                })
                .collect();
            let names = ["STORE", "VERSION", "NAME", "STATE", "APPLIED"];
            Answer::table(json!({ "migrations": all }), &names, &rows)
        }
        Migrate::New { name, store, folder } => {
            let files = new::write(&folder.join(store.to_string()), &name, parts.is_dry_run())?;
            let list = match store {
                Store::Postgres => "crates/store/src/postgres/migrate.rs",
                Store::Clickhouse => "crates/warehouse/src/migrate.rs",
            };
            let shown = files.each_ref().map(|file| file.display().to_string());
            let mut lines = shown.to_vec();
            lines.push(format!(
                "fill both in, and add the migration to MIGRATIONS in {list}"
            ));
            Answer::lines(json!({ "files": shown, "list": list }), lines)
        }
    }
}

async fn up(store: Store, parts: &Parts) -> Result<Vec<Line>> {
    if parts.is_dry_run() {
        let mut pending = status(store, parts).await?;
        pending.retain(|line| !line.applied);
        return Ok(pending);
    }
    Ok(match store {
        Store::Postgres => {
            let done = postgres::up(&parts.postgres()?).await?;
            done.iter()
                .map(|one| Line::of(store, one.version, one.name, true))
                .collect()
        }
        Store::Clickhouse => {
            let done = parts.warehouse().migrate_up(&parts.system_database()?).await?;
            done.iter()
                .map(|one| Line::of(store, one.version, &one.name, true))
                .collect()
        }
    })
}

async fn down(store: Store, steps: usize, parts: &Parts) -> Result<Vec<Line>> {
    if parts.is_dry_run() {
        let mut newest = status(store, parts).await?;
        newest.retain(|line| line.applied);
        newest.reverse();
        newest.truncate(steps);
        return Ok(newest);
    }
    match store {
        Store::Postgres => {
            let done = postgres::down(&parts.postgres()?, steps).await?;
            Ok(done
                .iter()
                .map(|one| Line::of(store, one.version, one.name, false))
                .collect())
        }
        Store::Clickhouse => {
            let (warehouse, database) = (parts.warehouse(), parts.system_database()?);
            let mut done = Vec::new();
            for _ in 0..steps {
                match warehouse.migrate_down(&database).await? {
                    Some(one) => done.push(Line::of(store, one.version, &one.name, false)),
                    None => break,
                }
            }
            Ok(done)
        }
    }
}

async fn status(store: Store, parts: &Parts) -> Result<Vec<Line>> {
    Ok(match store {
        Store::Postgres => {
            let all = postgres::status(&parts.postgres()?).await?;
            all.iter()
                .map(|one| {
                    let applied_at = one.applied_at.map(|at| at.to_string());
                    Line {
                        applied_at,
                        ..Line::of(store, one.version, &one.name, one.applied_at.is_some())
                    }
                })
                .collect()
        }
        Store::Clickhouse => {
            let all = parts
                .warehouse()
                .migration_status(&parts.system_database()?)
                .await?;
            all.iter()
                .map(|one| Line::of(store, one.version, &one.name, one.applied))
                .collect()
        }
    })
}
