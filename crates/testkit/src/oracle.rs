//! What was sent and what was answered, and whether the table agrees.
//!
//! An event's whole content follows from its number, so the oracle keeps numbers only and knows what every
//! column must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::pipeline::Pipeline;

/// The function that the oracle's checks expect to have run on every event.
pub const FUNCTION: &str = "export default function (event) {
  const bag = event.properties ?? event.traits;
  bag.stamped = `stamped ${bag.n}`;
  return event;
}
";

/// How many persons the events are about: the event number `n` is about person `n % PERSONS`.
pub const PERSONS: u64 = 97;

/// Remembers what was sent.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: Mutex<BTreeMap<u64, Sent>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    times: u32,
    acknowledged: bool,
}

/// What the table says about what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Acknowledged and not there.
    pub missing: Vec<u64>,
    /// There more than once.
    pub repeated: Vec<u64>,
    /// There with another content; which column.
    pub altered: Vec<(u64, String)>,
    /// There and never sent.
    pub phantom: Vec<String>,
    /// There, once, as sent.
    pub right: u64,
    /// Sent more than once because an answer was missing or refused.
    pub sent_again: u64,
}

impl Report {
    /// Whether every acknowledged event is there once and unaltered, and nothing else is.
    pub const fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && self.repeated.is_empty()
            && self.altered.is_empty()
            && self.phantom.is_empty()
    }
}

/// The event number `n`: of mixed types, with text that needs escaping, numbers, lists and nested objects.
pub fn event(n: u64) -> Value {
    let bag = json!({
        "n": n,
        "label": label(n),
        "flag": n.is_multiple_of(2),
        "price": price(n),
        "tags": tags(n),
        "nested": {"deepValue": n * 3},
    });
    let mut event = json!({
        "messageId": message_id(n),
        "anonymousId": person(n),
        "type": kind(n),
        "timestamp": "2026-11-21T04:00:00.120Z",
        "context": {"library": {"name": "oracle", "version": "1.0.0"}},
    });
    match kind(n) {
        "track" => event["event"] = "Order Completed".into(),
        "page" => event["name"] = "Home".into(),
        "group" => event["groupId"] = "g1".into(),
        _ => event["userId"] = "u1".into(),
    }
    event[if matches!(kind(n), "track" | "page") {
        "properties"
    } else {
        "traits"
    }] = bag;
    event
}

/// The row that the event number `n` becomes, by column, as far as the oracle looks.
pub fn row(n: u64) -> Value {
    json!({
        "message_id": message_id(n),
        "type": kind(n),
        "anonymous_id": person(n),
        "n": n,
        "label": label(n),
        "flag": n.is_multiple_of(2),
        "price": price(n),
        "tags": tags(n),
        "nested_deep_value": n * 3,
        "stamped": stamp(n),
    })
}

fn stamp(n: u64) -> String {
    format!("stamped {n}")
}

fn kind(n: u64) -> &'static str {
    ["track", "identify", "page", "group"]
        .get(usize::try_from(n % 4).unwrap_or(0))
        .copied()
        .unwrap_or("track")
}

fn message_id(n: u64) -> String {
    format!("m-{n}")
}

fn person(n: u64) -> String {
    format!("person-{}", n % PERSONS)
}

fn label(n: u64) -> String {
    format!("№ {n}: \"quoted\" \\ tab\t漢字 😀")
}

fn price(n: u64) -> f64 {
    // Quarters are exact in binary.
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let n = n as f64;
    n / 4.0 + 0.25
}

fn tags(n: u64) -> Vec<String> {
    (0..n % 3).map(|tag| format!("tag-{tag}")).collect()
}

impl Oracle {
    /// An event is about to be sent.
    pub fn sending(&self, n: u64) {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(n)
            .or_default()
            .times += 1;
    }

    /// Its request was answered 200.
    pub fn acknowledged(&self, n: u64) {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(n)
            .or_default()
            .acknowledged = true;
    }

    /// How many events were acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.values().map(|sent| u64::from(sent.acknowledged)).sum()
    }

    /// The numbers of all events sent, and whether each was acknowledged.
    pub fn sent(&self) -> BTreeMap<u64, bool> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().map(|(n, sent)| (*n, sent.acknowledged)).collect()
    }

    /// Compares the table with what was sent.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn check(&self, pipeline: &Pipeline) -> Result<Report> {
        self.check_those(pipeline, |_| true).await
    }

    /// As [`Self::check`], where only the events of which `stored` is true end in the table.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn check_those(&self, pipeline: &Pipeline, stored: impl Fn(u64) -> bool) -> Result<Report> {
        let sql = format!(
            "SELECT message_id, type, anonymous_id, n, label, flag, price, tags, nested_deep_value, stamped FROM {}",
            pipeline.table
        );
        let rows = pipeline.query(&sql).await?;
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sent.retain(|n, _| stored(*n));
        let mut report = Report {
            sent_again: sent.values().map(|sent| u64::from(sent.times > 1)).sum(),
            ..Report::default()
        };
        let mut seen = BTreeSet::new();
        for row in rows {
            let id = row["message_id"].as_str().context("a message id")?;
            let n = id
                .strip_prefix("m-")
                .and_then(|n| n.parse().ok())
                .filter(|n| sent.contains_key(n));
            let Some(n) = n else {
                report.phantom.push(id.to_owned());
                continue;
            };
            if !seen.insert(n) {
                report.repeated.push(n);
            } else if let Some(column) = altered(n, &row) {
                report.altered.push((n, column));
            } else {
                report.right += 1;
            }
        }
        let lost = sent
            .iter()
            .filter(|(n, sent)| sent.acknowledged && !seen.contains(n));
        report.missing = lost.map(|(n, _)| *n).collect();
        Ok(report)
    }
}

/// The first column that does not hold what was sent.
fn altered(n: u64, found: &Value) -> Option<String> {
    let expected = row(n);
    let mut columns = expected.as_object()?.iter();
    columns
        .find(|(column, value)| !same(&found[column.as_str()], value))
        .map(|(column, _)| column.clone())
}

/// Equal as numbers where both are: `3` and `3.0` are one value.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}
