//! What a test of the whole service stands on: topics, a database and a process of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_event::code::KeyKind;
use millrace_event::envelope::{Envelope as _, Ingest, Transformed, V1};
use millrace_event::header::{self, Headers};
use millrace_event::topic::Topics;
use millrace_event::{Identity, JournalId, Timestamp};
use millrace_kafka::producer::Producer;
use millrace_kafka::topics::{self, Shape};
use millrace_kafka::{Connection, Outgoing, Record, reader};
use millrace_store::destinations::{Kind, Settings};
use millrace_store::functions::{InForce, Language, Put, Route};
use millrace_store::postgres::{Config, Postgres, migrate};
use millrace_store::workspaces::{NewWorkspace, Provisioned, Tier};
use millrace_store::{Functions, Name, Notice, Redis, Tokens, Workspaces, notice, redis};
use millrace_testkit::http::Client;
use millrace_testkit::postgres::Database;
use millrace_testkit::process::{Process, Program, free_address};
use millrace_testkit::stack;
use millrace_testkit::wait::until;
use serde_json::value::RawValue;
use tempfile::TempDir;

use crate::BINARY;

/// The variable that names a Redis.
const REDIS: &str = "MILLRACE_TEST_REDIS";

/// Partitions of every topic.
pub(crate) const PARTITIONS: u32 = 2;

/// The journal that the test's records seem to come from.
const JOURNAL: JournalId = JournalId(0xab);

pub(crate) struct Ground {
    pub(crate) rotor: Process,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) topics: Topics,
    pub(crate) demo: Provisioned,
    pub(crate) connection: Connection,
    prefix: String,
    program: Program,
    producer: Producer,
    pub(crate) postgres: Postgres,
    _database: Database,
    _directory: TempDir,
}

impl Ground {
    /// A rotor that is ready, its workspace `demo` running `code` on one chain.
    pub(crate) async fn with(code: &str) -> Self {
        Self::on(stack::address(stack::KAFKA).expect("a broker"), code).await
    }

    /// As [`Self::with`], with some settings of its own, by their variables.
    pub(crate) async fn set(code: &str, settings: &[(&str, &str)]) -> Self {
        Self::made(stack::address(stack::KAFKA).expect("a broker"), code, settings).await
    }

    /// As [`Self::with`], on a broker of choice.
    pub(crate) async fn on(broker: String, code: &str) -> Self {
        Self::made(broker, code, &[]).await
    }

    async fn made(broker: String, code: &str, own: &[(&str, &str)]) -> Self {
        let connection = Connection::new(broker, "millrace-test");
        let prefix = format!("t{}.", uuid::Uuid::new_v4().simple());
        let mut topics = Topics::default().prefixed(&prefix);
        topics.retry.truncate(1);
        let shape = Shape {
            partitions: PARTITIONS,
            replication: 1,
        };
        topics::apply(&connection, &topics, shape, false)
            .await
            .expect("topics");

        let database = Database::create().await.expect("a database");
        let postgres = Postgres::new(&Config::new(database.url())).expect("a pool");
        migrate::up(&postgres).await.expect("migrations");
        let new = NewWorkspace {
            name: name("demo"),
            organization: name("acme"),
            tier: Tier::Default,
            database: "ws_demo".to_owned(),
            table: "events".to_owned(),
            settings: Settings::none(Kind::ClickHouse),
        };
        let demo = Workspaces::new(postgres.clone())
            .create(&new)
            .await
            .expect("a workspace");

        let directory = TempDir::with_prefix("millrace-").expect("a directory");
        let config = directory.path().join("rotor.toml");
        std::fs::write(&config, settings(&topics, &prefix)).expect("a file");
        let listen = free_address().expect("a port");
        let environment = [
            ("MILLRACE__KAFKA__BROKERS", connection.brokers.clone()),
            ("MILLRACE__POSTGRES__URL", database.url().to_owned()),
            ("MILLRACE__ADMIN__LISTEN", listen.to_string()),
            ("MILLRACE__REDIS__URL", stack::address(REDIS).expect("a Redis")),
            ("MILLRACE__REDIS__KEY_PREFIX", prefix.clone()),
            ("MILLRACE_CONFIG", config.display().to_string()),
        ];
        let own = own.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let environment = environment.into_iter().chain(own);
        let program = Program {
            name: "rotor".into(),
            argv: vec![BINARY.to_owned()],
            environment: environment.map(|(key, value)| (key.to_owned(), value)).collect(),
            log: directory.path().join("rotor.log"),
        };
        // Before the rotor starts: its first picture of the configuration has the function in it.
        promote(&postgres, &demo, "f", code).await;
        let rotor = Process::start(program.clone());
        let mut ground = Self {
            prefix,
            rotor: rotor.expect("the rotor starts"),
            program,
            url: format!("http://{listen}"),
            client: Client::default(),
            topics,
            demo,
            producer: Producer::new(&connection).expect("configured"),
            connection,
            postgres,
            _database: database,
            _directory: directory,
        };
        ground.ready().await;
        ground
    }

