//! One module per kind of thing; each command gives an answer and prints nothing.

mod alias;
mod audit;
mod destination;
mod dlq;
mod fetch;
mod fields;
mod function;
mod generate;
mod journal;
mod key;
mod ledger;
mod migrate;
mod require;
mod secret;
mod token;
mod topics;
mod workspace;

use anyhow::Result;

use crate::cli::Command;
use crate::output::Answer;
use crate::parts::Parts;

/// Carries out a command.
pub(crate) async fn run(command: Command, parts: &Parts) -> Result<Answer> {
    match command {
        Command::Migrate(command) => migrate::run(command, parts).await,
        Command::Topics(command) => topics::run(command, parts).await,
        Command::Workspace(command) => Box::pin(workspace::run(command, parts)).await,
        Command::Destination(command) => Box::pin(destination::run(command, parts)).await,
        Command::Key(command) => key::run(command, parts).await,
        Command::Token(command) => token::run(command, parts).await,
        Command::Dlq(command) => Box::pin(dlq::run(command, parts)).await,
        Command::Audit(arguments) => Box::pin(audit::run(&arguments, parts)).await,
        Command::Ledger(command) => Box::pin(ledger::run(command, parts)).await,
        Command::Generate(arguments) => Box::pin(generate::run(&arguments, parts)).await,
        Command::Journal(command) => Box::pin(journal::run(command, parts)).await,
        Command::Fields(command) => Box::pin(fields::run(command, parts)).await,
        Command::Alias(command) => alias::run(command, parts).await,
        Command::Require(command) => require::run(command, parts).await,
        Command::Function(command) => function::run(command, parts).await,
        Command::Secret(command) => secret::run(command, parts).await,
        Command::Fetch(command) => fetch::run(command, parts).await,
    }
}
