//! What JavaScript functions cost: the engine alone, the rotor's own way, and Node's `isolated-vm`, in one run.
//!
//! Every figure is CPU time, user and system, of all processes that take part: the way from the parent to a worker
//! and back is part of the price. The ways take turns, round by round, so that a machine that becomes slower does so
//! for all of them; the table has the medians. It is bounded by `--events`, `--rounds` and the number of ways.

mod chain;
mod functions;
mod node;
mod report;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millrace_benches::report::{print, say};

use functions::{ASYNC, Function, MEDIUM, TINY};
use report::Report;
use ways::{Price, Rotor};

/// Measures what functions cost: the engine alone, the rotor's way, isolated-vm.
#[derive(Debug, Parser)]
#[command(name = "rotor")]
struct Arguments {
    /// Events of 1 KB per way and round.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Rounds; the figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The rotor's program, whose workers run the functions.
    #[arg(long, default_value = "target/dist/millrace-rotor")]
    program: PathBuf,
    /// Where isolated-vm is installed; without it, that way is left out.
    #[arg(long)]
    isolated_vm: Option<PathBuf>,
    /// This function and the rotor's batches alone, without the other ways and tables: for a profiler.
    #[arg(long, value_parser = ["tiny", "medium", "async"])]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds: at least one is needed");
    ensure!(
        arguments.events >= ways::BATCH,
        "--events: at least {} are needed",
        ways::BATCH
    );
    let program = arguments.program.canonicalize();
    let program = program.with_context(|| {
        format!(
            "{} is missing; `./dev build-release` makes it",
            arguments.program.display()
        )
    })?;
    let texts = functions::events()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rotor = Rotor::start(&program, &texts)?;
    let mut report = Report::default();
    if let Some(name) = &arguments.profile {
        let (function, shown, way) = match name.as_str() {
            "tiny" => (TINY, TINY, report::ROTOR),
            "async" => (ASYNC, TINY, report::ASYNC),
            _ => (MEDIUM, MEDIUM, report::ROTOR),
        };
        for _ in 0..arguments.rounds {
            let price = runtime.block_on(rotor.run(function, ways::BATCH, arguments.events))?;
            report.add(shown.name, way, price);
        }
        print(&report.text());
        return Ok(());
    }
    for function in [TINY, MEDIUM] {
        functions::check(&runtime, &rotor, function, &texts)?;
        for round in 1..=arguments.rounds {
            say(&format!(
                "{}: round {round} of {}",
                function.name, arguments.rounds
            ));
            for (way, price) in measured(arguments, &runtime, &rotor, function, &texts)? {
                report.add(function.name, way, price);
            }
        }
    }
    say("cold starts and idle isolates");
    report.chains = Some(chain::measure(&runtime, &program)?);
    print(&if arguments.json {
        report.json()?
    } else {
        report.text()
    });
    Ok(())
}

/// Every way once.
fn measured(
    arguments: &Arguments,
    runtime: &tokio::runtime::Runtime,
    rotor: &Rotor,
    function: Function,
    texts: &[String],
) -> Result<Vec<(&'static str, Price)>> {
    let events = arguments.events;
    // One call for each event is dear: a tenth of them tell as much.
    let few = (events / 10).max(1000);
    let mut prices = vec![
        (report::LIMIT, ways::limit(function, texts, events)?),
        (
            report::ROTOR,
            runtime.block_on(rotor.run(function, ways::BATCH, events))?,
        ),
        (report::SINGLE, runtime.block_on(rotor.run(function, 1, few))?),
    ];
    if function.name == TINY.name {
        let price = runtime.block_on(rotor.run(ASYNC, ways::BATCH, events))?;
        prices.push((report::ASYNC, price));
    }
    if let Some(directory) = &arguments.isolated_vm {
        prices.push((report::ISOLATED_VM, node::run(directory, function, texts, few)?));
    }
    Ok(prices)
}
