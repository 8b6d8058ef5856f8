//! `millctl alias …`

use anyhow::Result;
use millrace_store::Workspaces;
use millrace_store::rules::{self, Store};
use serde_json::json;

use super::fields::SEEN;
use crate::cli::Alias;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Alias, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (store, workspaces) = (Store::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Alias::Set {
            workspace,
            old,
            new,
            mode,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let alias = rules::Alias { old, new, mode };
            let before = store.set_alias(&workspace, &alias).await?;
            let told = parts.tell_changed(&workspace).await;
            let before_that = before.as_ref().map_or_else(String::new, |before| {
                format!("; before: {} ({})", before.new, before.mode)
            });
            let line = format!(
                "{} is {} now ({mode}){before_that}{}",
                alias.old,
                alias.new,
                told.untold(SEEN)
            );
            Answer::new(
                json!({ "alias": alias, "before": before, "told": told.json() }),
                line,
            )
        }
        Alias::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let aliases = store.of(&workspace).await?.aliases;
            let rows: Vec<Vec<String>> = aliases
                .iter()
                .map(|alias| vec![alias.old.clone(), alias.new.clone(), alias.mode.to_string()])
                .collect();
            Answer::table(json!({ "aliases": aliases }), &["OLD", "NEW", "MODE"], &rows)
        }
        Alias::Drop { workspace, old } => {
            let workspace = workspaces.find(&workspace).await?.id;
            store.drop_alias(&workspace, &old).await?;
            let told = parts.tell_changed(&workspace).await;
            Answer::new(
                json!({ "old": old, "dropped": true, "told": told.json() }),
                format!("{old} is a name like any other{}", told.untold(SEEN)),
            )
        }
    }
}
