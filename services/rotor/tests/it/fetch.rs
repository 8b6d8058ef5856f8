//! `ctx.fetch`: real workers, real servers on loopback, and what must not be reached.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_rotor::outside::fetch::Config as Costs;
use millrace_rotor::outside::{Fetch, Metrics, Outside, Reach};
use millrace_rotor::pool::{Chain, Pool};
use millrace_testkit::server::{Answer, Asked, Server};
use millrace_testkit::tls::{Tls, authority};
use serde_json::{Value, json};

use super::outside::pool_with;
use super::pool::{chain, events, forwarded};

/// Longer than any of these takes on a slow machine.
const WALL_MS: u64 = 60_000;

/// Says what came of `fetch(event.url, event.options)`.
const CODE: &str = "export default async (event, { fetch }) => {
    try {
        const response = await fetch(event.url, event.options ?? {});
        return { status: response.status, url: response.url, redirected: response.redirected,
            type: response.headers.get('content-type'), text: await response.text() };
    } catch (error) { return { name: error.name, message: error.message }; }
}";

/// What one test reaches.
struct Ground {
    pool: Pool,
    chain: Arc<Chain>,
}

impl Ground {
    /// With these addresses let in although they are private, and requests allowed to these origins.
    fn new(let_in: &[&str], origins: &[&str]) -> Self {
        let addresses = let_in
            .iter()
            .map(|text| text.parse::<IpAddr>().expect("an address"));
        Self::with(
            Costs {
                timeout: Duration::from_secs(30),
                response_bytes: 10_000,
                redirects: 3,
                certificates: PathBuf::from("/nowhere"),
                ca_file: None,
                unsafe_reachable: addresses.collect(),
            },
            origins,
        )
    }

    fn with(costs: Costs, origins: &[&str]) -> Self {
        let fetch = Fetch::new(costs).expect("a client");
        let origins = origins.iter().map(|text| text.parse().expect("an origin"));
        let reach = Reach {
            workspace: "demo".into(),
            origins: origins.collect(),
        };
        let load = chain("fetches", 1, WALL_MS, CODE).load().clone();
        Self {
            pool: pool_with(Outside::new(None, Some(fetch), Metrics::default())),
            chain: Arc::new(Chain::with_reach(load, Arc::new(reach)).expect("plain")),
        }
    }

    async fn fetch(&self, url: &str, options: Value) -> Value {
        let event = json!({ "url": url, "options": options }).to_string();
        let outcomes = self.pool.run(Arc::clone(&self.chain), events(&[&event])).await;
        let outcome = &outcomes.expect("the pool is open")[0];
        serde_json::from_str(forwarded(outcome)).expect("JSON")
    }

    #[track_caller]
    fn refused(answer: &Value, why: &str) {
        assert_eq!(answer["name"], "TypeError", "{answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{message} is not about: {why}");
    }
}

fn hello(asked: &Asked) -> Answer {
    Answer::text(format!("{} {} {}", asked.method, asked.path, asked.body))
}

