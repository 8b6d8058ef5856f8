//! `millctl dlq …`: dead letters are shown, counted and sent round again, and never changed.

mod letter;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_event::Timestamp;
use millrace_kafka::producer::Producer;
use millrace_kafka::reader;
use millrace_store::{Functions, Workspaces};
use serde_json::json;

use self::letter::{Letter, Unfit};
use crate::cli::{Dlq, Letters};
use crate::output::Answer;
use crate::parts::Parts;

/// Letters that are sent and acknowledged together.
const BATCH: usize = 100;

pub(super) async fn run(command: Dlq, parts: &Parts) -> Result<Answer> {
    match command {
        Dlq::List { letters, limit } => list(read(parts, letters).await?, limit),
        Dlq::Show { at } => show(&at, parts).await,
        Dlq::Stats { letters } => stats(&read(parts, letters).await?),
        Dlq::Replay {
            letters,
            dry_run,
            rate,
            force,
        } => {
            let letters = read(parts, letters).await?;
            replay(parts, letters, dry_run, rate, force).await
        }
    }
}

/// The letters that are asked for, newest first.
async fn read(parts: &Parts, wanted: Letters) -> Result<Vec<Letter>> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&found);
    let visit = move |partition, record| {
        let letter = Letter::new(partition, record);
        if letter.is_wanted(&wanted) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        }
    };
    reader::read_all(&parts.kafka(), &parts.topics().dlq, visit).await?;
    let mut letters = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    letters.sort_by_key(|letter: &Letter| std::cmp::Reverse((letter.failed_at(), letter.offset())));
    Ok(letters)
}

fn list(letters: Vec<Letter>, limit: usize) -> Result<Answer> {
    let shown = letters.get(..limit.min(letters.len())).unwrap_or_default();
    let objects: Vec<_> = shown.iter().map(Letter::summary).collect();
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
    Answer::table(
        json!({ "total": letters.len(), "letters": objects }),
        &names,
        &rows,
    )
}

async fn show(at: &str, parts: &Parts) -> Result<Answer> {
    let everything = Letters {
        workspace: None,
        code: None,
        function: None,
        since: None,
        until: None,
    };
    let letters = read(parts, everything).await?;
    let Some(letter) = letters.iter().find(|letter| letter.at() == at) else {
        bail!("there is no dead letter at {at}; `millctl dlq list` names those that there are");
    };
    let whole = letter.whole();
    let text = serde_json::to_string_pretty(&whole).context("the letter has no JSON form")?;
    Answer::lines(whole, text.lines().map(ToOwned::to_owned).collect())
}

fn stats(letters: &[Letter]) -> Result<Answer> {
    let mut groups: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for letter in letters {
        *groups.entry(letter.group()).or_default() += 1;
    }
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
    Answer::table(
        json!({ "total": letters.len(), "groups": objects }),
        &names,
        &rows,
    )
}

async fn replay(
    parts: &Parts,
    letters: Vec<Letter>,
    dry_run: bool,
    rate: u32,
    force: bool,
) -> Result<Answer> {
    let in_force = match letters.iter().any(Letter::has_function) && !force {
        true => versions(parts).await?,
        false => HashMap::new(),
    };
    let tier = parts
        .topics()
        .retry
        .first()
        .context("no retry topic is configured")?;
    let now = parts.now();
    let mut copies: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    let mut left: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut count = 0_u64;
    // Oldest first: the order in which they came.
    for letter in letters.iter().rev() {
        let pointless = !force && letter.is_pointless(&in_force);
        match letter.copy(now) {
            _ if pointless => *left.entry("pointless").or_default() += 1,
            Err(Unfit::NoIdentity) => *left.entry("without_identity").or_default() += 1,
            Err(Unfit::NoEnvelope) => *left.entry("no_envelope").or_default() += 1,
            Ok(copy) => {
                count += 1;
                copies.entry(letter.partition()).or_default().push(copy);
            }
        }
    }
    if !dry_run {
        let producer = Producer::new(&parts.kafka())?;
        for (partition, copies) in copies {
            for batch in copies.chunks(BATCH) {
                producer.send(&tier.topic, partition, batch.to_vec()).await?;
                let sent = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1) * sent / rate).await;
            }
        }
    }
    let did = if dry_run { "would be sent" } else { "sent" };
    let mut lines = vec![format!("{count} dead letters {did} to {}", tier.topic)];
    for (why, count) in &left {
        let why = match *why {
            "pointless" => "would fail again, as nothing changed that they failed on; --force sends them",
            "no_envelope" => "hold nothing that can go round",
            _ => "have no identity",
        };
        lines.push(format!("{count} left: they {why}"));
    }
    let object = json!({ "replayed": count, "dry_run": dry_run, "topic": tier.topic, "left": left });
    Answer::lines(object, lines)
}

/// The versions in force of every function, by its id.
async fn versions(parts: &Parts) -> Result<HashMap<String, Vec<u32>>> {
    let postgres = parts.postgres()?;
    let (functions, workspaces) = (Functions::new(postgres.clone()), Workspaces::new(postgres));
    let mut versions = HashMap::new();
    for workspace in workspaces.list().await? {
        for listed in functions.list(&workspace.id).await? {
            let promoted = listed.promoted.iter().map(|promoted| promoted.version).collect();
            versions.insert(listed.id.as_str().to_owned(), promoted);
        }
    }
    Ok(versions)
}

impl Parts {
    fn now(&self) -> Timestamp {
        use millrace_service::{Clock as _, SystemClock};
        Timestamp::clamped_from_millis(SystemClock.now().as_millisecond())
    }
}
