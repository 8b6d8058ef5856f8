//! `ctx.store`: values that functions of one workspace keep, in Redis.

use millrace_event::frame::Reply;
use millrace_store::values::{Refused, Ttl, Values};
use millrace_store::{Error, Retry};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// The operations that are carried out here.
pub(crate) const OPERATIONS: [&str; 4] = ["store.get", "store.set", "store.del", "store.incr"];

/// The store of all workspaces, each of which sees its own values only.
#[derive(Clone, Debug)]
pub struct Store {
    values: Values,
}

/// What a function hands over; the fields that an operation needs are there when its code is ours.
#[derive(Deserialize)]
struct Argument {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    by: i64,
    /// In milliseconds; absent: for good.
    #[serde(default)]
    ttl: Option<f64>,
}

impl Store {
    /// On these values.
    pub const fn new(values: Values) -> Self {
        Self { values }
    }

    pub(super) async fn carry(&self, workspace: &str, operation: &str, argument: &RawValue) -> Reply {
        let argument: Argument = match serde_json::from_str(argument.get()) {
            Ok(argument) => argument,
            Err(error) => return Reply::Failed(format!("the argument cannot be read: {error}")),
        };
        let (values, key, ttl) = (
            &self.values,
            argument.key.as_str(),
            Ttl::from_millis(argument.ttl),
        );
        let done = match operation {
            "store.get" => values.get(workspace, key).await.map(|value| raw(&value)),
            "store.del" => values.del(workspace, key).await.map(|was| raw(&was)),
            "store.incr" => {
                let sum = values.incr(workspace, key, argument.by, ttl).await;
                sum.map(|sum| sum.map_or_else(refused, |sum| raw(&sum)))
            }
            _ => {
                let set = values.set(workspace, key, &argument.value, ttl).await;
                set.map(|set| set.map_or_else(refused, |()| raw(&())))
            }
        };
        done.unwrap_or_else(|error| failed(&error))
    }
}

fn raw(value: &impl serde::Serialize) -> Reply {
    to_raw_value(value).map_or_else(|error| Reply::Failed(error.to_string()), Reply::Done)
}

fn refused(refused: Refused) -> Reply {
    Reply::Failed(refused.to_string())
}

/// The causes stay in the rotor's log: they name hosts.
fn failed(error: &Error) -> Reply {
    tracing::debug!(%error, "a call to the store failed");
    match error.retry() {
        Retry::Transient => Reply::Unavailable("the store is away".into()),
        _ => Reply::Failed("the store refused the operation".into()),
    }
}
