use std::path::PathBuf;

use clap::{Args, Subcommand};
use millrace_store::Name;
use millrace_store::destinations::Kind;
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(crate) enum Destination {
    /// Show a workspace's destinations.
    List {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
    },
    /// Show one with its settings, and what its table is like.
    Show {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The destination, by name or id.
        #[arg(default_value = "default")]
        destination: String,
    },
    /// Make a destination that gets the events of all sources of its workspace from now on; one of that name that is
    /// there is left as it is.
    Create {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        name: Name,
        /// `clickhouse` or `postgres`.
        #[arg(long, default_value_t = Kind::ClickHouse)]
        kind: Kind,
        /// The database, or for `postgres` the schema, of its tables; the database of the destination `default` when not
        /// given.
        #[arg(long)]
        database: Option<String>,
        /// The table, unless an event names another.
        #[arg(long)]
        table: String,
        #[command(flatten)]
        settings: NewSettings,
        #[command(flatten)]
        address: Address,
    },
    /// Change settings; bulkers go by them within a few seconds, and the table is changed at once.
    Set {
        /// The workspace, by name or id.
        #[arg(long)]
        workspace: String,
        /// The destination, by name or id.
        #[arg(long, default_value = "default")]
        destination: String,
        /// `NAME=VALUE`, such as `ttl_days=90`; the value `default` unsets. `destination show` has all names.
        #[arg(required_unless_present_any = ["url_file", "url_env"], value_name = "NAME=VALUE", value_parser = setting)]
        changes: Vec<(String, Value)>,
        #[command(flatten)]
        address: Address,
    },
}

/// Where a PostgreSQL destination is. It holds a password, so it is on no command line, and stored under the key file.
#[derive(Debug, Args)]
pub(crate) struct Address {
    /// For `postgres`: a file with the address, `postgres://user:password@host:port/database`; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "url_env")]
    pub(crate) url_file: Option<PathBuf>,
    /// For `postgres`: the environment variable that holds the address.
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) url_env: Option<String>,
}

/// Settings of something that is being made.
#[derive(Debug, Args)]
pub(crate) struct NewSettings {
    /// A setting, `NAME=VALUE`, such as `layout=shared`; can be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, Value)>,
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a setting is NAME=VALUE, such as ttl_days=90")?;
    let value = match value {
        "default" => Value::Null,
        // A number or a truth value; everything else is text.
        _ => match serde_json::from_str(value) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => Value::String(value.to_owned()),
        },
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::setting;

    #[test]
    fn a_setting_is_a_name_and_a_value() {
        for (text, value) in [
            ("a=1", json!(1)),
            ("a=true", json!(true)),
            ("a=default", json!(null)),
            ("a=never", json!("never")),
            ("a=Delta, ZSTD(1)", json!("Delta, ZSTD(1)")),
            ("a=", json!("")),
        ] {
            assert_eq!(setting(text), Ok(("a".to_owned(), value)));
        }
        assert!(setting("a").is_err());
    }
}
