//! `millrace-rotor`: the service; with `functions` the functions API alone; with `worker` the process that either
//! starts for itself.

mod worker;

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use millrace_service::{About, Options};
use rustix::process::{Signal, set_parent_process_death_signal};

/// `EX_USAGE` of sysexits.
const EXIT_USAGE: u8 = 64;

/// Serves the functions API and nothing else: no Kafka, no Redis.
#[derive(Debug, clap::Parser)]
#[command(name = "millrace-rotor functions", version)]
struct FunctionsOptions {
    #[command(flatten)]
    service: Options,
    /// Print the address that is served on standard output.
    #[arg(long)]
    announce: bool,
    /// End when the process that started this one ends.
    #[arg(long)]
    with_parent: bool,
}

fn main() -> ExitCode {
    if !millrace_service::processor::suffices() {
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    match first.as_deref().and_then(OsStr::to_str) {
        Some("worker") => worker::main(arguments),
        Some("functions") => functions(std::env::args_os().skip(1)),
        _ => millrace_service::run(about(), millrace_rotor::run),
    }
}

fn about() -> About {
    let about = About::new("millrace-rotor", env!("CARGO_PKG_VERSION"));
    let engine = millrace_script::engine();
    about.set("engine", engine.name);
    about.set("engine_version", engine.version);
    about
}

fn functions(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let options = match FunctionsOptions::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let printed = error.print();
            return if error.use_stderr() || printed.is_err() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if options.with_parent
        && let Err(error) = set_parent_process_death_signal(Some(Signal::TERM))
    {
        // Nobody is left to tell when standard error is closed as well.
        drop(writeln!(
            std::io::stderr(),
            "--with-parent cannot be kept: {error}"
        ));
        return ExitCode::FAILURE;
    }
    let announce = options.announce;
    millrace_service::run_with(about(), options.service, move |context| {
        millrace_rotor::functions::run(context, announce)
    })
}
