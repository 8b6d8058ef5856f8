//! The command line, the configuration and the way out.

use std::process::{Output, Stdio};

use millrace_testkit::process::binary;

use super::*;

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Output, String, String) {
    let mut command = tokio::process::Command::new(binary("millrace-ingest").unwrap());
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

#[tokio::test]
async fn check_config_prints_what_is_in_force_without_secrets() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[journal]\nsync = \"always\"\n").unwrap();
    let environment = [
        ("MILLRACE__POSTGRES__URL", "postgres://u:s3cret@db/m"),
        ("MILLRACE__HTTP__LISTEN", "127.0.0.1:1"),
        ("MILLRACE__CLICKHOUSE__PASSWORD", "of another process"),
    ];
    let file = file.path().to_str().unwrap();
    let (output, printed, _) = run(&["--config", file, "--check-config"], &environment).await;
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "sync = \"always\"",
        "listen = \"127.0.0.1:1\"",
        "url = \"postgres://u:[redacted]@db/m\"",
    ] {
        assert!(printed.contains(line), "{line} is missing in {printed}");
    }
    assert!(!printed.contains("s3cret"));
}

#[tokio::test]
async fn all_faults_are_told_together_with_status_64() {
    let environment = [
        ("MILLRACE__JOURNAL__SEGMENT", "64"),
        ("MILLRACE__JOURNAL__SYNC", "sometimes"),
        ("MILLRACE__HTTP__PORT", "80"),
        ("MILLRACE__SHIP__BATCH", "64MiB"),
    ];
    for arguments in [&["--check-config"][..], &[][..]] {
        let (output, _, said) = run(arguments, &environment).await;
        assert_eq!(output.status.code(), Some(64));
        for key in [
            "journal.segment",
            "journal.sync",
            "http.port: unknown key",
            "ship.batch",
        ] {
            assert!(said.contains(key), "{key} is missing in {said}");
        }
    }
}

#[tokio::test]
async fn help_and_version_are_answered_and_an_unknown_flag_is_not_taken() {
    let (output, printed, _) = run(&["--version"], &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        printed.trim(),
        format!("millrace-ingest {}", env!("CARGO_PKG_VERSION"))
    );
    let (output, printed, _) = run(&["--help"], &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(
        printed.contains("--check-config") && printed.contains("--config"),
        "{printed}"
    );
    assert_eq!(run(&["--frobnicate"], &[]).await.0.status.code(), Some(64));
}

#[tokio::test]
async fn a_second_process_on_the_same_journal_ends_and_says_why() {
    let pipeline = start(Vec::new()).await;
    let journal = pipeline.directory().join("journal");
    let environment = [("MILLRACE__JOURNAL__DIR", journal.to_str().unwrap())];
    let (output, _, said) = run(&[], &environment).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("another process uses the journal"), "{said}");
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    use tokio::io::AsyncWriteExt as _;

    let mut pipeline = start(Vec::new()).await;
    // A request that has begun holds up the drain.
    let address = pipeline.url("ingest").strip_prefix("http://").unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        .await
        .unwrap();
    let taken = until("the request has begun", PATIENCE, || async {
        let open = pipeline
            .metric("ingest", "millrace_ingest_requests_open", "")
            .await?;
        Ok((open > 0.5).then_some(()))
    });
    taken.await.unwrap();
    let process = pipeline.process("ingest");
    process.signal(rustix::process::Signal::TERM).unwrap();
    let log = process.log().to_owned();
    let draining = until("the first signal is heard", PATIENCE, || async {
        Ok(std::fs::read_to_string(&log)?
            .contains("shutdown requested")
            .then_some(()))
    });
    draining.await.unwrap();
    let status = process.terminate(Duration::from_secs(5)).await.unwrap();
    assert_eq!(status.code(), Some(143));
}