    pub(crate) async fn ready(&mut self) {
        let url = format!("{}/ready", self.url);
        self.rotor
            .ready(&self.client, &url)
            .await
            .expect("the rotor is ready");
    }

    /// Another workspace of the same installation, running `code`; its source is known before this returns.
    pub(crate) async fn neighbour(&self, called: &str, code: &str) -> Provisioned {
        let new = NewWorkspace {
            name: name(called),
            organization: name("acme"),
            tier: Tier::Default,
            database: format!("ws_{called}"),
            table: "events".to_owned(),
            settings: Settings::none(Kind::ClickHouse),
        };
        let made = Workspaces::new(self.postgres.clone())
            .create(&new)
            .await
            .expect("a workspace");
        promote(&self.postgres, &made, "f", code).await;
        self.tell().await;
        let token = format!("Bearer {}", self.token().await);
        let url = format!("{}/v1/functions", self.url);
        let known = until("the neighbour's function", Duration::from_secs(60), || async {
            let headers = [("authorization", token.as_str())];
            let listed = self.client.send(http::Method::GET, &url, &headers, "").await?;
            Ok(listed.body.contains(made.workspace.id.as_str()).then_some(()))
        });
        known.await.expect("it comes into force");
        made
    }

    /// Tells the rotor that something changed.
    pub(crate) async fn tell(&self) {
        let mut config = redis::Config::new(stack::address(REDIS).expect("a Redis"));
        config.key_prefix.clone_from(&self.prefix);
        let redis = Redis::connect(&config).expect("an address");
        redis
            .wait_connected(Duration::from_secs(20))
            .await
            .expect("a connection");
        notice::publish(&redis, &Notice::ConfigurationChanged)
            .await
            .expect("said");
    }

    /// An ingest record of another workspace's source.
    pub(crate) fn event_of(&self, of: &Provisioned, partition: u32, seq: u64, event: &str) -> Outgoing {
        ingest(
            of.source.id.as_str(),
            of.workspace.id.as_str(),
            partition,
            seq,
            event,
        )
    }

    /// Waits until the answer to a path of the rotor's port holds all of these.
    pub(crate) async fn shows(&self, path: &str, expected: &[&str]) -> String {
        let url = format!("{}{path}", self.url);
        let what = format!("{expected:?} at {path}");
        until(&what, Duration::from_secs(60), || async {
            let body = self.client.get(&url).await?.body;
            Ok(expected.iter().all(|text| body.contains(text)).then_some(body))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.rotor.tail()))
    }

    /// Another member of the same group, ready.
    pub(crate) async fn another(&self) -> Process {
        let mut program = self.program.clone();
        let listen = free_address().expect("a port").to_string();
        let url = format!("http://{listen}/ready");
        program
            .environment
            .push(("MILLRACE__ADMIN__LISTEN".into(), listen));
        let mut process = Process::start(program).expect("a second rotor starts");
        process.ready(&self.client, &url).await.expect("it is ready");
        process
    }

    /// Puts a version of the function `f` and promotes it.
    pub(crate) async fn promote(&self, code: &str) {
        promote(&self.postgres, &self.demo, "f", code).await;
    }

    /// Puts a version of a function, which nothing runs.
    pub(crate) async fn put(&self, function: &str, code: &str) -> Put {
        put(&self.postgres, &self.demo, function, code).await
    }

    /// Puts a function behind those of the chain.
    pub(crate) async fn append(&self, function: &str, code: &str) -> InForce {
        promote(&self.postgres, &self.demo, function, code).await
    }

