//! What a person can do about an error.

use millrace_store::error::{Entity, Error as Store, Part};

/// The next step, when there is one to name.
pub(crate) fn on(error: &anyhow::Error) -> Option<String> {
    let mut chain = error.chain();
    chain.find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<Store>() {
            return store(error);
        }
        if let Some(error) = cause.downcast_ref::<millrace_warehouse::Error>() {
            let away = error.retry() == millrace_warehouse::Retry::Transient;
            return away.then(|| is_it_running("ClickHouse", "CLICKHOUSE__URL"));
        }
        cause.downcast_ref::<millrace_kafka::Error>().and_then(kafka)
    })
}

fn is_it_running(what: &str, variable: &str) -> String {
    format!("is {what} running, and does MILLRACE__{variable} name it? the command can be repeated")
}

fn store(error: &Store) -> Option<String> {
    Some(match error {
        Store::Unavailable {
            part: Part::Postgres, ..
        }
        | Store::Timeout {
            part: Part::Postgres, ..
        } => format!(
            "{}; its form is postgres://user:password@host:port/database",
            is_it_running("PostgreSQL", "POSTGRES__URL")
        ),
        Store::Configuration {
            part: Part::Postgres, ..
        } => "set MILLRACE__POSTGRES__URL to postgres://user:password@host:port/database".to_owned(),
        Store::Contended { .. } => "another command was in the way: repeat this one".to_owned(),
        Store::Unmigrated { .. } => "`millctl migrate up` brings the schema up to date".to_owned(),
        Store::NotFound { entity, .. } => match entity {
            Entity::Workspace => {
                "`millctl workspace list` shows those there are, `millctl workspace create` makes one"
                    .to_owned()
            }
            Entity::Function | Entity::FunctionVersion => {
                "`millctl function list` shows those there are, `millctl function put` adds one".to_owned()
            }
            Entity::Key => "`millctl key list` shows those there are".to_owned(),
            Entity::Source | Entity::Destination => {
                "every workspace has a source and a destination named `default`".to_owned()
            }
            Entity::Field => "`millctl fields list` shows those that have a type".to_owned(),
            Entity::Alias => "`millctl alias list` shows those there are".to_owned(),
            Entity::Quarantine => "`millctl function quarantine` shows what is held back".to_owned(),
            Entity::Secret => "`millctl secret list` shows those there are".to_owned(),
            Entity::Origin => "`millctl fetch list` shows those there are".to_owned(),
            Entity::Table | Entity::Token => return None,
        },
        Store::Taken {
            entity: Entity::Table,
            ..
        } => "choose another with --database, so that two workspaces do not share a table".to_owned(),
        Store::Taken { .. } => "choose another name".to_owned(),
        Store::NothingToRollBack { .. } => {
            "`millctl function promote --version` puts any version in force".to_owned()
        }
        _ => return None,
    })
}

fn kafka(error: &millrace_kafka::Error) -> Option<String> {
    matches!(error, millrace_kafka::Error::Cluster { .. }).then(|| is_it_running("Kafka", "KAFKA__BROKERS"))
}
