//! A time of steady load, and when its events could be queried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use millrace_testkit::pipeline::{Pipeline, Sender};
use millrace_testkit::wait::until;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::places::Places;
use crate::table::Measured;

/// Requests at once.
const CLIENTS: usize = 8;
/// Events of a request, of as many people, so that they go to different partitions.
const BATCH: u64 = 6;
/// How often the tables are asked.
const TURN: Duration = Duration::from_millis(100);
/// Before an event is sent again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Events of watched workspaces by number, from their acknowledgement on until they are found.
#[derive(Debug, Default)]
struct Ages {
    waiting: BTreeMap<u64, Instant>,
    ages: Vec<Duration>,
}

type Shared = Arc<Mutex<Ages>>;

fn lock(ages: &Shared) -> std::sync::MutexGuard<'_, Ages> {
    ages.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Phase;

impl Phase {
    /// One event for each workspace, until all are found: the tables are there then.
    pub(crate) async fn first(pipeline: &Pipeline, places: &Places, numbers: &mut u64) -> Result<()> {
        for sender in &places.senders {
            post(sender, *numbers..*numbers + 1).await?;
            *numbers += 1;
        }
        Self::all_arrive(pipeline, places, *numbers).await
    }

    /// Waits until every event that was ever sent is there, also of the workspaces that are not watched.
    pub(crate) async fn all_arrive(pipeline: &Pipeline, places: &Places, numbers: u64) -> Result<()> {
        arrived(pipeline, places, numbers).await.map(drop)
    }

    /// Sends for a while, and watches.
    pub(crate) async fn run(
        pipeline: &Pipeline,
        places: &Places,
        name: &'static str,
        (length, rate): (Duration, u64),
        numbers: &mut u64,
    ) -> Result<Measured> {
        let inserts = || pipeline.metric("bulker", "millrace_bulker_inserts_total", "applied");
        let (before, started) = (inserts().await?, Instant::now());
        let ages = Shared::default();
        let sound: BTreeSet<u64> = places.sound().into_iter().collect();
        let turns = Arc::new(tokio::sync::Mutex::new({
            let mut turns = interval(Duration::from_secs(1) / u32::try_from((rate / BATCH).max(1))?);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            turns
        }));
        let first = *numbers;
        let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (turns, next, ages) = (Arc::clone(&turns), Arc::clone(&next), Arc::clone(&ages));
            let (senders, sound) = (places.senders.clone(), sound.clone());
            clients.spawn(async move {
                while started.elapsed() < length {
                    turns.lock().await.tick().await;
                    let request = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let place = request % u64::try_from(senders.len())?;
                    let Some(sender) = senders.get(usize::try_from(place)?) else {
                        bail!("there are no workspaces");
                    };
                    let range = first + request * BATCH..first + (request + 1) * BATCH;
                    post(sender, range.clone()).await?;
                    if sound.contains(&place) {
                        let now = Instant::now();
                        lock(&ages).waiting.extend(range.map(|n| (n, now)));
                    }
                }
                Ok(())
            });
        }
        let watching = watch(pipeline, places, &ages);
        tokio::pin!(watching);
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    Some(ended) => ended??,
                    None => break,
                },
                failed = &mut watching => failed?,
            }
        }
        let accepted = next.load(std::sync::atomic::Ordering::Relaxed) * BATCH;
        *numbers += accepted;
        let (applied, sent) = (inserts().await? - before, started.elapsed());
        let end = Instant::now() + PATIENCE;
        while !lock(&ages).waiting.is_empty() && Instant::now() < end {
            tokio::select! {
                () = tokio::time::sleep(TURN) => {}
                failed = &mut watching => failed?,
            }
        }
        let held_back = numbers.saturating_sub(held(pipeline, places).await?.1);
        let ages = lock(&ages);
        Ok(Measured {
            name,
            workspaces: places.count(),
            accepted,
            inserts_a_second: applied / sent.as_secs_f64(),
            missing: u64::try_from(ages.waiting.len())?,
            held_back,
            ages: {
                let mut ages = ages.ages.clone();
                ages.sort_unstable();
                ages
            },
            repeated: 0,
        })
    }

    /// Waits until every event that was ever sent is there; says how many are there more than once.
    pub(crate) async fn last(pipeline: &Pipeline, places: &Places, numbers: u64) -> Result<Measured> {
        let repeated = arrived(pipeline, places, numbers).await?;
        Ok(Measured {
            name: "after the repair",
            workspaces: places.count(),
            accepted: numbers,
            inserts_a_second: 0.0,
            missing: 0,
            held_back: 0,
            ages: Vec::new(),
            repeated,
        })
    }
}

/// Waits until `wanted` different events are there; how many rows are there beside them.
async fn arrived(pipeline: &Pipeline, places: &Places, wanted: u64) -> Result<u64> {
    until(&format!("{wanted} events"), PATIENCE, || async {
        let (rows, different) = held(pipeline, places).await?;
        Ok((different >= wanted).then(|| rows - different))
    })
    .await
}

/// How many rows all tables hold, and how many different ones.
async fn held(pipeline: &Pipeline, places: &Places) -> Result<(u64, u64)> {
    let sql = format!(
        "SELECT toUInt32(count()) AS held, toUInt32(uniqExact(n)) AS different FROM {}",
        places.merged(&places.all())
    );
    let rows = pipeline.query(&sql).await?;
    let count = |name: &str| rows.first().and_then(|row| row[name].as_u64()).unwrap_or(0);
    Ok((count("held"), count("different")))
}

/// Asks for the events that are waited for again and again; ends only with an error.
async fn watch(pipeline: &Pipeline, places: &Places, ages: &Shared) -> Result<()> {
    let tables = places.merged(&places.sound());
    loop {
        tokio::time::sleep(TURN).await;
        let Some((low, high)) = bounds(ages) else { continue };
        let sql =
            format!("SELECT DISTINCT toUInt32(n) AS number FROM {tables} WHERE n BETWEEN {low} AND {high}");
        let rows = pipeline.query(&sql).await?;
        let now = Instant::now();
        let mut ages = lock(ages);
        for n in rows.iter().filter_map(|row| row["number"].as_u64()) {
            if let Some(since) = ages.waiting.remove(&n) {
                ages.ages.push(now.duration_since(since));
            }
        }
    }
}

fn bounds(ages: &Shared) -> Option<(u64, u64)> {
    let ages = lock(ages);
    Some((
        *ages.waiting.first_key_value()?.0,
        *ages.waiting.last_key_value()?.0,
    ))
}

async fn post(sender: &Sender, numbers: std::ops::Range<u64>) -> Result<()> {
    let events: Vec<Value> = numbers
        .map(|n| {
            json!({
                "type": "track", "event": "Measured", "anonymousId": format!("person-{n}"), "messageId": format!("m-{n}"),
                "properties": {"n": n},
            })
        })
        .collect();
    let body = json!({ "batch": events });
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = sender.post("/v1/batch", &body).await?;
        match answer.status.as_u16() {
            200 => return Ok(()),
            429 | 503 if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            // A gateway that has not heard of a new key yet.
            401 if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            status => bail!("answered {status}: {}", answer.body),
        }
    }
}
