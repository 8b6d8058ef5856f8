//! A minute of chaos. Ten and more are `./dev prove chaos --minutes 10`.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod table;

use std::io::Write as _;
use std::time::Duration;

use millrace_chaos::{Options, Progress, run};
use tokio::sync::watch;

#[tokio::test]
async fn a_minute_of_random_faults_under_load_loses_doubles_and_alters_nothing() {
    let options = Options {
        seed: fastrand::u64(..),
        length: Duration::from_secs(60),
        rate: 120,
    };
    let seed = options.seed;
    let (progress, _seen) = watch::channel(Progress::default());
    let report = Box::pin(run(options, progress))
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    writeln!(std::io::stderr(), "{report}").expect("standard error is there");
    assert!(report.is_clean(), "seed {seed}: {report}");
    assert!(
        report.stored > 0 && report.dropped > 0 && report.dead > 0,
        "the load had all fates: {report}"
    );
    assert!(!report.tally.faults.is_empty(), "there were faults");
}
