//! The ways to run a function, and what each costs.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_benches::measure::Cpu;
use millrace_benches::processes::children;
use millrace_event::Verdict;
use millrace_event::frame::payload::Records;
use millrace_event::frame::{self, Load, Text};
use millrace_rotor::config::EventLimits;
use millrace_rotor::pool::{Chain, Config, Metrics, Pool};
use millrace_script::bare::Bare;
use millrace_service::{Clock as _, Readiness, SystemClock};
use serde_json::value::RawValue;

use crate::functions::Function;

/// Events in one batch, the rotor's own size.
pub(crate) const BATCH: usize = 500;

/// Batches that are on their way at once, so that parent and worker need not wait for each other.
const AT_ONCE: usize = 4;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    pub(crate) events: u64,
    pub(crate) cpu: Duration,
    /// Of `cpu`, what the parent used; for a way without a parent nothing.
    pub(crate) parent: Duration,
    pub(crate) elapsed: Duration,
}

/// The engine alone, in this process: one parse and one stringify per batch, no limits.
pub(crate) fn limit(function: Function, texts: &[String], events: usize) -> Result<Price> {
    let batch = format!("[{}]", texts.join(","));
    on_a_runtime(|| {
        let mut engine = Bare::new(function.code).map_err(anyhow::Error::msg)?;
        for _ in 0..20 {
            engine.run(&batch).context("the function threw")?;
        }
        let (cpu, began) = (Cpu::of(std::process::id())?, SystemClock.instant());
        let rounds = events / texts.len();
        for _ in 0..rounds {
            engine.run(&batch).context("the function threw")?;
        }
        Ok(Price {
            events: u64::try_from(rounds * texts.len())?,
            cpu: Cpu::of(std::process::id())?.since(cpu).total(),
            parent: Duration::ZERO,
            elapsed: SystemClock.instant() - began,
        })
    })
}

/// What the engine alone makes of `texts`.
pub(crate) fn bare(function: Function, texts: &[String]) -> Result<String> {
    let batch = format!("[{}]", texts.join(","));
    on_a_runtime(|| {
        let mut engine = Bare::new(function.code).map_err(anyhow::Error::msg)?;
        engine.run(&batch).context("the function threw")
    })
}

/// The engine posts its own tasks to a runtime of the thread it is on.
fn on_a_runtime<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let _entered = runtime.enter();
    work()
}

/// The rotor's pool with one worker process, under the limits that a rotor has by default.
pub(crate) struct Rotor {
    pool: Arc<Pool>,
    texts: Vec<String>,
}

impl Rotor {
    pub(crate) fn start(program: &Path, texts: &[String]) -> Result<Self> {
        Ok(Self {
            pool: Arc::new(pool(program)?),
            texts: texts.to_vec(),
        })
    }

    /// Runs `events` through the function, `size` at a time.
    pub(crate) async fn run(&self, function: Function, size: usize, events: usize) -> Result<Price> {
        let chain = chain(function.name, 1, function.code)?;
        self.through(&chain, size, BATCH * 20).await?;
        let worker = children(std::process::id())?;
        ensure!(worker.len() == 1, "{} workers instead of one", worker.len());
        let itself = || Cpu::of(std::process::id());
        let (parent, workers, began) = (itself()?, Cpu::of_all(&worker)?, SystemClock.instant());
        let done = self.through(&chain, size, events).await?;
        let parent = itself()?.since(parent).total();
        Ok(Price {
            events: done,
            cpu: parent + Cpu::of_all(&worker)?.since(workers).total(),
            parent,
            elapsed: SystemClock.instant() - began,
        })
    }

    /// What the function makes of the events.
    pub(crate) async fn texts(&self, function: Function) -> Result<Vec<String>> {
        let chain = chain(function.name, 1, function.code)?;
        let outcomes = self.pool.run(chain, inputs(&self.texts)).await?;
        let events = outcomes.into_iter().flat_map(|outcome| outcome.events);
        Ok(events.map(|event| event.get().to_owned()).collect())
    }

    async fn through(&self, chain: &Arc<Chain>, size: usize, events: usize) -> Result<u64> {
        let batches: Vec<_> = self.texts.chunks(size).collect();
        let mut running = tokio::task::JoinSet::new();
        let mut done = 0;
        for number in 0..events / size {
            let batch = inputs(batches[number % batches.len()]);
            let (pool, chain) = (Arc::clone(&self.pool), Arc::clone(chain));
            running.spawn(async move { pool.run(chain, batch).await });
            if running.len() >= AT_ONCE
                && let Some(outcomes) = running.join_next().await
            {
                done += forwarded(&outcomes??)?;
            }
        }
        while let Some(outcomes) = running.join_next().await {
            done += forwarded(&outcomes??)?;
        }
        Ok(done)
    }
}

fn forwarded(outcomes: &[frame::Outcome]) -> Result<u64> {
    let failed = outcomes
        .iter()
        .find(|outcome| outcome.verdict != Verdict::Forward);
    ensure!(failed.is_none(), "an event was not forwarded: {failed:?}");
    Ok(u64::try_from(outcomes.len())?)
}

/// A pool with one worker and the rotor's own defaults.
pub(crate) fn pool(program: &Path) -> Result<Pool> {
    let config = Config {
        workers: NonZeroUsize::MIN,
        program: Some(program.to_owned()),
        ..Config::default()
    };
    let metrics = millrace_service::Metrics::default().register(Metrics::register);
    let condition = Readiness::default().condition("workers");
    Ok(Pool::start(config, metrics, Arc::new(SystemClock), &condition)?)
}

/// A chain of one function.
pub(crate) fn chain(id: &str, version: u64, code: &str) -> Result<Arc<Chain>> {
    let load = Load {
        chain: id.to_owned(),
        version,
        workspace: "ws_bench".to_owned(),
        source: "src_bench".to_owned(),
        destination: "dst_bench".to_owned(),
        functions: vec![frame::Function {
            id: format!("fn_{id}"),
            version: 1,
            code: format!("export default {code}"),
            typescript: false,
        }],
        environment: Text(RawValue::from_string("{}".to_owned())?),
        environment_fault: None,
        limits: EventLimits::default().frame(),
    };
    Ok(Arc::new(Chain::new(load)?))
}

/// Events as the rotor hands them to its pool.
pub(crate) fn inputs(texts: &[String]) -> Records {
    let context = concat!(
        r#"{"attempt":0,"receivedAt":"2026-11-21T04:00:00.120Z","headers":{"user-agent":"analytics-node-next/3.1.0"},"#,
        r#""idempotencyKey":"5eed0000000000ab-3-4711042"}"#
    );
    let record = |event| frame::Record {
        context,
        event,
        position: 0,
    };
    let bytes = texts.iter().map(|text| Records::size_of(&record(text))).sum();
    let mut records = Records::with_capacity(texts.len(), bytes);
    texts.iter().for_each(|text| records.push(record(text)));
    records
}
