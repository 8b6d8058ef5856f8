//! What functions know and reach, through the whole rotor: secrets, the store, places of addresses.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use millrace_event::Verdict;
use millrace_event::envelope::{Envelope as _, Ingest};
use millrace_kafka::{Outgoing, Record, reader};
use millrace_store::{FetchOrigins, Keyring, Secrets};
use millrace_testkit::mmdb;
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use super::ground::{Ground, read};

const SECRET: &str = "hunter2-and-more";

const CODE: &str = "export default async (event, { env, geo, store, log }) => {
    log.warn('the token is', env.TOKEN, { token: env.TOKEN });
    if (event.throws) throw new Error(`refused: ${env.TOKEN}`);
    return { n: event.n, length: env.TOKEN?.length ?? null, count: await store.incr('count'), geo };
}";

/// An ingest record that came from an address.
fn from(ground: &Ground, seq: u64, event: &str, ip: Option<&str>) -> Outgoing {
    let mut outgoing = ground.event(0, seq, event);
    let bytes = outgoing.value.clone();
    let mut envelope = Ingest::read(&bytes).expect("an envelope");
    envelope.ip = ip.map(Into::into);
    outgoing.value = envelope.to_bytes();
    outgoing
}

async fn set(ground: &Ground, keys: &Path, value: &str) {
    let keys = Keyring::read(keys).expect("keys");
    let secrets = Secrets::new(ground.postgres.clone());
    let workspace = &ground.demo.workspace.id;
    secrets.set(&keys, workspace, "TOKEN", value).await.expect("set");
}

/// The version of the demo's chain in force.
async fn version(ground: &Ground) -> u64 {
    let token = format!("Bearer {}", ground.token().await);
    let url = format!("{}/v1/functions", ground.url);
    let headers = [("authorization", token.as_str())];
    let listed = ground
        .client
        .send(http::Method::GET, &url, &headers, "")
        .await
        .expect("a list");
    let json: Value = listed.json().expect("JSON");
    json["functions"][0]["chain_version"].as_u64().expect("a version")
}

