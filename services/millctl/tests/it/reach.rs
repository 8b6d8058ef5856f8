//! `millctl secret` and `millctl fetch`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use millrace_store::{Chains, Keyring};
use serde_json::json;

use crate::installation::Installation;

#[tokio::test]
async fn a_secret_comes_from_standard_input_or_a_file_and_is_never_shown_again() {
    let (mut installation, made) = Installation::with_workspace().await;
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    installation.set("MILLRACE__SECRETS__KEY_FILE", keys.to_str().expect("text"));
    let workspace = ["--workspace", installation.name.as_str()];
    let with = |command: &[&'static str], more: &[&str]| -> Vec<String> {
        command
            .iter()
            .chain(&workspace)
            .chain(more)
            .map(|text| (*text).to_owned())
            .collect()
    };
    let json_of = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        installation.json(&arguments)
    };

    // Without keys it is said what to do.
    let refused = installation.run(&["secret", "set", workspace[0], workspace[1], "A"]);
    assert!(!refused.status.success());
    let made_key = installation.json(&["secret", "init-key"]);
    assert_eq!(
        std::fs::metadata(&keys).expect("made").permissions().mode() & 0o777,
        0o600
    );
    assert!(
        !installation.run(&["secret", "init-key"]).status.success(),
        "a key file is never overwritten"
    );

    let mut set = installation.command(&["secret", "set", workspace[0], workspace[1], "TOKEN"]);
    let mut child = set
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"hunter2\n")
        .expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));
    let file = folder.path().join("value");
    std::fs::write(&file, "two\nlines\n").expect("a file");
    json_of(&with(
        &["secret", "set"],
        &["LINES", "--file", file.to_str().expect("text")],
    ));
    let listed = json_of(&with(&["secret", "list"], &[]));
    let names: Vec<_> = listed["secrets"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, [json!("LINES"), json!("TOKEN")]);
    assert_eq!(listed["secrets"][0]["key"], made_key["key"]);
    assert!(!listed.to_string().contains("hunter2"));

    let id = made["workspace"].as_str().expect("an id").parse().expect("an id");
    let opened = async |keys: &Keyring| {
        let snapshot = Chains::new(installation.postgres())
            .snapshot()
            .await
            .expect("a snapshot");
        let open = |sealed| keys.open(&id, sealed);
        snapshot
            .secrets(&id)
            .iter()
            .map(open)
            .collect::<Result<Vec<_>, _>>()
    };
    let values = opened(&Keyring::read(&keys).expect("keys")).await;
    assert_eq!(values, Ok(vec!["two\nlines".to_owned(), "hunter2".to_owned()]));

    installation.json(&["secret", "rotate-key"]);
    let resealed = installation.json(&["secret", "reseal"]);
    assert_eq!((&resealed["moved"], &resealed["kept"]), (&json!(2), &json!(0)));
    let text = std::fs::read_to_string(&keys).expect("text");
    std::fs::write(&keys, text.lines().next().expect("the new key")).expect("written");
    let values = opened(&Keyring::read(&keys).expect("keys")).await;
    assert_eq!(values, Ok(vec!["two\nlines".to_owned(), "hunter2".to_owned()]));

    json_of(&with(&["secret", "unset"], &["LINES"]));
    assert!(
        !installation
            .run(&["secret", "unset", workspace[0], workspace[1], "LINES"])
            .status
            .success()
    );
    installation.clean().await;
}

#[tokio::test]
async fn fetch_origins_are_allowed_listed_and_forbidden() {
    let (installation, _) = Installation::with_workspace().await;
    let workspace = ["--workspace", installation.name.as_str()];
    let fetch =
        |verb: &str, more: &[&str]| installation.json(&[&["fetch", verb], &workspace[..], more].concat());
    assert_eq!(
        fetch("allow", &["API.example.com"])["origin"],
        "https://api.example.com:443"
    );
    fetch("allow", &["*.example.org"]);
    assert_eq!(
        fetch("list", &[])["origins"],
        json!(["https://*.example.org:443", "https://api.example.com:443"])
    );
    fetch("forbid", &["https://api.example.com"]);
    assert_eq!(
        fetch("list", &[])["origins"],
        json!(["https://*.example.org:443"])
    );
    for refused in ["*", "ftp://a.com", "https://a.com/path"] {
        assert!(
            !installation
                .run(&["fetch", "allow", workspace[0], workspace[1], refused])
                .status
                .success(),
            "{refused}"
        );
    }
    installation.clean().await;
}
