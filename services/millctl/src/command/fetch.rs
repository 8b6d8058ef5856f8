//! `millctl fetch …`

use anyhow::Result;
use millrace_store::{FetchOrigins, Workspaces};
use serde_json::json;

use crate::cli::Fetch;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Fetch, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (origins, workspaces) = (FetchOrigins::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Fetch::Allow { workspace, origin } => {
            let workspace = workspaces.find(&workspace).await?.id;
            origins.allow(&workspace, &origin).await?;
            parts.tell_configured().await;
            let full = origin.to_string();
            let line = format!("functions may send requests to {full}");
            Answer::new(json!({ "origin": full, "allowed": true }), line)
        }
        Fetch::Forbid { workspace, origin } => {
            let workspace = workspaces.find(&workspace).await?.id;
            origins.forbid(&workspace, &origin).await?;
            parts.tell_configured().await;
            let full = origin.to_string();
            let line = format!("functions may not send requests to {full} any more");
            Answer::new(json!({ "origin": full, "allowed": false }), line)
        }
        Fetch::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let listed: Vec<String> = origins
                .list(&workspace)
                .await?
                .iter()
                .map(ToString::to_string)
                .collect();
            let rows: Vec<Vec<String>> = listed.iter().map(|origin| vec![origin.clone()]).collect();
            Answer::table(json!({ "origins": listed }), &["ORIGIN"], &rows)
        }
    }
}
