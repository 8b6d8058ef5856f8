//! `millctl journal …`

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Show segments, how far each partition is shipped, and what was set aside. Reads only; the gateway may run.
    Inspect {
        /// The gateway's `journal.dir`.
        dir: PathBuf,
    },
    /// Ship what is in a journal whose gateway is gone. Refused while a process has it open. Exit status 2 where
    /// Kafka refused records for good and they were set aside.
    Ship {
        /// The gateway's `journal.dir`.
        dir: PathBuf,
        /// Brokers, `host:port,…`; those of the configuration when not given.
        #[arg(long, value_delimiter = ',')]
        brokers: Vec<String>,
    },
}
