//! The process dies at every step of the journal in turn, under load and in the midst of recovering from the death
//! before. Its clients repeat what was not answered, as clients do.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_service::failpoint;
use rustix::process::Signal;

use super::shipping::read_log;
use super::*;

/// Where the process dies, in this order. The last three are on the way up, with what the death before left.
const DEATHS: &[&str] = &[
    "ingest::before_append=20*off->return(kill)",
    "ingest::after_write=20*off->return(kill)",
    "ingest::in_sync=20*off->return(kill)",
    "ingest::after_sync=20*off->return(kill)",
    "ingest::before_mark=20*off->return(kill)",
    "ingest::after_ship=5*off->return(kill)",
    "ingest::before_positions=1*off->return(kill)",
    "ingest::before_delete=return(kill)",
    "ingest::in_delete=return(kill)",
    // The second one: a segment that is begun while requests wait for it.
    "ingest::in_new_segment=1*off->return(kill)",
    "ingest::before_mark=20*off->return(kill)",
    "ingest::before_settle=return(kill)",
    "ingest::in_recovery=1*off->return(kill)",
    "ingest::in_new_segment=return(kill)",
];

/// No step: with it the process answers first and appends then.
const CONTROL: &str = "ingest::answer_first";

fn settings() -> Vec<(&'static str, String)> {
    [
        ("MILLRACE__JOURNAL__SYNC", "always"),
        ("MILLRACE__JOURNAL__SEGMENT", "64KiB"),
        ("MILLRACE__JOURNAL__RETAIN", "0s"),
        // A slow machine must not look like a Redis that is away.
        ("MILLRACE__DEDUP__TIMEOUT", "30s"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// Sends events one after the other until it is told to stop, each until it is answered 200; returns their ids.
async fn client(sender: Sender, name: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut answered = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("c{name}-{}", answered.len());
        let mut event = track(&id);
        event["properties"] = json!({ "filler": "x".repeat(1000) });
        loop {
            match sender.post("/v1/track", &event).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => assert!(matches!(answer.status.as_u16(), 429 | 503), "{}", answer.body),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        answered.push(id);
    }
    answered
}

#[tokio::test]
async fn killed_at_every_step_of_the_journal_what_was_answered_is_in_kafka_under_one_identity() {
    for name in failpoint::NAMES
        .iter()
        .filter(|name| name.starts_with("ingest::") && **name != CONTROL)
    {
        assert!(DEATHS.iter().any(|death| death.starts_with(name)), "{name}");
    }
    let mut pipeline = start(settings()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for name in 0..6 {
        clients.spawn(client(pipeline.sender(), name, Arc::clone(&stop)));
    }
    pipeline.process("ingest").kill().await.unwrap();
    for death in DEATHS {
        let process = pipeline.process("ingest");
        process.set(failpoint::VARIABLE, Some(death));
        process.start_again().unwrap();
        let status = process.end(PATIENCE).await.expect(death);
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{death}\n{}",
            process.tail()
        );
    }
    let process = pipeline.process("ingest");
    process.set(failpoint::VARIABLE, None);
    process.start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut sent = BTreeSet::new();
    while let Some(answered) = clients.join_next().await {
        sent.extend(answered.unwrap());
    }
    assert!(sent.len() > 100, "{}", sent.len());

    let log = read_log(&pipeline, &sent).await;
    log.is_each_event_once(&sent);
    let copies = log.copies();
    assert!(copies > 0, "what was shipped and not noted is shipped again");
}

#[tokio::test]
async fn a_gateway_that_answers_before_it_appends_is_found_out_by_the_same_check() {
    let mut pipeline = start(settings()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for name in 0..6 {
        clients.spawn(client(pipeline.sender(), name, Arc::clone(&stop)));
    }
    let process = pipeline.process("ingest");
    process.kill().await.unwrap();
    // It stops for a moment in front of the disk, and goes on to answer what it will never append.
    let death =
        format!("{CONTROL}=return(error);ingest::before_append=20*off->1*return(pause:500)->return(kill)");
    process.set(failpoint::VARIABLE, Some(&death));
    process.start_again().unwrap();
    process.end(PATIENCE).await.unwrap();
    process.set(failpoint::VARIABLE, None);
    process.start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut sent = BTreeSet::new();
    while let Some(answered) = clients.join_next().await {
        sent.extend(answered.unwrap());
    }
    // What comes behind has arrived, so what is missing now will never come.
    let behind: BTreeSet<_> = (0..50).map(|n| format!("behind-{n}")).collect();
    for id in &behind {
        insist(&pipeline.sender(), "/v1/track", &track(id)).await;
    }
    let log = read_log(&pipeline, &behind).await;
    sent.extend(behind);
    assert!(!log.missing(&sent).is_empty(), "something answered was lost");
    let check = std::panic::AssertUnwindSafe(|| log.is_each_event_once(&sent));
    assert!(std::panic::catch_unwind(check).is_err(), "and the check says so");
}
