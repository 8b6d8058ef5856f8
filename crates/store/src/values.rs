//! Values that functions keep: per workspace, with a lifetime, within a quota. Kept in Redis, so they may be lost.
//!
//! All of a workspace's values are one hash, so that its quota and its values cannot disagree; what is due leaves
//! with later calls and is never seen again meanwhile. Every call is one script: it takes effect whole or not at all.

use std::time::Duration;

use crate::redis::script::Script;
use crate::redis::{Redis, key};
use crate::{Error, Part};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Longest lifetime; a longer one is cut to it (400 days).
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// Shortest lifetime.
const SHORTEST: Duration = Duration::from_millis(1);

static RUN: Script = Script::new(include_str!("values/values.lua"));

/// What one workspace may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Keys.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Bytes of one value.
    pub value_bytes: usize,
}

/// How long a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is deleted.
    Forever,
    /// So long.
    For(Duration),
}

impl Ttl {
    /// From milliseconds; without any, for ever.
    pub fn from_millis(millis: Option<f64>) -> Self {
        let Some(millis) = millis else {
            return Self::Forever;
        };
        let duration = Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(SHORTEST);
        Self::For(duration.clamp(SHORTEST, LONGEST))
    }

    fn millis(self) -> u128 {
        match self {
            Self::Forever => 0,
            Self::For(duration) => duration.as_millis().max(1),
        }
    }
}

/// Why a value is not kept, or not added to. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key is empty or too long.
    #[error("a key has between 1 and {MAX_KEY_BYTES} bytes")]
    Key,
    /// The value is too large.
    #[error("a value has {0} bytes at most")]
    Value(usize),
    /// The workspace has as many keys as it may have.
    #[error(
        "the store of the workspace holds {0} keys, more are not allowed: delete some, or give them a ttl"
    )]
    Keys(u64),
    /// The workspace uses as many bytes as it may use.
    #[error("the store of the workspace may hold {0} bytes, with this value it would be more")]
    Bytes(u64),
    /// What is there is no whole number.
    #[error("the value under this key is not a whole number")]
    NotANumber,
    /// The sum has more digits than JavaScript keeps.
    #[error("the sum is beyond 2^53")]
    Range,
}

/// The repository of values.
#[derive(Clone, Debug)]
pub struct Values {
    redis: Redis,
    quota: Quota,
}

impl Values {
    /// In that Redis; each workspace may keep so much.
    pub const fn new(redis: Redis, quota: Quota) -> Self {
        Self { redis, quota }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// When Redis is away or slow.
    pub async fn get(&self, workspace: &str, key: &str) -> Result<Option<String>, Error> {
        let answer = self.run(workspace, ["get", key, "", "0"]).await?;
        match read(&answer)? {
            Said::Value(value) => Ok(Some(value.to_owned())),
            _ => Ok(None),
        }
    }

    /// Keeps a value under a key, in place of what was there and of its lifetime.
    ///
    /// # Errors
    /// When Redis is away or slow; it may be kept all the same.
    pub async fn set(
        &self,
        workspace: &str,
        key: &str,
        value: &str,
        ttl: Ttl,
    ) -> Result<Result<(), Refused>, Error> {
        if let Err(refused) = self.check(key, value) {
            return Ok(Err(refused));
        }
        let answer = self
            .run(workspace, ["set", key, value, &ttl.millis().to_string()])
            .await?;
        Ok(match read(&answer)? {
            Said::Refused(why) => Err(self.why(why)),
            _ => Ok(()),
        })
    }

    /// Forgets a key; says whether there was a value.
    ///
    /// # Errors
    /// When Redis is away or slow; it may be forgotten all the same.
    pub async fn del(&self, workspace: &str, key: &str) -> Result<bool, Error> {
        let answer = self.run(workspace, ["del", key, "", "0"]).await?;
        Ok(matches!(read(&answer)?, Said::Done))
    }

    /// Adds to the number under a key, 0 where there is none, and gives the sum. The lifetime is for a key that is
    /// made by this.
    ///
    /// # Errors
    /// When Redis is away or slow; it may be added all the same.
    pub async fn incr(
        &self,
        workspace: &str,
        key: &str,
        by: i64,
        ttl: Ttl,
    ) -> Result<Result<i64, Refused>, Error> {
        if let Err(refused) = self.check(key, "") {
            return Ok(Err(refused));
        }
        let answer = self
            .run(
                workspace,
                ["incr", key, &by.to_string(), &ttl.millis().to_string()],
            )
            .await?;
        match read(&answer)? {
            Said::Value(sum) => sum.parse().map(Ok).map_err(|_| corrupt()),
            Said::Refused(why) => Ok(Err(self.why(why))),
            Said::Done | Said::None => Err(corrupt()),
        }
    }

    fn check(&self, key: &str, value: &str) -> Result<(), Refused> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Refused::Key);
        }
        if value.len() > self.quota.value_bytes {
            return Err(Refused::Value(self.quota.value_bytes));
        }
        Ok(())
    }

    async fn run(&self, workspace: &str, arguments: [&str; 4]) -> Result<Vec<String>, Error> {
        let name = key::values(self.redis.prefix(), workspace);
        let call = || {
            let quota = [self.quota.keys.to_string(), self.quota.bytes.to_string()];
            let arguments = arguments.iter().map(|text| (*text).to_owned()).chain(quota);
            (vec![name.clone(), format!("{name}:due")], arguments.collect())
        };
        RUN.run(&self.redis, call).await
    }

    fn why(&self, why: &str) -> Refused {
        match why {
            "keys" => Refused::Keys(self.quota.keys),
            "bytes" => Refused::Bytes(self.quota.bytes),
            "number" => Refused::NotANumber,
            _ => Refused::Range,
        }
    }
}

/// What the script said.
enum Said<'a> {
    Value(&'a str),
    None,
    Done,
    Refused(&'a str),
}

fn read(answer: &[String]) -> Result<Said<'_>, Error> {
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["value", value] => Said::Value(value),
        ["none"] => Said::None,
        ["done"] => Said::Done,
        [why @ ("keys" | "bytes" | "number" | "range")] => Said::Refused(why),
        _ => return Err(corrupt()),
    })
}

const fn corrupt() -> Error {
    Error::Corrupt {
        part: Part::Redis,
        what: "the answer about a value",
    }
}