#[tokio::test]
async fn a_request_goes_out_as_it_was_asked_for_and_its_answer_comes_back() {
    let server = Server::start("127.0.0.1:0", hello).await.expect("a server");
    let url = format!("http://{}", server.address());
    let ground = Ground::new(&["127.0.0.1"], &[&url]);
    let options =
        json!({ "method": "POST", "headers": { "X-Token": "t", "content-type": "a/b" }, "body": "é" });
    let answer = ground.fetch(&format!("{url}/x?y=1#part"), options).await;
    let expected = json!({ "status": 200, "url": format!("{url}/x?y=1"), "redirected": false, "type": "text/plain", "text": "POST /x?y=1 é" });
    assert_eq!(answer, expected);
    let asked = &server.asked()[0];
    assert_eq!(
        (
            asked.headers["x-token"].as_str(),
            asked.headers["content-type"].as_str()
        ),
        ("t", "a/b")
    );
    assert_eq!(asked.headers["host"], server.address().to_string());
    assert!(asked.headers["user-agent"].starts_with("millrace/"));
    for (options, why) in [
        (
            json!({ "headers": { "Host": "other" } }),
            "the header host cannot be set",
        ),
        (
            json!({ "headers": { "a b": "c" } }),
            "is not the name of a header",
        ),
        (
            json!({ "method": "CONNECT" }),
            "the method CONNECT cannot be used",
        ),
        (json!({ "body": "x" }), "a request with method GET has no body"),
        (json!({ "redirect": "maybe" }), "redirect is"),
    ] {
        Ground::refused(&ground.fetch(&url, options).await, why);
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn only_what_the_workspace_allows_is_asked() {
    let server = Server::start("127.0.0.1:0", hello).await.expect("a server");
    let port = server.address().port();
    let ground = Ground::new(
        &["127.0.0.1"],
        &["api.example.com", &format!("http://127.0.0.1:{}", port ^ 1)],
    );
    let why = "the workspace does not allow requests to";
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://api.example.com:{port}/"),
        "https://example.com/".to_owned(),
        "http://api.example.com/".to_owned(),
    ] {
        Ground::refused(&ground.fetch(&url, Value::Null).await, why);
    }
    for (url, why) in [
        ("file:///etc/passwd", "is not a scheme"),
        ("nothing", "is not an address"),
        ("https://user:secret@api.example.com/", "use a header"),
    ] {
        Ground::refused(&ground.fetch(url, Value::Null).await, why);
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn no_address_inside_is_reached_by_number_or_by_name() {
    let server = Server::start("127.0.0.1:0", hello).await.expect("a server");
    let port = server.address().port();
    let named = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://10.0.0.1".to_owned(),
        "http://[::1]".to_owned(),
        "http://0.0.0.0".to_owned(),
    ];
    let origins: Vec<&str> = named.iter().map(String::as_str).collect();
    let ground = Ground::new(&[], &origins);
    for url in &named {
        Ground::refused(
            &ground.fetch(url, Value::Null).await,
            "does not lead to the Internet at large",
        );
    }
    // Numbers in disguise are the same numbers.
    for disguised in [
        format!("http://0x7f.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0177.0.0.1:{port}"),
    ] {
        Ground::refused(
            &ground.fetch(&disguised, Value::Null).await,
            "does not lead to the Internet at large",
        );
    }
    assert!(server.asked().is_empty());
    // The control: let in, the same name is reached.
    let ground = Ground::new(&["127.0.0.1", "::1"], &origins);
    let answer = ground
        .fetch(&format!("http://localhost:{port}"), Value::Null)
        .await;
    assert_eq!(answer["status"], 200, "{answer}");
}

#[tokio::test]
async fn every_step_of_a_redirect_is_checked_like_the_first() {
    let inside = Server::start("127.0.0.2:0", hello)
        .await
        .expect("a server inside");
    let other = Server::start("127.0.0.1:0", hello).await.expect("another origin");
    let (inside_url, other_url) = (
        format!("http://{}", inside.address()),
        format!("http://{}", other.address()),
    );
    let targets = (inside_url.clone(), other_url.clone());
    let server = Server::start("127.0.0.1:0", move |asked| match asked.path.as_str() {
        "/inside" => Answer::redirect(302, &targets.0),
        "/other" => Answer::redirect(307, &targets.1),
        "/unknown" => Answer::redirect(301, "http://unknown.example/"),
        "/see" => Answer::redirect(303, "/end"),
        "/round" => Answer::redirect(302, "/round"),
        "/broken" => Answer::redirect(302, "http://[broken"),
        _ => hello(asked),
    });
    let server = server.await.expect("a server");
    let url = format!("http://{}", server.address());
    let ground = Ground::new(&["127.0.0.1"], &[&url, &inside_url, &other_url]);
    let secret = json!({ "method": "POST", "body": "b", "headers": { "authorization": "t", "x-kept": "1" } });

    Ground::refused(
        &ground.fetch(&format!("{url}/inside"), Value::Null).await,
        "does not lead to the Internet",
    );
    assert!(inside.asked().is_empty(), "a server inside was asked");
    Ground::refused(
        &ground.fetch(&format!("{url}/unknown"), Value::Null).await,
        "does not allow requests to http://unknown.example",
    );
    Ground::refused(
        &ground.fetch(&format!("{url}/round"), Value::Null).await,
        "redirected more than 3 times",
    );
    Ground::refused(
        &ground.fetch(&format!("{url}/broken"), Value::Null).await,
        "what is no address",
    );
    Ground::refused(
        &ground
            .fetch(&format!("{url}/see"), json!({ "redirect": "error" }))
            .await,
        "redirect is \"error\"",
    );
    let answer = ground
        .fetch(&format!("{url}/see"), json!({ "redirect": "manual" }))
        .await;
    assert_eq!(
        (&answer["status"], &answer["redirected"]),
        (&json!(303), &json!(false))
    );

    let answer = ground.fetch(&format!("{url}/see"), secret.clone()).await;
    assert_eq!(
        (&answer["text"], &answer["redirected"]),
        (&json!("GET /end "), &json!(true))
    );
    assert_eq!(answer["url"], format!("{url}/end"));
    let last = server.asked().pop().expect("asked");
    assert_eq!(
        last.headers.get("authorization").map(String::as_str),
        Some("t"),
        "the same origin"
    );
    assert_eq!(last.headers.get("content-type"), None);

    let answer = ground.fetch(&format!("{url}/other"), secret).await;
    assert_eq!(answer["text"], "POST / b");
    let last = other.asked().pop().expect("asked");
    assert_eq!(
        last.headers.get("authorization"),
        None,
        "another origin sees no credentials"
    );
    assert_eq!(last.headers.get("x-kept").map(String::as_str), Some("1"));
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_too_slow_is_given_up() {
    let server = Server::start("127.0.0.1:0", |asked| match asked.path.as_str() {
        "/fits" => Answer::text("x".repeat(10_000)),
        "/large" => Answer::text("x".repeat(10_001)),
        "/endless" => Answer::Endless,
        _ => Answer::Silent,
    });
    let server = server.await.expect("a server");
    let url = format!("http://{}", server.address());
    let ground = Ground::new(&["127.0.0.1"], &[&url]);
    let answer = ground.fetch(&format!("{url}/fits"), Value::Null).await;
    assert_eq!(answer["text"].as_str().map(str::len), Some(10_000), "{answer}");
    for path in ["large", "endless"] {
        Ground::refused(
            &ground.fetch(&format!("{url}/{path}"), Value::Null).await,
            "more than 10000 bytes",
        );
    }
    let answer = ground
        .fetch(&format!("{url}/silent"), json!({ "timeout": "300ms" }))
        .await;
    Ground::refused(&answer, "took longer than 300 ms");
    // Nobody listens on the discard port.
    let closed = Ground::new(&["127.0.0.1"], &["http://127.0.0.1:9"]);
    Ground::refused(
        &closed.fetch("http://127.0.0.1:9", Value::Null).await,
        "127.0.0.1",
    );
}

#[tokio::test]
async fn a_server_that_an_authority_of_the_network_vouches_for_is_fetched_from_and_no_other() {
    let server = Server::behind(Tls::new().expect("certificates"), "127.0.0.1:0", hello);
    let server = server.await.expect("a server");
    let url = format!("https://127.0.0.1:{}", server.address().port());
    let system = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    let costs = |certificates, ca_file| Costs {
        timeout: Duration::from_secs(30),
        response_bytes: 10_000,
        redirects: 3,
        certificates,
        ca_file,
        unsafe_reachable: vec!["127.0.0.1".parse().expect("an address")],
    };
    for certificates in [system.clone(), PathBuf::from("/nowhere")] {
        let ground = Ground::with(costs(certificates, Some(authority())), &[&url]);
        let answer = ground.fetch(&format!("{url}/x"), Value::Null).await;
        assert_eq!(
            (&answer["status"], &answer["text"]),
            (&json!(200), &json!("GET /x ")),
            "{answer}"
        );
    }
    let asked = server.asked().len();
    for (certificates, why) in [
        (system, "certificate"),
        (PathBuf::from("/nowhere"), "no certificates"),
    ] {
        let stranger = Ground::with(costs(certificates, None), &[&url]);
        Ground::refused(&stranger.fetch(&url, Value::Null).await, why);
    }
    assert_eq!(
        server.asked().len(),
        asked,
        "nothing was sent to a server that proved nothing"
    );
}
