//! Rows for a PostgreSQL destination: killed, cut off and down, each is there once, and nobody else waits.

use millrace_event::header;
use millrace_kafka::Outgoing;
use millrace_store::destinations::{Destinations, NewDestination, PostgresSettings, Settings, seal_url};
use millrace_store::{Keyring, Name, Postgres, WorkspaceId};
use millrace_testkit::pipeline::Options;
use millrace_testkit::postgres::Database;
use millrace_testkit::proxy::{Fault, Proxy, mentions};
use millrace_testkit::wait::until;
use tempfile::TempDir;

use super::delivery::dead_letters;
use super::{Bench, PATIENCE, id};

/// The schema of the tables, another one than the destination makes where nothing is said.
const SCHEMA: &str = "Analysts";
const ROWS: u64 = 60;

/// A pipeline with a PostgreSQL destination beside its ClickHouse one; the way there leads through a proxy.
struct Both {
    bench: Bench,
    proxy: Proxy,
    server: Database,
    destination: String,
    _keys: TempDir,
}

impl Both {
    async fn start(services: &[&'static str], further: &[(&'static str, &str)]) -> Self {
        let server = Database::create().await.expect("a database");
        let (proxy, url) = Proxy::through(server.url(), 5432).await.expect("a proxy");
        let keys = TempDir::with_prefix("millrace-").expect("a directory");
        let file = keys.path().join("keys");
        Keyring::create(&file).expect("a key file");
        let mut settings: Vec<_> = [
            ("MILLRACE__CHUNK__ROWS", "25"),
            ("MILLRACE__CHUNK__TIME", "50ms"),
            ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s"),
            ("MILLRACE__INSERT__LATEST_ARRIVAL", "1s"),
            // Nothing brings back here what is given up on a machine that has other work.
            ("MILLRACE__INSERT__TABLE_PATIENCE", "60s"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
        let key_file = ("MILLRACE__SECRETS__KEY_FILE", file.display().to_string());
        settings.push(key_file.clone());
        settings.retain(|(name, _)| further.iter().all(|(other, _)| name != other));
        settings.extend(further.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let bench = Bench::with(Options {
            services: Some(services.to_vec()),
            settings: [("bulker", settings), ("millctl", vec![key_file])].into(),
            ..Options::default()
        })
        .await;

        let keys_read = Keyring::read(&file).expect("keys");
        let store = Postgres::new(&millrace_store::postgres::Config::new(bench.pipeline.postgres()));
        let workspace: WorkspaceId = bench.pipeline.workspace.parse().expect("an id");
        let name: Name = "analysts".parse().expect("a name");
        let sealed = seal_url(&keys_read, &workspace, name.as_str(), &url).expect("sealed");
        let new = NewDestination {
            name,
            database: SCHEMA.to_owned(),
            table: "events".to_owned(),
            settings: Settings::Postgres(PostgresSettings {
                url: Some(sealed),
                ..PostgresSettings::default()
            }),
        };
        let destinations = Destinations::new(store.expect("an address"));
        let (made, _) = destinations.create(&workspace, &new).await.expect("made");
        Self {
            bench,
            proxy,
            server,
            destination: made.destination.id.to_string(),
            _keys: keys,
        }
    }

    /// Plain events of a partition for the PostgreSQL destination.
    fn events(&self, partition: u32, first: u64, count: u64) -> Vec<Outgoing> {
        (first..first + count)
            .map(|seq| {
                let event = format!(r#"{{"type":"track","event":"Tested","properties":{{"n":{seq}}}}}"#);
                self.bench.write_to(
                    &self.destination,
                    id(partition, seq),
                    (&format!("{SCHEMA}.events"), None),
                    &[&event],
                )
            })
            .collect()
    }

    async fn number(&self, sql: &str) -> anyhow::Result<u64> {
        let client = self.server.client().await?;
        // No table yet holds nothing yet.
        let row = client.query_one(sql, &[]).await;
        Ok(row.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)))
    }

    /// Waits until the table holds so many rows, and looks that each is another one.
    async fn holds(&self, rows: u64) {
        let all = format!("SELECT count(*) FROM \"{SCHEMA}\".events");
        let what = format!("{rows} rows in PostgreSQL");
        let held = until(&what, 2 * PATIENCE, || async {
            Ok((self.number(&all).await? >= rows).then_some(()))
        });
        held.await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.bench.pipeline.tails()));
        let different =
            format!("SELECT count(DISTINCT (_journal, _partition, _seq, _sub)) FROM \"{SCHEMA}\".events");
        let counts = (
            self.number(&all).await.expect("answered"),
            self.number(&different).await.expect("answered"),
        );
        assert_eq!(counts, (rows, rows), "rows and different rows");
    }

    /// Waits until a metric of the bulker is `least`: what it counts can be seen before.
    async fn counts(&self, name: &str, least: f64) {
        let counted = self
            .bench
            .pipeline
            .counted("bulker", name, "", least, 2 * PATIENCE);
        counted.await.expect("counted");
    }

    /// Kills the bulker at each step in turn, each time over rows of its own; the last successor runs on.
    async fn is_killed_at(&mut self, steps: &[&str]) {
        for (round, step) in (0..).zip(steps) {
            self.bench.dies_at(step).await;
            for partition in 0..2 {
                let events = self.events(partition, round * ROWS, ROWS);
                self.bench.send(partition, events).await;
            }
            self.bench.died_at(step).await;
        }
        self.bench
            .pipeline
            .process("bulker")
            .start_again()
            .expect("started");
        let rounds = u64::try_from(steps.len()).expect("few");
        self.holds(2 * rounds * ROWS).await;
    }
}

