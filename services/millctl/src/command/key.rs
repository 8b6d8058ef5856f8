//! `millctl key …`

use anyhow::Result;
use millrace_store::keys::{Cache, NewKey};
use millrace_store::{Keys, Workspaces};
use serde_json::{Value, json};

use crate::cli::Key;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Key, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (keys, workspaces) = (Keys::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Key::Create {
            workspace,
            kind,
            source,
            origins,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let source = workspaces.source(&workspace, &source).await?.id;
            let issued = keys
                .create(&NewKey {
                    kind,
                    workspace,
                    source,
                    origins,
                })
                .await?;
            let (id, key) = (issued.id.as_str(), issued.expose());
            let line = format!(
                "{key}\nThis is the only time that it is shown. `millctl key revoke {id}` revokes it."
            );
            Answer::new(json!({ "id": id, "key": key }), line)
        }
        Key::Revoke { id } => {
            keys.revoke(&id).await?;
            let told = match parts.redis().await {
                Ok(redis) => Cache::new(redis).revoke(&id).await,
                Err(error) => Err(error),
            };
            let line = match &told {
                Ok(()) => format!("{id} is revoked"),
                Err(error) => format!(
                    "{id} is revoked; running gateways could not be told ({error}) and forget it within a minute"
                ),
            };
            Answer::new(
                json!({ "id": id.as_str(), "revoked": true, "told": told.is_ok() }),
                line,
            )
        }
        Key::Ip { id, policy } => {
            let workspace = keys.set_ip_policy(&id, policy).await?;
            let told = match parts.redis().await {
                Ok(redis) => Cache::new(redis).change(&id, &workspace).await,
                Err(error) => Err(error),
            };
            let line = match &told {
                Ok(()) => format!("addresses under {id}: {policy}"),
                Err(error) => format!(
                    "addresses under {id}: {policy}; running gateways could not be told ({error}) and go by it within a minute"
                ),
            };
            Answer::new(
                json!({ "id": id.as_str(), "ip": policy.as_str(), "told": told.is_ok() }),
                line,
            )
        }
        Key::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let listed = keys.list(&workspace).await?;
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|key| {
                    let revoked = key.revoked_at.map(|at| at.to_string()).unwrap_or_default();
                    let origins = key.origins.join(" ");
                    vec![
                        key.id.to_string(),
                        key.kind.to_string(),
                        key.source.to_string(),
                        key.created_at.to_string(),
                        revoked,
                        origins,
                    ]
                })
                .collect();
            let objects: Vec<Value> = listed
                .iter()
                .map(|key| {
                    json!({
                        "id": key.id, "kind": key.kind, "source": key.source, "origins": key.origins,
                        "created_at": key.created_at, "revoked_at": key.revoked_at,
                    })
                })
                .collect();
            let names = ["ID", "KIND", "SOURCE", "CREATED", "REVOKED", "ORIGINS"];
            Answer::table(json!({ "keys": objects }), &names, &rows)
        }
    }
}
