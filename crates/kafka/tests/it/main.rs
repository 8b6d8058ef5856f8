//! Against a real broker, named by `MILLRACE_TEST_KAFKA`.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod bounds;
mod edge;
mod group;

use std::time::Duration;

use millrace_event::header::Headers;
use millrace_event::topic::Topics;
use millrace_kafka::topics::{self, Shape};
use millrace_kafka::{Connection, Outgoing};

/// Nothing here takes longer on a machine that works; a test that hits it has found a stall.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where the stack is by the environment"
)]
fn connection() -> Connection {
    let brokers =
        std::env::var("MILLRACE_TEST_KAFKA").expect("MILLRACE_TEST_KAFKA names a broker; see `./dev env`");
    Connection::new(brokers, "millrace-test")
}

/// Topics of this test alone.
async fn fresh_topics(partitions: u32) -> Topics {
    let topics = Topics::default().prefixed(&format!("t{}.", uuid::Uuid::new_v4().simple()));
    topics::apply(
        &connection(),
        &topics,
        Shape {
            partitions,
            replication: 1,
        },
        false,
    )
    .await
    .expect("topics are made");
    topics
}

fn outgoing(key: &str, value: &str) -> Outgoing {
    Outgoing {
        key: Some(key.into()),
        value: value.into(),
        headers: Headers::new().with("id", format!("id of {value}")),
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Outgoing> {
    range.map(|n| outgoing("k", &n.to_string())).collect()
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened within {PATIENCE:?}"),
    }
}
