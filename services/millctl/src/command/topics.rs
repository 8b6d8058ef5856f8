//! `millctl topics …`

use anyhow::Result;
use millrace_kafka::topics::{Applied, Change, Shape, apply};
use serde_json::{Value, json};

use crate::cli::Topics;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Topics, parts: &Parts) -> Result<Answer> {
    let Topics::Apply {
        partitions,
        replication,
    } = command;
    let applied = apply(
        &parts.kafka(),
        parts.topics(),
        Shape {
            partitions,
            replication,
        },
        parts.is_dry_run(),
    )
    .await?;
    let mut lines: Vec<String> = applied.iter().map(|one| line(one, partitions)).collect();
    let grown = applied
        .iter()
        .any(|one| matches!(one.change, Change::Grown { .. }));
    if grown {
        lines.push("events of one key may overtake each other at the switch to more partitions".to_owned());
    }
    let objects: Vec<Value> = applied.iter().map(object).collect();
    Answer::lines(json!({ "topics": objects, "order_broken": grown }), lines)
}

fn line(applied: &Applied, partitions: u32) -> String {
    match applied.change {
        Change::Created => format!("{}: created with {partitions} partitions", applied.topic),
        Change::Grown { from } => format!("{}: grown from {from} to {partitions} partitions", applied.topic),
        Change::Unchanged => format!("{}: unchanged", applied.topic),
    }
}

fn object(applied: &Applied) -> Value {
    let (change, from) = match applied.change {
        Change::Created => ("created", None),
        Change::Grown { from } => ("grown", Some(from)),
        Change::Unchanged => ("unchanged", None),
    };
    json!({ "topic": applied.topic, "change": change, "from": from })
}
