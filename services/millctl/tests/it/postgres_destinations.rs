//! `millctl destination … --kind postgres`: an address is sealed where it is stored, and shown nowhere.

use millrace_store::destinations::{Settings, open_url};
use millrace_store::{Destinations, Keyring};
use serde_json::json;

use crate::installation::Installation;

const URL: &str = "postgres://analyst:hunter2@127.0.0.1:5432/warehouse";

#[tokio::test]
async fn the_address_of_a_postgres_destination_is_stored_sealed_and_opens_for_it_alone() {
    let (mut installation, made) = Installation::with_workspace().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, file) = (folder.path().join("keys"), folder.path().join("url"));
    std::fs::write(&file, format!("{URL}\n")).expect("written");
    let file = file.to_str().expect("text");
    installation.set("MILLRACE__SECRETS__KEY_FILE", keys.to_str().expect("text"));
    let workspace = installation.name.clone();
    let create = [
        "destination",
        "create",
        "--workspace",
        &workspace,
        "--kind",
        "postgres",
        "--table",
        "events",
        "pg",
    ];

    let (_, said) = installation.failure(&create);
    assert!(said.contains("--url-file"), "{said}");
    let (_, said) = installation.failure(&[&create[..], &["--set", &format!("url={URL}")]].concat());
    assert!(said.contains("--url-file") && !said.contains("hunter2"), "{said}");
    let (_, said) = installation.failure(&[&create[..], &["--url-file", file]].concat());
    assert!(said.contains("init-key") || said.contains("key file"), "{said}");
    installation.json(&["secret", "init-key"]);

    let shown = installation.json(&[&create[..], &["--url-file", file]].concat());
    assert_eq!(
        (&shown["kind"], &shown["created"]),
        (&json!("postgres"), &json!(true))
    );
    let listed = installation.json(&["destination", "list", "--workspace", &workspace]);
    for output in [&shown, &listed] {
        assert!(!output.to_string().contains("hunter2"), "{output}");
    }
    let listed = installation.text(&["destination", "list", "--workspace", &workspace]);
    assert!(listed.contains("url=(sealed)"), "{listed}");

    let id = made["workspace"].as_str().expect("an id").parse().expect("an id");
    let destinations = Destinations::new(installation.postgres());
    let opened = async |name: &str| {
        let found = destinations.find(&id, "pg").await.expect("there");
        let Settings::Postgres(settings) = found.settings else {
            panic!("another kind");
        };
        let keys = Keyring::read(&keys).expect("keys");
        open_url(&keys, &id, name, &settings.url.expect("an address"))
    };
    assert_eq!(opened("pg").await, Ok(URL.to_owned()));
    assert!(opened("another").await.is_err(), "sealed for one destination");

    installation.json(&["secret", "rotate-key"]);
    let resealed = installation.json(&["secret", "reseal"]);
    assert_eq!((&resealed["moved"], &resealed["kept"]), (&json!(1), &json!(0)));
    let text = std::fs::read_to_string(&keys).expect("text");
    std::fs::write(&keys, text.lines().next().expect("the new key")).expect("written");
    assert_eq!(opened("pg").await, Ok(URL.to_owned()));

    installation.set("PLACE", "postgres://analyst:hunter3@127.0.0.1:5432/warehouse");
    let set = [
        "destination",
        "set",
        "--workspace",
        &workspace,
        "--destination",
        "pg",
        "--url-env",
        "PLACE",
    ];
    let changed = installation.json(&set);
    assert!(!changed.to_string().contains("hunter3"), "{changed}");
    assert_eq!(opened("pg").await, Ok(URL.replace("hunter2", "hunter3")));
    let (_, said) = installation.failure(&[&set[..7], &["NOWHERE"]].concat());
    assert!(said.contains("NOWHERE"), "{said}");
    installation.clean().await;
}
