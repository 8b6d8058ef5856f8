//! A journal whose gateway is gone: looked into and shipped by `millctl`.

use millrace_event::Identity;
use millrace_testkit::broker::Broker;

use super::shipping::read_log;
use super::*;

async fn send(pipeline: &Pipeline, sent: &mut BTreeSet<String>, count: usize) {
    let sender = pipeline.sender();
    for _ in 0..count {
        let id = format!("m-{}", sent.len());
        let answer = sender.post("/v1/track", &track(&id)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        sent.insert(id);
    }
}

#[tokio::test]
async fn an_orphaned_journal_is_inspected_and_shipped_and_its_numbers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut kafka = Broker::start(directory.path()).await.unwrap();
    let settings = vec![("MILLRACE__SHIP__REQUEST_TIMEOUT", "2s".to_owned())];
    let mut pipeline = start_on(Some(kafka.address()), settings).await;
    let mut sent = BTreeSet::new();
    send(&pipeline, &mut sent, 5).await;
    read_log(&pipeline, &sent).await;
    kafka.kill().await.unwrap();
    send(&pipeline, &mut sent, 30).await;
    let journal = pipeline.directory().join("journal").display().to_string();
    let inspect = ["journal", "inspect", journal.as_str()];
    let ship = ["journal", "ship", journal.as_str()];

    let found = pipeline.millctl(&inspect).await.unwrap();
    assert_eq!(
        (&found["in_use"], &found["aside"]["reasons"]),
        (&json!(true), &json!({}))
    );
    assert!(found["pending"].as_u64().unwrap() >= 30, "{found}");
    let refused = pipeline.millctl(&ship).await.unwrap_err();
    assert!(format!("{refused:#}").contains("open"), "{refused:#}");

    pipeline.process("ingest").kill().await.unwrap();
    let newest = found["segments"].as_array().unwrap().last().unwrap()["number"]
        .as_u64()
        .unwrap();
    let newest = pipeline.directory().join(format!("journal/{newest:020}.journal"));
    let mut torn = std::fs::read(&newest).unwrap();
    torn.extend_from_slice(b"\xf7mrj half a record");
    std::fs::write(&newest, &torn).unwrap();
    let found = pipeline.millctl(&inspect).await.unwrap();
    assert_eq!(
        (&found["in_use"], &found["identity"]["closed"]),
        (&json!(false), &json!(false))
    );
    assert!(
        found["notes"][0].as_str().unwrap().contains("never answered"),
        "{found}"
    );
    let pending = found["pending"].as_u64().unwrap();
    let tried = pipeline
        .millctl(&[ship.as_slice(), &["--dry-run"]].concat())
        .await
        .unwrap();
    assert_eq!(
        (&tried["dry_run"], tried["pending"].as_u64()),
        (&json!(true), Some(pending))
    );
    assert_eq!(std::fs::read(&newest).unwrap(), torn, "nothing was changed");

    kafka.start_again().await.unwrap();
    let brokers = kafka.address();
    let shipped = pipeline
        .millctl(&[ship.as_slice(), &["--brokers", &brokers]].concat())
        .await
        .unwrap();
    assert_eq!(
        (shipped["shipped"].as_u64(), &shipped["set_aside"]),
        (Some(pending), &json!(0))
    );
    let events = arrived(&pipeline).await;
    assert_eq!(events.keys().cloned().collect::<BTreeSet<_>>(), sent);
    let again = pipeline.millctl(&ship).await.unwrap();
    assert_eq!(again["shipped"], 0, "all of it is shipped");
    let found = pipeline.millctl(&inspect).await.unwrap();
    assert_eq!(
        (&found["pending"], &found["identity"]["closed"]),
        (&json!(0), &json!(true))
    );

    // The directory may go back to a gateway.
    pipeline.process("ingest").start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    send(&pipeline, &mut sent, 10).await;
    let log = read_log(&pipeline, &sent).await;
    log.is_each_event_once(&sent);
    let journals: BTreeSet<_> = arrived(&pipeline)
        .await
        .values()
        .flat_map(BTreeMap::keys)
        .map(|id| id.parse::<Identity>().unwrap().journal)
        .collect();
    assert_eq!(journals.len(), 1);
}

#[tokio::test]
async fn a_directory_that_is_no_journal_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path().display().to_string();
    for (command, path) in [
        ("inspect", "/nowhere/at/all"),
        ("inspect", there.as_str()),
        ("ship", there.as_str()),
    ] {
        let arguments = ["journal", command, path];
        let output = millrace_testkit::process::ended("millctl", &arguments, &[])
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            said.contains("not a directory") || said.contains("no journal"),
            "{said}"
        );
    }
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}
