//! `millctl dlq …`: dead letters are shown, counted and sent round again, and never changed.

mod letter;
mod replay;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use millrace_event::Timestamp;
use millrace_kafka::bounds::Bounds;
use millrace_kafka::reader;
use millrace_store::{WorkspaceId, Workspaces};
use millrace_warehouse::replays;
use serde_json::json;

use self::letter::Letter;
use crate::cli::{Dlq, Letters, Place};
use crate::output::{Answer, Bar};
use crate::parts::Parts;

/// How much earlier than a letter's own time its record may be stamped: hosts' clocks differ.
const CLOCKS_MS: i64 = 3_600_000;

pub(super) async fn run(command: Dlq, parts: &Parts) -> Result<Answer> {
    match command {
        Dlq::List { letters, limit } => list(parts, letters, limit).await,
        Dlq::Show { at } => show(parts, at).await,
        Dlq::Stats { letters } => stats(parts, letters).await,
        Dlq::Replay {
            letters,
            rate,
            force,
            by,
        } => {
            let orders = replay::Orders {
                dry_run: parts.is_dry_run(),
                rate,
                force,
                by,
            };
            Box::pin(replay::run(parts, letters, orders)).await
        }
        Dlq::Replays { limit } => show_replays(parts, limit).await,
    }
}

/// Calls `take` with the letters that are asked for, each partition's oldest first, until it returns false. `bar`
/// follows the records looked at.
async fn each(
    parts: &Parts,
    mut wanted: Letters,
    bar: Bar,
    mut take: impl FnMut(Letter) -> bool + Send + 'static,
) -> Result<()> {
    if let Some(name) = &wanted.workspace
        && name.parse::<WorkspaceId>().is_err()
    {
        let workspace = Workspaces::new(parts.postgres()?).find(name).await?;
        wanted.workspace = Some(workspace.id.as_str().to_owned());
    }
    let (kafka, topic) = (parts.kafka(), &parts.topics().dlq);
    let since = wanted.since.map(|since| since.as_millis() - CLOCKS_MS);
    let mut ranges = Bounds::new(&kafka, topic).ranges(since).await?;
    if !wanted.places.is_empty() {
        for (partition, range) in &mut ranges {
            let of_it = wanted.places.iter().filter(|place| place.partition == *partition);
            let offsets = of_it
                .map(|place| place.offset)
                .filter(|offset| range.contains(offset));
            let (first, last) = (offsets.clone().min(), offsets.max());
            *range = first.unwrap_or(range.end)..last.map_or(range.end, |last| last + 1);
        }
    }
    bar.expect(ranges.values().map(|range| range.end - range.start).sum());
    let visit = move |partition, record| {
        bar.step(1);
        let letter = Letter::new(partition, record);
        !letter.is_wanted(&wanted) || take(letter)
    };
    reader::read_ranges(&kafka, topic, ranges, visit).await?;
    Ok(())
}

/// What a thread that reads has gathered, once it is done.
fn taken<T: Default>(gathered: &Mutex<T>) -> T {
    std::mem::take(&mut gathered.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The newest letters that are asked for, at most `limit`; no more are ever held.
async fn list(parts: &Parts, wanted: Letters, limit: usize) -> Result<Answer> {
    type Newest = BTreeMap<(Timestamp, Place), Letter>;
    let gathered = Arc::new(Mutex::new((0_u64, Newest::new())));
    let keep = Arc::clone(&gathered);
    each(parts, wanted, Bar::none(), move |letter| {
        let (total, newest) = &mut *keep.lock().unwrap_or_else(PoisonError::into_inner);
        *total += 1;
        newest.insert((letter.failed_at(), letter.place()), letter);
        if newest.len() > limit {
            newest.pop_first();
        }
        true
    })
    .await?;
    let (total, newest) = taken(&gathered);
    let objects: Vec<_> = newest.values().rev().map(Letter::summary).collect();
    let names = [
        "AT",
        "FAILED",
        "WORKSPACE",
        "STAGE",
        "CODE",
        "FIELD",
        "FUNCTION",
        "ID",
        "ATTEMPT",
    ];
    let keys = [
        "at",
        "failed_at",
        "workspace",
        "stage",
        "code",
        "field",
        "function",
        "id",
        "attempt",
    ];
    let cell = |object: &serde_json::Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = objects
        .iter()
        .map(|object| keys.iter().map(|key| cell(object, key)).collect())
        .collect();
    Answer::table(json!({ "total": total, "letters": objects }), &names, &rows)
}

async fn show(parts: &Parts, at: Place) -> Result<Answer> {
    let wanted = Letters {
        places: vec![at],
        ..Letters::default()
    };
    let gathered = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&gathered);
    each(parts, wanted, Bar::none(), move |letter| {
        *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(letter.whole());
        false
    })
    .await?;
    let Some(whole) = taken(&gathered) else {
        bail!("there is no dead letter at {at}; `millctl dlq list` names those that there are");
    };
    let text = serde_json::to_string_pretty(&whole).context("the letter has no JSON form")?;
    Answer::lines(whole, text.lines().map(ToOwned::to_owned).collect())
}

async fn stats(parts: &Parts, wanted: Letters) -> Result<Answer> {
    let gathered: Arc<Mutex<BTreeMap<[String; 4], u64>>> = Arc::default();
    let keep = Arc::clone(&gathered);
    each(parts, wanted, Bar::none(), move |letter| {
        let mut groups = keep.lock().unwrap_or_else(PoisonError::into_inner);
        *groups.entry(letter.group()).or_default() += 1;
        true
    })
    .await?;
    let groups = taken(&gathered);
    let total: u64 = groups.values().sum();
    let objects: Vec<_> = groups
        .iter()
        .map(|([workspace, stage, code, function], count)| {
            json!({ "workspace": workspace, "stage": stage, "code": code, "function": function, "count": count })
        })
        .collect();
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|(group, count)| {
            let mut row = group.to_vec();
            row.push(count.to_string());
            row
        })
        .collect();
    let names = ["WORKSPACE", "STAGE", "CODE", "FUNCTION", "COUNT"];
    Answer::table(json!({ "total": total, "groups": objects }), &names, &rows)
}

/// The audit trail.
async fn show_replays(parts: &Parts, limit: usize) -> Result<Answer> {
    let table = replays::table(parts.system_database()?)?;
    let found = parts.warehouse().replays(&table, limit).await?;
    let filter = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    let objects: Vec<_> = found
        .iter()
        .map(|run| {
            json!({
                "replay": run.replay, "at": run.at, "by": run.by, "filter": filter(&run.filter),
                "forced": run.forced, "topic": run.topic, "letters": run.letters,
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|run| {
            let forced = if run.forced { "yes" } else { "" };
            let letters = run.letters.to_string();
            [&run.at, &run.by, &letters, forced, &run.filter, &run.replay]
                .map(|cell| (*cell).to_owned())
                .to_vec()
        })
        .collect();
    let names = ["AT", "BY", "LETTERS", "FORCED", "FILTER", "REPLAY"];
    Answer::table(json!({ "replays": objects }), &names, &rows)
}
