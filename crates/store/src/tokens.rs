//! Service tokens: what programs present to Millrace's own HTTP interfaces.

use crate::postgres::Fields;
use crate::secret::{Secret, SecretHash};
use crate::{Entity, Error, Name, Part, Postgres, TokenId};

/// A token in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id, the part that may be shown.
    pub id: TokenId,
    /// What it is for, in its maker's words.
    pub name: String,
}

/// A token just made; it is not to be had again.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub id: TokenId,
    secret: Secret,
}

impl Issued {
    /// `<id>.<secret>`: only characters that `Authorization: Bearer` allows.
    pub fn expose(&self) -> String {
        format!("{}.{}", self.id, self.secret.expose())
    }
}

/// The repository of service tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    postgres: Postgres,
}

impl Tokens {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Makes a token. Names need not be unique: a successor lives beside the token it replaces.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn create(&self, name: &Name) -> Result<Issued, Error> {
        let (id, secret) = (TokenId::mint()?, Secret::generate()?);
        let query = "INSERT INTO service_tokens (id, secret_hash, name) VALUES ($1, $2, $3)";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                transaction
                    .execute(query, &[&id.as_str(), &secret.hash().as_bytes(), &name.as_str()])
                    .await?;
                self.postgres.keep(transaction).await?;
                Ok(Issued { id, secret })
            })
            .await
    }

    /// The token that was presented, if it is one in force: every other text is the same `None`.
    ///
    /// # Errors
    /// When Postgres does not answer; that says nothing about the token.
    pub async fn verify(&self, presented: &str) -> Result<Option<Token>, Error> {
        let Some((id, secret)) = presented.split_once('.') else {
            return Ok(None);
        };
        let (Ok(id), Some(secret)) = (id.parse::<TokenId>(), Secret::presented(secret)) else {
            return Ok(None);
        };
        let query = "SELECT name, secret_hash FROM service_tokens WHERE id = $1 AND revoked_at IS NULL";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let Some(row) = client.query_opt(&statement, &[&id.as_str()]).await? else {
                    return Ok(None);
                };
                let hash = SecretHash::from_bytes(row.field("secret_hash")?).ok_or(Error::Corrupt {
                    part: Part::Postgres,
                    what: "secret_hash",
                })?;
                let name = row.field("name")?;
                Ok(hash.matches(&secret).then_some(Token { id, name }))
            })
            .await
    }

    /// Revokes a token for good; revoking it again changes nothing, and gives false.
    ///
    /// # Errors
    /// When there is no such token, or Postgres does not answer.
    pub async fn revoke(&self, id: &TokenId) -> Result<bool, Error> {
        // The time of the transaction: only this call has it.
        let query = "UPDATE service_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1
            RETURNING revoked_at = now() AS is_new";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let row = transaction.query_opt(query, &[&id.as_str()]).await?;
                let row = row.ok_or_else(|| Error::not_found(Entity::Token, id))?;
                self.postgres.keep(transaction).await?;
                row.field("is_new")
            })
            .await
    }
}
