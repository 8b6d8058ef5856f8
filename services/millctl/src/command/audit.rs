//! `millctl audit`: the logs against the tables.
//!
//! The ingest topic says what was accepted, the transformed log what was decided about every event, by the first
//! record of each attempt. Whatever is settled must be where it was decided to be: its rows in their tables once, or
//! dropped, or a dead letter, or a copy that waits in a retry topic. Reads topics and keeps one entry for each event
//! in memory; `--since` bounds both.

mod arrivals;
mod books;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use millrace_event::Timestamp;
use millrace_kafka::{Record, reader};
use millrace_warehouse::TableName;
use serde_json::json;

use self::arrivals::Arrivals;
use self::books::{Books, Findings};
use crate::cli::Audit;
use crate::output::{Answer, Bar};
use crate::parts::Parts;

/// The exit status where something is not where it belongs.
const EXIT_FINDINGS: u8 = 2;
/// Findings of one kind that are named one by one.
const MOST_NAMED: usize = 100;
/// Events that one question to a table covers.
const SEQS_PER_QUESTION: u64 = 100_000;
/// How much the clocks of the hosts that stamp records may differ.
const CLOCKS_MS: i64 = 3_600_000;

type Ranges = BTreeMap<u32, Range<u64>>;

pub(super) async fn run(arguments: &Audit, parts: &Parts) -> Result<Answer> {
    let (kafka, topics) = (parts.kafka(), parts.topics());
    let since = arguments.since;
    // First who has read how far, then what there is to read: what is settled or read is in the logs.
    let settled = reader::committed(&kafka, &arguments.group, &topics.transformed).await?;
    let taken_on = reader::committed(&kafka, &arguments.rotor_group, &topics.ingest).await?;
    let accepted = ranges(parts, &topics.ingest, since).await?;
    let decided = ranges(parts, &topics.transformed, since).await?;
    let bar = Bar::new("records and rows");
    let books = Arc::new(Mutex::new(Books::new(since, settled)));
    let log_begins = begins(parts, &decided).await?;
    let arrivals = Arrivals::new(
        since,
        &topics.ingest,
        &arguments.incarnation,
        taken_on,
        log_begins,
    );
    let arrivals = Arc::new(Mutex::new(arrivals));

    let others = topics.retry.iter().map(|tier| tier.topic.as_str());
    read(parts, &topics.transformed, decided, &bar, &books, Books::decided).await?;
    for topic in [topics.dlq.as_str()].into_iter().chain(others) {
        let enter = if topic == topics.dlq {
            Books::dead
        } else {
            Books::waiting
        };
        let ranges = ranges(parts, topic, since).await?;
        read(parts, topic, ranges, &bar, &books, enter).await?;
    }
    read(
        parts,
        &topics.ingest,
        accepted,
        &bar,
        &arrivals,
        Arrivals::accepted,
    )
    .await?;
    let mut books = std::mem::take(&mut *books.lock().unwrap_or_else(PoisonError::into_inner));
    let arrivals = std::mem::take(&mut *arrivals.lock().unwrap_or_else(PoisonError::into_inner));

    let warehouse = parts.warehouse();
    let mut held = BTreeMap::new();
    for (table, journal, partition, seqs) in books.ranges() {
        let name: TableName = table.parse().context("the log names a table that is none")?;
        bar.expect(seqs.end() - seqs.start() + 1);
        let mut from = *seqs.start();
        while from <= *seqs.end() {
            let to = (*seqs.end()).min(from.saturating_add(SEQS_PER_QUESTION - 1));
            let copies = warehouse.copies(&name, journal, partition, from..=to).await?;
            held.extend(
                copies
                    .into_iter()
                    .map(|((seq, sub), copies)| ((table.clone(), journal, partition, seq, sub), copies)),
            );
            bar.step(to - from + 1);
            from = to.saturating_add(1);
        }
    }
    let mut findings = books.findings(&held);
    arrivals.compare(&books, &mut findings);
    answer(&findings)
}

/// The records to read of a topic. An event's records are stamped after the event was received, but by other hosts.
async fn ranges(parts: &Parts, topic: &str, since: Option<Timestamp>) -> Result<Ranges> {
    let since = since.map(|since| since.as_millis() - CLOCKS_MS);
    Ok(reader::ranges(&parts.kafka(), topic, since).await?)
}

/// From when on the transformed log still has every decision, by partition: the time of its first record where
/// retention has deleted some; nothing where it goes back to its beginning.
async fn begins(parts: &Parts, decided: &Ranges) -> Result<BTreeMap<u32, i64>> {
    let first = |range: &Range<u64>| range.start..range.end.min(range.start + 1);
    let firsts: Ranges = decided
        .iter()
        .filter(|(_, range)| range.start > 0)
        .map(|(partition, range)| (*partition, first(range)))
        .collect();
    let begins: Arc<Mutex<BTreeMap<u32, i64>>> = Arc::default();
    // A partition that holds nothing any more has no decisions at all.
    let empty = firsts.iter().filter(|(_, range)| range.is_empty());
    let empty: Vec<_> = empty.map(|(partition, _)| (*partition, i64::MAX)).collect();
    begins
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(empty);
    let note = Arc::clone(&begins);
    let visit = move |partition, record: Record| {
        let at = record.timestamp_ms.saturating_add(CLOCKS_MS);
        note.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(partition, at);
        true
    };
    reader::read_ranges(&parts.kafka(), &parts.topics().transformed, firsts, visit).await?;
    Ok(std::mem::take(
        &mut begins.lock().unwrap_or_else(PoisonError::into_inner),
    ))
}

async fn read<T: Send + 'static>(
    parts: &Parts,
    topic: &str,
    ranges: Ranges,
    bar: &Bar,
    into: &Arc<Mutex<T>>,
    enter: fn(&mut T, u32, &Record),
) -> Result<()> {
    let (into, bar) = (Arc::clone(into), bar.clone());
    bar.expect(ranges.values().map(|range| range.end - range.start).sum());
    let visit = move |partition, record: Record| {
        enter(
            &mut into.lock().unwrap_or_else(PoisonError::into_inner),
            partition,
            &record,
        );
        bar.step(1);
        true
    };
    reader::read_ranges(&parts.kafka(), topic, ranges, visit).await?;
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
        ("gaps", &findings.gaps),
    ];
    let mut object = json!({
        "ok": ok,
        "events": findings.events,
        "rows": findings.rows,
        "accepted": findings.accepted,
        "duplicates_in_log": findings.duplicates,
        "duplicates_in_ingest": findings.shipped_again,
        "hours": hours,
    });
    let mut lines = vec![format!(
        "{} events accepted, {} decided, {} rows; {} records of the ingest topic and {} of the log were duplicates",
        findings.accepted, findings.events, findings.rows, findings.shipped_again, findings.duplicates
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
