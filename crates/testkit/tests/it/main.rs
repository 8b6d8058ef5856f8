//! The whole pipeline: real binaries, real Kafka, real ClickHouse, real V8.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod accounts;
mod arrival;
mod hostile;
mod kills;
mod load;
mod oracle;
mod outage;
mod replay;
mod retype;
mod traces;
mod twins;

use std::io::Write as _;
use std::time::Duration;

/// Nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(180);

/// Says something that is seen in a passing run too: the figures are what these tests are for.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("standard error is there");
}
