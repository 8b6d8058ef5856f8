//! What a worker process may do.

use std::collections::BTreeMap;
use std::process::Command;

use super::BINARY;

fn probe(sandbox: &str) -> BTreeMap<String, Option<String>> {
    let output = Command::new(BINARY)
        .args(["worker", "--probe", "--sandbox", sandbox])
        .env_clear()
        .output()
        .expect("the binary");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn a_worker_cannot_open_sockets_or_files_nor_start_programs() {
    let report = probe("on");
    let names: Vec<_> = report.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["connect", "execve", "fork", "open", "open_for_writing", "socket"]
    );
    for (attempt, met) in report {
        let met = met.unwrap_or_else(|| panic!("{attempt} was let through"));
        assert!(met.contains("Operation not permitted"), "{attempt}: {met}");
    }
}

#[test]
fn without_the_sandbox_the_same_attempts_succeed() {
    let report = probe("off");
    for attempt in ["socket", "open", "open_for_writing", "fork"] {
        assert_eq!(
            report.get(attempt),
            Some(&None),
            "{attempt} must only fail because of the sandbox"
        );
    }
}

#[test]
fn a_worker_without_a_socket_refuses_to_start() {
    let output = Command::new(BINARY)
        .args(["worker"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the binary");
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a socket"));
}
