//! `millctl fields …`

mod column;

use anyhow::Result;
use millrace_store::fields::FieldType;
use millrace_store::{Fields as Store, Workspaces};
use serde_json::{Value, json};

use crate::cli::Fields;
use crate::output::Answer;
use crate::parts::{Parts, Told};

pub(super) async fn run(command: Fields, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (fields, workspaces) = (Store::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Fields::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let listed = fields.list(&workspace).await?;
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|field| {
                    vec![
                        field.name.clone(),
                        field.field_type.to_string(),
                        field.created_at.to_string(),
                    ]
                })
                .collect();
            let objects: Vec<Value> = listed
                .iter()
                .map(|field| {
                    json!({
                        "name": field.name, "type": field.field_type.as_str(), "created_at": field.created_at,
                    })
                })
                .collect();
            Answer::table(json!({ "fields": objects }), &["NAME", "TYPE", "SINCE"], &rows)
        }
        Fields::Retype {
            workspace,
            name,
            field_type,
            tables,
            gateway_only,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let is_known = fields.all(&workspace).await?.contains_key(&name);
            let moves = match gateway_only {
                true => Vec::new(),
                false => column::moves(parts, &workspace, &tables, &name, field_type).await?,
            };
            if !is_known && moves.is_empty() {
                // Says which there are.
                fields.retype(&workspace, &name, field_type).await?;
            }
            let dry_run = parts.is_dry_run();
            if !dry_run {
                column::carry_out(parts, &moves).await?;
            }
            let told = match is_known {
                false => None,
                true => {
                    fields.retype(&workspace, &name, field_type).await?;
                    Some(parts.tell_changed(&workspace).await)
                }
            };
            let object = json!({
                "name": name, "type": field_type.as_str(),
                "told": told.as_ref().and_then(Told::json), "columns": column::objects(&moves),
            });
            let untold = told.map_or_else(String::new, |told| told.untold(SEEN));
            let line = format!("{name} is of type {field_type} from now on{untold}");
            Answer::new(object, format!("{line}{}", column::lines(&moves, dry_run)))
        }
        Fields::Drop { workspace, name } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let before = fields.forget(&workspace, &name).await?;
            let told = parts.tell_changed(&workspace).await;
            let was = before.map_or_else(String::new, |before| format!(" (it was of type {before})"));
            Answer::new(
                json!({
                    "name": name, "dropped": true, "before": before.map(FieldType::as_str), "told": told.json(),
                }),
                format!("{name} is forgotten{was}{}", told.untold(SEEN)),
            )
        }
    }
}

/// What gateways do that could not be told of a change of a workspace.
pub(super) const SEEN: &str = "see it within two minutes";
