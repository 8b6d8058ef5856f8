//! `millrace-rotor functions`: the functions API with its workers, and nothing else.
//!
//! For trying code before anything runs: no Kafka, no Redis, and Postgres only for what is stored there (service
//! tokens, and functions that a request names by their id).

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use millrace_service::Context;
use millrace_store::{Functions, Postgres, Tokens, postgres};

use crate::config::Configuration;
use crate::http;
use crate::pool::{self, Pool};

/// Serves until it is asked to end. `announce` prints the address on standard output, once it is served: with
/// port 0 nobody else knows it.
///
/// # Errors
/// When the port cannot be served or there are no threads for workers.
pub async fn run(context: Context<Configuration>, announce: bool) -> anyhow::Result<()> {
    let Context {
        config,
        about: _,
        shutdown,
        readiness,
        metrics,
        admin,
        clock,
    } = context;
    let address = config
        .admin
        .listen
        .context("admin.listen says where to serve the API; it is empty")?;
    let postgres = Postgres::new(&postgres::Config::new(config.postgres.url.expose())).context("postgres")?;
    let workers = metrics.register(pool::Metrics::register);
    let condition = readiness.condition("workers");
    let pool = Pool::start(
        config.workers.pool(&config.quarantine),
        workers,
        Arc::clone(&clock),
        &condition,
    );
    let access = http::Access {
        tokens: Tokens::new(postgres.clone()),
        own: config.functions.token,
    };
    let functions = http::Functions::new(
        Arc::new(pool.context("workers")?),
        None,
        Functions::new(postgres),
        access,
        config.limits.frame(),
        clock,
    );
    let server = http::Server::bind(address, admin, functions).await?;
    let address = server.address()?;
    tracing::info!(%address, "functions API and admin routes are served");
    readiness.started();
    if announce {
        let mut out = std::io::stdout();
        writeln!(out, "http://{address}")
            .and_then(|()| out.flush())
            .context("standard output")?;
    }
    shutdown.token().run_until_cancelled(server.serve()).await;
    Ok(())
}
