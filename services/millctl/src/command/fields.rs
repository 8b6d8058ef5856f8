//! `millctl fields …`

use anyhow::Result;
use millrace_store::{Fields as Store, Workspaces};
use serde_json::{Value, json};

use crate::cli::Fields;
use crate::output::Answer;
use crate::parts::Parts;

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
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            fields.retype(&workspace, &name, field_type).await?;
            let told = parts.tell_changed(&workspace).await;
            let object = json!({ "name": name, "type": field_type.as_str(), "told": told.is_ok() });
            Answer::new(
                object,
                format!("{name} is of type {field_type} from now on{}", untold(&told)),
            )
        }
        Fields::Drop { workspace, name } => {
            let workspace = workspaces.find(&workspace).await?.id;
            fields.forget(&workspace, &name).await?;
            let told = parts.tell_changed(&workspace).await;
            Answer::new(
                json!({ "name": name, "dropped": true, "told": told.is_ok() }),
                format!("{name} is forgotten{}", untold(&told)),
            )
        }
    }
}

/// The end of a sentence about a change that running gateways may not know of yet.
pub(super) fn untold(told: &Result<(), millrace_store::Error>) -> String {
    match told {
        Ok(()) => String::new(),
        Err(error) => {
            format!("; running gateways could not be told ({error}) and see it within two minutes")
        }
    }
}
