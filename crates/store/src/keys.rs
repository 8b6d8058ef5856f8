//! Write keys: what a client presents, and what it may do with it.

mod address;
mod cache;
mod presented;

use millrace_event::{KeyKind, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::postgres::Fields;
use crate::rules::Rules;
use crate::secret::{Secret, SecretHash};
use crate::workspaces::{Limits, Tier};
use crate::{Entity, Error, KeyId, OrganizationId, Postgres, SourceId, WorkspaceId};

pub use address::IpPolicy;
pub use cache::{Cache, Cached};
pub use presented::Presented;

/// A write key in force, with all that the gateway needs to know about it: one lookup per key.
///
/// It can be written to disk: of the secret it holds only the hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// Its id, the part that may be shown.
    pub id: KeyId,
    /// What it may do.
    pub kind: KeyKind,
    /// The workspace that its events belong to.
    pub workspace: WorkspaceId,
    /// The source that its events come from.
    pub source: SourceId,
    /// Who is billed.
    pub organization: OrganizationId,
    /// Origins that a browser may send from, such as `https://shop.example`; of other kinds empty.
    pub origins: Vec<String>,
    /// What is kept of the addresses that its events come from.
    #[serde(default)]
    pub ip_policy: IpPolicy,
    /// The tier of the workspace.
    pub tier: Tier,
    /// Limits of the workspace that differ from its tier's.
    pub limits: Limits,
    /// What the workspace asks of its events.
    #[serde(default)]
    pub rules: Rules,
    secret: SecretHash,
}

/// Why a key that exists does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key of this kind needs its secret.
    #[error("the secret of the write key is missing")]
    SecretMissing,
    /// The secret is another one.
    #[error("the secret of the write key is wrong")]
    SecretWrong,
}

impl Key {
    /// Judges what a client presented for this key. The id alone is enough for a browser key, which is public;
    /// a secret that is presented must be right for every kind.
    ///
    /// # Errors
    /// With the reason, which is for the log: a client learns only that the key is not valid.
    pub fn admit(&self, secret: Option<&Secret>) -> Result<(), Refusal> {
        match (self.kind, secret) {
            (_, Some(secret)) if self.secret.matches(secret) => Ok(()),
            (_, Some(_)) => Err(Refusal::SecretWrong),
            (KeyKind::Browser, None) => Ok(()),
            (KeyKind::Server | KeyKind::Import, None) => Err(Refusal::SecretMissing),
        }
    }

    /// Whether a page of that origin may use it. Of keys that are no browser's every one may: a server has no
    /// origin. An entry for this very machine that names no port allows every port of it, because that is what
    /// people develop on.
    pub fn allows(&self, origin: &str) -> bool {
        let same = |entry: &String| {
            entry == origin || {
                let host = entry.trim_start_matches("http://");
                let loopback =
                    host.len() < entry.len() && ["localhost", "127.0.0.1", "[::1]"].contains(&host);
                let port = origin
                    .strip_prefix(entry.as_str())
                    .and_then(|rest| rest.strip_prefix(':'));
                loopback && port.is_some_and(|port| port.parse::<u16>().is_ok())
            }
        };
        self.kind != KeyKind::Browser || self.origins.iter().any(same)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        let secret = SecretHash::from_bytes(row.field("secret_hash")?);
        Ok(Self {
            id: row.parsed("id")?,
            kind: row.parsed("kind")?,
            workspace: row.parsed("workspace")?,
            source: row.parsed("source")?,
            organization: row.parsed("organization")?,
            origins: row.field("origins")?,
            ip_policy: row.parsed("ip_policy")?,
            tier: row.parsed("tier")?,
            limits: row.json("limits")?,
            rules: Rules::default(),
            secret: secret.ok_or(Error::Corrupt {
                part: crate::Part::Postgres,
                what: "secret_hash",
            })?,
        })
    }
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What it may do.
    pub kind: KeyKind,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The source, one of that workspace.
    pub source: SourceId,
    /// Origins that a browser may send from, in the form in which browsers name them; at least one for a
    /// browser key, none for other kinds.
    pub origins: Vec<String>,
}

/// A key just made; its secret is not to be had again.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub id: KeyId,
    secret: Secret,
}

impl Issued {
    /// `<id>:<secret>`, as a client presents it.
    pub fn expose(&self) -> String {
        format!("{}:{}", self.id, self.secret.expose())
    }
}

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: KeyId,
    /// What it may do.
    pub kind: KeyKind,
    /// The source.
    pub source: SourceId,
    /// Origins that a browser may send from.
    pub origins: Vec<String>,
    /// What is kept of the addresses that its events come from.
    pub ip_policy: IpPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// The repository of write keys.
#[derive(Clone, Debug)]
pub struct Keys {
    postgres: Postgres,
}

