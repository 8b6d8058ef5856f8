//! The addresses of destinations, which hold passwords: sealed for one workspace and one destination of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_event::destination::SealedUrl;

use super::Destinations;
use crate::keyring::{Keyring, OpenError, Sealed};
use crate::postgres::Fields as _;
use crate::secrets::Resealed;
use crate::{Error, WorkspaceId};

/// What an address is sealed as. No secret of a function has a name with a space.
fn name_of(destination: &str) -> String {
    format!("destination {destination}")
}

/// Seals the address of a destination, which goes by that name in its workspace.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal_url(
    keys: &Keyring,
    workspace: &WorkspaceId,
    destination: &str,
    url: &str,
) -> Result<SealedUrl, Error> {
    let sealed = keys.seal(workspace, &name_of(destination), url)?;
    Ok(SealedUrl {
        key_id: sealed.key_id,
        sealed: STANDARD.encode(sealed.bytes),
    })
}

/// The address that was sealed.
///
/// # Errors
/// When its key is not there, or it is not what was sealed for this destination.
pub fn open_url(
    keys: &Keyring,
    workspace: &WorkspaceId,
    destination: &str,
    url: &SealedUrl,
) -> Result<String, OpenError> {
    let name = name_of(destination);
    let bytes = STANDARD
        .decode(&url.sealed)
        .map_err(|_| OpenError::Altered { name: name.clone() })?;
    let sealed = Sealed {
        name,
        key_id: url.key_id.clone(),
        bytes,
    };
    keys.open(workspace, &sealed)
}

impl Destinations {
    /// Seals every address under the key that seals now. What does not open stays as it is.
    ///
    /// # Errors
    /// When Postgres does not answer; what was sealed anew until then stays so.
    pub async fn reseal(&self, keys: &Keyring) -> Result<Resealed, Error> {
        let query = "SELECT id, workspace, name, settings ->> 'url' AS url FROM destinations
            WHERE kind = 'postgres' AND settings ? 'url' ORDER BY id";
        let all = self
            .postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client.query(query, &[]).await?;
                let read = rows.iter().map(|row| {
                    let workspace: WorkspaceId = row.parsed("workspace")?;
                    Ok((row.field("id")?, workspace, row.field("name")?, row.field("url")?))
                });
                read.collect::<Result<Vec<(String, _, String, String)>, Error>>()
            })
            .await?;
        let mut resealed = Resealed::default();
        for (id, workspace, name, before) in all {
            let altered = || OpenError::Altered { name: name_of(&name) };
            let url = match SealedUrl::try_from(before.clone()).map_err(|_| altered()) {
                Ok(sealed) if sealed.key_id == keys.current() => {
                    resealed.kept += 1;
                    continue;
                }
                Ok(sealed) => open_url(keys, &workspace, &name, &sealed),
                Err(error) => Err(error),
            };
            let url = match url {
                Ok(url) => url,
                Err(error) => {
                    resealed.failed.push((workspace, error));
                    continue;
                }
            };
            let now = String::from(seal_url(keys, &workspace, &name, &url)?);
            // One that was set in the meantime is newer.
            let update = "UPDATE destinations SET settings = jsonb_set(settings, '{url}', to_jsonb($2::text))
                WHERE id = $1 AND settings ->> 'url' = $3";
            resealed.moved += self
                .postgres
                .call(async {
                    let mut client = self.postgres.client().await?;
                    let transaction = client.transaction().await?;
                    let moved = transaction.execute(update, &[&id, &now, &before]).await?;
                    self.postgres.keep(transaction).await?;
                    Ok(moved)
                })
                .await?;
        }
        Ok(resealed)
    }
}
