//! The rotor with its real binary; what reads or writes Kafka needs the local stack.
#![expect(clippy::expect_used, reason = "a test fails where its ground does")]

mod alone;
mod api;
mod fetch;
mod ground;
mod neighbours;
mod outages;
mod outside;
mod pool;
mod reach;
mod restore;
mod route;
mod sandbox;
mod service;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_millrace-rotor");

/// The processes that `parent` started and that still run.
fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // After the name in parentheses: the state, then the parent.
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        let state = fields.next().unwrap_or("Z");
        if fields.next() == Some(&parent) && state != "Z" {
            found.push(pid);
        }
    }
    found
}
