//! Which step the CPU time goes to: samples of the running gateway by `perf`, each given to the innermost function
//! that is known to belong to a step.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::process::Command;

/// Samples per second.
const FREQUENCY: &str = "499";

/// Functions by a part of their names, and the step that they belong to. The first that fits counts.
const STEPS: [(&str, &str); 29] = [
    ("pipeline::Pipeline::authenticate", "1 auth"),
    ("pipeline::keys", "1 auth"),
    ("http::credential", "1 auth"),
    ("pipeline::decode", "decode"),
    ("pipeline::mend", "decode"),
    ("pipeline::event", "2 size, 4 time, 5 late"),
    ("pipeline::time", "2 size, 4 time, 5 late"),
    ("pipeline::limit", "3 rate limit"),
    ("millrace_store::limits", "3 rate limit"),
    ("millrace_store::admission", "3 rate limit, 6 dedup"),
    ("millrace_store::dedup", "6 dedup"),
    ("Acceptance::fresh", "6 dedup"),
    ("Acceptance::mark", "6 dedup"),
    ("pipeline::types", "7 flatten, 8 types"),
    ("millrace_event::flatten", "7 flatten, 8 types"),
    ("pipeline::seal", "envelope"),
    ("millrace_journal::writer", "9 journal"),
    ("millrace_journal::state::Shared::sync", "9 journal"),
    ("millrace_journal::Journal", "9 journal"),
    ("millrace_journal::ship", "shipping to Kafka"),
    ("millrace_journal::reader", "shipping to Kafka"),
    ("millrace_kafka", "shipping to Kafka"),
    ("fred::", "Redis client (3 and 6)"),
    ("pipeline::groups", "groups of requests"),
    ("usage::", "usage events"),
    ("Acceptance::", "9 journal"),
    ("millrace_ingest::http", "HTTP, 10 answer"),
    ("hyper::", "HTTP, 10 answer"),
    ("tokio::", "runtime"),
];
/// The step of what no known function called.
const OTHER: &str = "rest";

/// A step's part of the samples.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Share {
    pub(crate) step: &'static str,
    pub(crate) share: f64,
}

/// Samples process `id` for `time`.
pub(crate) async fn sampled(id: u32, time: Duration) -> Result<Vec<Share>> {
    let directory = tempfile::TempDir::with_prefix("millrace-perf-")?;
    let file = directory.path().join("samples").display().to_string();
    let (id, seconds) = (
        id.to_string(),
        time.as_secs().saturating_sub(1).max(1).to_string(),
    );
    let recorded = Command::new("perf")
        .args([
            "record",
            "-F",
            FREQUENCY,
            "--call-graph",
            "dwarf,8192",
            "-p",
            &id,
            "-o",
            &file,
        ])
        .args(["--", "sleep", &seconds])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .context("`perf` is missing: `sudo apt-get install -y linux-perf`, or leave out --steps")?;
    ensure!(
        recorded.success(),
        "`perf record` ended with {recorded}; it needs root, or kernel.perf_event_paranoid at 1 or lower"
    );
    let script = Command::new("perf")
        .args(["script", "-i", &file, "--no-inline", "-F", "comm,ip,sym"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .await?;
    ensure!(
        script.status.success(),
        "`perf script` ended with {}",
        script.status
    );
    Ok(shares(&String::from_utf8_lossy(&script.stdout)))
}

/// Of the output of `perf script`: per sample a line with the thread's name, then its functions, innermost first,
/// then an empty line.
fn shares(script: &str) -> Vec<Share> {
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut all = 0_u32;
    for sample in script.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        all += 1;
        *counts.entry(step(sample)).or_default() += 1;
    }
    let mut shares: Vec<_> = counts
        .into_iter()
        .map(|(step, count)| Share {
            step,
            share: f64::from(count) / f64::from(all.max(1)),
        })
        .collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    shares
}

fn step(sample: &str) -> &'static str {
    let functions = sample.lines().skip(1);
    // The runtime calls everything: it counts where nothing else does.
    let known = |function: &str| {
        let found = STEPS.iter().find(|(part, _)| function.contains(part));
        found.map(|(_, step)| *step).filter(|step| *step != "runtime")
    };
    if let Some(step) = functions.clone().find_map(known) {
        return step;
    }
    let is_runtime = functions.clone().any(|function| function.contains("tokio::"));
    if is_runtime { "runtime" } else { OTHER }
}
