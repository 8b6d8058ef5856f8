//! What the gateway costs: the real process with all of its steps, beside the least that any gateway could do.
//!
//! One processor belongs to the server that is measured; the load, Kafka, Redis and Postgres have the others. The
//! servers take turns within one run, so the ratios hold where the figures do not. CPU is user and system time of
//! the server's process, from the first request until the last event is in Kafka. Bounded by `--seconds` and
//! `--events` per phase; topics, databases and files (in `TMPDIR`, which should be a disk) are gone at the end.

mod events;
mod gateway;
mod limit;
mod phases;
mod report;
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millrace_benches::measure;
use millrace_benches::report::{print, say};

/// Measures what the gateway costs: single requests, batches, latency, overload, beside plain hyper.
#[derive(Clone, Debug, Parser)]
#[command(name = "ingest")]
struct Arguments {
    /// Longest time of one phase.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    time: Duration,
    /// Most events of one phase.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Rounds; the figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that keep the server busy.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Single requests per second for the latency.
    #[arg(long, default_value_t = 4_500)]
    rate: u32,
    /// `journal.sync` of the gateway: always, interval or os.
    #[arg(long, default_value = "always")]
    sync: String,
    /// Leave out the overload.
    #[arg(long)]
    no_overload: bool,
    /// Sample the gateway with Linux's `perf` for the share of each step; two phases more.
    #[arg(long)]
    steps: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Be one of the servers without steps; used by the program itself.
    #[arg(long, hide = true, value_name = "FILE|-")]
    serve: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "a number of seconds, such as 10s".to_owned())?;
    match seconds {
        1..=600 => Ok(Duration::from_secs(seconds)),
        _ => Err("between 1s and 600s".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.serve {
        Some(file) => limit::serve(file),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds: at least one is needed");
    ensure!(arguments.connections > 0, "--connections: at least one is needed");
    let cores = measure::cores()?;
    let (server, others) = cores.split_last().context("there is no processor")?;
    ensure!(
        !others.is_empty(),
        "two processors are needed, one for the server and one for its load"
    );
    // Everything here is on one thread, so that what is started while it is pinned is pinned.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    measure::pin(others)?;
    let report = runtime.block_on(phases::run(arguments, *server, others))?;
    print(&match arguments.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.text(),
    });
    Ok(())
}
