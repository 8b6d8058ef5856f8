//! Runs chaos and says what came of it: exit status 0 where everything is where it belongs, 1 where not, 2 where the
//! run could not be carried out.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millrace_chaos::{Options, Progress, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often progress is told: on a terminal in one line that is written over, else in lines.
const TOLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The real pipeline under load while its processes and servers are killed, stopped and joined by others; at the end
/// an oracle says whether every accepted event is where it belongs, once.
#[derive(Debug, Parser)]
#[command(name = "millrace-chaos")]
struct Arguments {
    /// Which faults, in which order; a random one where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Events a second.
    #[arg(long, default_value_t = 300)]
    rate: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        length: Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0),
        rate: arguments.rate,
    };
    say(&format!("seed {}", options.seed));
    let (progress, seen) = watch::channel(Progress::default());
    let running = run(options, progress);
    let told = tell(options, seen);
    let report = tokio::select! {
        report = Box::pin(running) => report,
        () = told => return ExitCode::from(2),
        // Dropped, the run ends every process that it started.
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    say("");
    match report {
        Ok(report) => {
            print(&if arguments.json {
                report.as_json().to_string()
            } else {
                report.to_string()
            });
            ExitCode::from(u8::from(!report.is_clean()))
        }
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Resolves when the program is told to end.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Tells how far the run is, for as long as it goes.
async fn tell(options: Options, seen: watch::Receiver<Progress>) {
    let terminal = std::io::stderr().is_terminal();
    loop {
        tokio::time::sleep(if terminal { TOLD.0 } else { TOLD.1 }).await;
        let Progress {
            doing,
            elapsed,
            accepted,
            faults,
        } = seen.borrow().clone();
        let (gone, whole) = (elapsed.as_secs(), options.length.as_secs());
        let line = format!("{gone}/{whole} s, {accepted} accepted, {faults} faults: {doing}");
        if terminal {
            let mut stderr = std::io::stderr();
            // Where nobody listens there is nobody to tell.
            drop(write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()));
        } else {
            say(&line);
        }
    }
}

#[expect(clippy::print_stderr, reason = "what is told beside the report")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "the report")]
fn print(report: &str) {
    println!("{report}");
}
