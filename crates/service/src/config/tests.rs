use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    kafka: Kafka,
    clickhouse: ClickHouse,
    postgres: Postgres,
    shutdown: Shutdown,
    journal: Journal,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Journal {
    segment: ByteSize,
    strict: bool,
    depth: u16,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            segment: ByteSize::mib(64),
            strict: true,
            depth: 7,
        }
    }
}

impl Configuration for Sample {
    fn check(&self, faults: &mut Faults) {
        self.kafka.check(faults);
        self.clickhouse.check(faults);
        if self.journal.depth == 13 {
            faults.add("journal.depth", "is unlucky");
        }
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_from(text: &str, environment: &[(&str, &str)]) -> Result<Sample, Faults> {
    let file = file(text);
    load(&Sources::new(Some(file.path().to_owned())).with_environment(environment.iter().copied()))
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let loaded = load_from(
        "[journal]\nsegment = \"1MiB\"\ndepth = 3\n[shutdown]\ndeadline = \"5s\"\n[kafka]\nbrokers = [\"a:1\"]\n",
        &[
            ("MILLRACE__JOURNAL__DEPTH", "4"),
            ("MILLRACE__JOURNAL__STRICT", "false"),
            ("MILLRACE__KAFKA__BROKERS", "b:1, c:2"),
            ("MILLRACE__CLICKHOUSE__PASSWORD", "007"),
            ("UNRELATED", "x"),
        ],
    )
    .unwrap();
    assert_eq!(
        loaded.journal,
        Journal {
            segment: ByteSize::mib(1),
            strict: false,
            depth: 4
        }
    );
    assert_eq!(loaded.shutdown.deadline, Duration::from_secs(5));
    assert_eq!(loaded.kafka.brokers, ["b:1", "c:2"]);
    assert_eq!(
        loaded.clickhouse.password.expose(),
        "007",
        "a password of digits stays as it was written"
    );
    assert_eq!(loaded.clickhouse.user, "default");
}

#[test]
fn no_source_at_all_gives_the_defaults() {
    let empty: [(&str, &str); 0] = [];
    assert_eq!(
        load::<Sample>(&Sources::new(None).with_environment(empty)).unwrap(),
        Sample::default()
    );
}

#[test]
fn all_faults_are_reported_together_each_with_its_key() {
    let faults = load_from(
        "[journal]\nsegmnet = \"1MiB\"\nsegment = 5\n[nowhere]\nx = 1\n",
        &[
            ("MILLRACE__JOURNAL__DEPTH", "seventy"),
            ("MILLRACE__SHUTDOWN__DEADLINE", "soon"),
            ("MILLRACE__KAFKA__BROKERS", "no-port"),
        ],
    )
    .unwrap_err();
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    for key in [
        "journal.segmnet",
        "journal.segment",
        "nowhere.x",
        "journal.depth",
        "shutdown.deadline",
        "kafka.brokers",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {faults}");
    }
    assert_eq!(keys.len(), 6, "{faults}");
    assert!(
        faults.to_string().contains("MILLRACE__JOURNAL__DEPTH"),
        "{faults}"
    );
}

#[test]
fn a_shared_section_this_process_lacks_is_ignored_but_a_misspelt_one_is_not() {
    assert!(
        load_from(
            "",
            &[
                ("MILLRACE__REDIS__URL", "redis://x"),
                ("MILLRACE__REDIS__URL_FILE", "/x")
            ]
        )
        .is_ok()
    );
    let faults = load_from(
        "",
        &[
            ("MILLRACE__REDIS__ULR", "redis://x"),
            ("MILLRACE__REDDIS__URL", "x"),
        ],
    )
    .unwrap_err();
    assert_eq!(faults.iter().count(), 2, "{faults}");
}

#[test]
fn what_is_wrong_is_said_with_what_would_be_right() {
    for (name, value, advice) in [
        ("MILLRACE__KAFKA__BROKER", "h:1", "is `kafka.brokers` meant?"),
        ("MILLRACE__KAFKA_BROKERS", "h:1", "is `kafka.brokers` meant?"),
        (
            "MILLRACE__SHUTDOWN__DEDALINE",
            "1s",
            "is `shutdown.deadline` meant?",
        ),
        (
            "MILLRACE_KAFKA__BROKERS",
            "h:1",
            "is MILLRACE__KAFKA__BROKERS meant?",
        ),
        ("MILLRACE__SHUTDOWN__COLOUR", "red", "`shutdown` has `deadline`"),
        ("MILLRACE__COLOUR", "red", "there are `"),
        ("MILLRACE__SHUTDOWN__DEADLINE", "30", "its default is `30s`"),
        (
            "MILLRACE__CLICKHOUSE__URL",
            "localhost:8123",
            "http://127.0.0.1:8123",
        ),
    ] {
        let faults = load_from("", &[(name, value)]).unwrap_err();
        assert_eq!(faults.iter().count(), 1, "{faults}");
        assert!(faults.to_string().contains(advice), "{name}: {faults}");
    }
    assert!(load_from("", &[("MILLRACE_TEST_KAFKA", "h:1"), ("MILLRACE_", "x")]).is_ok());
}

#[test]
fn a_secret_comes_from_a_file_of_its_own_and_never_from_the_toml() {
    let secret = file("s3cret\n");
    let path = secret.path().to_str().unwrap();
    let loaded = load_from("", &[("MILLRACE__CLICKHOUSE__PASSWORD_FILE", path)]).unwrap();
    assert_eq!(loaded.clickhouse.password.expose(), "s3cret");
    let loaded = load_from(&format!("[clickhouse]\npassword_file = \"{path}\"\n"), &[]).unwrap();
    assert_eq!(loaded.clickhouse.password.expose(), "s3cret");

    for toml in [
        "[clickhouse]\npassword = \"s3cret\"\n",
        "[postgres]\nurl = \"postgres://u:s3cret@h/d\"\n",
    ] {
        let faults = load_from(toml, &[]).unwrap_err();
        assert!(faults.to_string().contains("does not belong"), "{faults}");
        assert!(!faults.to_string().contains("s3cret"), "{faults}");
    }
    assert!(load_from("[postgres]\nurl = \"postgres://u@h/d\"\n", &[]).is_ok());
    let faults = load_from("", &[("MILLRACE__CLICKHOUSE__PASSWORD_FILE", "/does/not/exist")]).unwrap_err();
    assert!(faults.to_string().contains("/does/not/exist"), "{faults}");
}

#[test]
fn what_check_finds_is_reported_and_a_missing_file_is_a_fault() {
    let faults = load_from("[journal]\ndepth = 13\n", &[]).unwrap_err();
    assert_eq!(faults.iter().next().unwrap().key, "journal.depth");
    let sources = Sources::new(Some("/does/not/exist.toml".into())).with_environment([("A", "b")]);
    assert!(
        load::<Sample>(&sources)
            .unwrap_err()
            .to_string()
            .contains("/does/not/exist.toml")
    );
}

#[test]
fn the_effective_configuration_prints_no_secret_and_loads_again() {
    let loaded = load_from(
        "",
        &[
            ("MILLRACE__CLICKHOUSE__PASSWORD", "s3cret"),
            ("MILLRACE__POSTGRES__URL", "postgres://u:s3cret@h/d"),
            ("MILLRACE__SHUTDOWN__DEADLINE", "90s"),
        ],
    )
    .unwrap();
    let text = render(&loaded).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains("[redacted]") && text.contains("1m 30s"), "{text}");
    let plain = render(&Sample::default()).unwrap();
    assert_eq!(load_from(&plain, &[]).unwrap(), Sample::default());
}
