//! The clients that commands use, made when they are asked for: a command needs only what it touches.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_event::Timestamp;
use millrace_event::topic::Topics;
use millrace_kafka::Connection;
use millrace_store::keys::Cache;
use millrace_store::postgres::Config as PostgresConfig;
use millrace_store::redis::Config as RedisConfig;
use millrace_store::{Error, Keys, Notice, Postgres, Redis, WorkspaceId, notice};
use millrace_warehouse::{Config as WarehouseConfig, Database, Warehouse};

use crate::config::Config;
use crate::rotor::Rotor;

/// How long a command waits for Redis.
const REDIS_WAIT: Duration = Duration::from_secs(2);

/// Commands are few and one at a time.
const CONNECTIONS: usize = 2;

/// What the configuration leads to.
#[derive(Debug)]
pub(crate) struct Parts {
    config: Config,
    dry_run: bool,
}

/// Whether running processes know of a change: they do, they could not be told, or there was nothing to tell.
#[derive(Debug)]
pub(crate) struct Told(Option<Result<(), Error>>);

impl Told {
    /// For scripts: null where there was nothing to tell.
    pub(crate) fn json(&self) -> Option<bool> {
        self.0.as_ref().map(Result::is_ok)
    }

    /// The end of a sentence about a change that running gateways may not know of: `then` says what they do, and by
    /// when.
    pub(crate) fn untold(&self, then: &str) -> String {
        match &self.0 {
            Some(Err(error)) => format!("; running gateways could not be told ({error}) and {then}"),
            Some(Ok(())) | None => String::new(),
        }
    }
}

impl Parts {
    /// With `dry_run` Postgres keeps nothing and nobody is told anything; what changes anything else asks
    /// [`Self::is_dry_run`].
    pub(crate) const fn new(config: Config, dry_run: bool) -> Self {
        Self { config, dry_run }
    }

    /// Whether the command is only tried.
    pub(crate) const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn postgres(&self) -> Result<Postgres> {
        let mut config = PostgresConfig::new(self.config.postgres.url.expose());
        config.connections = CONNECTIONS;
        let postgres = Postgres::new(&config)?;
        Ok(match self.dry_run {
            true => postgres.trying(),
            false => postgres,
        })
    }

    /// A connection to Redis, once it is there.
    pub(crate) async fn redis(&self) -> Result<Redis, Error> {
        let section = &self.config.redis;
        let mut config = RedisConfig::new(section.url.expose());
        config.key_prefix.clone_from(&section.key_prefix);
        config.call_timeout = REDIS_WAIT;
        let redis = Redis::connect(&config)?;
        redis.wait_connected(REDIS_WAIT).await?;
        Ok(redis)
    }

    /// Tells running rotors that the configuration changed. Where they cannot be told they find out by themselves,
    /// a moment later: the command's work is done.
    pub(crate) async fn tell_configured(&self) {
        let publish = async |redis: Redis| notice::publish(&redis, &Notice::ConfigurationChanged).await;
        drop(self.tell(publish).await);
    }

    /// Tells running processes that a workspace changed.
    pub(crate) async fn tell_changed(&self, workspace: &WorkspaceId) -> Told {
        self.tell(async |redis| {
            let keys = Keys::new(self.postgres().map_err(|_| Error::Invalid {
                what: "postgres.url",
                reason: "cannot be used",
            })?);
            let ids: Vec<_> = keys
                .list(workspace)
                .await?
                .into_iter()
                .map(|key| key.id)
                .collect();
            Cache::new(redis.clone()).forget(&ids).await?;
            notice::publish(&redis, &Notice::WorkspaceChanged(workspace.clone())).await
        })
        .await
    }

    /// Tells running processes something, where there is something to tell.
    pub(crate) async fn tell(&self, say: impl AsyncFnOnce(Redis) -> Result<(), Error>) -> Told {
        if self.dry_run {
            return Told(None);
        }
        Told(Some(match self.redis().await {
            Ok(redis) => say(redis).await,
            Err(error) => Err(error),
        }))
    }

    pub(crate) fn warehouse(&self) -> Warehouse {
        let section = &self.config.clickhouse;
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut config = WarehouseConfig::new(section.url.expose());
        config.user = filled(&section.user);
        config.password = filled(section.password.expose());
        config.build()
    }

    /// The database of Millrace's own tables.
    pub(crate) fn system_database(&self) -> Result<Database> {
        self.config
            .clickhouse
            .database
            .parse()
            .context("clickhouse.database is not the name of a database")
    }

    pub(crate) fn kafka(&self) -> Connection {
        Connection::new(self.config.kafka.brokers.join(","), "millctl")
    }

    /// A rotor that compiles and runs functions: the one at `url`, the configured one, or one of this command's own.
    pub(crate) fn rotor(&self, url: Option<&str>) -> Result<Rotor> {
        let section = &self.config.rotor;
        let configured = (!section.url.is_empty()).then_some(section.url.as_str());
        match url.or(configured) {
            Some(url) => Rotor::at(url, section.token.expose()),
            None => Rotor::start(&section.program),
        }
    }

    /// The file with the keys that secrets are sealed under.
    pub(crate) fn key_file(&self) -> Option<&Path> {
        self.config.secrets.key_file.as_deref()
    }

    /// Kafka at `brokers`, or where the configuration says when none are named.
    pub(crate) fn kafka_at(&self, brokers: &[String]) -> Connection {
        match brokers {
            [] => self.kafka(),
            named => Connection::new(named.join(","), "millctl"),
        }
    }

    pub(crate) const fn topics(&self) -> &Topics {
        &self.config.topics
    }

    /// The time, as records carry it.
    pub(crate) fn now(&self) -> Timestamp {
        use millrace_service::{Clock as _, SystemClock};
        Timestamp::clamped_from_millis(SystemClock.now().as_millisecond())
    }
}
