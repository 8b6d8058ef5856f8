//! A run: everything started, load and faults until the time is up, everything mended, the verdict.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use millrace_testkit::broker::Broker;
use millrace_testkit::clickhouse::ClickHouse;
use millrace_testkit::pipeline::{self, Pipeline, SERVICES};
use millrace_testkit::proxy::{Protocol, Proxy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fate::{FUNCTION, PLAIN};
use crate::faults::{ALL, Clocks, Fault, SESSION, Tally, World};
use crate::load::{self, Sent};
use crate::stages::Stages;
use crate::verdict::{self, Report};

/// Nothing that is waited for at the beginning or the end takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(300);

/// What kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides which faults come in which order and how long each lasts.
    pub seed: u64,
    /// How long faults go on.
    pub length: Duration,
    /// Events a second.
    pub rate: u64,
}

/// How far a run is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What is being done.
    pub doing: String,
    /// How much of the time is gone.
    pub elapsed: Duration,
    /// Events acknowledged.
    pub accepted: u64,
    /// Faults carried out.
    pub faults: u64,
}

/// Runs.
///
/// # Errors
/// A part cannot be started or does not come back. What the oracle finds is in the report.
///
/// # Cancellation
/// Kills everything that was started.
pub async fn run(options: Options, progress: watch::Sender<Progress>) -> Result<Report> {
    let doing = |what: String| progress.send_modify(|progress| progress.doing = what);
    doing("starting a broker, a ClickHouse and the services".into());
    // Dropped last: the processes write there.
    let directory = tempfile::TempDir::with_prefix("millrace-chaos-")?;
    let to_broker = Proxy::listen(Protocol::Kafka).await?;
    let broker = Broker::start_behind(directory.path(), &to_broker).await?;
    let clickhouse = ClickHouse::start(directory.path()).await?;
    let (to_clickhouse, url) = Proxy::through(&clickhouse.url(), 8123).await?;
    let session = (
        "MILLRACE__CONSUMER__SESSION_TIMEOUT",
        format!("{}s", SESSION.as_secs()),
    );
    let clocks = Clocks::in_directory(directory.path());
    let pipeline = Pipeline::start(pipeline::Options {
        kafka: Some(broker.address()),
        clickhouse: Some(url),
        settings: [
            ("ingest", vec![clocks.setting("ingest")]),
            ("rotor", vec![session.clone(), clocks.setting("rotor")]),
            ("bulker", vec![session, clocks.setting("bulker")]),
        ]
        .into(),
        ..pipeline::Options::default()
    })
    .await?;
    let mut world = World {
        pipeline,
        broker,
        clickhouse,
        to_broker,
        to_clickhouse,
        clocks,
        chance: Rng::with_seed(options.seed),
        tally: Tally::default(),
    };
    let done = Box::pin(under_load(options, &mut world, &progress)).await;
    done.map_err(|error| {
        let files = world.pipeline.keep_files();
        error.context(format!(
            "seed {}; the logs are in {}",
            options.seed,
            files.display()
        ))
    })
}

async fn under_load(
    options: Options,
    world: &mut World,
    progress: &watch::Sender<Progress>,
) -> Result<Report> {
    let doing = |what: String| progress.send_modify(|progress| progress.doing = what);
    world.pipeline.put_function("fate", FUNCTION).await?;
    verdict::add_view(&world.pipeline).await?;
    let (sender, sent) = (world.pipeline.sender(), Arc::new(Sent::default()));
    load::send_plain(&sender, &sent, PLAIN).await?;
    world.pipeline.rows(PLAIN, PATIENCE).await?;

    let stages = Stages::watch(world.clickhouse.url(), world.pipeline.url("bulker").to_owned());
    let (end, ended) = watch::channel(false);
    let loading = tokio::spawn({
        let sent = Arc::clone(&sent);
        async move { load::send(&sender, &sent, PLAIN, options.rate, ended).await }
    });
    let began = Instant::now();
    let mut pack: Vec<Fault> = Vec::new();
    while began.elapsed() < options.length && !loading.is_finished() {
        if pack.is_empty() {
            pack = ALL.to_vec();
            world.chance.shuffle(&mut pack);
        }
        let Some(fault) = pack.pop() else { break };
        progress.send_modify(|progress| {
            progress.doing = fault.to_string();
            progress.elapsed = began.elapsed();
            progress.accepted = sent.oracle.acknowledged_count();
        });
        world
            .carry_out(fault)
            .await
            .with_context(|| format!("at the fault \"{fault}\""))?;
        progress.send_modify(|progress| progress.faults += 1);
        world.pause(300, 2500).await;
    }
    let length = began.elapsed();
    doing("mended, waiting for the last answers".into());
    end.send_replace(true);
    loading.await?.context("load")?;
    for service in SERVICES {
        world.pipeline.ready(service).await?;
    }
    progress.send_modify(|progress| {
        progress.elapsed = length;
        progress.accepted = sent.oracle.acknowledged_count();
        progress.doing = "waiting until everything has arrived".into();
    });
    let settled = verdict::settled(&world.pipeline, &sent, PATIENCE).await;
    let (by_token, by_question) = stages.counted();
    doing("judging".into());
    let mut report = verdict::judge(&world.pipeline, &sent).await?;
    if let Err(error) = settled {
        report.violations.push(format!("{error:#}"));
    }
    report.by_token = by_token;
    report.by_question = by_question;
    report.seed = options.seed;
    report.length = length;
    report.tally = world.tally.clone();
    if !report.violations.is_empty() {
        let files = world.pipeline.keep_files();
        report.logs = Some(files.display().to_string());
    }
    Ok(report)
}