    /// A new service token.
    pub(crate) async fn token(&self) -> String {
        let tokens = Tokens::new(self.postgres.clone());
        tokens.create(&name("test")).await.expect("a token").expose()
    }

    /// Writes to the ingest topic.
    pub(crate) async fn write(&self, partition: u32, records: Vec<Outgoing>) {
        self.producer
            .send(&self.topics.ingest, partition, records)
            .await
            .expect("delivered");
    }

    /// Writes to a topic of choice.
    pub(crate) async fn write_to(&self, topic: &str, partition: u32, records: Vec<Outgoing>) {
        self.producer
            .send(topic, partition, records)
            .await
            .expect("delivered");
    }

    /// An ingest record of the demo's source.
    pub(crate) fn event(&self, partition: u32, seq: u64, event: &str) -> Outgoing {
        ingest(
            self.demo.source.id.as_str(),
            self.demo.workspace.id.as_str(),
            partition,
            seq,
            event,
        )
    }

    /// Waits until the transformed topic holds at least `count` records, and returns all of it.
    pub(crate) async fn transformed(&self, count: usize) -> BTreeMap<u32, Vec<Record>> {
        let what = format!("{count} transformed records");
        until(&what, Duration::from_secs(90), || async {
            let gathered = reader::gather(&self.connection, &self.topics.transformed).await?;
            let found: usize = gathered.values().map(Vec::len).sum();
            Ok((found >= count).then_some(gathered))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.rotor.tail()))
    }

    pub(crate) async fn metric(&self, line: &str) -> String {
        let text = self
            .client
            .get(&format!("{}/metrics", self.url))
            .await
            .expect("metrics")
            .body;
        text.lines()
            .find(|found| found.starts_with(line))
            .unwrap_or_default()
            .to_owned()
    }
}

async fn promote(postgres: &Postgres, demo: &Provisioned, function: &str, code: &str) -> InForce {
    put(postgres, demo, function, code).await;
    let promoted = Functions::new(postgres.clone())
        .promote(&demo.workspace.id, &Route::default(), function, None)
        .await;
    promoted.expect("a promotion")
}

async fn put(postgres: &Postgres, demo: &Provisioned, function: &str, code: &str) -> Put {
    let put = Functions::new(postgres.clone())
        .put(&demo.workspace.id, &name(function), Language::JavaScript, code)
        .await;
    put.expect("a version")
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn identity(partition: u32, seq: u64) -> Identity {
    Identity {
        journal: JOURNAL,
        partition,
        seq,
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// An ingest record.
pub(crate) fn ingest(source: &str, workspace: &str, partition: u32, seq: u64, event: &str) -> Outgoing {
    let event: Box<RawValue> = RawValue::from_string(event.to_owned()).expect("JSON in the test");
    let message_id = format!("m-{partition}-{seq}");
    let value = Ingest {
        version: V1,
        workspace: workspace.into(),
        source: source.into(),
        key_id: "wk_1".into(),
        key_kind: KeyKind::Server,
        received_at: at("2026-01-02T03:04:05.678Z"),
        sent_at: None,
        ip: None,
        headers: BTreeMap::from([("user-agent".into(), "curl".into())]),
        marks: Vec::new(),
        message_id: message_id.as_str().into(),
        event: &event,
    };
    Outgoing {
        key: Some(format!("anon-{partition}").into_bytes()),
        value: value.to_bytes(),
        headers: Headers::new().with(header::ID, identity(partition, seq).to_string()),
    }
}

#[track_caller]
pub(crate) fn read(record: &Record) -> Transformed<'_> {
    Transformed::read(&record.value).expect("a transformed envelope")
}

fn settings(topics: &Topics, prefix: &str) -> String {
    let topics = toml::to_string(topics)
        .expect("plain")
        .replace("[[retry]]", "[[topics.retry]]");
    format!(
        "[topics]\n{topics}\n[consumer]\ngroup = \"{prefix}rotor\"\nsession_timeout = \"6s\"\n\
         [registry]\nhold = \"2s\"\n[limits]\nwall = \"2s\"\ncpu = \"2s\"\nheap = \"64MiB\"\n\
         [workers]\nrss_limit = \"400MiB\"\n[telemetry]\nlog_format = \"text\"\n"
    )
}
