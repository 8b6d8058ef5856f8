use std::time::Duration;

use millrace_store::functions::Language;
use millrace_store::quarantine::{Kills, Policy};
use millrace_store::{Chains, FunctionDebug, Quarantines};

use crate::installation::{Installation, field};

const ONE: &str = "export default (event) => { event.one = 1; };";
const TWO: &str = "export default (event: { two?: number }) => { event.two = 2; };";
const THREE: &str = "export default () => null;";

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

    let first = put("enrich", "js", ONE, &["--promote"]);
    assert_eq!(
        (field(&first, "function").starts_with("fn_"), &first["version"]),
        (true, &1.into())
    );
    assert_eq!(
        put("enrich", "js", ONE, &["--promote"])["version"],
        1,
        "the same again is no new version"
    );
    assert_eq!(put("enrich", "ts", TWO, &[])["version"], 2);
    put("mask", "mjs", THREE, &["--promote"]);
    assert_eq!(
        running().await,
        [entry("enrich", 1, js, ONE), entry("mask", 1, js, THREE)]
    );

    let name = ["--workspace", installation.name.as_str(), "--name", "enrich"];
    let promoted = installation.json(&[&["function", "promote"], &name[..]].concat());
    assert_eq!(promoted["version"], 2);
    assert_eq!(running().await[0], entry("enrich", 2, ts, TWO));
    let back = installation.json(&[&["function", "rollback"], &name[..]].concat());
    assert_eq!(back["version"], 1);
    assert_eq!(running().await[0], entry("enrich", 1, js, ONE));
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

/// Files of one test, and what the command line says about them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn with(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    }
}

#[tokio::test]
async fn what_does_not_compile_is_refused_with_line_and_column_and_nothing_is_put() {
    let (installation, _) = Installation::with_workspace().await;
    let files = Files::new();
    let workspace = ["--workspace", installation.name.as_str()];
    let put = [&["function", "put", "--name", "f"], &workspace[..]].concat();
    let broken = files.with(
        "broken.ts",
        "const a: number = 1;\nexport default () => {\n  return +;\n}\n",
    );
    let (status, said) = installation.failure(&[&put[..], &[&broken]].concat());
    assert_eq!(status, Some(1));
    assert!(said.contains(&format!("{broken}:3:11: SyntaxError")), "{said}");
    let listed = installation.json(&[&["function", "list"], &workspace[..]].concat());
    assert_eq!(listed["functions"].as_array().map(Vec::len), Some(0), "{listed}");

    let good = files.with("good.js", ONE);
    let tried = installation.json(&[&put[..], &["--dry-run", &good]].concat());
    assert_eq!(tried["dry_run"], true);
    let listed = installation.json(&[&["function", "list"], &workspace[..]].concat());
    assert_eq!(listed["functions"].as_array().map(Vec::len), Some(0), "{listed}");
    installation.clean().await;
}

