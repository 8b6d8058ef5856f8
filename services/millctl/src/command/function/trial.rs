//! Code tried on a rotor, before it is stored or instead.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use millrace_store::functions::Language;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::output::Answer;
use crate::rotor::Rotor;

/// Events of one request, as the rotor takes them.
const REQUEST_EVENTS: usize = 100;

/// Most bytes of events that are tried at once.
const MOST_BYTES: u64 = 64 << 20;

/// The exit status when an event would become a dead letter.
const EXIT_DEAD_LETTER: u8 = 2;

/// Code, and what it is tried on.
pub(super) struct Trial {
    pub(super) file: PathBuf,
    pub(super) code: String,
    pub(super) language: Language,
    pub(super) events: Vec<PathBuf>,
    pub(super) context: Option<PathBuf>,
}

/// Fails with `file:line:column: message` when code does not load.
pub(super) async fn compiles(rotor: &Rotor, file: &str, code: &str, language: Language) -> Result<()> {
    let request = json!({ "code": code, "language": language.as_str() });
    match rotor.run(&request).await? {
        Ok(_) => Ok(()),
        Err(refused) => bail!("{}", refused.at(file)),
    }
}

impl Trial {
    /// Runs the events, as many as one request takes at a time.
    pub(super) async fn run(self, rotor: &Rotor) -> Result<Answer> {
        let mut events = Vec::new();
        for file in &self.events {
            events.extend(read_events(file)?);
        }
        let context = match &self.context {
            Some(file) => serde_json::from_str(&read(file)?)
                .with_context(|| format!("{} is no JSON", file.display()))?,
            None => json!({}),
        };
        let file = self.file.display().to_string();
        let (mut results, mut logs, mut usage) = (Vec::new(), Vec::new(), json!({}));
        let portions: Vec<&[Box<RawValue>]> = match events.is_empty() {
            true => vec![&[]],
            false => events.chunks(REQUEST_EVENTS).collect(),
        };
        for portion in portions {
            // Events go as they are written: a number that JSON cannot hold exactly must stay what it is.
            let texts: Vec<&str> = portion.iter().map(|event| event.get()).collect();
            let request = format!(
                r#"{{"code":{},"language":"{}","context":{context},"events":[{}]}}"#,
                Value::from(self.code.as_str()),
                self.language.as_str(),
                texts.join(",")
            );
            let request = RawValue::from_string(request).context("the request is no JSON")?;
            let mut answer = match rotor.run(&request).await? {
                Ok(answer) => answer,
                Err(refused) => bail!("{}", refused.at(&file)),
            };
            let before = results.len();
            results.append(&mut list(&mut answer, "results"));
            for mut line in list(&mut answer, "logs") {
                if let Some(index) = line["event_index"].as_u64() {
                    line["event_index"] = (index + u64::try_from(before)?).into();
                }
                logs.push(line);
            }
            add_usage(&mut usage, &answer["usage"]);
        }
        let lines = if events.is_empty() {
            vec![format!("{file} loads")]
        } else {
            told(&file, &results, &logs, &usage)
        };
        let dead = results.iter().any(|result| result["verdict"] == "dead_letter");
        let answer = Answer::lines(json!({ "results": results, "logs": logs, "usage": usage }), lines)?;
        Ok(answer.with_exit(if dead { EXIT_DEAD_LETTER } else { 0 }))
    }
}

fn list(answer: &mut Value, field: &str) -> Vec<Value> {
    match answer.get_mut(field).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Times add up; the heap is the largest there was.
fn add_usage(all: &mut Value, one: &Value) {
    for field in ["cpu_ms", "wall_ms"] {
        let sum = all[field].as_f64().unwrap_or(0.0) + one[field].as_f64().unwrap_or(0.0);
        all[field] = ((sum * 1000.0).round() / 1000.0).into();
    }
    let heap = all["heap_bytes"].as_u64().max(one["heap_bytes"].as_u64());
    all["heap_bytes"] = heap.unwrap_or(0).into();
}

/// What came of each event, and what was logged on the way.
fn told(file: &str, results: &[Value], logs: &[Value], usage: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, result) in results.iter().enumerate() {
        lines.push(format!("{index}  {}", result["verdict"].as_str().unwrap_or("?")));
        let error = &result["error"];
        if let Some(message) = error["message"].as_str() {
            let code = error["code"].as_str().unwrap_or("?");
            let place = match (error["line"].as_u64(), error["column"].as_u64()) {
                (Some(line), Some(column)) => format!(" ({file}:{line}:{column})"),
                _ => String::new(),
            };
            lines.push(format!("   {code}: {message}{place}"));
        }
        if let Some(after) = result["retry_after_ms"].as_u64() {
            lines.push(format!("   again after {after} ms"));
        }
        for line in logs
            .iter()
            .filter(|line| line["event_index"].as_u64() == u64::try_from(index).ok())
        {
            lines.push(format!(
                "   [{}] {}",
                text(&line["level"]),
                text(&line["message"])
            ));
        }
        for event in result["events"].as_array().into_iter().flatten() {
            lines.push(format!("   {event}"));
        }
    }
    for line in logs.iter().filter(|line| line["event_index"].is_null()) {
        lines.push(format!(
            "while loading: [{}] {}",
            text(&line["level"]),
            text(&line["message"])
        ));
    }
    lines.push(format!(
        "{} ms of processor time, {} bytes of heap",
        usage["cpu_ms"], usage["heap_bytes"]
    ));
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn read(file: &Path) -> Result<String> {
    let size = std::fs::metadata(file)
        .with_context(|| format!("{} cannot be read", file.display()))?
        .len();
    if size > MOST_BYTES {
        bail!(
            "{} has {size} bytes, {MOST_BYTES} are read at most",
            file.display()
        );
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read as text", file.display()))
}

/// One event, or the events of an array, as they are written.
fn read_events(file: &Path) -> Result<Vec<Box<RawValue>>> {
    let text = read(file)?;
    let what = || format!("{} holds neither an event nor an array of events", file.display());
    let value: Box<RawValue> = serde_json::from_str(&text).with_context(what)?;
    let events = match value.get().starts_with('[') {
        true => serde_json::from_str(value.get()).with_context(what)?,
        false => vec![value],
    };
    if events.iter().any(|event| !event.get().starts_with('{')) {
        bail!("{}", what());
    }
    Ok(events)
}
