use millrace_store::Chains;
use millrace_store::functions::Language;

use crate::installation::{Installation, field};

#[tokio::test]
async fn functions_are_put_promoted_rolled_back_and_listed() {
    let (installation, made) = Installation::with_workspace().await;
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, extension: &str, code: &str, more: &[&str]| {
        let file = folder.path().join(format!("function.{extension}"));
        std::fs::write(&file, code).expect("a file");
        let path = file.to_str().expect("text");
        let fixed = [
            "function",
            "put",
            "--workspace",
            installation.name.as_str(),
            "--name",
            name,
        ];
        installation.json(&[&fixed, more, &[path]].concat())
    };
    let running = async || {
        let snapshot = Chains::new(installation.postgres())
            .snapshot()
            .await
            .expect("a snapshot");
        let chain = &snapshot.of(field(&made, "source"))[0];
        let one = |f: &millrace_store::chains::Function| {
            (f.name.to_string(), f.version, f.language, f.code.to_string())
        };
        chain.functions.iter().map(one).collect::<Vec<_>>()
    };
    let entry =
        |name: &str, version, language, code: &str| (name.to_owned(), version, language, code.to_owned());
    let (js, ts) = (Language::JavaScript, Language::TypeScript);

    let first = put("enrich", "js", "one", &["--promote"]);
    assert_eq!(
        (field(&first, "function").starts_with("fn_"), &first["version"]),
        (true, &1.into())
    );
    assert_eq!(
        put("enrich", "js", "one", &["--promote"])["version"],
        1,
        "the same again is no new version"
    );
    assert_eq!(put("enrich", "ts", "two", &[])["version"], 2);
    put("mask", "mjs", "three", &["--promote"]);
    assert_eq!(
        running().await,
        [entry("enrich", 1, js, "one"), entry("mask", 1, js, "three")]
    );

    let name = ["--workspace", installation.name.as_str(), "--name", "enrich"];
    let promoted = installation.json(&[&["function", "promote"], &name[..]].concat());
    assert_eq!(promoted["version"], 2);
    assert_eq!(running().await[0], entry("enrich", 2, ts, "two"));
    let back = installation.json(&[&["function", "rollback"], &name[..]].concat());
    assert_eq!(back["version"], 1);
    assert_eq!(running().await[0], entry("enrich", 1, js, "one"));
    let (status, said) = installation.failure(&[&["function", "rollback"], &name[..]].concat());
    assert_eq!(status, Some(1));
    assert!(said.contains("function promote --version"), "{said}");

    let listed = installation.json(&["function", "list", "--workspace", &installation.name]);
    let [enrich, mask] = &listed["functions"].as_array().expect("a list")[..] else {
        panic!("{listed}")
    };
    assert_eq!(
        (&enrich["newest"], &enrich["promoted"][0]["version"]),
        (&2.into(), &1.into())
    );
    assert_eq!(mask["promoted"][0]["position"], 1);
    installation.clean().await;
}
