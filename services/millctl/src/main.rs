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

use clap::{CommandFactory as _, FromArgMatches as _};
use millrace_service::config::{Sources, load};

use crate::cli::Cli;
use crate::parts::Parts;

/// `EX_USAGE` of sysexits: the command line or the configuration cannot be used.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    if !millrace_service::processor::suffices() {
        return ExitCode::FAILURE;
    }
    let given = cli::with_dry_run(Cli::command()).try_get_matches();
    let given = given.and_then(|given| Ok((Cli::from_arg_matches(&given)?, cli::dry_run(&given))));
    let (cli, dry_run) = match given {
        Ok(given) => given,
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
    let parts = Parts::new(config, dry_run == Some(true));
    let result = runtime.block_on(Box::pin(command::run(cli.command, &parts)));
    let result = result.map(|answer| match dry_run {
        Some(dry_run) => answer.tried(dry_run),
        None => answer,
    });
    match result.and_then(|answer| output::success(&answer, cli.json).map(|()| answer.exit())) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            output::failure(&error, cli.json);
            ExitCode::FAILURE
        }
    }
}
