//! `millctl destination …`

mod address;

use anyhow::{Context, Result, bail};
use millrace_store::destinations::{Configured, InvalidSetting, Kind, NewDestination, Settings, TableLayout};
use millrace_store::{Destinations, Workspaces};
use millrace_warehouse::{Database, Layout, TableName, layout};
use serde_json::{Value, json};

use crate::cli::Destination;
use crate::output::Answer;
use crate::parts::Parts;

/// Stands for an address: what is sealed tells nobody anything.
const SEALED: &str = "(sealed)";

pub(super) async fn run(command: Destination, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (destinations, workspaces) = (Destinations::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Destination::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let listed = destinations.list(&workspace).await?;
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|one| {
                    let destination = &one.destination;
                    vec![
                        destination.name.clone(),
                        destination.id.to_string(),
                        one.settings.kind().to_string(),
                        format!("{}.{}", destination.database, destination.table),
                        said(&one.settings),
                    ]
                })
                .collect();
            let objects: Vec<Value> = listed.iter().map(object).collect();
            Answer::table(
                json!({ "destinations": objects }),
                &["NAME", "ID", "KIND", "TABLE", "SETTINGS"],
                &rows,
            )
        }
        Destination::Show {
            workspace,
            destination,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let one = destinations.find(&workspace, &destination).await?;
            let mut shown = object(&one);
            let statements = pending(&one, parts).await?;
            shown["pending"] = json!(statements);
            let line = format!(
                "{}\t{} {}.{}\t{}",
                one.destination.name,
                one.settings.kind(),
                one.destination.database,
                one.destination.table,
                said(&one.settings)
            );
            Answer::new(
                shown,
                format!("{line}{}", lines("\nits table is not so yet:", &statements)),
            )
        }
        Destination::Create {
            workspace,
            name,
            kind,
            database,
            table,
            settings,
            address,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let mut settings = new_settings(kind, &settings.settings)?;
            let sealed = address::seal(&address, &workspace, name.as_str(), parts)?;
            match sealed {
                Some(sealed) => settings.set(address::SETTING, &sealed)?,
                None if kind == Kind::Postgres => {
                    bail!("a postgres destination needs `--url-file` or `--url-env`")
                }
                None => {}
            }
            let database = match database {
                Some(database) => database,
                None => {
                    destinations
                        .find(&workspace, "default")
                        .await?
                        .destination
                        .database
                }
            };
            // Names are judged before anything is made.
            table_name(&database, &table)?;
            let new = NewDestination {
                name,
                database,
                table,
                settings,
            };
            let (made, created) = destinations.create(&workspace, &new).await?;
            let statements = ensure(&made, parts).await?;
            if created {
                parts.tell_configured().await;
            }
            let state = if created { "made" } else { "there already" };
            let destination = &made.destination;
            let mut shown = object(&made);
            shown["created"] = json!(created);
            shown["statements"] = json!(statements);
            let id = if created && parts.is_dry_run() {
                // The id that was tried is none.
                shown["id"] = Value::Null;
                String::new()
            } else {
                format!(" ({})", destination.id)
            };
            let line = format!(
                "{}{id} is {state}; its rows go to {}.{}{}",
                destination.name,
                destination.database,
                destination.table,
                lines("\nits table:", &statements)
            );
            Answer::new(shown, line)
        }
        Destination::Set {
            workspace,
            destination,
            mut changes,
            address,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let name = destinations
                .find(&workspace, &destination)
                .await?
                .destination
                .name;
            let sealed = address::seal(&address, &workspace, &name, parts)?;
            changes.extend(sealed.map(|sealed| (address::SETTING.to_owned(), sealed)));
            let (before, after) = destinations.set(&workspace, &destination, &changes).await?;
            parts.tell_configured().await;
            let statements = ensure(&after, parts).await?;
            let shown = json!({
                "destination": after.destination.id, "before": before.settings, "after": after.settings,
                "statements": statements,
            });
            let name = &after.destination.name;
            Answer::new(
                shown,
                format!(
                    "{name} has {}; before: {}{}",
                    said(&after.settings),
                    said(&before.settings),
                    lines("\nits table:", &statements)
                ),
            )
        }
    }
}

/// Settings of something new.
pub(super) fn new_settings(kind: Kind, given: &[(String, Value)]) -> Result<Settings, InvalidSetting> {
    let mut settings = Settings::none(kind);
    for (name, value) in given {
        settings.set(name, value)?;
    }
    settings.check()?;
    Ok(settings)
}

/// Makes what a destination's rows go into, and has it follow its settings. Gives the statements that its table took
/// to be so, which a dry run only gives.
pub(super) async fn ensure(one: &Configured, parts: &Parts) -> Result<Vec<String>> {
    let Some(settings) = one.settings.clickhouse() else {
        return Ok(Vec::new());
    };
    let statements = pending(one, parts).await?;
    if parts.is_dry_run() {
        return Ok(statements);
    }
    let (named, table) = tables(one, parts)?;
    let warehouse = parts.warehouse();
    let made = async {
        warehouse.create_table(&table, &Layout::from(settings)).await?;
        if settings.layout() == TableLayout::Shared {
            warehouse
                .create_share(&table, &named, one.workspace.as_str())
                .await?;
        }
        Ok::<_, millrace_warehouse::Error>(())
    };
    made.await
        .with_context(|| format!("the destination is there, its table {table} could not be made"))?;
    Ok(statements)
}

/// The statements by which the table would be as its settings say.
async fn pending(one: &Configured, parts: &Parts) -> Result<Vec<String>> {
    let Some(settings) = one.settings.clickhouse() else {
        return Ok(Vec::new());
    };
    let (_, table) = tables(one, parts)?;
    Ok(parts.warehouse().pending(&table, &Layout::from(settings)).await?)
}

/// A destination's table as it is named, and the one that its rows are in.
pub(super) fn tables(one: &Configured, parts: &Parts) -> Result<(TableName, TableName)> {
    let named = table_name(&one.destination.database, &one.destination.table)?;
    let is_shared = one
        .settings
        .clickhouse()
        .is_some_and(|settings| settings.layout() == TableLayout::Shared);
    if !is_shared {
        return Ok((named.clone(), named));
    }
    let shared = layout::shared_database(&parts.system_database()?)?;
    let table = TableName::new(shared, named.table())?;
    Ok((named, table))
}

pub(super) fn table_name(database: &str, table: &str) -> Result<TableName> {
    let database: Database = database
        .parse()
        .with_context(|| format!("`{database}` is not the name of a database"))?;
    TableName::new(database, table).with_context(|| format!("`{table}` is not the name of a table"))
}

fn object(one: &Configured) -> Value {
    let mut settings = json!(one.settings);
    if let Some(sealed) = settings.get_mut(address::SETTING) {
        *sealed = json!(SEALED);
    }
    json!({
        "destination": one.destination.id, "name": one.destination.name, "workspace": one.workspace,
        "kind": one.settings.kind(), "database": one.destination.database, "table": one.destination.table,
        "settings": settings, "version": one.destination.config_version,
    })
}

/// Settings for people.
fn said(settings: &Settings) -> String {
    match settings.to_json() {
        Value::Object(object) if !object.is_empty() => {
            let one = |(name, value): (&String, &Value)| match value {
                _ if name == address::SETTING => format!("{name}={SEALED}"),
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            };
            object.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        _ => "no settings".to_owned(),
    }
}

pub(super) fn lines(before: &str, statements: &[String]) -> String {
    match statements {
        [] => String::new(),
        statements => format!("{before}\n  {}", statements.join("\n  ")),
    }
}
