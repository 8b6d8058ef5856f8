//! What a chain costs before its first event, and while it has none.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_benches::measure::{Histogram, Memory};
use millrace_benches::processes::children;
use millrace_service::{Clock as _, SystemClock};
use serde::Serialize;

use crate::functions::{self, MEDIUM};
use crate::ways::{chain, inputs, pool};

/// Cold starts that are timed.
const STARTS: u32 = 60;

/// Chains after which a worker holds no more of what its start needed.
const SETTLED: u32 = 8;

/// Isolates that are weighed; as many as a worker keeps by default.
const ISOLATES: u32 = 32;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Chains {
    /// From a batch of one event for a chain that the worker does not hold to its outcome.
    pub(crate) cold_p50: Duration,
    pub(crate) cold_p99: Duration,
    /// The same event on a chain that it holds.
    pub(crate) warm_p50: Duration,
    /// Resident memory of a worker with one chain, in bytes.
    pub(crate) worker_bytes: u64,
    /// What each further chain adds to it that has run one event, in bytes.
    pub(crate) isolate_bytes: u64,
}

pub(crate) fn measure(runtime: &tokio::runtime::Runtime, program: &Path) -> Result<Chains> {
    let texts = functions::events()?;
    let input = inputs(texts.get(..1).context("an event")?);
    let before = children(std::process::id())?;
    // A pool of its own: the memory is weighed in a worker that has held no other chain.
    let pool = pool(program)?;
    runtime.block_on(async {
        let first = pool.run(chain("first", 1, MEDIUM.code)?, input.clone()).await?;
        ensure!(first.len() == 1, "one event gave {} outcomes", first.len());
        let newest = children(std::process::id())?.into_iter().max();
        let worker = newest
            .or_else(|| before.into_iter().max())
            .context("there is no worker")?;
        let empty = Memory::of(worker)?.resident;
        let (mut cold, mut warm) = (Histogram::default(), Histogram::default());
        let (mut few, mut full) = (0_u64, 0_u64);
        for number in 0..STARTS {
            let chain = chain(&format!("chain-{number}"), 1, MEDIUM.code)?;
            for histogram in [&mut cold, &mut warm] {
                let began = SystemClock.instant();
                let outcomes = pool.run(std::sync::Arc::clone(&chain), input.clone()).await?;
                histogram.record(SystemClock.instant() - began);
                let fault = outcomes.first().and_then(|outcome| outcome.fault.as_ref());
                ensure!(fault.is_none(), "a chain does not run: {fault:?}");
            }
            if number + 1 == SETTLED {
                few = Memory::of(worker)?.resident;
            }
            // The first chain is there as well; the next one would push it out.
            if number + 2 == ISOLATES {
                full = Memory::of(worker)?.resident;
            }
        }
        Ok(Chains {
            cold_p50: cold.quantile(0.5),
            cold_p99: cold.quantile(0.99),
            warm_p50: warm.quantile(0.5),
            worker_bytes: empty,
            isolate_bytes: full.saturating_sub(few) / u64::from(ISOLATES - 1 - SETTLED),
        })
    })
}
