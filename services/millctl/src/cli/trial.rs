//! `--dry-run`, of every command that changes something.
//!
//! The commands that only look are named here; every other one gets the option by being another one. What it means is
//! in [`crate::parts::Parts`]: nothing that a command asks for there keeps what it is told.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Commands that change nothing.
const LOOKING: &[&str] = &[
    "alias list",
    "audit",
    "destination list",
    "destination show",
    "dlq list",
    "dlq replays",
    "dlq show",
    "dlq stats",
    "fetch list",
    "fields list",
    "function list",
    "function quarantine",
    "function test",
    "journal inspect",
    "key list",
    "ledger show",
    "migrate status",
    "require list",
    "secret list",
    "workspace list",
];

const NAME: &str = "dry_run";

/// The command line with `--dry-run` where something would change.
pub(crate) fn with_dry_run(cli: Command) -> Command {
    with_dry_run_below(cli, "")
}

fn with_dry_run_below(command: Command, path: &str) -> Command {
    if command.has_subcommands() {
        return command.mut_subcommands(|one| {
            let path = format!("{path} {}", one.get_name());
            with_dry_run_below(one, path.trim_start())
        });
    }
    if LOOKING.contains(&path) {
        return command;
    }
    command.arg(
        Arg::new(NAME)
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Show what would change, and change nothing"),
    )
}

/// Whether the command that was given only tries; nothing where it changes nothing in any case.
pub(crate) fn dry_run(given: &ArgMatches) -> Option<bool> {
    match given.subcommand() {
        Some((_, below)) => dry_run(below),
        None => given.try_get_one(NAME).ok().flatten().copied(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for one in command.get_subcommands() {
            let path = format!("{path} {}", one.get_name());
            if one.has_subcommands() {
                leaves(one, &path, found);
            } else {
                found.push((path.trim_start().to_owned(), one.clone()));
            }
        }
    }

    #[test]
    fn every_command_that_does_not_only_look_has_dry_run_and_every_command_has_json() {
        let mut cli = with_dry_run(crate::cli::Cli::command());
        cli.build();
        let mut found = Vec::new();
        leaves(&cli, "", &mut found);
        found.retain(|(path, _)| !path.split(' ').any(|word| word == "help"));
        for (path, command) in &found {
            let has = |name: &str| command.get_arguments().any(|one| one.get_long() == Some(name));
            assert_eq!(has("dry-run"), !LOOKING.contains(&path.as_str()), "{path}");
            assert!(has("json"), "{path}");
        }
        for path in LOOKING {
            assert!(
                found.iter().any(|(known, _)| known == path),
                "{path} is no command"
            );
        }
        // Words of which a command that only looks has none.
        for (path, command) in found.iter().filter(|(path, _)| LOOKING.contains(&path.as_str())) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let looks = ["Show", "Count", "Check", "Run a function"];
            assert!(
                looks.iter().any(|word| about.starts_with(word)),
                "{path}: {about}"
            );
        }
    }
}
