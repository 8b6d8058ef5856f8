//! `millrace-rotor functions`: the functions API where nothing else runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use http::StatusCode;
use millrace_testkit::http::Client;
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use super::BINARY;

const TOKEN: &str = "a-token-of-its-own";

struct Alone {
    child: Child,
    url: String,
    client: Client,
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Alone {
    fn start() -> Self {
        let mut child = Command::new(BINARY)
            .args(["functions", "--announce", "--with-parent"])
            .env_clear()
            .env("MILLRACE__ADMIN__LISTEN", "127.0.0.1:0")
            .env("MILLRACE__FUNCTIONS__TOKEN", TOKEN)
            // Nobody listens there: a port that programs are not given.
            .env(
                "MILLRACE__POSTGRES__URL",
                "postgres://nobody:secret@127.0.0.1:1/none",
            )
            .env("MILLRACE__KAFKA__BROKERS", "127.0.0.1:1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut url = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut url).expect("an address");
        Self {
            child,
            url: url.trim().to_owned(),
            client: Client::default(),
        }
    }

    async fn run(&self, token: &str, request: &Value) -> (StatusCode, Value) {
        let answer = self
            .client
            .post(
                &format!("{}/v1/functions/run", self.url),
                &[("authorization", &format!("Bearer {token}"))],
                request.to_string(),
            )
            .await
            .expect("an answer");
        (answer.status, answer.json().expect("JSON"))
    }
}

#[tokio::test]
async fn code_runs_without_kafka_and_postgres_and_only_for_who_has_the_token() {
    let mut alone = Alone::start();
    let code = "export default (event: { n: number }) => { event.n += 1; }";
    let request = json!({"code": code, "language": "ts", "events": [{"n": 1}]});
    let (status, answer) = alone.run(TOKEN, &request).await;
    assert_eq!(
        (status, &answer["results"][0]["events"]),
        (StatusCode::OK, &json!([{"n": 2}]))
    );
    let (status, _) = alone.run("another", &request).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = alone.run("", &request).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    let (status, answer) = alone
        .run(TOKEN, &json!({"code": "export default () => {\n  +;\n}"}))
        .await;
    assert_eq!(
        (status, &answer["line"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!(2))
    );
    // What is stored cannot be had without the store, and that is said.
    let (status, answer) = alone
        .run(TOKEN, &json!({"function": "fn_1", "events": [{}]}))
        .await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("key_lookup_unavailable"))
    );

    let ready = until("readiness", std::time::Duration::from_secs(60), || async {
        let answer = alone.client.get(&format!("{}/ready", alone.url)).await?;
        Ok((answer.status == StatusCode::OK).then_some(()))
    });
    ready.await.expect("ready without Kafka");
    let pid = i32::try_from(alone.child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(alone.child.wait().expect("it ends").code(), Some(0));
}
