//! A run: workspaces made, phases of load, two of them broken and mended.

use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_testkit::pipeline::{self, Pipeline};

use crate::phase::Phase;
use crate::places::Places;
use crate::table::Measured;

/// What kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Active workspaces, each with a table of its own. At most twenty of them are watched.
    pub workspaces: u64,
    /// How long each phase is.
    pub length: Duration,
    /// Events a second over all workspaces.
    pub rate: u64,
    /// Partitions of the topics.
    pub partitions: u32,
    /// The budget of inserts a second; the bulker's default where it is not given.
    pub per_second: Option<u32>,
    /// A second phase with two broken workspaces, and the repair.
    pub broken: bool,
    /// Run the programs that `./dev build-release` made.
    pub release: bool,
}

/// Runs; `say` is told how far it is. The phases in their order: all sound; two broken; after the repair.
///
/// # Errors
/// A part cannot be started, or ClickHouse or Postgres refuse. An event that does not arrive is in the result, but for
/// the repair, which is waited for for ten minutes.
///
/// # Cancellation
/// Ends every process that was started; tables stay behind.
pub async fn run(options: &Options, say: impl Fn(&str)) -> Result<Vec<Measured>> {
    let mut settings = Vec::new();
    if let Some(per_second) = options.per_second {
        settings.push(("MILLRACE__INSERT__PER_SECOND", per_second.to_string()));
    }
    let pipeline = Pipeline::start(pipeline::Options {
        partitions: Some(options.partitions),
        settings: [("bulker", settings)].into(),
        release: options.release,
        ..pipeline::Options::default()
    })
    .await?;
    say(&format!("making {} workspaces", options.workspaces));
    let places = Places::make(&pipeline, options.workspaces).await?;
    let measured = Box::pin(measure(options, &pipeline, &places, &say)).await;
    // Also after a failure: a thousand tables are no small thing to leave behind.
    say("removing their tables");
    let dropped = places.remove(&pipeline).await;
    let measured = measured.with_context(|| pipeline.tails())?;
    dropped?;
    Ok(measured)
}

async fn measure(
    options: &Options,
    pipeline: &Pipeline,
    places: &Places,
    say: &impl Fn(&str),
) -> Result<Vec<Measured>> {
    let load = (options.length, options.rate);
    let seconds = options.length.as_secs();
    let mut numbers = 0;
    say("waiting for the first event of each");
    Phase::first(pipeline, places, &mut numbers).await?;
    say(&format!("all sound, {seconds} s"));
    let phase = Phase::run(pipeline, places, "all sound", load, &mut numbers);
    let mut phases = vec![phase.await?];
    if options.broken {
        // What is held back from here on was sent to the broken ones while they were broken.
        Phase::all_arrive(pipeline, places, numbers).await?;
        places.break_two(pipeline).await?;
        say(&format!("two broken, {seconds} s"));
        let phase = Phase::run(pipeline, places, "two broken", load, &mut numbers);
        phases.push(phase.await?);
        places.mend(pipeline).await?;
        say("mended, waiting for what went round");
        phases.push(Phase::last(pipeline, places, numbers).await?);
    }
    Ok(phases)
}