impl Keys {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The key of that id, if there is one in force: unknown and revoked are the same `None`.
    ///
    /// # Errors
    /// When Postgres does not answer; that says nothing about the key.
    pub async fn find(&self, id: &KeyId) -> Result<Option<Key>, Error> {
        let query = "SELECT k.id, k.kind, k.workspace, k.source, w.organization, k.origins, k.ip_policy, w.tier, w.limits, k.secret_hash
            FROM write_keys k JOIN workspaces w ON w.id = k.workspace
            WHERE k.id = $1 AND k.revoked_at IS NULL";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let row = client.query_opt(&statement, &[&id.as_str()]).await?;
                let Some(row) = row else {
                    return Ok(None);
                };
                let mut key = Key::from_row(&row)?;
                key.rules = Rules::read(&client, &key.workspace).await?;
                Ok(Some(key))
            })
            .await
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When the source is not one of the workspace, origins do not fit the kind or are none, or Postgres does
    /// not answer.
    pub async fn create(&self, new: &NewKey) -> Result<Issued, Error> {
        if new.kind != KeyKind::Browser && !new.origins.is_empty() {
            return Err(Error::Invalid {
                what: "origins",
                reason: "are for browser keys only",
            });
        }
        if new.kind == KeyKind::Browser && new.origins.is_empty() {
            return Err(Error::Invalid {
                what: "origins",
                reason: "are needed for a browser key, one at least",
            });
        }
        if !new.origins.iter().all(|origin| is_origin(origin)) {
            return Err(Error::Invalid {
                what: "origins",
                reason: "have the form http(s)://host or http(s)://host:port, in lower case, without a path",
            });
        }
        let (id, secret) = (KeyId::mint()?, Secret::generate()?);
        // Selecting the source makes a workspace's key for another's source impossible to ask for.
        let query = "INSERT INTO write_keys (id, secret_hash, kind, workspace, source, origins)
            SELECT $1, $2, $3, workspace, id, $6 FROM sources WHERE workspace = $4 AND id = $5";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let made = transaction
                    .execute(
                        query,
                        &[
                            &id.as_str(),
                            &secret.hash().as_bytes(),
                            &new.kind.as_str(),
                            &new.workspace.as_str(),
                            &new.source.as_str(),
                            &new.origins,
                        ],
                    )
                    .await?;
                if made == 0 {
                    return Err(Error::not_found(Entity::Source, &new.source));
                }
                self.postgres.keep(transaction).await?;
                Ok(Issued { id, secret })
            })
            .await
    }

    /// Revokes a key for good; revoking it again changes nothing, and gives false. Gateways that know the key drop it
    /// when they are told ([`Cache::revoke`]), else when their cache does.
    ///
    /// # Errors
    /// When there is no such key, or Postgres does not answer.
    pub async fn revoke(&self, id: &KeyId) -> Result<bool, Error> {
        // The time of the transaction: only this call has it.
        let query = "UPDATE write_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1
            RETURNING revoked_at = now() AS is_new";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let row = transaction.query_opt(query, &[&id.as_str()]).await?;
                let row = row.ok_or_else(|| Error::not_found(Entity::Key, id))?;
                self.postgres.keep(transaction).await?;
                row.field("is_new")
            })
            .await
    }

    /// Sets what is kept of the addresses that a key's events come from, and returns the key's workspace and what was
    /// kept before. Gateways go by it when they are told ([`Cache::change`]), else when they ask for the key again.
    ///
    /// # Errors
    /// When there is no such key, or Postgres does not answer.
    pub async fn set_ip_policy(
        &self,
        id: &KeyId,
        policy: IpPolicy,
    ) -> Result<(WorkspaceId, IpPolicy), Error> {
        let query = "UPDATE write_keys k SET ip_policy = $2
            FROM (SELECT id, ip_policy FROM write_keys WHERE id = $1 FOR UPDATE) before
            WHERE k.id = before.id RETURNING k.workspace, before.ip_policy AS before";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let row = transaction
                    .query_opt(query, &[&id.as_str(), &policy.as_str()])
                    .await?;
                let row = row.ok_or_else(|| Error::not_found(Entity::Key, id))?;
                self.postgres.keep(transaction).await?;
                Ok((row.parsed("workspace")?, row.parsed("before")?))
            })
            .await
    }

    /// The keys of a workspace, oldest first, revoked ones included.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Listed>, Error> {
        let query =
            "SELECT id, kind, source, origins, ip_policy, created_at, revoked_at, revoked_at IS NOT NULL AS revoked
            FROM write_keys WHERE workspace = $1 ORDER BY created_at, id";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client.query(query, &[&workspace.as_str()]).await?;
                rows.iter()
                    .map(|row| {
                        Ok(Listed {
                            id: row.parsed("id")?,
                            kind: row.parsed("kind")?,
                            source: row.parsed("source")?,
                            origins: row.field("origins")?,
                            ip_policy: row.parsed("ip_policy")?,
                            created_at: row.time("created_at")?,
                            revoked_at: row
                                .field::<bool>("revoked")?
                                .then(|| row.time("revoked_at"))
                                .transpose()?,
                        })
                    })
                    .collect()
            })
            .await
    }
}

/// What a browser puts into `Origin`, less what no page served over the web can have.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let symbol = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.len() <= 260 && host.bytes().all(symbol))
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "http://localhost",
            "http://localhost:3000",
            "https://a-b.shop.example",
            "http://[::1]:80",
        ] {
            assert!(is_origin(text), "{text}");
        }
        for text in [
            "",
            "*",
            "localhost",
            "https://",
            "https://a/",
            "https://a/b",
            "HTTPS://A",
            "https://A",
            "null",
            "https://a b",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
