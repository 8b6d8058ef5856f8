//! The oracle's end: what logs and tables hold, against what clients were answered.

mod log;
mod report;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use millrace_kafka::Connection;
use millrace_testkit::pipeline::Pipeline;
use millrace_testkit::wait::until;

pub use report::Report;

use self::log::Logs;
use crate::fate::Fate;
use crate::load::Sent;

/// Most findings of one kind that are named one by one.
const MOST_NAMED: usize = 20;
/// Between two looks at whole logs.
const PAUSE: Duration = Duration::from_secs(2);

fn view(pipeline: &Pipeline) -> String {
    format!("{}_seen", pipeline.table)
}

/// Adds a view to the run's table, with a target that must hold what the table holds.
///
/// # Errors
/// ClickHouse refuses.
pub async fn add_view(pipeline: &Pipeline) -> Result<()> {
    let (table, target) = (&pipeline.table, view(pipeline));
    pipeline
        .execute(&format!(
            "CREATE TABLE {target} (message_id String, type String) ENGINE = MergeTree ORDER BY message_id \
             SETTINGS non_replicated_deduplication_window = 10000"
        ))
        .await?;
    let columns = "toString(message_id) AS message_id, toString(type) AS type";
    let to = format!("{table}_see");
    pipeline
        .execute(&format!(
            "CREATE MATERIALIZED VIEW {to} TO {target} AS SELECT {columns} FROM {table}"
        ))
        .await
}

/// Waits until rotor and bulker have worked through everything that is in their topics.
///
/// # Errors
/// Not within `patience`.
pub async fn settled(pipeline: &Pipeline, sent: &Sent, patience: Duration) -> Result<()> {
    let stored = sent.oracle.sent();
    let stored = stored
        .iter()
        .filter(|(n, acknowledged)| **acknowledged && Fate::of(**n).is_stored());
    let wanted = u64::try_from(stored.count()).unwrap_or(u64::MAX);
    pipeline.rows(wanted, patience).await?;
    let connection = Connection::new(pipeline.kafka(), "millrace-chaos");
    until("every record is worked through", patience, || async {
        let drained = log::drained(&connection, pipeline).await?;
        if !drained {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(drained.then_some(()))
    })
    .await
}

/// Compares everything.
///
/// # Errors
/// Kafka or ClickHouse do not answer.
pub async fn judge(pipeline: &Pipeline, sent: &Sent) -> Result<Report> {
    let mut report = Report {
        accepted: sent.oracle.acknowledged_count(),
        sent_again: sent.again.load(Ordering::Relaxed),
        known: sent.duplicates.load(Ordering::Relaxed),
        ..Report::default()
    };
    let table = sent
        .oracle
        .check_those(pipeline, |n| Fate::of(n).is_stored())
        .await?;
    report.stored = table.right;
    report.name("acknowledged and not in the table", table.missing);
    report.name("in the table more than once", table.repeated);
    report.name(
        "in the table with another content",
        table.altered.iter().map(|(n, column)| format!("{n}: {column}")),
    );
    report.name("in the table and not to be there", table.phantom);

    let connection = Connection::new(pipeline.kafka(), "millrace-chaos");
    let logs = Logs::read(&connection, pipeline).await?;
    report.twice = logs.twice();
    report.dropped = logs.dropped();
    report.retried = logs.retried();
    report.dead = logs.dead();
    for (n, acknowledged) in sent.oracle.sent() {
        let fate = Fate::of(n);
        if acknowledged && !logs.accepted(n) {
            report.name("acknowledged and not in the ingest topic", [n]);
        }
        if acknowledged && fate.is_dead() != logs.is_dead(n) {
            report.name(
                if fate.is_dead() {
                    "no dead letter"
                } else {
                    "a dead letter that should be none"
                },
                [n],
            );
        }
        if acknowledged && (fate == Fate::Dropped) != logs.is_dropped(n) {
            report.name("dropped, or not, against its function", [n]);
        }
    }
    report.name("one message under two identities", logs.doubled());

    report.name("out of order", out_of_order(pipeline).await?);
    let (short, surplus) = view_against_table(pipeline).await?;
    report.name("in the table and not in its view", short);
    report.name("in the view more often than in the table", surplus);

    let group = pipeline.group("bulker");
    let (status, answer) = pipeline.millctl_ended(&["audit", "--group", &group]).await?;
    if status != Some(0) {
        report.name("the audit's findings", [answer.to_string()]);
    }
    report.violations.extend(control(pipeline, sent).await?);
    Ok(report)
}

/// The control of the oracle itself: what is spoilt by hand must be found. Spoils the table, so it comes last.
async fn control(pipeline: &Pipeline, sent: &Sent) -> Result<Option<String>> {
    const DELETED: u64 = 1;
    const DOUBLED: u64 = 2;
    let table = &pipeline.table;
    for sql in [
        format!("ALTER TABLE {table} DELETE WHERE message_id = 'm-{DELETED}' SETTINGS mutations_sync = 1"),
        format!("INSERT INTO {table} SELECT * FROM {table} WHERE message_id = 'm-{DOUBLED}'"),
    ] {
        pipeline.execute(&sql).await?;
    }
    let found = sent
        .oracle
        .check_those(pipeline, |n| Fate::of(n).is_stored())
        .await?;
    let seen = found.missing.contains(&DELETED) && found.repeated.contains(&DOUBLED);
    Ok((!seen).then(|| format!("the oracle did not see what was spoilt by hand: {found:?}")))
}

/// Persons whose events do not have rising numbers in the order of the log.
async fn out_of_order(pipeline: &Pipeline) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT person, ns FROM (SELECT anonymous_id AS person, arrayMap(x -> toUInt64(x.2), arraySort(groupArray((_seq, \
         ifNull(n, 0))))) AS ns FROM {} GROUP BY person, _journal, _partition) WHERE ns != arraySort(ns) LIMIT {MOST_NAMED}",
        pipeline.table
    );
    let rows = pipeline.query(&sql).await?;
    Ok(rows.iter().map(|row| row["person"].to_string()).collect())
}

/// Message ids that the view lacks, and those that it has more often than the table.
async fn view_against_table(pipeline: &Pipeline) -> Result<(Vec<String>, Vec<String>)> {
    let differ = async |left: &str, right: &str| -> Result<Vec<String>> {
        let counts = |table: &str| {
            format!("SELECT toString(message_id) AS id, count() AS times FROM {table} GROUP BY id")
        };
        let sql = format!(
            "SELECT l.id AS id FROM ({}) AS l LEFT JOIN ({}) AS r ON l.id = r.id WHERE l.times > r.times",
            counts(left),
            counts(right)
        );
        let rows = pipeline.query(&sql).await?;
        Ok(rows.iter().map(|row| row["id"].to_string()).collect())
    };
    let (table, view) = (&pipeline.table, view(pipeline));
    Ok((differ(table, &view).await?, differ(&view, table).await?))
}
