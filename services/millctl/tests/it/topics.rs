use std::io::Write;

use millrace_event::topic::Topics;
use millrace_kafka::Connection;
use millrace_kafka::topics::check;
use serde_json::Value;

use crate::installation::{Installation, server};

/// A configuration file with topics that no other test has.
fn file(topics: &Topics) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let retry: Vec<String> = topics
        .retry
        .iter()
        .map(|tier| {
            format!(
                "{{ topic = \"{}\", delay_seconds = {} }}",
                tier.topic, tier.delay_seconds
            )
        })
        .collect();
    let Topics {
        ingest,
        transformed,
        dlq,
        usage,
        functions_log,
        ..
    } = topics;
    write!(
        file,
        "[topics]\ningest = \"{ingest}\"\ntransformed = \"{transformed}\"\ndlq = \"{dlq}\"\nusage = \"{usage}\"\n\
         functions_log = \"{functions_log}\"\nretry = [{}]\n",
        retry.join(", ")
    )
    .expect("written");
    file
}

fn changes(answer: &Value) -> Vec<&str> {
    let topics = answer["topics"].as_array().expect("a list");
    topics
        .iter()
        .map(|topic| topic["change"].as_str().expect("text"))
        .collect()
}

#[tokio::test]
async fn topics_are_made_left_alone_and_grown() {
    let installation = Installation::empty().await;
    let topics = Topics::default().prefixed(&format!("{}.", installation.name));
    let file = file(&topics);
    let config = file.path().to_str().expect("text");
    let apply = |more: &[&str]| installation.json(&[&["topics", "apply", "--config", config], more].concat());
    let connection = Connection::new(server("MILLRACE_TEST_KAFKA"), "test");

    let planned = apply(&["--partitions", "2", "--dry-run"]);
    assert!(changes(&planned).iter().all(|change| *change == "created"));
    check(&connection, &topics)
        .await
        .expect_err("a dry run makes nothing");

    assert!(
        changes(&apply(&["--partitions", "2"]))
            .iter()
            .all(|change| *change == "created")
    );
    assert_eq!(check(&connection, &topics).await.expect("topics"), 2);
    assert!(
        changes(&apply(&["--partitions", "2"]))
            .iter()
            .all(|change| *change == "unchanged")
    );

    let grown = apply(&["--partitions", "3"]);
    assert!(changes(&grown).iter().all(|change| *change == "grown"));
    assert_eq!(grown["order_broken"], true);
    assert_eq!(check(&connection, &topics).await.expect("topics"), 3);
}
