//! Lua scripts: sent once in full, named by their hash from then on.

use std::sync::OnceLock;

use fred::prelude::{FromValue, LuaInterface};

use super::Redis;
use crate::Error;

/// A script and, once a server knows it, the hash it is called by.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: OnceLock::new(),
        }
    }

    /// Runs it over the keys and arguments that `call` gives. A server that does not know the script (restarted,
    /// another node of the cluster) did nothing, so it is sent there in full.
    pub(crate) async fn run<T: FromValue>(
        &self,
        redis: &Redis,
        call: impl Fn() -> (Vec<String>, Vec<String>),
    ) -> Result<T, Error> {
        let hash = match self.hash.get() {
            Some(hash) => hash,
            None => {
                let loaded: String = redis.call(redis.client().script_load(self.text)).await?;
                self.hash.get_or_init(|| loaded)
            }
        };
        redis
            .call(async {
                let (client, (keys, arguments)) = (redis.client(), call());
                match client.evalsha(hash.as_str(), keys, arguments).await {
                    Err(error) if error.details().starts_with("NOSCRIPT") => {
                        let (keys, arguments) = call();
                        client.eval(self.text, keys, arguments).await
                    }
                    answer => answer,
                }
            })
            .await
    }
}
