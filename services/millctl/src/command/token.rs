//! `millctl token …`

use anyhow::Result;
use millrace_store::Tokens;
use serde_json::json;

use crate::cli::Token;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Token, parts: &Parts) -> Result<Answer> {
    let tokens = Tokens::new(parts.postgres()?);
    match command {
        Token::Create { name } => {
            let issued = tokens.create(&name).await?;
            if parts.is_dry_run() {
                // The token that was tried is none.
                return Answer::new(json!({ "name": name.as_str() }), format!("a token named {name}"));
            }
            let (id, token) = (issued.id.as_str(), issued.expose());
            let line = format!(
                "{token}\nThis is the only time that it is shown. `millctl token revoke {id}` revokes it."
            );
            Answer::new(json!({ "id": id, "token": token }), line)
        }
        Token::Revoke { id } => {
            let changed = tokens.revoke(&id).await?;
            Answer::new(
                json!({ "id": id.as_str(), "revoked": true, "changed": changed }),
                format!(
                    "{id} {}",
                    if changed {
                        "is revoked"
                    } else {
                        "was revoked before"
                    }
                ),
            )
        }
    }
}
