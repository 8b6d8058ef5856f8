//! The commands and their arguments.

mod accounts;
mod destination;
mod generate;
mod journal;
mod reach;
mod trial;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_event::KeyKind;
use millrace_event::topic::DEFAULT_PARTITIONS;
use millrace_store::fields::FieldType;
use millrace_store::functions::{Language, Route};
use millrace_store::keys::IpPolicy;
use millrace_store::rules::AliasMode;
use millrace_store::workspaces::{NewLimit, Tier};
use millrace_store::{ChainId, KeyId, Name, TokenId};

pub(crate) use accounts::{Audit, Dlq, Ledger, Letters, Place};
pub(crate) use destination::{Address, Destination, NewSettings};
pub(crate) use generate::Generate;
pub(crate) use journal::Journal;
pub(crate) use reach::{Fetch, Secret};
pub(crate) use trial::{dry_run, with_dry_run};

/// Administers a Millrace installation.
#[derive(Debug, Parser)]
#[command(name = "millctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// TOML file with the configuration; the environment (`MILLRACE__SECTION__KEY`) wins over it.
    #[arg(long, global = true, value_name = "FILE", env = "MILLRACE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object instead of lines for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The schema of PostgreSQL and of Millrace's own tables in ClickHouse.
    #[command(subcommand)]
    Migrate(Migrate),
    /// The topics in Kafka.
    #[command(subcommand)]
    Topics(Topics),
    /// Workspaces, each with its table in ClickHouse.
    #[command(subcommand)]
    Workspace(Workspace),
    /// Where a workspace's rows go, and how they are kept there.
    #[command(subcommand)]
    Destination(Destination),
    /// Write keys, which clients send events with.
    #[command(subcommand)]
    Key(Key),
    /// Service tokens, which programs call Millrace's own interfaces with.
    #[command(subcommand)]
    Token(Token),
    /// Types of the fields of a workspace's events.
    #[command(subcommand)]
    Fields(Fields),
    /// Names in `properties` that were changed.
    #[command(subcommand)]
    Alias(Alias),
    /// Fields that every event must have.
    #[command(subcommand)]
    Require(Require),
    /// JavaScript functions that run on every event.
    #[command(subcommand)]
    Function(Function),
    /// Secrets of a workspace, which its functions read as `ctx.env`.
    #[command(subcommand)]
    Secret(Secret),
    /// Servers that functions of a workspace may send requests to.
    #[command(subcommand)]
    Fetch(Fetch),
    /// Dead letters: events and rows that were set aside.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Gateways' journals: look into one, ship one whose gateway is gone.
    #[command(subcommand)]
    Journal(Journal),
    /// Check the log against the tables: every event where it was decided to be, once. Exit status 2 where not.
    Audit(Audit),
    /// The bulker's ledger in its offset commits.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Fill a workspace with the events of a made-up shop, to try queries on.
    Generate(Generate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    Postgres,
    Clickhouse,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply what is pending, in both stores unless one is named.
    Up {
        #[arg(long)]
        store: Option<Store>,
    },
    /// Take the newest migrations of one store back. What their tables hold is lost.
    Down {
        #[arg(long)]
        store: Store,
        /// How many, newest first.
        #[arg(long, default_value_t = 1)]
        steps: usize,
    },
    /// Show what is applied and what is pending.
    Status {
        #[arg(long)]
        store: Option<Store>,
    },
    /// Write the empty files of a new migration into a checkout.
    New {
        /// What it is about, in lower case with underscores.
        name: String,
        #[arg(long)]
        store: Store,
        /// The folder with a folder for each store.
        #[arg(long, value_name = "FOLDER", default_value = "migrations")]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Make every topic exist with at least so many partitions.
    Apply {
        /// Partitions of each topic. Growing breaks the order of events with one key at the switch.
        #[arg(long, default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        partitions: u32,
        /// Replicas of each new topic: 3 in production.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
        replication: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    /// Make a workspace with a source, a destination and its table; one that is there is left as it is.
    Create {
        name: Name,
        /// Who is billed; made when it is not there.
        #[arg(long)]
        organization: Name,
        /// `default`, `pro` or `enterprise`, which decides the limits.
        #[arg(long, default_value_t)]
        tier: Tier,
        /// The ClickHouse database; `ws_` and the name when not given.
        #[arg(long)]
        database: Option<String>,
        /// The table in that database.
        #[arg(long, default_value = "events")]
        table: String,
        #[command(flatten)]
        settings: NewSettings,
    },
    /// Set what a workspace may send; every gateway goes by it within a second.
    Set(SetWorkspace),
    /// Show all workspaces.
    List,
}

/// What of a workspace is to change; what is not named stays.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(crate) struct SetWorkspace {
    /// The workspace, by name or id.
    pub(crate) workspace: String,
    /// `default`, `pro` or `enterprise`.
    #[arg(long, group = "change")]
    pub(crate) tier: Option<Tier>,
    /// Events per second, sustained: a number, or `tier` for what the tier says.
    #[arg(long, value_name = "EVENTS|tier", group = "change", value_parser = limit)]
    pub(crate) events_per_second: Option<NewLimit>,
    /// Events per day: a number, or `tier`.
    #[arg(long, value_name = "EVENTS|tier", group = "change", value_parser = limit)]
    pub(crate) events_per_day: Option<NewLimit>,
    /// Events within five seconds: a number, or `tier`.
    #[arg(long, value_name = "EVENTS|tier", group = "change", value_parser = limit)]
    pub(crate) burst: Option<NewLimit>,
}

fn limit(text: &str) -> Result<NewLimit, String> {
    match (text, text.parse()) {
        ("tier", _) => Ok(NewLimit::OfTier),
        (_, Ok(events @ 1..)) => Ok(NewLimit::Events(events)),
        _ => Err("a number of events from 1, or `tier` for what the tier says".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a write key and show it, once.
    Create {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// `server`, `browser` or `import`.
        #[arg(long)]
        kind: KeyKind,
        /// The source, by name or id.
        #[arg(long, default_value = "default")]
        source: String,
        /// An origin that a browser key may be used from; can be repeated.
        #[arg(long = "origin", value_name = "ORIGIN", required_if_eq("kind", "browser"))]
        origins: Vec<String>,
    },
    /// Revoke a write key for good.
    Revoke { id: KeyId },
    /// Set what is kept of the addresses that a key's events come from.
    Ip {
        id: KeyId,
        /// `keep`, `anonymize` (the network: /24, /48) or `drop`.
        policy: IpPolicy,
    },
    /// Show a workspace's write keys, without their secrets.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fields {
    /// Show the fields that have a type.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Give a field another type: its columns in ClickHouse move to it while events go on, then gateways take the new
    /// type. Values that do not fit stay in a column beside (`_cart_total_string`). What was interrupted goes on when it
    /// is called again.
    Retype {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The field, flattened, such as `cart_total`.
        name: String,
        /// `string`, `number`, `boolean`, `date-time`, `array` or `object`; columns move to the first four.
        field_type: FieldType,
        /// A further table of the workspace's destinations whose column moves too: one that `event.table` named. Can be
        /// repeated.
        #[arg(long = "table")]
        tables: Vec<String>,
        /// Leave the columns as they are: events of the new type become dead letters until they fit.
        #[arg(long)]
        gateway_only: bool,
    },
    /// Forget a field: the next event fixes its type anew.
    Drop {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The field, flattened, such as `cart_total`.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alias {
    /// Say that a name was changed, or how far that is.
    Set {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The name as it was.
        old: String,
        /// The name as it is.
        new: String,
        /// `old` leaves events as they are, `both` gives them both names, `new` moves the value.
        #[arg(long)]
        mode: AliasMode,
    },
    /// Show them.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Forget that a name was changed.
    Drop {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The name as it was.
        old: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Require {
    /// Refuse events without a field.
    Add {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The field, flattened, such as `brand` or `context_tenant`.
        name: String,
    },
    /// Show them.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Take events without it again.
    Drop {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The field, flattened.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a service token and show it, once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: Name,
    },
    /// Revoke a service token for good.
    Revoke { id: TokenId },
}

/// Which chain.
#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    /// The source, by name or id.
    #[arg(long, default_value = "default")]
    pub(crate) source: String,
    /// The destination, by name or id.
    #[arg(long, default_value = "default")]
    pub(crate) destination: String,
}

impl From<RouteArguments> for Route {
    fn from(arguments: RouteArguments) -> Self {
        Self {
            source: arguments.source,
            destination: arguments.destination,
        }
    }
}

/// Where code is compiled and run.
#[derive(Debug, Args)]
pub(crate) struct RotorArguments {
    /// A rotor that is running, such as `http://rotor:3401`; MILLRACE__ROTOR__TOKEN holds a service token for it.
    /// By default `millrace-rotor functions` is started for as long as the command takes.
    #[arg(long, value_name = "URL")]
    pub(crate) rotor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Function {
    /// Run a function on events of your own, with the limits of production. Nothing else needs to run, and nothing is
    /// stored. Exit status 2 when an event would become a dead letter.
    Test {
        /// The file with the code.
        file: PathBuf,
        /// A JSON file with one event or an array of them; can be repeated. Without any the code is only loaded.
        #[arg(long = "event", value_name = "FILE")]
        events: Vec<PathBuf>,
        /// A JSON file with what `ctx` says: `{"env": {…}, "headers": {…}}`.
        #[arg(long, value_name = "FILE")]
        context: Option<PathBuf>,
        /// `js` or `ts`; by default from the file's name.
        #[arg(long)]
        language: Option<Language>,
        #[command(flatten)]
        rotor: RotorArguments,
    },
    /// Add a version of a function, if it compiles; with `--promote` put it in force.
    Put {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The function's name.
        #[arg(long)]
        name: Name,
        /// Put it in force: a new function at the end of the chain, another one in its place.
        #[arg(long)]
        promote: bool,
        #[command(flatten)]
        route: RouteArguments,
        /// `js` or `ts`; by default from the file's name.
        #[arg(long)]
        language: Option<Language>,
        #[command(flatten)]
        rotor: RotorArguments,
        /// The file with the code.
        file: PathBuf,
    },
    /// Put a version in force, if it compiles.
    Promote {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The function, by name or id.
        #[arg(long)]
        name: String,
        /// Which; the newest when not given.
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        route: RouteArguments,
        #[command(flatten)]
        rotor: RotorArguments,
    },
    /// Return to the version that was in force before.
    Rollback {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The function, by name or id.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        route: RouteArguments,
    },
    /// Show a workspace's functions and where they run.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Show which chains are held back because their functions killed workers.
    Quarantine {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Let a chain that is held back run again at once.
    Release {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The chain, as `quarantine` names it.
        chain: ChainId,
    },
    /// Keep what a workspace's functions log at level debug, for a while.
    Debug {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// For so many minutes from now; 0 ends it.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=1440))]
        minutes: u32,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, with_dry_run};

    #[test]
    fn the_command_line_is_consistent() {
        with_dry_run(Cli::command()).debug_assert();
    }
}
