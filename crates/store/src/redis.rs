//! The connection to Redis, and the names of everything kept there.
//!
//! What is in Redis may be lost: it makes answers better, never events safer. So a call fails at once while
//! the connection is down, and within its time limit otherwise; no command is sent twice, because the caller
//! could not tell its own first attempt from somebody else.

pub(crate) mod gather;
pub(crate) mod key;
pub(crate) mod script;

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{SubscriberClient, WithOptions};
use fred::prelude::{
    Builder, Client, ClientLike, ErrorKind, EventInterface, Options, ReconnectPolicy, TcpConfig,
};

use crate::{Error, Part};

/// Where Redis is and what a call may cost.
#[derive(Clone)]
pub struct Config {
    /// `redis://:password@host:port/database`, or `redis-cluster://…`.
    pub url: String,
    /// In front of the name of every key, so that installations can share a server.
    pub key_prefix: String,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// For one call.
    pub call_timeout: Duration,
    /// Most commands that wait in the client; more fail at once.
    pub queue: usize,
}

impl Config {
    /// The defaults: no prefix, 2 s to connect, 250 ms for a call, 4096 commands in the queue.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key_prefix: String::new(),
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_millis(250),
            queue: 4096,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

/// A handle on one connection, which pipelines the calls of all its clones and reconnects by itself.
#[derive(Clone)]
pub struct Redis {
    client: WithOptions<Client>,
    /// Connects when somebody listens.
    subscriber: SubscriberClient,
    prefix: Arc<str>,
    call_timeout: Duration,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("state", &self.client.state())
            .finish_non_exhaustive()
    }
}

/// What an address may start with; there is no TLS in this build.
const SCHEMES: [&str; 3] = ["redis://", "redis-cluster://", "redis-sentinel://"];

/// Between attempts to connect, at first and at most.
const RECONNECT_MILLIS: (u32, u32) = (50, 2_000);

impl Redis {
    /// Starts to connect in the background, for as long as it takes: a process can start while Redis is away.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Configuration {
            part: Part::Redis,
            reason,
        };
        // The client's own message may repeat the address, and with it a password.
        let invalid =
            |error: fred::error::Error| unusable(format!("not an address ({})", error.kind().to_str()));
        // The client takes schemes that it does not know, `rediss` without TLS among them, for plain `redis`.
        if !SCHEMES.iter().any(|scheme| config.url.starts_with(scheme)) {
            return Err(unusable(format!(
                "the address must start with one of {}",
                SCHEMES.join(", ")
            )));
        }
        let mut address = fred::prelude::Config::from_url(&config.url).map_err(invalid)?;
        address.fail_fast = false;
        let mut builder = Builder::from_config(address);
        builder
            .with_connection_config(|connection| {
                connection.connection_timeout = config.connect_timeout;
                connection.internal_command_timeout = config.connect_timeout;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = config.queue;
                // A connection whose answers stop is closed and made again.
                connection.unresponsive.max_timeout =
                    Some(config.connect_timeout.max(config.call_timeout * 4));
                connection.unresponsive.interval = config.call_timeout;
                connection.tcp = TcpConfig {
                    nodelay: Some(true),
                    ..TcpConfig::default()
                };
            })
            .with_performance_config(|performance| performance.default_command_timeout = config.call_timeout)
            .set_policy(ReconnectPolicy::new_exponential(
                0,
                RECONNECT_MILLIS.0,
                RECONNECT_MILLIS.1,
                2,
            ));
        let client = builder.build().map_err(invalid)?;
        let subscriber = builder.build_subscriber_client().map_err(invalid)?;
        // The task lives as long as the client; it ends with `close`.
        drop(client.connect());
        drop(client.on_error(|(error, _)| async move {
            tracing::warn!(part = "redis", error = %error, "connection failed");
            Ok(())
        }));
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(config.call_timeout),
            fail_fast: true,
            ..Options::default()
        };
        Ok(Self {
            client: client.with_options(&options),
            subscriber,
            prefix: config.key_prefix.as_str().into(),
            call_timeout: config.call_timeout,
        })
    }

    /// True while there is a connection.
    pub fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Waits until there is a connection, `limit` at most.
    ///
    /// # Errors
    /// When there is none by then.
    pub async fn wait_connected(&self, limit: Duration) -> Result<(), Error> {
        if self.is_connected() {
            return Ok(());
        }
        match tokio::time::timeout(limit, self.client.wait_for_connect()).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(Error::Timeout {
                part: Part::Redis,
                after: limit,
            }),
        }
    }

    /// Asks the server for an answer, for readiness.
    ///
    /// # Errors
    /// When it gives none in time.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(self.client.ping::<fred::types::Value>(None))
            .await
            .map(drop)
    }

    /// Ends the connection once what was sent is answered.
    pub async fn close(&self) {
        if let Err(error) = tokio::time::timeout(self.call_timeout, self.client.quit())
            .await
            .unwrap_or(Ok(()))
        {
            tracing::debug!(part = "redis", error = %error, "connection did not end in order");
        }
    }

    pub(crate) fn client(&self) -> &WithOptions<Client> {
        &self.client
    }

    pub(crate) const fn subscriber(&self) -> &SubscriberClient {
        &self.subscriber
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Runs one command, at once and within the time of a call, or not at all.
    ///
    /// # Cancellation
    /// A command that was sent takes effect although its future is dropped.
    pub(crate) async fn call<T>(
        &self,
        command: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, Error> {
        if !self.client.is_connected() {
            let source = "no connection".into();
            return Err(Error::Unavailable {
                part: Part::Redis,
                source,
            });
        }
        // What the client makes of a command is large, and calls are nested.
        self.bounded(Box::pin(command)).await
    }

    /// Gives a command the time of a call, whatever its connection.
    pub(crate) async fn bounded<T>(
        &self,
        command: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.call_timeout, command).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(Error::Timeout {
                part: Part::Redis,
                after: self.call_timeout,
            }),
        }
    }

    fn error(&self, error: fred::error::Error) -> Error {
        let part = Part::Redis;
        match error.kind() {
            ErrorKind::Timeout => Error::Timeout {
                part,
                after: self.call_timeout,
            },
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Cluster
            | ErrorKind::Routing
            | ErrorKind::Sentinel
            | ErrorKind::Backpressure
            | ErrorKind::Auth => Error::Unavailable {
                part,
                source: Box::new(error),
            },
            // These pass by themselves: loading its data set, demoted to a replica, out of memory for writes.
            _ if [
                "LOADING",
                "READONLY",
                "OOM",
                "BUSY",
                "MASTERDOWN",
                "TRYAGAIN",
                "CLUSTERDOWN",
            ]
            .iter()
            .any(|code| error.details().starts_with(code)) =>
            {
                Error::Unavailable {
                    part,
                    source: Box::new(error),
                }
            }
            ErrorKind::Parse | ErrorKind::Protocol => Error::Corrupt {
                part,
                what: "an answer",
            },
            _ => Error::Refused {
                part,
                source: Box::new(error),
            },
        }
    }
}