#[tokio::test]
async fn events_that_are_sent_to_the_gateway_arrive_at_both_destinations_once() {
    let both = Both::start(&["ingest", "rotor", "bulker"], &[]).await;
    let sender = both.bench.pipeline.sender();
    let track = |n: u64| serde_json::json!({"userId": format!("u{n}"), "event": "Bought", "properties": {"price": n}});
    let sent = std::cell::Cell::new(0_u64);
    // The rotor learns of the destination a moment after it is made: what came before went to one of them alone.
    until("the rotor has the destination", PATIENCE, || async {
        sender.post("/v1/track", &track(sent.get())).await?;
        sent.set(sent.get() + 1);
        let rows = both
            .number(&format!("SELECT count(*) FROM \"{SCHEMA}\".events"))
            .await?;
        Ok((rows > 0).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", both.bench.pipeline.tails()));
    for n in 0..50 {
        let answer = sender
            .post("/v1/track", &track(1000 + n))
            .await
            .expect("answered");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    both.bench
        .pipeline
        .rows(sent.get() + 50, PATIENCE)
        .await
        .expect("all are in ClickHouse");
    let late = format!(
        "SELECT count(DISTINCT user_id) FROM \"{SCHEMA}\".events WHERE price >= 1000 AND type = 'track' AND event = 'Bought'"
    );
    until("all are in PostgreSQL", PATIENCE, || async {
        Ok((both.number(&late).await? == 50).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", both.bench.pipeline.tails()));
    let rows = both
        .number(&late.replace("DISTINCT user_id", "*"))
        .await
        .expect("answered");
    assert_eq!(rows, 50);
}

#[tokio::test]
async fn killed_before_and_after_its_plan_a_postgres_table_holds_each_identity_once() {
    let mut both = Both::start(&["bulker"], &[]).await;
    both.is_killed_at(&[
        "bulker::before_plan",
        "bulker::after_plan",
        "bulker::after_outcomes",
    ])
    .await;
}

#[tokio::test]
async fn killed_before_during_and_after_the_insert_a_postgres_table_holds_each_identity_once() {
    let mut both = Both::start(&["bulker"], &[]).await;
    both.is_killed_at(&[
        "bulker::before_insert",
        "bulker::insert_checked",
        "bulker::after_insert",
    ])
    .await;
    // The table was asked.
    both.counts("millrace_bulker_rows_found_total", 1.0).await;
}

#[tokio::test]
async fn killed_before_and_after_its_commit_a_postgres_table_holds_each_identity_once() {
    let mut both = Both::start(&["bulker"], &[]).await;
    both.is_killed_at(&["bulker::before_commit", "bulker::after_commit"])
        .await;
}

#[tokio::test]
async fn a_transaction_that_was_committed_and_never_answered_is_asked_for_and_not_repeated() {
    let both = Both::start(&["bulker"], &[]).await;
    both.bench.send(0, both.events(0, 0, 1)).await;
    both.holds(1).await;
    let (commit, begin) = (mentions("COMMIT"), mentions("BEGIN"));
    both.proxy.arm(Fault::SwallowAnswer, 2, move |request| {
        commit(request) && !begin(request)
    });
    both.bench.send(0, both.events(0, 1, 99)).await;
    both.holds(100).await;
    // The rows are there before anybody knows that their answer is lost.
    let hits = until("both answers are swallowed", 2 * PATIENCE, || async {
        Ok((both.proxy.hits() == 2).then_some(()))
    });
    hits.await.expect("they are");
    // The table was asked.
    both.counts("millrace_bulker_rows_found_total", 1.0).await;
    both.holds(100).await;
}

#[tokio::test]
async fn a_block_that_is_cut_on_its_way_leaves_nothing_and_is_written_once() {
    let both = Both::start(&["bulker"], &[]).await;
    both.bench.send(0, both.events(0, 0, 1)).await;
    both.holds(1).await;
    both.proxy.arm(Fault::Cut, 2, mentions("PGCOPY"));
    both.bench.send(0, both.events(0, 1, 99)).await;
    both.holds(100).await;
    assert_eq!(both.proxy.hits(), 2);
}

#[tokio::test]
async fn while_postgres_is_down_the_other_tables_go_on_and_its_rows_arrive_once_when_it_is_back() {
    let patience = ("MILLRACE__INSERT__TABLE_PATIENCE", "500ms");
    let both = Both::start(&["rotor", "bulker"], &[patience]).await;
    both.bench.send(0, both.events(0, 0, 10)).await;
    both.holds(10).await;
    both.proxy.set_up(false);
    for round in 0..4 {
        // The same partition's log has rows for both, in turns.
        let ours = both.events(0, 10 + round * 20, 10);
        let theirs = both.bench.events(0, 20 + round * 20, 10);
        let mixed = ours
            .into_iter()
            .zip(theirs)
            .flat_map(|(ours, theirs)| [ours, theirs]);
        both.bench.send(0, mixed.collect()).await;
        both.bench
            .pipeline
            .rows((round + 1) * 10, PATIENCE)
            .await
            .expect("ClickHouse's rows wait for nobody");
    }
    // They are given up and go round.
    both.counts("millrace_bulker_rows_handed_over_total", 40.0).await;
    both.proxy.set_up(true);
    both.holds(50).await;
    assert_eq!(both.bench.pipeline.count().await.expect("answered"), 40);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_becomes_a_dead_letter_and_its_neighbours_arrive() {
    let both = Both::start(&["bulker"], &[]).await;
    both.bench.send(0, both.events(0, 0, 10)).await;
    both.holds(10).await;
    let client = both.server.client().await.expect("connected");
    let constraint =
        format!("ALTER TABLE \"{SCHEMA}\".events ADD CONSTRAINT no_thirteens CHECK (mod(n::int, 100) <> 13)");
    client.batch_execute(&constraint).await.expect("altered");
    both.bench.send(0, both.events(0, 10, 110)).await;
    both.holds(118).await;
    let letters = dead_letters(&both.bench, 2).await;
    for (letter, seq) in letters.iter().zip([13, 113]) {
        let headers = &letter.headers;
        assert_eq!(headers.text(header::ID), Some(id(0, seq).to_string().as_str()));
        assert_eq!(headers.text(header::ERROR_CODE), Some("row_rejected"));
        let message = headers.text(header::ERROR_MESSAGE).expect("a message");
        assert!(message.contains("no_thirteens"), "{message}");
    }
}
