//! Commands over what became of events: dead letters, the audit, the bulker's ledger.

use clap::{Args, Subcommand};
use millrace_event::Timestamp;
use millrace_service::config::ByteSize;

/// Which dead letters.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Letters {
    /// Of this workspace, by name or id.
    #[arg(long)]
    pub(crate) workspace: Option<String>,
    /// With this error code.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Of this function, by id.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Set aside at or after this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Set aside before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// The one at `<partition>-<offset>`, as `list` names it; can be repeated.
    #[arg(long = "at", value_name = "PLACE")]
    pub(crate) places: Vec<Place>,
}

/// Where a dead letter is in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a place is `<partition>-<offset>`, as `millctl dlq list` names it";
        let (partition, offset) = text.split_once('-').ok_or(FORM)?;
        Ok(Self {
            partition: partition.parse().map_err(|_| FORM)?,
            offset: offset.parse().map_err(|_| FORM)?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Show dead letters, newest first.
    List {
        #[command(flatten)]
        letters: Letters,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one dead letter whole.
    Show {
        /// `<partition>-<offset>`, as `list` names it.
        at: Place,
    },
    /// Count dead letters by workspace, stage, code and function.
    Stats {
        #[command(flatten)]
        letters: Letters,
    },
    /// Send dead letters round again. Each is one attempt more; a letter that is replayed twice counts once.
    Replay {
        #[command(flatten)]
        letters: Letters,
        /// At most so many a second.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// Also those that would fail again: the function's version in force is the one that failed, or the row
        /// does not fit its table as it is.
        #[arg(long)]
        force: bool,
        /// Who the audit trail says it was.
        #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
        by: String,
    },
    /// Show who replayed what, newest first: the audit trail.
    Replays {
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

/// What to check, and who has read how far.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only events received at or after this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// The bulker's consumer group: what it has not settled yet is under way, not missing.
    #[arg(long, value_name = "GROUP", default_value = "millrace-bulker")]
    pub(crate) group: String,
    /// The rotor's consumer group: what it has not read yet is under way, not lost.
    #[arg(long, value_name = "GROUP", default_value = "millrace-rotor")]
    pub(crate) rotor_group: String,
    /// The ingest topic's incarnation, as the rotor is configured.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) incarnation: String,
    /// How much memory the events in work may take. Where they need more, the logs are gone through in several passes,
    /// each over a part of the events; the logs may be of any length.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub(crate) memory: ByteSize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Show what the bulkers' group has committed for each partition, and whether a bulker goes on from there.
    Show {
        /// The bulker's consumer group.
        #[arg(long, value_name = "GROUP", default_value = "millrace-bulker")]
        group: String,
    },
    /// Let a bulker go on in a partition that it refuses: commit an offset from which every row is asked for in its
    /// table before it is inserted, up to the present end of the log. Stop the bulkers first.
    Adopt {
        /// The partition of the transformed topic.
        #[arg(long)]
        partition: u32,
        /// The bulker's consumer group.
        #[arg(long, value_name = "GROUP", default_value = "millrace-bulker")]
        group: String,
        /// Where to go on; the beginning of the log when not given, which loses nothing.
        #[arg(long, value_name = "OFFSET")]
        at: Option<u64>,
        /// Also a partition that a bulker goes on with by itself.
        #[arg(long)]
        force: bool,
    },
}
