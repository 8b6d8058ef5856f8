//! `millctl require …`

use anyhow::Result;
use millrace_store::Workspaces;
use millrace_store::rules::Store;
use serde_json::json;

use super::fields::SEEN;
use crate::cli::Require;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Require, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (store, workspaces) = (Store::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Require::Add { workspace, name } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let changed = store.require(&workspace, &name).await?;
            let told = parts.tell_changed(&workspace).await;
            Answer::new(
                json!({ "name": name, "required": true, "changed": changed, "told": told.json() }),
                format!("events without {name} are refused{}", told.untold(SEEN)),
            )
        }
        Require::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let required = store.of(&workspace).await?.required;
            Answer::lines(json!({ "required": required }), required.clone())
        }
        Require::Drop { workspace, name } => {
            let workspace = workspaces.find(&workspace).await?.id;
            store.release(&workspace, &name).await?;
            let told = parts.tell_changed(&workspace).await;
            Answer::new(
                json!({ "name": name, "required": false, "changed": true, "told": told.json() }),
                format!("events may lack {name}{}", told.untold(SEEN)),
            )
        }
    }
}
