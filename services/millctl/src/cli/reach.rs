//! Commands over what functions of a workspace know and reach.

use std::path::PathBuf;

use clap::Subcommand;
use millrace_store::Origin;

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Make the file with the key that secrets are sealed under. Rotors need it too; without it no secret opens.
    InitKey {
        /// Where; `secrets.key_file` of the configuration when not given.
        file: Option<PathBuf>,
    },
    /// Put a new key in front of those in the file: it seals from now on, the others still open. Give the new file to
    /// every rotor, then `millctl secret reseal`, then the old lines can go.
    RotateKey {
        /// Which; `secrets.key_file` of the configuration when not given.
        file: Option<PathBuf>,
    },
    /// Seal every secret under the newest key.
    Reseal,
    /// Set a secret, which functions read as `ctx.env.NAME`. The value comes from standard input or a file, never from
    /// the command line, where others could see it; one line end behind it is not part of it.
    Set {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// A file with the value, in place of standard input.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Letters, digits and underscores.
        name: String,
    },
    /// Show a workspace's secrets, without their values.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Forget a secret.
    Unset {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fetch {
    /// Let functions of a workspace send requests to a server with `ctx.fetch`.
    Allow {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// `api.example.com`, `*.example.com`, `https://api.example.com:8443`, `http://…`; https where it does not say.
        origin: Origin,
    },
    /// Forbid it again.
    Forbid {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// As `list` shows it.
        origin: Origin,
    },
    /// Show where functions of a workspace may send requests to.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
}
