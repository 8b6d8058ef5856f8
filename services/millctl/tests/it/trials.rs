//! `--dry-run`: every command that changes something has it, says the same as it says when it changes things, and leaves
//! all as it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use millrace_store::Quarantines;
use millrace_store::quarantine::{Kills, Policy};
use serde_json::Value;

use crate::installation::{Installation, field};

/// Commands whose trial needs a log, a journal or a shop: the tests of what they do try them too.
const ELSEWHERE: [&str; 5] = [
    "dlq replay",
    "fields retype",
    "generate",
    "journal ship",
    "ledger adopt",
];

/// The commands below one, as its help names them.
fn below(installation: &Installation, path: &[String], leaves: &mut Vec<(String, String)>) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = installation.text(&arguments);
    let mut lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .peekable();
    if lines.peek().is_none() {
        leaves.push((path.join(" "), help));
        return;
    }
    let names: Vec<String> = lines
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(ToOwned::to_owned))
        .filter(|name| name != "help")
        .collect();
    assert!(!names.is_empty(), "{help}");
    for name in names {
        below(installation, &[path, &[name]].concat(), leaves);
    }
}

/// All that the installation has in PostgreSQL, in ClickHouse and in a folder.
async fn state(installation: &Installation, folder: &Path) -> Vec<String> {
    let client = installation.database.client().await.expect("a connection");
    let tables = client
        .query(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
            &[],
        )
        .await
        .expect("tables");
    let mut state = Vec::new();
    for table in tables {
        let table: String = table.get(0);
        let rows = format!("SELECT coalesce(jsonb_agg(t ORDER BY t::text), '[]')::text FROM \"{table}\" t");
        let rows: String = client.query_one(&rows, &[]).await.expect("rows").get(0);
        state.push(format!("{table} {rows}"));
    }
    let tables = "SELECT concat(database, '.', name, ' ', create_table_query) FROM system.tables
        WHERE position(database, ?) > 0 ORDER BY 1";
    let tables = installation
        .warehouse()
        .client()
        .query(tables)
        .bind(&installation.name);
    state.extend(tables.fetch_all::<String>().await.expect("tables"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        state.push(format!("{} {text}", file.display()));
    }
    state
}

/// What a command prints for scripts.
fn said(installation: &Installation, arguments: &[&str]) -> Value {
    let mut command = installation.command(&[arguments, &["--json"]].concat());
    // `secret set` reads its value from there where no file is named.
    let output = command.stdin(Stdio::null()).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

struct Trials {
    installation: Installation,
    folder: tempfile::TempDir,
    tried: BTreeSet<String>,
}

impl Trials {
    /// Tries a command, sees that nothing changed, does it, and gives both answers.
    async fn of(&mut self, command: &str, arguments: &[&str]) -> (Value, Value) {
        let words: Vec<&str> = command.split(' ').chain(arguments.iter().copied()).collect();
        let before = state(&self.installation, self.folder.path()).await;
        let dry = said(&self.installation, &[&words[..], &["--dry-run"]].concat());
        let after = state(&self.installation, self.folder.path()).await;
        assert_eq!(before, after, "{words:?} was only tried");
        assert_eq!(dry["dry_run"], true, "{words:?}: {dry}");
        let text = self.installation.text(&[&words[..], &["--dry-run"]].concat());
        assert!(text.starts_with("nothing is changed"), "{words:?}: {text}");
        let real = said(&self.installation, &words);
        assert_eq!(real["dry_run"], false, "{words:?}: {real}");
        let then = state(&self.installation, self.folder.path()).await;
        assert_ne!(after, then, "{words:?} changed something when it was not tried");
        self.tried.insert(command.to_owned());
        (dry, real)
    }
}

#[tokio::test]
async fn every_command_that_changes_something_can_be_tried_and_then_changes_nothing() {
    let installation = Installation::empty().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let (code, secret) = (
        file("f.js", "export default (event) => event;"),
        file("value", "hunter2"),
    );
    let newer = file("newer.js", "export default (event) => null;");
    let keys = folder.path().join("keys").to_str().expect("text").to_owned();
    let name = installation.name.clone();
    let mut trials = Trials {
        installation,
        folder,
        tried: BTreeSet::new(),
    };
    trials.installation.set("MILLRACE__SECRETS__KEY_FILE", keys);

    let (dry, real) = trials.of("migrate up", &[]).await;
    assert_eq!(count(&dry, "applied"), count(&real, "applied"));
    let (dry, _) = trials
        .of("migrate down", &["--store", "clickhouse", "--steps", "2"])
        .await;
    assert_eq!(count(&dry, "taken_back"), 2);
    trials.installation.json(&["migrate", "up"]);
    let migrations = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(migrations.path().join("postgres")).expect("a folder");
    let within = migrations.path().to_str().expect("text");
    let new = [
        "migrate", "new", "quotas", "--store", "postgres", "--folder", within,
    ];
    let dry = said(&trials.installation, &[&new[..], &["--dry-run"]].concat());
    let path = dry["files"][0].as_str().expect("a name").to_owned();
    assert!(!Path::new(&path).exists(), "only tried");
    said(&trials.installation, &new);
    assert!(Path::new(&path).exists());
    trials.tried.insert("migrate new".to_owned());

    let (dry, made) = trials
        .of("workspace create", &["--organization", "acme", &name])
        .await;
    assert_eq!(
        (&dry["created"], &dry["database"]),
        (&true.into(), &made["database"])
    );
    assert!(
        dry["statements"][0]
            .as_str()
            .is_some_and(|one| one.starts_with("CREATE TABLE")),
        "{dry}"
    );
    let (dry, real) = trials.of("workspace set", &[&name, "--tier", "pro"]).await;
    assert_eq!((&dry["before"], &dry["after"]), (&real["before"], &real["after"]));
    let workspace = ["--workspace", name.as_str()];
    let of = |more: &[&'static str]| [&workspace[..], more].concat();
    let (dry, _) = trials
        .of("destination create", &of(&["second", "--table", "more"]))
        .await;
    assert_eq!((&dry["created"], &dry["id"]), (&true.into(), &Value::Null));
    trials.of("destination set", &of(&["ttl_days=9"])).await;

    let (dry, issued) = trials.of("key create", &of(&["--kind", "server"])).await;
    assert_eq!((&dry["key"], &dry["kind"]), (&Value::Null, &"server".into()));
    let key = field(&issued, "id");
    let (dry, _) = trials.of("key ip", &[key, "anonymize"]).await;
    assert_eq!(
        (&dry["before"], &dry["ip"]),
        (&"keep".into(), &"anonymize".into())
    );
    let listed = trials
        .installation
        .json(&["key", "list", workspace[0], workspace[1]]);
    assert_eq!(
        listed["keys"][0]["ip"], "anonymize",
        "the list shows what is kept of addresses"
    );
    assert!(
        trials
            .installation
            .text(&["key", "list", workspace[0], workspace[1]])
            .contains("anonymize")
    );
    let (dry, real) = trials.of("key revoke", &[key]).await;
    assert_eq!((&dry["changed"], &dry["told"]), (&true.into(), &Value::Null));
    assert_eq!((&real["changed"], &real["told"]), (&true.into(), &true.into()));
    let again = trials.installation.json(&["key", "revoke", key]);
    assert_eq!(again["changed"], false, "it was revoked before");
    let (dry, token) = trials.of("token create", &["--name", "ci"]).await;
    assert_eq!(dry["token"], Value::Null);
    trials.of("token revoke", &[field(&token, "id")]).await;

    trials
        .of("alias set", &of(&["kind", "action", "--mode", "both"]))
        .await;
    let (dry, _) = trials
        .of("alias set", &of(&["kind", "action", "--mode", "new"]))
        .await;
    assert_eq!(
        (&dry["before"]["mode"], &dry["alias"]["mode"]),
        (&"both".into(), &"new".into())
    );
    trials.of("alias drop", &of(&["kind"])).await;
    let (dry, _) = trials.of("require add", &of(&["brand"])).await;
    assert_eq!(dry["changed"], true);
    assert_eq!(
        trials
            .installation
            .json(&[&["require", "add"], &of(&["brand"])[..]].concat())["changed"],
        false
    );
    trials.of("require drop", &of(&["brand"])).await;
    let client = trials.installation.database.client().await.expect("a connection");
    let field_of = "INSERT INTO fields (workspace, name, type) SELECT id, 'total', 'number' FROM workspaces";
    client.execute(field_of, &[]).await.expect("a field");
    let (dry, _) = trials.of("fields drop", &of(&["total"])).await;
    assert_eq!(dry["before"], "number");

    trials.of("fetch allow", &of(&["api.example.com"])).await;
    trials.of("fetch forbid", &of(&["api.example.com"])).await;
    trials.of("secret init-key", &[]).await;
    let set = [&workspace[..], &["--file", &secret, "TOKEN"]].concat();
    trials.of("secret set", &set).await;
    trials.of("secret rotate-key", &[]).await;
    let (dry, real) = trials.of("secret reseal", &[]).await;
    assert_eq!((&dry["moved"], &real["moved"]), (&1.into(), &1.into()));
    trials.of("secret unset", &of(&["TOKEN"])).await;

    let put = [&workspace[..], &["--name", "f"]].concat();
    let (dry, _) = trials
        .of("function put", &[&put[..], &["--promote", &code]].concat())
        .await;
    assert_eq!((&dry["version"], &dry["function"]), (&1.into(), &Value::Null));
    assert_eq!((&dry["position"], &dry["before"]), (&0.into(), &Value::Null));
    // What a promotion would do is found out by doing it: the end of the chain, or another version's place, or why not.
    let second = [&workspace[..], &["--name", "g", "--promote"]].concat();
    let (dry, _) = trials.of("function put", &[&second[..], &[&code]].concat()).await;
    assert_eq!((&dry["position"], &dry["before"]), (&1.into(), &Value::Null));
    let (dry, _) = trials
        .of("function put", &[&second[..], &[&newer]].concat())
        .await;
    assert_eq!((&dry["version"], &dry["position"]), (&2.into(), &1.into()));
    assert_eq!(dry["before"], 1);
    let nowhere = [
        &["function", "put", "--destination", "nowhere", "--dry-run"],
        &second[..],
        &[&code],
    ];
    let (_, said) = trials.installation.failure(&nowhere.concat());
    assert!(said.contains("nowhere"), "{said}");
    trials
        .installation
        .json(&[&["function", "put"], &put[..], &[&newer]].concat());
    let (dry, _) = trials.of("function promote", &put).await;
    assert_eq!((&dry["version"], &dry["before"]), (&2.into(), &1.into()));
    let (dry, promoted) = trials.of("function rollback", &put).await;
    assert_eq!((&dry["version"], &dry["before"]), (&1.into(), &2.into()));
    let chain = field(&promoted, "chain");
    let kills = Kills {
        chain: chain.to_owned(),
        version: 100,
        function: None,
        code: "cpu_limit".to_owned(),
        count: 1,
    };
    let (hour, policy) = (Duration::from_secs(3600), 1);
    let policy = Policy {
        kills: policy,
        window: hour,
        first: hour,
        longest: hour,
    };
    let quarantines = Quarantines::new(trials.installation.postgres());
    assert!(
        quarantines
            .count(&kills, &policy)
            .await
            .expect("counted")
            .is_some()
    );
    trials
        .of("function release", &[&workspace[..], &[chain]].concat())
        .await;
    trials.of("function debug", &of(&["--minutes", "5"])).await;

    let mut leaves = Vec::new();
    below(&trials.installation, &[], &mut leaves);
    let has_it = |help: &str| help.contains("--dry-run");
    let changing: BTreeSet<String> = leaves
        .iter()
        .filter(|(_, help)| has_it(help))
        .map(|(path, _)| path.clone())
        .collect();
    trials.tried.extend(ELSEWHERE.map(str::to_owned));
    // Topics are the whole installation's: its own test has some of its own.
    trials.tried.insert("topics apply".to_owned());
    assert_eq!(
        trials.tried, changing,
        "every command with --dry-run is tried, here or where ELSEWHERE says"
    );
    assert!(leaves.iter().all(|(_, help)| help.contains("--json")));
    trials.installation.clean().await;
}

fn count(answer: &Value, list: &str) -> usize {
    answer[list].as_array().map(Vec::len).expect("a list")
}
