//! The rotor: events through their functions, one record out for each record in.
//!
//! [`consume`] reads the ingest and retry topics as a group member, [`registry`] knows which chains an event
//! takes, [`pool`] runs them in worker processes, [`route`] turns outcomes into transformed records. No JavaScript
//! runs in this process, and nothing here links an engine: what the workers run is part of the binary alone.

pub mod config;
pub mod consume;
pub mod http;
pub mod incoming;
pub mod metrics;
pub mod pool;
pub mod registry;
pub mod restore;
pub mod route;
pub mod table;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_kafka::{Connection, topics};
use millrace_service::{Condition, Context};
use millrace_store::{Chains, Postgres, Tokens, postgres};

use config::Configuration;
use consume::Shared;
use metrics::Metrics;
use pool::Pool;
use registry::Registry;

/// How often the topics are looked for while they are missing or the cluster is away.
const TOPICS_PAUSE: Duration = Duration::from_secs(1);

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
    let counts = metrics.register(Metrics::register);
    let registry = Arc::new(Registry::start(
        Chains::new(postgres.clone()),
        &config.registry,
        config.limits.frame(),
        readiness.condition("configuration"),
        counts.config_version.clone(),
        Arc::clone(&clock),
        ended.clone(),
    ));
    let (workers, condition) = (
        metrics.register(pool::Metrics::register),
        readiness.condition("workers"),
    );
    let pool = Pool::start(config.workers.pool(), workers, Arc::clone(&clock), &condition);
    let pool = Arc::new(pool.context("workers")?);
    if let Some(address) = config.admin.listen {
        let functions = http::Functions::new(
            Arc::clone(&pool),
            Arc::clone(&registry),
            Tokens::new(postgres),
            config.limits.frame(),
            Arc::clone(&clock),
        );
        let server = http::Server::bind(address, admin, functions).await?;
        tracing::info!(address = %server.address()?, "functions API and admin routes are served");
        tokio::spawn(server.serve());
    }
    let shared = Shared {
        connection: config.connection(),
        group: config.consumer,
        topics: config.topics,
        incarnation: config.ingest.incarnation,
        registry,
        pool,
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
    Ok(())
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
