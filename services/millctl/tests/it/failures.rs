use serde_json::Value;

use crate::installation::Installation;

#[tokio::test]
async fn every_failure_says_what_to_do() {
    let mut installation = Installation::empty().await;
    let (status, said) = installation.failure(&["workspace", "list"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("millctl migrate up"), "{said}");

    installation.json(&["migrate", "up"]);
    let key = ["key", "create", "--workspace", "nowhere", "--kind", "server"];
    let (status, said) = installation.failure(&key);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("no workspace `nowhere`") && said.contains("millctl workspace create"),
        "{said}"
    );
    let (_, said) = installation.failure(&[&key[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).expect("one JSON object");
    assert!(
        said["advice"]
            .as_str()
            .expect("text")
            .contains("millctl workspace create"),
        "{said}"
    );

    let file = [
        "function",
        "put",
        "--workspace",
        "w",
        "--name",
        "f",
        "function.txt",
    ];
    assert!(installation.failure(&file).1.contains("--language"));

    installation.set("MILLRACE__POSTGRES__URL", "postgres://u:hunter2@127.0.0.1:1/x");
    let (status, said) = installation.failure(&["workspace", "list"]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("MILLRACE__POSTGRES__URL")
            && said.contains("user:password@host")
            && !said.contains("hunter2"),
        "{said}"
    );
    installation.clean().await;
}

#[tokio::test]
async fn a_command_line_or_configuration_that_cannot_be_used_ends_with_64() {
    let mut installation = Installation::empty().await;
    for arguments in [
        &["no-such-command"][..],
        &["key", "create", "--workspace", "w", "--kind", "other"],
        &["key", "create", "--workspace", "w", "--kind", "browser"],
        &["key", "revoke", "ws_x"],
        &["workspace", "create", "a b", "--organization", "o"],
        &["topics", "apply", "--partitions", "0"],
        &["migrate", "down"],
    ] {
        assert_eq!(installation.failure(arguments).0, Some(64), "{arguments:?}");
    }
    installation.set("MILLRACE__POSTGRES__ULR", "x");
    let (status, said) = installation.failure(&["workspace", "list"]);
    assert_eq!(status, Some(64));
    assert!(said.contains("is `postgres.url` meant?"), "{said}");
}

#[tokio::test]
async fn two_workspaces_do_not_get_one_table() {
    let (installation, _) = Installation::with_workspace().await;
    let database = format!("ws_{}", installation.name);
    let create = [
        "workspace",
        "create",
        "other",
        "--organization",
        "acme",
        "--database",
        &database,
    ];
    let (status, said) = installation.failure(&create);
    assert_eq!(status, Some(1));
    assert!(said.contains("--database"), "{said}");
    installation.clean().await;
}
