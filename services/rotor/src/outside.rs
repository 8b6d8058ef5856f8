//! What functions reach outside of their worker: it is carried out here, for the workspace that they belong to.
//!
//! A worker itself reaches nothing. It says what one of its functions asks for, and which chain that function is in is
//! what the parent knows, not what the worker says.

pub mod config;
pub mod fetch;
mod metrics;
pub mod store;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use millrace_event::frame::{Call, Reply};
use millrace_store::Origin;
use tokio::runtime::Handle;

pub use fetch::Fetch;
pub use metrics::Metrics;
pub use store::Store;

/// Whose functions ask, and what these may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The workspace.
    pub workspace: String,
    /// Where they may send requests to.
    pub origins: Vec<Origin>,
}

/// What can be reached. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Outside(Option<Arc<Parts>>);

#[derive(Debug)]
struct Parts {
    runtime: Handle,
    store: Option<Store>,
    fetch: Option<Fetch>,
    metrics: Metrics,
}

impl Outside {
    /// These parts, each of which may be missing. Within a Tokio runtime, which carries calls out from then on.
    pub fn new(store: Option<Store>, fetch: Option<Fetch>, metrics: Metrics) -> Self {
        Self(Some(Arc::new(Parts {
            runtime: Handle::current(),
            store,
            fetch,
            metrics,
        })))
    }

    /// Carries out a call. Always gives a reply; how long that takes is bounded by each part.
    ///
    /// # Cancellation
    /// What was begun may have taken effect.
    pub(crate) fn carry(&self, reach: Arc<Reach>, call: Call) -> BoxFuture<'static, Reply> {
        let Some(parts) = self.0.clone() else {
            let text = format!("{} is not there", call.operation);
            return std::future::ready(Reply::Failed(text)).boxed();
        };
        async move {
            let reply = parts.carry(&reach, &call).await;
            parts.metrics.carried(&call.operation, &reply);
            reply
        }
        .boxed()
    }

    /// Runs a call beside the caller; without parts at once, because then there is nothing to wait for.
    pub(crate) fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        match &self.0 {
            Some(parts) => drop(parts.runtime.spawn(call)),
            None => drop(call.now_or_never()),
        }
    }
}

impl Parts {
    async fn carry(&self, reach: &Reach, call: &Call) -> Reply {
        if call.operation == fetch::OPERATION {
            return match &self.fetch {
                Some(fetch) => fetch.carry(reach, &call.argument).await,
                None => Reply::Failed("there is no fetch here".into()),
            };
        }
        match (call.operation.as_str(), &self.store) {
            (operation, Some(store)) if store::OPERATIONS.contains(&operation) => {
                store.carry(&reach.workspace, operation, &call.argument).await
            }
            (operation, None) if store::OPERATIONS.contains(&operation) => {
                Reply::Failed("there is no store: the rotor has no Redis".into())
            }
            (operation, _) => Reply::Failed(format!("nobody knows the operation {operation}")),
        }
    }
}
