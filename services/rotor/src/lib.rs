//! The rotor: events through their functions, one record out for each record in.
//!
//! [`consume`] reads the ingest and retry topics as a group member, [`registry`] knows which chains an event
//! takes, [`pool`] runs them in worker processes, [`route`] turns outcomes into transformed records. No JavaScript
//! runs in this process, and nothing here links an engine: what the workers run is part of the binary alone.

pub mod budget;
pub mod config;
pub mod consume;
pub mod environment;
pub mod functions;
pub mod geo;
pub mod http;
pub mod incoming;
pub mod logs;
pub mod metrics;
pub mod outside;
pub mod pool;
pub mod quarantine;
pub mod region;
pub mod registry;
pub mod restore;
pub mod route;
pub mod table;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_kafka::edge::Producer;
use millrace_kafka::{Connection, topics};
use millrace_service::{Condition, Context};
use millrace_store::{
    Chains, FunctionDebug, Functions, Notice, Postgres, Quarantines, Redis, Tokens, Values, notice, postgres,
    redis,
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use budget::Budgets;
use config::Configuration;
use consume::Shared;
use environment::Environments;
use geo::Geo;
use logs::Logs;
use metrics::Metrics;
use outside::{Fetch, Outside};
use pool::Pool;
use quarantine::Quarantine;
use registry::Registry;

/// How often the topics are looked for while they are missing or the cluster is away.
const TOPICS_PAUSE: Duration = Duration::from_secs(1);

/// How long Kafka may take to answer about log lines.
const LOGS_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the service until it is asked to end.
///
/// # Errors
/// When a part cannot even be set up; parts that are away are waited for.
pub async fn run(context: Context<Configuration>) -> anyhow::Result<()> {
    let Context {
        config,
        about: _,
        shutdown,
        readiness,
        metrics,
        admin,
        clock,
    } = context;
    let ended = shutdown.token();

    let postgres = Postgres::new(&postgres::Config::new(config.postgres.url.expose())).context("postgres")?;
    let redis = connect(&config.redis).context("redis")?;
    let counts = metrics.register(Metrics::register);
    let source = registry::Source {
        chains: Chains::new(postgres.clone()),
        limits: config.limits.frame(),
        environments: Environments::new(config.secrets.key_file.clone()),
        changed: listen(redis.clone()),
    };
    let registry = Arc::new(Registry::start(
        source,
        &config.registry,
        readiness.condition("configuration"),
        counts.config_version.clone(),
        Arc::clone(&clock),
        ended.clone(),
    ));
    let quarantine = Quarantine::start(
        Quarantines::new(postgres.clone()),
        &config.quarantine,
        config.registry.poll,
        readiness.observation("functions"),
        metrics.register(quarantine::Metrics::register),
        Arc::clone(&clock),
        ended.clone(),
    );
    let (workers, condition) = (
        metrics.register(pool::Metrics::register),
        readiness.condition("workers"),
    );
    let values = Values::new(redis, config.store.quota());
    let fetch = Fetch::new(config.fetch.client()).context("fetch")?;
    let calls = metrics.register(outside::Metrics::register);
    let outside = Outside::new(Some(outside::Store::new(values)), Some(fetch), calls);
    let pool = Pool::start(
        pool::Config {
            outside,
            ..config.workers.pool(&config.quarantine)
        },
        workers,
        Arc::clone(&clock),
        &condition,
    );
    let pool = Arc::new(pool.context("workers")?);
    if let Some(address) = config.admin.listen {
        let access = http::Access {
            tokens: Tokens::new(postgres.clone()),
            own: config.functions.token.clone(),
        };
        let functions = http::Functions::new(
            Arc::clone(&pool),
            Some(Arc::clone(&registry)),
            Functions::new(postgres.clone()),
            access,
            config.limits.frame(),
            Arc::clone(&clock),
        );
        let server = http::Server::bind(address, admin, functions).await?;
        tracing::info!(address = %server.address()?, "functions API and admin routes are served");
        tokio::spawn(server.serve());
    }
    let (logs, reporter) = Logs::new(
        &config.logs,
        Producer::new(config.connection(), LOGS_TIMEOUT),
        config.topics.functions_log.clone(),
        metrics.register(logs::Metrics::register),
        Arc::clone(&clock),
    );
    logs.follow(FunctionDebug::new(postgres), config.registry.poll, ended.clone());
    // Lines of the events that are drained are sent as well.
    let drained = CancellationToken::new();
    let reporting = tokio::spawn(reporter.run(drained.clone()));
    let shared = Shared {
        connection: config.connection(),
        group: config.consumer,
        topics: config.topics,
        incarnation: config.ingest.incarnation,
        registry,
        budgets: Budgets::new(config.limits.batch_wall, config.limits.batch_refill),
        returning: Semaphore::new((pool.workers().get() / 2).max(1)),
        logs,
        pool,
        quarantine,
        geo: Geo::start(config.geo.database, ended.clone()),
        metrics: counts,
        clock,
    };
    let (has_topics, consuming) = (readiness.condition("topics"), readiness.condition("consumer"));
    readiness.started();

    let begin = async {
        shared.registry.ready().await;
        wait_for_topics(&shared, &has_topics).await;
    };
    if ended.run_until_cancelled(begin).await.is_none() {
        return Ok(());
    }
    consume::run(Arc::new(shared), consuming, ended).await;
    drained.cancel();
    if tokio::time::timeout(LOGS_TIMEOUT, reporting).await.is_err() {
        tracing::warn!("log lines of functions were not all sent at the end");
    }
    Ok(())
}

/// Redis away is not a fault: it is connected with once it is there.
fn connect(section: &millrace_service::config::Redis) -> Result<Redis, millrace_store::Error> {
    let mut config = redis::Config::new(section.url.expose());
    config.key_prefix.clone_from(&section.key_prefix);
    Redis::connect(&config)
}

/// Notified when somebody says that the configuration changed.
fn listen(redis: Redis) -> Arc<Notify> {
    let changed = Arc::new(Notify::new());
    let heard = Arc::clone(&changed);
    tokio::spawn(notice::listen(redis, move |notice| match notice {
        Notice::ConfigurationChanged | Notice::Missed => heard.notify_one(),
        Notice::KeyRevoked(_) | Notice::WorkspaceChanged(_) => {}
    }));
    changed
}

/// Records keep their partition from the topics read to the one written, so these must have as many.
async fn wait_for_topics(shared: &Shared, condition: &Condition) {
    let Shared {
        connection,
        topics: names,
        ..
    } = shared;
    let connection: &Connection = connection;
    while let Err(error) = topics::check(connection, names).await {
        tracing::warn!(%error, "topics are not as they must be, waiting");
        condition.fails(error.to_string());
        tokio::time::sleep(TOPICS_PAUSE).await;
    }
    condition.holds();
}
