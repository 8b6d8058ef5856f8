//! `millctl generate`.

use clap::Args;
use millrace_event::Timestamp;

/// What to make, and where it goes.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The workspace whose table gets the events, by name or id. They go straight into ClickHouse.
    #[arg(long)]
    pub(crate) workspace: String,
    /// At least so many events: the last person's journey is made to its end.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    pub(crate) events: u64,
    /// On how many days people come for the first time.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3_650))]
    pub(crate) days: u16,
    /// The first of them; as many days ago as there are when not given.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Another seed, another shop; 0 is the shop of docs/analytics.md, continued.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}