/// Makes a change and waits until it is in force.
async fn changed(ground: &Ground, change: impl Future<Output = ()>) {
    let before = version(ground).await;
    change.await;
    ground.tell().await;
    let what = "the change comes into force";
    until(what, Duration::from_secs(60), || async {
        Ok((version(ground).await != before).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", ground.rotor.tail()));
}

/// Writes an event and gives the record that it became.
async fn through(ground: &Ground, seq: u64, event: &str, ip: Option<&str>) -> Record {
    ground.write(0, vec![from(ground, seq, event, ip)]).await;
    let count = usize::try_from(seq).expect("few");
    let mut all = ground.transformed(count).await;
    all.remove(&0)
        .and_then(|mut records| records.pop())
        .expect("a record")
}

fn output(record: &Record) -> Value {
    let transformed = read(record);
    assert_eq!(transformed.verdict, Verdict::Forward, "{transformed:?}");
    serde_json::from_str(transformed.outputs[0].event.get()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_reads_secrets_keeps_values_and_knows_places_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, places) = (folder.path().join("keys"), folder.path().join("places.mmdb"));
    Keyring::create(&keys).expect("a key file");
    let place = json!({
        "city": { "names": { "en": "London" } }, "continent": { "code": "EU" },
        "country": { "iso_code": "GB", "names": { "en": "United Kingdom" } },
        "location": { "latitude": 51.5, "longitude": -0.1, "time_zone": "Europe/London" },
        "postal": { "code": "EC1A" }, "subdivisions": [{ "iso_code": "ENG", "names": { "en": "England" } }],
    });
    let database = mmdb::database(&[(Ipv4Addr::new(81, 2, 69, 0), 24, place)]);
    std::fs::write(&places, database).expect("a file");
    let settings = [
        ("MILLRACE__SECRETS__KEY_FILE", keys.to_str().expect("text")),
        ("MILLRACE__GEO__DATABASE", places.to_str().expect("text")),
    ];
    let ground = Ground::set(CODE, &settings).await;

    let first = through(&ground, 1, r#"{"n":1}"#, Some("81.2.69.160")).await;
    let london = json!({
        "continent": "EU", "country": { "code": "GB", "name": "United Kingdom" },
        "region": { "code": "ENG", "name": "England" }, "city": "London", "postalCode": "EC1A",
        "timezone": "Europe/London", "latitude": 51.5, "longitude": -0.1,
    });
    assert_eq!(
        output(&first),
        json!({ "n": 1, "length": null, "count": 1, "geo": london })
    );

    Box::pin(changed(&ground, set(&ground, &keys, SECRET))).await;
    let second = through(&ground, 2, r#"{"n":2}"#, Some("192.0.2.1")).await;
    assert_eq!(
        output(&second),
        json!({ "n": 2, "length": SECRET.len(), "count": 2, "geo": null })
    );
    let third = through(&ground, 3, r#"{"n":3,"throws":true}"#, None).await;
    let transformed = read(&third);
    assert_eq!(transformed.verdict, Verdict::DeadLetter);
    let reason = transformed.reason.as_ref().expect("a reason");
    assert!(
        reason
            .message
            .as_str()
            .starts_with("Error: refused: [secret TOKEN]"),
        "{reason:?}"
    );

    // Whoever may run functions sees no secret either.
    let request = json!({ "code": CODE.replace("store.incr('count')", "0").replace("length:", "token: env.TOKEN, length:"),
        "language": "js", "events": [{ "n": 4 }, { "throws": true }], "context": { "env": { "TOKEN": SECRET } } });
    let token = format!("Bearer {}", ground.token().await);
    let url = format!("{}/v1/functions/run", ground.url);
    let answer = ground
        .client
        .post(&url, &[("authorization", &token)], request.to_string())
        .await
        .expect("an answer");
    assert!(!answer.body.contains("hunter2"), "{}", answer.body);
    let answer: Value = answer.json().expect("JSON");
    assert_eq!(
        answer["results"][0]["events"][0]["token"], "[secret TOKEN]",
        "{answer}"
    );
    assert_eq!(
        answer["results"][1]["error"]["message"],
        "Error: refused: [secret TOKEN]"
    );
    let line = r#"the token is [secret TOKEN] {"token":"[secret TOKEN]"}"#;
    assert_eq!(answer["logs"][0]["message"], line);

    // The lines come out in the log topic, and nowhere is the secret itself.
    let logged = until("log lines", Duration::from_secs(60), || async {
        let all = reader::gather(&ground.connection, &ground.topics.functions_log).await?;
        let text: String = all
            .values()
            .flatten()
            .map(|one| String::from_utf8_lossy(&one.value).into_owned())
            .collect();
        Ok(text.contains("[secret TOKEN]").then_some(text))
    });
    let logged = logged
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", ground.rotor.tail()));
    assert!(!logged.contains("hunter2"), "{logged}");
    let written = ground.transformed(3).await;
    let written: String = written
        .values()
        .flatten()
        .map(|one| String::from_utf8_lossy(&one.value).into_owned())
        .collect();
    assert!(!written.contains("hunter2"), "{written}");
    assert!(!ground.rotor.tail().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_secrets_that_cannot_be_opened_and_only_where_they_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, aside) = (folder.path().join("keys"), folder.path().join("aside"));
    Keyring::create(&keys).expect("a key file");
    let code = "export default (event, ctx) => { if (event.reads) event.token = ctx.env.TOKEN.length; event.ok = true; }";
    let settings = [("MILLRACE__SECRETS__KEY_FILE", keys.to_str().expect("text"))];
    let ground = Ground::set(code, &settings).await;
    Box::pin(changed(&ground, async {
        set(&ground, &keys, SECRET).await;
        std::fs::rename(&keys, &aside).expect("taken away");
    }))
    .await;
    let record = through(&ground, 1, r#"{"reads":true}"#, None).await;
    let transformed = read(&record);
    assert_eq!(transformed.verdict, Verdict::Retry, "{transformed:?}");
    let message = transformed.reason.as_ref().expect("a reason").message.to_string();
    assert!(
        message.contains("the secrets of the workspace cannot be opened"),
        "{message}"
    );
    assert_eq!(
        output(&through(&ground, 2, "{}", None).await),
        json!({ "ok": true })
    );
    // Nobody has to say that the file is back.
    Box::pin(changed(&ground, async {
        std::fs::rename(&aside, &keys).expect("put back")
    }))
    .await;
    let record = through(&ground, 3, r#"{"reads":true}"#, None).await;
    assert_eq!(
        output(&record),
        json!({ "reads": true, "token": SECRET.len(), "ok": true })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workspace_allows_comes_into_force_and_no_setting_lets_functions_inside() {
    let code = "export default async (event, { fetch }) => {
        try { await fetch('http://127.0.0.1:9/'); event.said = null; } catch (error) { event.said = error.message; }
    }";
    let ground = Ground::set(code, &[]).await;
    let said = |record: &Record| output(record)["said"].as_str().unwrap_or_default().to_owned();
    let before = said(&through(&ground, 1, "{}", None).await);
    assert!(
        before.contains("does not allow requests to http://127.0.0.1:9"),
        "{before}"
    );
    Box::pin(changed(&ground, async {
        let origin = "http://127.0.0.1:9".parse().expect("an origin");
        let origins = FetchOrigins::new(ground.postgres.clone());
        origins
            .allow(&ground.demo.workspace.id, &origin)
            .await
            .expect("allowed");
    }))
    .await;
    let after = said(&through(&ground, 2, "{}", None).await);
    assert!(
        after.contains("does not lead to the Internet at large"),
        "{after}"
    );
    let counted = ground
        .metric("millrace_calls_total{part=\"fetch\",result=\"failed\"}")
        .await;
    assert!(counted.ends_with(" 2"), "{counted}");
}
