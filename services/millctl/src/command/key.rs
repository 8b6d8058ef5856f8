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
            let new = NewKey {
                kind,
                workspace,
                source,
                origins,
            };
            let issued = keys.create(&new).await?;
            if parts.is_dry_run() {
                // The key that was tried is none.
                let object = json!({
                    "kind": new.kind, "workspace": new.workspace, "source": new.source, "origins": new.origins,
                });
                let line = format!(
                    "a {} key for source {} of {}",
                    new.kind, new.source, new.workspace
                );
                return Answer::new(object, line);
            }
            let (id, key) = (issued.id.as_str(), issued.expose());
            let line = format!(
                "{key}\nThis is the only time that it is shown. `millctl key revoke {id}` revokes it."
            );
            Answer::new(json!({ "id": id, "key": key }), line)
        }
        Key::Revoke { id } => {
            let changed = keys.revoke(&id).await?;
            let told = parts
                .tell(async |redis| Cache::new(redis).revoke(&id).await)
                .await;
            let is = if changed {
                "is revoked"
            } else {
                "was revoked before"
            };
            Answer::new(
                json!({ "id": id.as_str(), "revoked": true, "changed": changed, "told": told.json() }),
                format!("{id} {is}{}", told.untold("forget it within a minute")),
            )
        }
        Key::Ip { id, policy } => {
            let (workspace, before) = keys.set_ip_policy(&id, policy).await?;
            let told = parts
                .tell(async |redis| Cache::new(redis).change(&id, &workspace).await)
                .await;
            let untold = told.untold("go by it within a minute");
            Answer::new(
                json!({ "id": id.as_str(), "ip": policy.as_str(), "before": before.as_str(), "told": told.json() }),
                format!("addresses under {id}: {policy} (before: {before}){untold}"),
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
                        key.ip_policy.to_string(),
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
                        "ip": key.ip_policy.as_str(), "created_at": key.created_at, "revoked_at": key.revoked_at,
                    })
                })
                .collect();
            let names = [
                "ID",
                "KIND",
                "SOURCE",
                "ADDRESSES",
                "CREATED",
                "REVOKED",
                "ORIGINS",
            ];
            Answer::table(json!({ "keys": objects }), &names, &rows)
        }
    }
}
