//! Functions that do their worst, through Kafka, with a well-behaved workspace beside them on the same partition.
//!
//! `cargo test -p millrace-rotor --test hostile -- --rounds N [--neighbours]`; `./dev prove hostile` is the same. A round sends
//! each function of the corpus an event, between events of its own workspace and of its neighbour's; each must get its
//! verdict, and the rotor must neither end, nor lose its place in the group, nor grow. `--neighbours` measures what a
//! workspace whose functions never end costs the other one, with the protections as they are by default.
//!
//! In a long run of [`LONG`] rounds or more the limits are short, and those that may cost their worker take turns, one in
//! every third round: a thousand rounds are over in about ten minutes.
#![expect(clippy::expect_used, reason = "a proof fails where its ground does")]
#![expect(clippy::print_stdout, reason = "this is a program for people")]

mod corpus;
#[path = "../it/ground.rs"]
#[expect(dead_code, reason = "shared with the other tests, which use more of it")]
mod ground;
mod neighbours;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::Verdict;
use millrace_kafka::bounds::Bounds;
use millrace_kafka::{Record, reader};
use millrace_testkit::process::children;
use millrace_testkit::wait::until;

use corpus::{CORPUS, Case};
use ground::{Ground, identity, read};

const USAGE: &str = "hostile [--rounds N] [--neighbours]
  --rounds N     how often each function of the corpus has its turn; 1 where it is not said
  --neighbours   then measure what a workspace whose functions never end costs the one beside it";

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_millrace-rotor");

/// The partition that everything here goes through.
const PARTITION: u32 = 0;

/// Rounds that make a run a long one.
const LONG: u64 = 100;

/// What the process may hold more of at the end than when it was warm, threads and descriptors each: a call that is
/// under way has some.
const SLACK: usize = 16;

/// Worker processes.
const WORKERS: usize = 2;

/// Rounds before the memory is looked at: caches and allocators have their size then.
const WARM: u64 = 5;

/// What the rotor's own process may grow by over all rounds, in KiB.
const GROWTH_KIB: u64 = 64 << 10;

/// Does nothing wrong.
const GOOD: &str = "export default (event) => { event.good = true; }";

#[derive(Debug, Default)]
struct Options {
    rounds: Option<u64>,
    neighbours: bool,
    help: bool,
    /// What the test runner was asked for; other words than this target's name mean another test.
    words: Vec<String>,
}

impl Options {
    fn of(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut options, mut arguments) = (Self::default(), arguments);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => {
                    let number = arguments.next().and_then(|text| text.parse().ok());
                    options.rounds = Some(number.ok_or("--rounds needs a number")?);
                }
                "--neighbours" => options.neighbours = true,
                "--help" | "-h" => options.help = true,
                // Flags of the runner of all tests mean nothing here.
                flag if flag.starts_with('-') => {}
                word => options.words.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::of(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            println!("{fault}");
            return ExitCode::from(64);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if options
        .words
        .iter()
        .any(|word| !"hostile".contains(word.as_str()))
    {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        rounds(options.rounds.unwrap_or(1)).await;
        if options.neighbours {
            neighbours::measure().await;
        }
    });
    ExitCode::SUCCESS
}