#[tokio::test]
async fn a_function_is_tested_on_events_where_nothing_runs() {
    let files = Files::new();
    let code = "type Event = { price: number; qty: number; total?: number };
export default function (event: Event, ctx: any) {
  ctx.log.info('in', ctx.env.REGION);
  if (event.qty < 0) throw new RangeError('no such quantity');
  event.total = event.price * event.qty;
}";
    let function = files.with("total.ts", code);
    let one = files.with("one.json", r#"{"price":2,"qty":3,"big":9007199254740993}"#);
    let more = files.with("more.json", r#"[{"price":1,"qty":1},{"price":1,"qty":-1}]"#);
    let context = files.with("context.json", r#"{"env":{"REGION":"eu"}}"#);
    let bare = Installation::nowhere().await;
    let test = ["function", "test", function.as_str(), "--context", &context];

    let ran = bare.json(&[&test[..], &["--event", &one]].concat());
    assert_eq!(ran["results"][0]["verdict"], "forward");
    let text = bare.text(&[&test[..], &["--event", &one]].concat());
    assert!(
        text.contains(r#"{"price":2,"qty":3,"big":9007199254740993,"total":6}"#),
        "{text}"
    );
    assert!(text.contains("[info] in eu"), "{text}");

    let output = bare.run(&[&test[..], &["--json", "--event", &one, "--event", &more]].concat());
    assert_eq!(
        output.status.code(),
        Some(2),
        "one of them would be a dead letter"
    );
    let ran: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let verdicts: Vec<_> = ran["results"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| field(r, "verdict"))
        .collect();
    assert_eq!(verdicts, ["forward", "forward", "dead_letter"]);
    let error = &ran["results"][2]["error"];
    assert_eq!(
        (&error["code"], &error["line"]),
        (&"thrown".into(), &4.into()),
        "{error}"
    );
    assert_eq!(ran["logs"][2]["event_index"], 2);

    let broken = files.with("broken.js", "export default () => { return");
    let (status, said) = bare.failure(&["function", "test", &broken]);
    assert_eq!(status, Some(1));
    assert!(said.contains(&format!("{broken}:1:")), "{said}");
    let (_, said) = bare.failure(&["function", "test", &function, "--event", &function]);
    assert!(said.contains("neither an event nor an array of events"), "{said}");
}

#[tokio::test]
async fn a_rotor_that_is_not_there_is_named_with_what_to_do() {
    let files = Files::new();
    let function = files.with("f.js", ONE);
    let mut bare = Installation::nowhere().await;
    let (_, said) = bare.failure(&["function", "test", &function, "--rotor", "http://127.0.0.1:9"]);
    assert!(said.contains("MILLRACE__ROTOR__TOKEN"), "{said}");
    bare.set("MILLRACE__ROTOR__TOKEN", "st_a.b");
    let (_, said) = bare.failure(&["function", "test", &function, "--rotor", "http://127.0.0.1:9"]);
    assert!(said.contains("http://127.0.0.1:9 cannot be asked"), "{said}");
    bare.set("MILLRACE__ROTOR__PROGRAM", "/nowhere/millrace-rotor");
    let (_, said) = bare.failure(&["function", "test", &function]);
    assert!(said.contains("--rotor names one that runs"), "{said}");
}

#[tokio::test]
async fn what_is_held_back_is_shown_and_released_and_debug_lines_end_by_themselves() {
    let (installation, _) = Installation::with_workspace().await;
    let files = Files::new();
    let workspace = ["--workspace", installation.name.as_str()];
    let file = files.with("f.js", ONE);
    installation.json(
        &[
            &["function", "put", "--name", "f", "--promote"],
            &workspace[..],
            &[&file],
        ]
        .concat(),
    );
    let postgres = installation.postgres();
    let snapshot = Chains::new(postgres.clone())
        .snapshot()
        .await
        .expect("a snapshot");
    let chain = snapshot
        .iter()
        .find(|chain| !chain.functions.is_empty())
        .expect("a chain");
    let kills = Kills {
        chain: chain.id.as_str().into(),
        version: chain.version,
        function: Some((chain.functions[0].id.as_str().into(), 1)),
        code: "rss_limit".into(),
        count: 1,
    };
    let policy = Policy {
        kills: 1,
        window: Duration::from_secs(60),
        first: Duration::from_secs(600),
        longest: Duration::from_secs(600),
    };
    Quarantines::new(postgres.clone())
        .count(&kills, &policy)
        .await
        .expect("counted");

    let list = [&["function", "quarantine"], &workspace[..]].concat();
    let shown = installation.json(&list);
    let held = &shown["quarantined"][0];
    assert_eq!(
        (field(held, "chain"), field(held, "code")),
        (chain.id.as_str(), "rss_limit")
    );
    assert!(
        held["seconds_left"].as_u64().is_some_and(|left| left > 500),
        "{held}"
    );
    let release = [&["function", "release"], &workspace[..], &[chain.id.as_str()]].concat();
    installation.json(&release);
    assert_eq!(
        installation.json(&list)["quarantined"].as_array().map(Vec::len),
        Some(0)
    );
    let (_, said) = installation.failure(&release);
    assert!(said.contains("function quarantine"), "{said}");

    let debug = FunctionDebug::new(postgres);
    let switch = [&["function", "debug"], &workspace[..]].concat();
    installation.json(&switch);
    assert_eq!(debug.all().await.expect("asked").len(), 1);
    installation.json(&[&switch[..], &["--minutes", "0"]].concat());
    assert!(debug.all().await.expect("asked").is_empty());
    installation.clean().await;
}
