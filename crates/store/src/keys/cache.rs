//! Write keys in Redis, in front of Postgres: many gateways that start or forget at once ask Postgres once.

use std::time::Duration;

use fred::prelude::{Expiration, KeysInterface, SetOptions};

use super::Key;
use crate::redis::{Redis, key};
use crate::{Error, KeyId, Notice, WorkspaceId, notice};

/// What stands for a key that was revoked. It outlives every copy of the key that a gateway may still write.
const REVOKED: &str = "revoked";
const REVOKED_FOR: Duration = Duration::from_secs(60 * 60);

/// What is known about a key.
#[derive(Clone, Debug)]
pub enum Cached {
    /// As it was in Postgres; to be believed for `left` at most.
    Key {
        /// The key.
        key: Box<Key>,
        /// How long it is believed.
        left: Duration,
    },
    /// It was revoked.
    Revoked,
    /// Nothing: ask Postgres.
    Unknown,
}

/// The cache. A revoked key wins over any copy of it that is written later.
#[derive(Clone, Debug)]
pub struct Cache {
    redis: Redis,
}

impl Cache {
    /// In that Redis.
    pub const fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// What is known about a key.
    ///
    /// # Errors
    /// When Redis is away or slow.
    pub async fn find(&self, id: &KeyId) -> Result<Cached, Error> {
        let (client, name) = (self.redis.client(), key::write_key(self.redis.prefix(), id));
        // One after the other in one pipeline: the time that is left is never that of a later value's.
        let both = Box::pin(async {
            tokio::try_join!(
                client.pttl::<i64, _>(&name),
                client.get::<Option<String>, _>(&name)
            )
        });
        let (left, text) = self.redis.call(both).await?;
        let Some(text) = text else {
            return Ok(Cached::Unknown);
        };
        if text == REVOKED {
            return Ok(Cached::Revoked);
        }
        // What another version of this program wrote is as good as nothing.
        let (Ok(key), Ok(left)) = (serde_json::from_str(&text), u64::try_from(left)) else {
            return Ok(Cached::Unknown);
        };
        Ok(Cached::Key {
            key,
            left: Duration::from_millis(left),
        })
    }

    /// Remembers a key for `ttl`, unless there is something already.
    ///
    /// # Errors
    /// When Redis is away or slow.
    pub async fn remember(&self, key: &Key, ttl: Duration) -> Result<(), Error> {
        let Ok(text) = serde_json::to_string(key) else {
            return Ok(());
        };
        self.set(&key.id, text, ttl, Some(SetOptions::NX)).await
    }

    /// Says to everybody that a key is revoked. Postgres must have it first.
    ///
    /// # Errors
    /// When Redis is away or slow: gateways go on with the key until they ask again.
    pub async fn revoke(&self, id: &KeyId) -> Result<(), Error> {
        self.set(id, REVOKED.to_owned(), REVOKED_FOR, None).await?;
        notice::publish(&self.redis, &Notice::KeyRevoked(id.clone())).await
    }

    /// Drops keys whose workspace changed, so that they are read anew.
    ///
    /// # Errors
    /// When Redis is away or slow: they are believed until their time is up.
    pub async fn forget(&self, ids: &[KeyId]) -> Result<(), Error> {
        for id in ids {
            let name = key::write_key(self.redis.prefix(), id);
            let _: i64 = self.redis.call(self.redis.client().del(name)).await?;
        }
        Ok(())
    }

    /// Says to everybody that a key of this workspace is another now. Postgres must have it first.
    ///
    /// # Errors
    /// When Redis is away or slow: gateways go on with the key until they ask again.
    pub async fn change(&self, id: &KeyId, workspace: &WorkspaceId) -> Result<(), Error> {
        self.forget(std::slice::from_ref(id)).await?;
        notice::publish(&self.redis, &Notice::WorkspaceChanged(workspace.clone())).await
    }

    async fn set(
        &self,
        id: &KeyId,
        text: String,
        ttl: Duration,
        options: Option<SetOptions>,
    ) -> Result<(), Error> {
        let name = key::write_key(self.redis.prefix(), id);
        let ttl = Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1));
        let client = self.redis.client();
        let set = client.set::<Option<String>, _, _>(name, text, Some(ttl), options, false);
        self.redis.call(set).await.map(drop)
    }
}
