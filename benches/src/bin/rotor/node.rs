//! Node's `isolated-vm`, called once for each event.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::functions::Function;
use crate::ways::Price;

/// Calls on their way at once, and calls before anything is counted.
const AT_ONCE: usize = 10;
const WARM: usize = 2_000;

#[derive(Deserialize)]
struct Found {
    wall_ns: u64,
    cpu_ns: u64,
}

/// Runs `calls` events; `directory` holds the script and its packages.
pub(crate) fn run(directory: &Path, function: Function, texts: &[String], calls: usize) -> Result<Price> {
    let work = json!({
        "code": function.code,
        "events": texts,
        "calls": calls,
        "atOnce": AT_ONCE,
        "warm": WARM,
    });
    let mut node = Command::new("node")
        .arg("bench.mjs")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("Node.js cannot be started")?;
    let mut input = node.stdin.take().context("node has no input")?;
    input.write_all(work.to_string().as_bytes())?;
    drop(input);
    let output = node.wait_with_output()?;
    ensure!(
        output.status.success(),
        "isolated-vm's script ended with {}",
        output.status
    );
    let found: Found =
        serde_json::from_slice(&output.stdout).context("isolated-vm's script printed no result")?;
    Ok(Price {
        events: u64::try_from(calls)?,
        cpu: Duration::from_nanos(found.cpu_ns),
        parent: Duration::ZERO,
        elapsed: Duration::from_nanos(found.wall_ns),
    })
}
