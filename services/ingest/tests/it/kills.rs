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
        .filter(|name| name.starts_with("ingest::"))
    {
        assert!(DEATHS.iter().any(|death| death.starts_with(name)), "{name}");
    }
    let settings = vec![
        ("MILLRACE__JOURNAL__SYNC", "always".to_owned()),
        ("MILLRACE__JOURNAL__SEGMENT", "64KiB".to_owned()),
        ("MILLRACE__JOURNAL__RETAIN", "0s".to_owned()),
        // A slow machine must not look like a Redis that is away.
        ("MILLRACE__DEDUP__TIMEOUT", "30s".to_owned()),
    ];
    let mut pipeline = start(settings).await;
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
