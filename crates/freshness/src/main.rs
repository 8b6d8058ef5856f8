//! Measures how old events are when they can be queried, and says so. Exit status 0 where every event arrived once and,
//! with `--broken`, the others' p99 stayed within twice its value; 1 where not; 2 where the run could not be carried
//! out.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millrace_freshness::{Options, run, table};

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
    /// Run the programs that `./dev build-release` made, instead of those of the development build.
    #[arg(long)]
    release: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How much older the others' events may be beside broken workspaces.
const MOST_RATIO: f64 = 2.0;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        workspaces: arguments.workspaces,
        length: Duration::from_secs(arguments.seconds),
        rate: arguments.rate,
        partitions: arguments.partitions,
        per_second: arguments.per_second,
        broken: arguments.broken,
        release: arguments.release,
    };
    match Box::pin(run(&options, say)).await {
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

#[expect(clippy::print_stderr, reason = "progress is told beside the result")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    println!("{text}");
}
