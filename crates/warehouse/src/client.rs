//! The one place that opens connections to ClickHouse.
//!
//! Every request goes out once, over a pooled connection or a new one, and is never repeated here. Inserts go over a
//! [`crate::Line`].

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::line::Lines;
use crate::name::TableName;

/// The setting `max_query_size` of statements that name columns: thousands of long names, where the server's default
/// of 256 KiB ends at about a thousand.
pub(crate) const MAX_STATEMENT_BYTES: &str = "16777216";

/// Where ClickHouse is and how to speak to it.
#[derive(Clone)]
pub struct Config {
    /// The HTTP interface, `http://host:port`.
    pub url: String,
    /// The user; the server's default where it is not set.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. It must stay below the server's `keep_alive_timeout`: a connection
    /// that the server closes while a block is on its way costs a KILL and a question.
    pub idle_timeout: Duration,
    /// How long the server lets an insert in after its connection was last used, in whole seconds, at least one.
    pub lease: Duration,
    /// How long a query that is not an insert may take, answer included.
    pub query_timeout: Duration,
}

impl Config {
    /// A server at `url`, without credentials, with the timeouts' defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(2),
            lease: Duration::from_secs(3),
            query_timeout: Duration::from_secs(30),
        }
    }

    /// Opens nothing yet: connections are made when they are needed.
    pub fn build(self) -> Warehouse {
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(self.idle_timeout)
            // A request goes out once. Whether it may go out again is decided where the plan is known.
            .retry_canceled_requests(false)
            .build(self.connector());
        let client = self.authorized(Client::with_http_client(http));
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Warehouse {
            client,
            query_timeout: self.query_timeout,
            cores: Arc::new(Semaphore::new(cores)),
            lines: Arc::default(),
            turns: None,
            config: Arc::new(self),
        }
    }

    pub(crate) fn connector(&self) -> HttpConnector {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(self.connect_timeout));
        connector.set_keepalive(Some(Duration::from_secs(60)));
        connector.set_nodelay(true);
        connector
    }

    pub(crate) fn authorized(&self, client: Client) -> Client {
        let mut client = client.with_url(&self.url);
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.password {
            client = client.with_password(password);
        }
        client
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "redacted"))
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("lease", &self.lease)
            .field("query_timeout", &self.query_timeout)
            .finish()
    }
}

/// Leave to change a table, given back when it is dropped.
pub type Turn = Box<dyn Send>;

/// Turns at changing tables, over all processes. A courtesy: what is done under one is right without it as well.
pub trait Turns: fmt::Debug + Send + Sync {
    /// Waits for a turn, a bounded time; nothing where none can be had.
    fn take(&self, table: &TableName) -> Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;
}

/// A ClickHouse server. Clones share their connections.
///
/// Never repeats a request by itself.
#[derive(Clone, Debug)]
pub struct Warehouse {
    client: Client,
    query_timeout: Duration,
    /// One permit for each core that may be busy with encoding.
    cores: Arc<Semaphore>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) config: Arc<Config>,
    turns: Option<Arc<dyn Turns>>,
}

impl Warehouse {
    /// The same server, with turns to wait for before a table is made or changed. Without them several may change one
    /// at once: `IF NOT EXISTS` and reading the types back keep that right, and the server does the work of each.
    #[must_use]
    pub fn with_turns(self, turns: Arc<dyn Turns>) -> Self {
        Self {
            turns: Some(turns),
            ..self
        }
    }

    /// Waits for a turn at changing a table.
    pub(crate) async fn turn(&self, table: &TableName) -> Option<Turn> {
        match &self.turns {
            Some(turns) => turns.take(table).await,
            None => None,
        }
    }

    /// The client beneath, for queries of one's own.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// It does not, or not within the query timeout.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn ping(&self) -> Result<(), Error> {
        self.bounded(self.client.query("SELECT 1").fetch_one::<u8>())
            .await
            .map(|_: u8| ())
    }

    /// Runs one statement that returns nothing. A `?` in it stands for itself.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Error> {
        let query = self.client.query(&sql.replace('?', "??"));
        self.bounded(
            query
                .with_setting("max_query_size", MAX_STATEMENT_BYTES)
                .execute(),
        )
        .await
    }

    /// Does work that keeps a core busy, when one is free, without keeping the runtime from other tasks where it has
    /// threads for them.
    pub(crate) async fn busy<T>(&self, work: impl FnOnce() -> T) -> T {
        // The semaphore is never closed; an error would mean working without a permit, which does no harm.
        let permit = self.cores.acquire().await.ok();
        let done = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            _ => work(),
        };
        drop(permit);
        done
    }

    /// Waits for `answer` no longer than the query timeout.
    pub(crate) async fn bounded<T>(
        &self,
        answer: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.query_timeout, answer).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Deadline),
        }
    }
}
