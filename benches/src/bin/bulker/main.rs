//! What it costs to bring events from Kafka into ClickHouse: the bulker, ClickHouse's own Kafka engine, and a loop
//! that guarantees nothing, in one run over the same events into the same kind of table. Then all three services
//! under load, from the request to the query.
//!
//! ClickHouse is a server of this program's own, so that its CPU time is that of the run; what merges it still has to
//! do when the rows are there counts as well. Kafka, Postgres and Redis are those of the stack. It is bounded by
//! `--events`, and by a time limit on every wait; topics and tables are removed.

mod end_to_end;
mod engine;
mod event;
mod limit;
mod ours;
mod report;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use millrace_benches::report::{print, say};

/// The bulker's allocator: the loop without guarantees runs in this process, and is the limit only with the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Partitions of the topics, as many as an installation has by default.
const PARTITIONS: u32 = 6;

/// How long any one wait may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures the way from Kafka into ClickHouse, beside ClickHouse's own engine and a loop without guarantees.
#[derive(Debug, Parser)]
#[command(name = "bulker")]
struct Arguments {
    /// Events of 1 KB in the topic.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Rounds; the figures are medians.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Requests per second, one event each, that the three services get end to end; 0 leaves that out.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Seconds of that load.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Leave ClickHouse's Kafka engine out.
    #[arg(long)]
    no_engine: bool,
    /// A setting of the bulker, as in its environment: `MILLRACE__MEMORY__RECORDS=512MiB`; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.events >= 1_000 && arguments.events <= 20_000_000,
        "--events: between 1,000 and 20,000,000"
    );
    ensure!(arguments.rounds > 0, "--rounds: at least one is needed");
    ensure!(arguments.seconds <= 600, "--seconds: at most 600");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(all(arguments))?;
    print(&if arguments.json {
        report.json()?
    } else {
        report.text()
    });
    Ok(())
}

async fn all(arguments: &Arguments) -> Result<report::Report> {
    let mut report = report::Report::new(arguments.events);
    let server = server::Server::start().await?;
    let mut ours = ours::Ours::start(&server, &arguments.set).await?;
    say(&format!("writing {} events into two topics", arguments.events));
    ours.fill(arguments.events).await?;
    for round in 1..=arguments.rounds {
        say(&format!("round {round} of {}: Millrace", arguments.rounds));
        report.add(report::OURS, ours.run(&server, arguments.events).await?);
        say("a loop without guarantees (the limit)");
        report.add(report::LIMIT, limit::run(&server, &ours, arguments.events).await?);
        if !arguments.no_engine {
            say("ClickHouse's Kafka engine");
            match engine::run(&server, &ours, arguments.events).await {
                Ok(price) => report.add(report::ENGINE, price),
                Err(error) => report.without_engine(format!("{error:#}")),
            }
        }
    }
    ours.end().await?;
    if arguments.rate > 0 {
        say(&format!(
            "end to end: {} requests a second for {} s",
            arguments.rate, arguments.seconds
        ));
        let load = Duration::from_secs(arguments.seconds);
        report.end_to_end = Some(end_to_end::run(&server, arguments.rate, load).await?);
    }
    Ok(report)
}
