//! `millctl audit`: the log against the tables.
//!
//! The transformed log says what was decided about every event, by the first record of each attempt. Whatever is
//! settled must be where it was decided to be: its rows in their tables once, or dropped, or a dead letter, or a
//! copy that waits in a retry topic. Reads whole topics and keeps one entry for each event in memory.

mod books;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use millrace_event::Timestamp;
use millrace_kafka::{Record, reader};
use millrace_warehouse::TableName;
use serde_json::json;

use self::books::{Books, Findings};
use crate::output::Answer;
use crate::parts::Parts;

/// The exit status where something is not where it belongs.
const EXIT_FINDINGS: u8 = 2;
/// Findings of one kind that are named one by one.
const MOST_NAMED: usize = 100;
/// Events that one question to a table covers.
const SEQS_PER_QUESTION: u64 = 100_000;

pub(super) async fn run(since: Option<Timestamp>, group: &str, parts: &Parts) -> Result<Answer> {
    let (kafka, topics) = (parts.kafka(), parts.topics());
    // First what is settled, then the log: what is settled is in it.
    let settled = reader::committed(&kafka, group, &topics.transformed).await?;
    let books = Arc::new(Mutex::new(Books::new(since, settled)));
    read(parts, &topics.transformed, &books, Books::decided).await?;
    read(parts, &topics.dlq, &books, Books::dead).await?;
    for tier in &topics.retry {
        read(parts, &tier.topic, &books, Books::waiting).await?;
    }
    let mut books = std::mem::take(&mut *books.lock().unwrap_or_else(PoisonError::into_inner));

    let warehouse = parts.warehouse();
    let mut held = BTreeMap::new();
    for (table, journal, partition, seqs) in books.ranges() {
        let name: TableName = table.parse().context("the log names a table that is none")?;
        let mut from = *seqs.start();
        while from <= *seqs.end() {
            let to = (*seqs.end()).min(from.saturating_add(SEQS_PER_QUESTION - 1));
            let copies = warehouse.copies(&name, journal, partition, from..=to).await?;
            held.extend(
                copies
                    .into_iter()
                    .map(|((seq, sub), copies)| ((table.clone(), journal, partition, seq, sub), copies)),
            );
            from = to.saturating_add(1);
        }
    }
    answer(&books.findings(&held))
}

async fn read(
    parts: &Parts,
    topic: &str,
    books: &Arc<Mutex<Books>>,
    enter: fn(&mut Books, u32, &Record),
) -> Result<()> {
    let books = Arc::clone(books);
    let visit = move |partition, record: Record| {
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        enter(&mut books, partition, &record);
    };
    reader::read_all(&parts.kafka(), topic, visit).await?;
    Ok(())
}

fn answer(findings: &Findings) -> Result<Answer> {
    let ok = findings.is_clean();
    let named = |list: &[String]| list.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
    let hours: Vec<_> = findings
        .hours
        .iter()
        .map(|((workspace, hour), counts)| {
            json!({
                "workspace": workspace, "hour": hour, "stored": counts.stored, "dropped": counts.dropped,
                "dead_letter": counts.dead, "waiting": counts.waiting, "under_way": counts.under_way,
                "lost": counts.lost,
            })
        })
        .collect();
    let kinds = [
        ("missing", &findings.missing),
        ("duplicated", &findings.duplicated),
        ("stray", &findings.stray),
        ("lost", &findings.lost),
    ];
    let mut object = json!({
        "ok": ok,
        "events": findings.events,
        "rows": findings.rows,
        "duplicates_in_log": findings.duplicates,
        "hours": hours,
    });
    let mut lines = vec![format!(
        "{} events, {} rows, {} records of the log were duplicates",
        findings.events, findings.rows, findings.duplicates
    )];
    for (kind, list) in kinds {
        object[kind] = json!({ "count": list.len(), "named": named(list) });
        lines.extend(named(list).into_iter().map(|one| format!("{kind}: {one}")));
    }
    for ((workspace, hour), counts) in &findings.hours {
        lines.push(format!(
            "{workspace} {hour}: {} stored, {} dropped, {} dead letters, {} waiting, {} under way, {} lost",
            counts.stored, counts.dropped, counts.dead, counts.waiting, counts.under_way, counts.lost
        ));
    }
    lines.push(
        if ok {
            "every event is where it belongs, once"
        } else {
            "the tables and the log differ"
        }
        .into(),
    );
    let answer = Answer::lines(object, lines)?;
    Ok(if ok {
        answer
    } else {
        answer.with_exit(EXIT_FINDINGS)
    })
}
