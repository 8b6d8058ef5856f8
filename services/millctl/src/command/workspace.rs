//! `millctl workspace …`

use anyhow::Result;
use millrace_store::destinations::{Configured, Kind};
use millrace_store::limits::Rate;
use millrace_store::workspaces::{Change, Limits, NewWorkspace, Tier};
use millrace_store::{Destinations, Workspaces};
use serde_json::{Value, json};

use super::destination::{self, new_settings, table_name};
use super::fields::SEEN;
use crate::cli::{SetWorkspace, Workspace};
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Workspace, parts: &Parts) -> Result<Answer> {
    let workspaces = Workspaces::new(parts.postgres()?);
    match command {
        Workspace::Create {
            name,
            organization,
            tier,
            database,
            table,
            settings,
        } => {
            let settings = new_settings(Kind::ClickHouse, &settings.settings)?;
            let database = database.unwrap_or_else(|| database_name(name.as_str()));
            // Names are judged before anything is made.
            table_name(&database, &table)?;
            let new = NewWorkspace {
                name,
                organization,
                tier,
                database,
                table,
                settings,
            };
            let made = workspaces.create(&new).await?;
            let (database, table) = (&made.destination.database, &made.destination.table);
            // Also for a workspace that was there: the last attempt may have ended here.
            let configured = match made.created {
                true => Configured {
                    destination: made.destination.clone(),
                    workspace: made.workspace.id.clone(),
                    settings: new.settings,
                },
                false => {
                    let destinations = Destinations::new(parts.postgres()?);
                    let id = made.destination.id.as_str();
                    destinations.find(&made.workspace.id, id).await?
                }
            };
            let statements = destination::ensure(&configured, parts).await?;
            let mut object = json!({
                "workspace": made.workspace.id, "source": made.source.id, "destination": made.destination.id,
                "database": database, "table": table, "created": made.created, "statements": statements,
            });
            if made.created && parts.is_dry_run() {
                // Ids that were tried are none.
                for id in ["workspace", "source", "destination"] {
                    object[id] = Value::Null;
                }
            }
            if made.created {
                parts.tell_configured().await;
            }
            let state = if made.created { "made" } else { "there already" };
            let workspace = &made.workspace.name;
            let id = match made.created && parts.is_dry_run() {
                true => String::new(),
                false => format!(" ({})", made.workspace.id),
            };
            let lines = destination::lines("\nits table:", &statements);
            Answer::new(
                object,
                format!("{workspace}{id} is {state}; its rows go to {database}.{table}{lines}"),
            )
        }
        Workspace::Set(set) => self::set(set, parts, &workspaces).await,
        Workspace::List => {
            let listed = workspaces.list().await?;
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|one| {
                    vec![
                        one.name.clone(),
                        one.id.to_string(),
                        one.organization.to_string(),
                        one.tier.to_string(),
                        allowed(one.tier, &one.limits),
                    ]
                })
                .collect();
            let objects: Vec<Value> = listed
                .iter()
                .map(|one| {
                    json!({
                        "workspace": one.id, "name": one.name, "organization": one.organization, "tier": one.tier,
                        "limits": one.limits, "created_at": one.created_at,
                    })
                })
                .collect();
            Answer::table(
                json!({ "workspaces": objects }),
                &["NAME", "ID", "ORGANIZATION", "TIER", "LIMITS"],
                &rows,
            )
        }
    }
}

async fn set(set: SetWorkspace, parts: &Parts, workspaces: &Workspaces) -> Result<Answer> {
    let change = Change {
        tier: set.tier,
        events_per_second: set.events_per_second,
        events_per_day: set.events_per_day,
        burst: set.burst,
    };
    let (before, after) = workspaces.set(&set.workspace, change).await?;
    let told = parts.tell_changed(&after.id).await;
    let object = json!({
        "workspace": after.id, "name": after.name,
        "before": { "tier": before.tier, "limits": before.limits },
        "after": { "tier": after.tier, "limits": after.limits },
        "told": told.json(),
    });
    let (name, tier, may) = (&after.name, after.tier, allowed(after.tier, &after.limits));
    let was = allowed(before.tier, &before.limits);
    let untold = told.untold(SEEN);
    Answer::new(
        object,
        format!("{name} is {tier}: {may}; before: {}: {was}{untold}", before.tier),
    )
}

/// What a workspace may send.
fn allowed(tier: Tier, limits: &Limits) -> String {
    let rate = Rate::of(tier, limits);
    let parts = [
        (rate.per_second, "events/s"),
        (rate.burst, "in 5 s"),
        (rate.per_day, "a day"),
    ];
    let said: Vec<_> = parts
        .into_iter()
        .filter_map(|(limit, what)| Some(format!("{} {what}", limit?)))
        .collect();
    match said.as_slice() {
        [] => "no limits".to_owned(),
        said => said.join(", "),
    }
}

/// `ws_` and the workspace's name, in the characters that need no quotes.
fn database_name(workspace: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    format!("ws_{}", workspace.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::database_name;

    #[test]
    fn a_database_name_needs_no_quotes() {
        assert_eq!(database_name("demo"), "ws_demo");
        assert_eq!(database_name("Web-shop.EU"), "ws_web_shop_eu");
    }
}