async fn rounds(count: u64) {
    let (long, workers) = (count >= LONG, WORKERS.to_string());
    let (wall, cpu, grace) = if long {
        ("500ms", "200ms", "100ms")
    } else {
        ("1s", "1s", "500ms")
    };
    let settings = [
        ("MILLRACE__LIMITS__WALL", wall),
        ("MILLRACE__LIMITS__CPU", cpu),
        ("MILLRACE__WORKERS__GRACE", grace),
        // Each is to get its own verdict here: nobody is held back or cut off.
        ("MILLRACE__LIMITS__BATCH_WALL", "1h"),
        ("MILLRACE__QUARANTINE__KILLS", "1000000"),
        ("MILLRACE__WORKERS__COUNT", &workers),
    ];
    let mut ground = Ground::set(&corpus::function(), &settings).await;
    let good = ground.neighbour("good", GOOD).await;
    let pid = ground.rotor.id().expect("it runs");
    let (mut seq, mut next) = (0, 0);
    let mut verdicts: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let mut warm = None;
    for round in 0..count {
        let first = seq;
        let cases = corpus_of(round, long);
        let mut records = Vec::new();
        for case in &cases {
            records.push(ground.event_of(&good, PARTITION, seq, r#"{"of":"neighbour"}"#));
            let event = format!(r#"{{"do":"{}"}}"#, case.name);
            records.push(ground.event(PARTITION, seq + 1, &event));
            records.push(ground.event(PARTITION, seq + 2, r#"{"do":"nothing"}"#));
            seq += 3;
        }
        ground.write(PARTITION, records).await;
        let transformed = came(&ground, next, seq - first).await;
        next += seq - first;
        for (at, record) in (first..).zip(&transformed) {
            let envelope = read(record);
            assert_eq!(
                envelope.id,
                identity(PARTITION, at),
                "one record for each, in order"
            );
            let place = usize::try_from(at - first).expect("small");
            let case = cases[place / 3];
            let code = envelope.reason.as_ref().map_or("", |reason| reason.code.as_str());
            let text = || {
                envelope
                    .outputs
                    .iter()
                    .map(|output| output.event.get())
                    .collect::<Vec<_>>()
                    .join(",")
            };
            match place % 3 {
                0 => {
                    assert_eq!(
                        envelope.verdict,
                        Verdict::Forward,
                        "the neighbour beside {}",
                        case.name
                    );
                    assert_eq!(
                        text(),
                        r#"{"of":"neighbour","good":true}"#,
                        "beside {}",
                        case.name
                    );
                }
                1 => {
                    let found = format!("{} {code}", envelope.verdict);
                    assert!(
                        case.verdicts.contains(&found.trim()),
                        "{}: {found}: {:?}: {}",
                        case.name,
                        envelope.reason,
                        text()
                    );
                    *verdicts.entry(case.name).or_default().entry(found).or_default() += 1;
                }
                _ => {
                    assert_eq!(
                        envelope.verdict,
                        Verdict::Forward,
                        "after {}: {:?}",
                        case.name,
                        envelope.reason
                    );
                    assert_eq!(text(), r#"{"do":"nothing","fine":true}"#, "after {}", case.name);
                }
            }
        }
        if round + 1 == WARM {
            warm = Some(Holds::of(pid));
        }
        if count > 1 && (round + 1) % 10 == 0 {
            println!(
                "round {} of {count}, the rotor holds {} MiB",
                round + 1,
                Holds::of(pid).resident / 1024
            );
        }
    }
    assert_eq!(ground.rotor.ended().expect("known"), None, "the rotor lives");
    assert_eq!(ground.rotor.id(), Some(pid));
    let sessions = "millrace_rotor_sessions_total";
    assert_eq!(
        ground.metric(sessions).await,
        format!("{sessions} 1"),
        "it never left its group"
    );
    let failures = "millrace_rotor_session_failures_total";
    assert_eq!(ground.metric(failures).await, format!("{failures} 0"));
    if let Some(warm) = warm {
        // A worker that was lost in the last round may not be replaced yet.
        let back = until("as many workers as before", Duration::from_secs(60), || async {
            Ok((Holds::of(pid).children == WORKERS).then_some(()))
        });
        back.await.expect("each worker is replaced once");
        let now = Holds::of(pid);
        println!("at first {warm:?}, at last {now:?}");
        assert!(
            now.resident <= warm.resident + GROWTH_KIB
                && now.threads <= warm.threads + SLACK
                && now.descriptors <= warm.descriptors + SLACK,
            "the rotor holds more after {count} rounds"
        );
    }
    for (name, found) in verdicts {
        println!("{name:<20} {found:?}");
    }
    println!(
        "{count} rounds of {} functions, each between events of others: one record for each event, in order; pid and group unchanged",
        CORPUS.len()
    );
}

/// The next records of the transformed topic, once they are all there.
async fn came(ground: &Ground, from: u64, count: u64) -> Vec<Record> {
    let (connection, topic) = (&ground.connection, &ground.topics.transformed);
    let what = format!("{count} transformed records behind {from}");
    let there = until(&what, Duration::from_secs(300), || async {
        let ranges = Bounds::new(connection, topic).ranges(None).await?;
        Ok(ranges
            .get(&PARTITION)
            .is_some_and(|range| range.end >= from + count)
            .then_some(()))
    });
    if let Err(error) = there.await {
        panic!("{error:#}\n{}", ground.rotor.tail());
    }
    let gathered = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&gathered);
    let ranges = BTreeMap::from([(PARTITION, from..from + count)]);
    reader::read_ranges(connection, topic, ranges, move |_, record| {
        into.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        true
    })
    .await
    .expect("read");
    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut gathered)
}

/// The cases of a round: all of them, in a long run one at most of those that use up their time or may cost their worker.
fn corpus_of(round: u64, long: bool) -> Vec<&'static Case> {
    if !long {
        return CORPUS.iter().collect();
    }
    let (costly, others): (Vec<_>, Vec<_>) = CORPUS.iter().partition(|case| case.kills() || case.is_slow());
    let (killers, slow): (Vec<_>, Vec<_>) = costly.into_iter().partition(|case| case.kills());
    // Of three rounds one has a killer.
    let (of, turn) = match round % 3 {
        0 => (killers, round / 3),
        place => (slow, round / 3 * 2 + place - 1),
    };
    let turn = usize::try_from(turn).unwrap_or_default() % of.len().max(1);
    others.into_iter().chain(of.get(turn).copied()).collect()
}

/// What a process holds.
#[derive(Debug)]
struct Holds {
    /// Resident memory, in KiB.
    resident: u64,
    threads: usize,
    descriptors: usize,
    children: usize,
}

impl Holds {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        let count = |what: &str| {
            std::fs::read_dir(format!("/proc/{pid}/{what}"))
                .expect("it runs")
                .count()
        };
        Self {
            resident: resident.expect("VmRSS"),
            threads: count("task"),
            descriptors: count("fd"),
            children: children(pid).len(),
        }
    }
}
