//! The command line of Millrace: schema, topics, workspaces, keys, functions.
//!
//! Reads the configuration that the services read. Every command can be repeated; each says what to do when it
//! cannot do its work, and with `--json` prints one JSON object for scripts.

mod advice;
mod cli;
mod command;
mod config;
mod output;
mod parts;
mod rotor;

use std::process::ExitCode;

use clap::Parser;
use millrace_service::config::{Sources, load};

use crate::cli::Cli;
use crate::parts::Parts;

/// `EX_USAGE` of sysexits: the command line or the configuration cannot be used.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    if !millrace_service::processor::suffices() {
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            return if error.print().is_err() || usage {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let config: config::Config = match load(&Sources::new(cli.config)) {
        Ok(config) => config,
        Err(faults) => {
            output::failure(&faults.into(), cli.json);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::failure(&error.into(), cli.json);
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(Box::pin(command::run(cli.command, &Parts::new(config))));
    match result.and_then(|answer| output::success(&answer, cli.json).map(|()| answer.exit())) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            output::failure(&error, cli.json);
            ExitCode::FAILURE
        }
    }
}
