use serde_json::Value;

use crate::installation::Installation;

fn states(status: &Value) -> Vec<(String, bool)> {
    let lines = status["migrations"].as_array().expect("a list");
    lines
        .iter()
        .map(|line| {
            (
                line["store"].as_str().expect("text").to_owned(),
                line["applied"] == true,
            )
        })
        .collect()
}

#[tokio::test]
async fn both_stores_go_up_and_down_and_up_again() {
    let installation = Installation::empty().await;
    let before = states(&installation.json(&["migrate", "status"]));
    assert!(before.iter().any(|(store, _)| store == "postgres"), "{before:?}");
    assert!(
        before.iter().any(|(store, _)| store == "clickhouse"),
        "{before:?}"
    );
    assert!(before.iter().all(|(_, applied)| !applied), "{before:?}");

    let applied = installation.json(&["migrate", "up"])["applied"]
        .as_array()
        .expect("a list")
        .len();
    assert_eq!(applied, before.len());
    assert!(
        states(&installation.json(&["migrate", "status"]))
            .iter()
            .all(|(_, applied)| *applied)
    );
    assert_eq!(installation.text(&["migrate", "up"]), "nothing is pending\n");

    for store in ["postgres", "clickhouse"] {
        let expected = before.iter().filter(|(of, _)| of == store).count();
        let down = installation.json(&["migrate", "down", "--store", store, "--steps", "99"]);
        assert_eq!(
            down["taken_back"].as_array().expect("a list").len(),
            expected,
            "{store}"
        );
        let left = states(&installation.json(&["migrate", "status", "--store", store]));
        assert!(left.iter().all(|(_, applied)| !applied), "{left:?}");
        let up = installation.json(&["migrate", "up", "--store", store]);
        assert_eq!(
            up["applied"].as_array().expect("a list").len(),
            expected,
            "{store}"
        );
    }
    installation.clean().await;
}

#[tokio::test]
async fn a_new_migration_gets_the_next_number() {
    let installation = Installation::empty().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("postgres")).expect("a folder");
    std::fs::write(folder.path().join("postgres/0007_last.up.sql"), "").expect("a file");
    let path = folder.path().to_str().expect("text");
    installation.json(&[
        "migrate", "new", "quotas", "--store", "postgres", "--folder", path,
    ]);
    for way in ["up", "down"] {
        let text = std::fs::read_to_string(folder.path().join(format!("postgres/0008_quotas.{way}.sql")));
        assert!(text.expect("a file").starts_with("-- "));
    }
}
