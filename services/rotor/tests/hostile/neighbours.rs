//! What a workspace whose functions never end costs the one beside it, with the protections as they are by default.

use std::time::Duration;

use millrace_event::Verdict;
use millrace_kafka::Record;

use super::ground::{Ground, read};
use super::{GOOD, PARTITION, came};

/// Events of the well-behaved workspace in each phase, and the time between them.
const EVENTS: u64 = 1500;
const PAUSE: Duration = Duration::from_millis(10);

/// Of so many events beside it one never ends: by turns it comes in one batch with the others, and in one of its own.
const EACH: u64 = 10;

/// Never ends, in JavaScript, where the isolate can stop it.
const ENDLESS: &str = "export default (event) => { for (;;); }";

/// Prints the latency from written to decided of the well-behaved events, alone and beside the other workspace.
pub(crate) async fn measure() {
    let settings = [("MILLRACE__LIMITS__CPU", "1s"), ("MILLRACE__LIMITS__WALL", "1s")];
    let ground = Ground::set(ENDLESS, &settings).await;
    let good = ground.neighbour("good", GOOD).await;
    let (mut seq, mut next, mut p99) = (0, 0, Vec::new());
    // The first phase finds the workers cold. In the third the other workspace uses up what it may take at once.
    let phases = [
        ("cold", false),
        ("alone", false),
        ("beside, at first", true),
        ("beside", true),
    ];
    for (phase, hostile) in phases {
        let (mut sent, first) = (Vec::new(), next);
        for event in 0..EVENTS {
            let mut records = vec![ground.event_of(&good, PARTITION, seq, r#"{"n":1}"#)];
            sent.push((seq, millis()));
            seq += 1;
            let mut own = Vec::new();
            if hostile && event % EACH == 0 {
                let with = if event % (2 * EACH) == 0 {
                    &mut records
                } else {
                    &mut own
                };
                with.push(ground.event(PARTITION, seq, r#"{"n":2}"#));
                seq += 1;
            }
            for (records, pause) in [(records, PAUSE / 2), (own, PAUSE / 2)] {
                next += u64::try_from(records.len()).expect("small");
                if !records.is_empty() {
                    ground.write(PARTITION, records).await;
                }
                tokio::time::sleep(pause).await;
            }
        }
        let transformed = came(&ground, first, next - first).await;
        let mut latencies: Vec<i64> = sent
            .iter()
            .filter_map(|(seq, at)| {
                let record: &Record = transformed.iter().find(|record| read(record).id.seq == *seq)?;
                Some(record.timestamp_ms - at)
            })
            .collect();
        latencies.sort_unstable();
        let others = transformed
            .iter()
            .filter(|record| read(record).verdict != Verdict::Forward);
        let began = others.filter(|record| {
            let reason = read(record).reason.map(|reason| reason.message.to_string());
            !reason.is_some_and(|text| text.starts_with("not run"))
        });
        let rank = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or(0);
        println!(
            "{phase:<16} p50 {} ms, p99 {} ms, slowest {} ms; {} of the other's events ran",
            rank(50),
            rank(99),
            latencies.last().unwrap_or(&0),
            began.count()
        );
        p99.push(rank(99).max(1));
    }
    let (alone, beside) = (p99[1], p99[3]);
    println!(
        "p99 beside one that never ends: {}.{:02} times as long",
        beside / alone,
        beside % alone * 100 / alone
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the time that a producer in another process stamps"
)]
fn millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("small")
}
