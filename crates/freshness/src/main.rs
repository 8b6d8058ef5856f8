//! Measures how long an event takes from its acknowledgement to being found by a query, through the real pipeline.
//! Exit status 0 where every event arrived once and, with `--broken`, the others' p99 stayed within twice its value; 1
//! where not; 2 where the run could not be carried out.

mod phase;
mod places;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use millrace_testkit::pipeline::{Options, Pipeline};

use crate::phase::Phase;
use crate::places::Places;
use crate::table::Measured;

/// How old events are when they can be queried: many active workspaces, and broken ones beside sound ones.
#[derive(Clone, Debug, Parser)]
#[command(name = "millrace-freshness")]
struct Arguments {
    /// Active workspaces, each with a table of its own. At most twenty of them are watched.
    #[arg(long, default_value_t = 20)]
    workspaces: u64,
    /// How long each phase is, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Events a second over all workspaces.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Partitions of the topics.
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// The budget of inserts a second, `insert.per_second`; the bulker's default where it is not given.
    #[arg(long)]
    per_second: Option<u32>,
    /// A second phase in which one workspace's table is read-only and another's view throws; then both are mended.
    #[arg(long)]
    broken: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How much older the others' events may be beside broken workspaces.
const MOST_RATIO: f64 = 2.0;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Box::pin(run(&arguments)).await {
        Ok(phases) => {
            let sound = table::is_sound(&phases, MOST_RATIO);
            print(&if arguments.json {
                table::as_json(&phases, sound).to_string()
            } else {
                table::as_text(&phases, MOST_RATIO)
            });
            ExitCode::from(u8::from(!sound))
        }
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<Vec<Measured>> {
    let mut settings = Vec::new();
    if let Some(per_second) = arguments.per_second {
        settings.push(("MILLRACE__INSERT__PER_SECOND", per_second.to_string()));
    }
    let pipeline = Pipeline::start(Options {
        partitions: Some(arguments.partitions),
        settings: [("bulker", settings)].into(),
        ..Options::default()
    })
    .await?;
    say(&format!("making {} workspaces", arguments.workspaces));
    let places = Places::make(&pipeline, arguments.workspaces).await?;
    let measured = Box::pin(measure(arguments, &pipeline, &places)).await;
    // Also after a failure: a thousand tables are no small thing to leave behind.
    let dropped = places.remove(&pipeline).await;
    let measured = measured.with_context(|| pipeline.tails())?;
    dropped?;
    Ok(measured)
}

async fn measure(arguments: &Arguments, pipeline: &Pipeline, places: &Places) -> Result<Vec<Measured>> {
    let length = Duration::from_secs(arguments.seconds);
    let mut numbers = 0;
    say("waiting for the first event of each");
    Phase::first(pipeline, places, &mut numbers).await?;
    say(&format!("all sound, {} s", arguments.seconds));
    let phase = Phase::run(
        pipeline,
        places,
        "all sound",
        (length, arguments.rate),
        &mut numbers,
    );
    let mut phases = vec![phase.await?];
    if arguments.broken {
        places.break_two(pipeline).await?;
        say(&format!("two broken, {} s", arguments.seconds));
        let phase = Phase::run(
            pipeline,
            places,
            "two broken",
            (length, arguments.rate),
            &mut numbers,
        );
        phases.push(phase.await?);
        places.mend(pipeline).await?;
        say("mended, waiting for what went round");
        phases.push(Phase::last(pipeline, places, numbers).await?);
    }
    Ok(phases)
}

#[expect(clippy::print_stderr, reason = "progress is told beside the result")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    println!("{text}");
}
