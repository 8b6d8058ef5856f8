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
async fn what_a_newcomer_gets_wrong_is_said_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let (journal, file) = (journal.to_str().unwrap(), "/etc/hostname");
    let here = ("MILLRACE__JOURNAL__DIR", journal);
    for (environment, status, advice) in [
        (
            vec![("MILLRACE__KAFKA__BROKER", "h:1")],
            64,
            "is `kafka.brokers` meant?",
        ),
        (
            vec![("MILLRACE_KAFKA__BROKERS", "h:1")],
            64,
            "is MILLRACE__KAFKA__BROKERS meant?",
        ),
        (
            vec![("MILLRACE__HTTP__LISTEN", "localhost")],
            64,
            "its default is `0.0.0.0:3049`",
        ),
        (
            vec![("MILLRACE__JOURNAL__DIR", file)],
            1,
            "journal.dir /etc/hostname cannot be used",
        ),
        (
            vec![here, ("MILLRACE__POSTGRES__URL", "localhost")],
            1,
            "postgres://user:password@host:port/database",
        ),
        (
            vec![here, ("MILLRACE__HTTP__LISTEN", &taken)],
            1,
            "another process has the port",
        ),
    ] {
        let (output, _, said) = run(&[], &environment).await;
        assert_eq!(output.status.code(), Some(status), "{environment:?}: {said}");
        assert!(said.contains(advice), "{environment:?}: {said}");
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

/// Reads one answer from a connection that may stay open: status line, head and body.
async fn one_answer(stream: &mut tokio::net::TcpStream) -> String {
    let mut answer = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse::<usize>().unwrap());
                if body.len() >= length {
                    return text;
                }
            }
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "closed after {text:?}");
            answer.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test]
async fn a_gateway_that_ends_answers_what_has_begun_and_503_to_heads_and_bodies_that_do_not_come() {
    let settings = vec![
        ("MILLRACE__SHUTDOWN__DEADLINE", "12s".to_owned()),
        ("MILLRACE__HTTP__BODY_TIMEOUT", "60s".to_owned()),
        ("MILLRACE__HTTP__HEADER_TIMEOUT", "60s".to_owned()),
    ];
    let mut pipeline = start(settings).await;
    let key = pipeline.key("server", &[]).await.unwrap();
    let address = pipeline.url("ingest").strip_prefix("http://").unwrap().to_owned();
    let connect = async || tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = |message_id: &str| {
        let mut event = track(message_id);
        event["writeKey"] = key.clone().into();
        let body = event.to_string();
        let head = format!(
            "POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        (head, body)
    };
    // Two connections have begun a head; of one the rest comes later, of the other it never comes. They were opened before
    // others that are answered, so the gateway has them.
    let (mut continued, mut broken) = (connect().await, connect().await);
    let (head, body) = request("continued");
    let (first, later) = head.split_at(20);
    let later = format!("{later}{body}");
    continued.write_all(first.as_bytes()).await.unwrap();
    broken.write_all(first.as_bytes()).await.unwrap();
    // Two were used and are kept, and one of them begins a head that never ends. One has a request whose body comes later,
    // one whose body never comes.
    let (mut kept, mut again) = (connect().await, connect().await);
    for (stream, message_id) in [(&mut kept, "before"), (&mut again, "before too")] {
        let (head, body) = request(message_id);
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let answer = one_answer(stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && !answer.contains("connection: close"),
            "{answer}"
        );
    }
    again.write_all(first.as_bytes()).await.unwrap();
    let (mut begun, mut stalled) = (connect().await, connect().await);
    let (head, rest) = request("begun");
    begun.write_all(head.as_bytes()).await.unwrap();
    stalled.write_all(request("never").0.as_bytes()).await.unwrap();
    let taken = until("both requests have begun", PATIENCE, || async {
        let open = pipeline
            .metric("ingest", "millrace_ingest_requests_open", "")
            .await?;
        Ok((open > 1.5).then_some(()))
    });
    taken.await.unwrap();

    // Stopped while it is told and asked, so that both are there when it looks: no clock decides.
    let process = pipeline.process("ingest");
    process.signal(rustix::process::Signal::STOP).unwrap();
    process.signal(rustix::process::Signal::TERM).unwrap();
    let (head, body) = request("meanwhile");
    kept.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    begun.write_all(rest.as_bytes()).await.unwrap();
    continued.write_all(later.as_bytes()).await.unwrap();
    process.signal(rustix::process::Signal::CONT).unwrap();
    let answers = [
        (&mut kept, "200"),
        (&mut begun, "200"),
        (&mut continued, "200"),
        (&mut stalled, "503"),
        (&mut broken, "503"),
        (&mut again, "503"),
    ];
    for (stream, expected) in answers {
        let answer = one_answer(stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        if expected == "503" {
            assert!(answer.contains(r#""code":"draining""#), "{answer}");
            let wait = answer
                .lines()
                .find_map(|line| line.strip_prefix("retry-after: "))
                .unwrap();
            assert!(wait.parse::<u64>().unwrap() >= 1, "{answer}");
        }
    }
    let process = pipeline.process("ingest");
    let status = process.end(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", pipeline.tails());
    assert!(tokio::net::TcpStream::connect(&address).await.is_err());
    // What it had no time to ship its successor ships.
    pipeline.process("ingest").start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    let ids: BTreeSet<String> = ["before", "before too", "begun", "continued", "meanwhile"]
        .map(str::to_owned)
        .into();
    let events = all_arrived(&pipeline, &ids).await;
    assert_eq!(events.keys().cloned().collect::<BTreeSet<_>>(), ids);
}
