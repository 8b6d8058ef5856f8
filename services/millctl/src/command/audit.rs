//! `millctl audit`: the logs against the tables.
//!
//! The ingest topic says what was accepted, the transformed log what was decided about every event, by the first
//! record of each attempt. Whatever is settled must be where it was decided to be: its rows in their tables once, or
//! dropped, or a dead letter, or a copy that waits in a retry topic.
//!
//! Memory is bounded however long the logs are: a pass over them keeps entries of a part of the events only. Where a part
//! turns out too large, it is divided and gone through anew; parts that are done stay done.

mod books;
mod findings;
mod names;
mod numbers;
mod places;
mod scope;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use millrace_event::Timestamp;
use millrace_kafka::bounds::Bounds;
use millrace_kafka::{Record, reader};
use millrace_warehouse::TableName;
use serde_json::json;

use self::books::{BYTES_PER_ENTRY, Books, Terms};
use self::findings::{Findings, MOST_NAMED, Named};
use self::places::Places;
use self::scope::Scope;
use crate::cli::Audit;
use crate::output::{Answer, Bar};
use crate::parts::Parts;

/// The exit status where something is not where it belongs.
const EXIT_FINDINGS: u8 = 2;
/// How much the clocks of the hosts that stamp records may differ.
const CLOCKS_MS: i64 = 3_600_000;

type Ranges = BTreeMap<u32, Range<u64>>;

/// How a record is entered.
type Enter = fn(&mut Books, u32, &Record);

/// Everything that a pass reads.
struct Logs {
    topics: Vec<(String, Ranges, Enter)>,
}

pub(super) async fn run(arguments: &Audit, parts: &Parts) -> Result<Answer> {
    let (kafka, topics) = (parts.kafka(), parts.topics());
    let since = arguments.since;
    // First who has read how far, then what there is to read: what is settled or read is in the logs.
    let settled = reader::committed(&kafka, &arguments.group, &topics.transformed).await?;
    let taken_on = reader::committed(&kafka, &arguments.rotor_group, &topics.ingest).await?;
    let accepted = ranges(parts, &topics.ingest, since).await?;
    let decided = ranges(parts, &topics.transformed, since).await?;
    let log_begins = begins(parts, &decided).await?;
    let places = Places::read(parts).await?;
    let entries = arguments.memory.get() / BYTES_PER_ENTRY;
    let terms = Terms {
        since,
        settled,
        taken_on,
        log_begins,
        topic: topics.ingest.clone(),
        incarnation: arguments.incarnation.clone(),
        most: usize::try_from(entries).unwrap_or(usize::MAX),
        postgres: places.postgres(),
    };
    let mut partitions: Vec<_> = decided.keys().chain(accepted.keys()).copied().collect();
    let mut logs = Logs {
        topics: vec![(topics.transformed.clone(), decided, Books::decided as Enter)],
    };
    let others = topics.retry.iter().map(|tier| tier.topic.as_str());
    for topic in [topics.dlq.as_str()].into_iter().chain(others) {
        let enter: Enter = if topic == topics.dlq {
            Books::dead
        } else {
            Books::waiting
        };
        let ranges = ranges(parts, topic, since).await?;
        partitions.extend(ranges.keys());
        logs.topics.push((topic.to_owned(), ranges, enter));
    }
    logs.topics
        .push((topics.ingest.clone(), accepted, Books::accepted));
    partitions.sort_unstable();
    partitions.dedup();

    let bar = Bar::new("records and rows");
    let mut findings = Findings::default();
    let mut open = vec![Scope::of(partitions)];
    while let Some(scope) = open.pop() {
        findings.passes += 1;
        let Some(books) = logs.read(parts, &terms, &scope, &bar).await? else {
            let smaller = scope.split();
            if smaller.is_empty() {
                bail!(
                    "one part of the events does not fit into --memory {}",
                    arguments.memory
                );
            }
            open.extend(smaller.into_iter().rev());
            continue;
        };
        compare(&places, books, &bar, &mut findings).await?;
    }
    answer(&findings)
}

/// Asks the tables about everything that a pass has found.
async fn compare(places: &Places, mut books: Books, bar: &Bar, findings: &mut Findings) -> Result<()> {
    for question in books.questions() {
        let name: TableName = question
            .table
            .parse()
            .context("the log names a table that is none")?;
        let numbers = question.seqs.end() - question.seqs.start() + 1;
        bar.expect(numbers);
        let held = places.copies(&name, &question).await?;
        books.compare(&question, &held, findings);
        bar.step(numbers);
    }
    books.report(findings);
    Ok(())
}

/// The records to read of a topic. An event's records are stamped after the event was received, but by other hosts.
async fn ranges(parts: &Parts, topic: &str, since: Option<Timestamp>) -> Result<Ranges> {
    let since = since.map(|since| since.as_millis() - CLOCKS_MS);
    Ok(Bounds::new(&parts.kafka(), topic).ranges(since).await?)
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

impl Logs {
    /// Goes through the logs of the scope's partitions; nothing where its events do not fit into memory.
    async fn read(&self, parts: &Parts, terms: &Terms, scope: &Scope, bar: &Bar) -> Result<Option<Books>> {
        let books = Arc::new(Mutex::new(Books::new(terms, scope)));
        for (topic, ranges, enter) in &self.topics {
            let (into, bar, enter) = (Arc::clone(&books), bar.clone(), *enter);
            let mut ranges = ranges.clone();
            ranges.retain(|partition, range| !range.is_empty() && scope.partitions.contains(partition));
            if ranges.is_empty() {
                continue;
            }
            bar.expect(ranges.values().map(|range| range.end - range.start).sum());
            let visit = move |partition, record: Record| {
                let mut books = into.lock().unwrap_or_else(PoisonError::into_inner);
                enter(&mut books, partition, &record);
                bar.step(1);
                !books.is_full()
            };
            reader::read_ranges(&parts.kafka(), topic, ranges, visit).await?;
            if books.lock().unwrap_or_else(PoisonError::into_inner).is_full() {
                return Ok(None);
            }
        }
        let books = std::mem::take(&mut *books.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Some(books))
    }
}

fn answer(findings: &Findings) -> Result<Answer> {
    let ok = findings.is_clean();
    let named = |found: &Named| found.names().map(ToOwned::to_owned).collect::<Vec<_>>();
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
    let mut object = json!({
        "ok": ok,
        "events": findings.events,
        "rows": findings.rows,
        "accepted": findings.accepted,
        "duplicates_in_log": findings.duplicates,
        "duplicates_in_ingest": findings.shipped_again,
        "passes": findings.passes,
        "hours": hours,
    });
    let mut lines = vec![format!(
        "{} events accepted, {} decided, {} rows; {} records of the ingest topic and {} of the log were duplicates",
        findings.accepted, findings.events, findings.rows, findings.shipped_again, findings.duplicates
    )];
    for (kind, found) in findings.kinds() {
        object[kind] = json!({ "count": found.count(), "named": named(found) });
        lines.extend(found.names().map(|one| format!("{kind}: {one}")));
        let more = found.count().saturating_sub(MOST_NAMED as u64);
        if more > 0 {
            lines.push(format!("{kind}: {more} more"));
        }
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
