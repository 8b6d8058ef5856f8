//! Requests that are broken on their way: answers lost, blocks cut, KILL unanswered, commits in doubt.

use millrace_event::Verdict;
use millrace_kafka::{Connection, reader, topics};
use millrace_testkit::broker::Broker;
use millrace_testkit::pipeline::Options;
use millrace_testkit::proxy::{Fault, OFFSET_COMMIT, PRODUCE, Protocol, Proxy, kafka_request, mentions};
use millrace_testkit::stack::{CLICKHOUSE, address};
use millrace_testkit::wait::until;
use tempfile::TempDir;

use super::delivery::dead_letters;
use super::{Bench, PATIENCE, id};

fn settings() -> Vec<(&'static str, String)> {
    [
        ("MILLRACE__CHUNK__TIME", "50ms"),
        ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s"),
        ("MILLRACE__INSERT__LATEST_ARRIVAL", "1s"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// A bulker whose ClickHouse is behind a proxy.
async fn behind_a_proxy(further: &[(&'static str, &str)]) -> (Bench, Proxy) {
    let (proxy, url) = Proxy::through(&address(CLICKHOUSE).expect("the stack"), 8123)
        .await
        .expect("a proxy");
    let mut settings = settings();
    settings.extend(further.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let bench = Bench::with(Options {
        services: Some(vec!["bulker"]),
        settings: [("bulker", settings)].into(),
        clickhouse: Some(url),
        ..Options::default()
    })
    .await;
    (bench, proxy)
}

/// The requests that carry a block of the workspace's table.
fn blocks(bench: &Bench) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static {
    let (database, _) = bench.pipeline.table.split_once('.').expect("database.table");
    let (token, database) = (mentions("insert_deduplication_token="), mentions(database));
    move |request| token(request) && database(request)
}

impl Bench {
    async fn settled(&self, partition: u32) -> u64 {
        let connection = Connection::new(self.pipeline.kafka(), "test");
        let (group, topic) = (self.pipeline.group("bulker"), self.pipeline.topic("transformed"));
        let held = reader::committed(&connection, &group, &topic)
            .await
            .expect("answered");
        held.get(&partition).copied().unwrap_or(0)
    }

    async fn is_settled(&self, partition: u32, offset: u64) {
        let settled = until("the offset moves", PATIENCE, || async {
            Ok((self.settled(partition).await >= offset).then_some(()))
        });
        settled
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.pipeline.tails()));
    }

    async fn found(&self) -> f64 {
        let found = self
            .pipeline
            .metric("bulker", "millrace_bulker_rows_found_total", "");
        found.await.expect("there")
    }
}

async fn hit(proxy: &Proxy, times: u64) {
    let hit = until("the proxy breaks requests", PATIENCE, || async {
        Ok((proxy.hits() >= times).then_some(()))
    });
    hit.await.expect("it does");
}

#[tokio::test]
async fn an_insert_that_was_applied_and_never_answered_is_asked_for_and_not_repeated() {
    let (bench, proxy) = behind_a_proxy(&[]).await;
    proxy.arm(Fault::SwallowAnswer, 1, blocks(&bench));
    bench.send(0, bench.events(0, 0, 100)).await;
    bench.is_settled(0, 100).await;
    assert_eq!(proxy.hits(), 1);
    assert_eq!(bench.not_once(1, 100).await, [0_u8; 0]);
    assert!(bench.found().await > 0.0, "the table was asked");
}

#[tokio::test]
async fn a_block_that_was_cut_on_its_way_is_written_whole_and_once() {
    let (bench, proxy) = behind_a_proxy(&[]).await;
    proxy.arm(Fault::Cut, 2, blocks(&bench));
    bench.send(0, bench.events(0, 0, 3000)).await;
    bench.is_settled(0, 3000).await;
    assert_eq!(proxy.hits(), 2);
    assert_eq!(bench.not_once(1, 3000).await, [0_u8; 0]);
}

#[tokio::test]
async fn an_insert_that_goes_on_without_its_client_is_killed_before_anything_is_written_again() {
    let (bench, _proxy) = behind_a_proxy(&[("MILLRACE__INSERT__DEADLINE", "1s")]).await;
    let table = &bench.pipeline.table;
    bench.send(0, bench.events(0, 0, 1)).await;
    bench.is_settled(0, 1).await;
    // A view that takes longer than the client waits.
    for sql in [
        format!(
            "CREATE TABLE {table}_seen (id String) ENGINE = MergeTree ORDER BY id \
             SETTINGS non_replicated_deduplication_window = 10000"
        ),
        format!(
            "CREATE MATERIALIZED VIEW {table}_slow TO {table}_seen AS SELECT toString(message_id) AS id FROM {table} \
             WHERE sleepEachRow(0.02) = 0"
        ),
    ] {
        bench.pipeline.execute(&sql).await.expect("made by hand");
    }
    bench.send(0, bench.events(0, 1, 100)).await;
    bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_inserts_total",
            "ambiguous",
            1.0,
            PATIENCE,
        )
        .await
        .expect("it overruns");
    let drop_view = format!("DROP TABLE {table}_slow");
    bench.pipeline.execute(&drop_view).await.expect("mended by hand");
    bench.is_settled(0, 101).await;
    assert_eq!(bench.not_once(1, 101).await, [0_u8; 0]);
}

#[tokio::test]
async fn while_kill_is_not_answered_the_partition_waits_and_the_others_go_on() {
    let (bench, proxy) = behind_a_proxy(&[]).await;
    let of_partition_0 = format!("millrace-{}-0-", bench.pipeline.group("bulker"));
    let (kill, prefix) = (mentions("KILL QUERY"), mentions(&of_partition_0));
    proxy.arm(Fault::Stall, u32::MAX, move |request| {
        kill(request) && prefix(request)
    });
    proxy.arm(Fault::SwallowAnswer, 1, blocks(&bench));
    bench.send(0, bench.events(0, 0, 50)).await;
    hit(&proxy, 2).await;
    bench.send(1, bench.events(1, 0, 50)).await;
    bench.is_settled(1, 50).await;
    assert_eq!(bench.settled(0).await, 0, "it waits");
    proxy.calm();
    bench.is_settled(0, 50).await;
    assert_eq!(bench.not_once(2, 50).await, [0_u8; 0]);
}

/// A bulker whose broker is its own and behind a proxy.
async fn own_broker() -> (TempDir, Broker, Proxy, Bench) {
    let directory = TempDir::with_prefix("millrace-").expect("a directory");
    let proxy = Proxy::listen(Protocol::Kafka).await.expect("a proxy");
    let broker = Broker::start_behind(directory.path(), &proxy)
        .await
        .expect("a broker");
    let bench = Bench::with(Options {
        services: Some(vec!["bulker"]),
        settings: [("bulker", settings())].into(),
        kafka: Some(broker.address()),
        ..Options::default()
    })
    .await;
    (directory, broker, proxy, bench)
}

#[tokio::test]
async fn a_plan_and_a_commit_without_an_answer_are_fetched_back_and_every_row_is_there_once() {
    let (_directory, _broker, proxy, bench) = own_broker().await;
    for round in 0..3 {
        // The first of a chunk is its plan, the second its commit.
        proxy.arm(Fault::SwallowAnswer, 2, kafka_request(OFFSET_COMMIT));
        bench.send(0, bench.events(0, round * 50, 50)).await;
        hit(&proxy, (round + 1) * 2).await;
    }
    bench.is_settled(0, 150).await;
    assert_eq!(bench.not_once(1, 150).await, [0_u8; 0]);
}

#[tokio::test]
async fn while_a_dead_letter_cannot_be_written_nothing_is_settled() {
    let (_directory, _broker, proxy, bench) = own_broker().await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.is_settled(0, 10).await;
    let (produce, letter) = (kafka_request(PRODUCE), mentions(&bench.pipeline.topic("dlq")));
    proxy.arm(Fault::Cut, u32::MAX, move |request| {
        produce(request) && letter(request)
    });
    let mut records = bench.events(0, 10, 10);
    let bad = r#"{"type":"track","event":"Tested","properties":{"n":"text"}}"#;
    records.push(bench.forward(id(0, 20), &[bad]));
    bench.send(0, records).await;
    bench
        .pipeline
        .rows(20, PATIENCE)
        .await
        .expect("its neighbours are written");
    hit(&proxy, 3).await;
    assert_eq!(bench.settled(0).await, 10, "the letter is not there");
    proxy.calm();
    bench.is_settled(0, 21).await;
    dead_letters(&bench, 1).await;
    assert_eq!(bench.not_once(1, 20).await, [0_u8; 0]);
}

#[tokio::test]
async fn while_the_store_of_outcomes_fails_the_partition_waits_and_gives_nothing_up() {
    let mut settings = settings();
    settings.push(("MILLRACE__INSERT__GIVE_UP_AFTER", "500ms".into()));
    let bench = Bench::start(settings).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.is_settled(0, 10).await;
    let outcomes = format!("{}_system.outcomes", bench.pipeline.name);
    let away = format!("RENAME TABLE {outcomes} TO {outcomes}_away");
    bench.pipeline.execute(&away).await.expect("broken by hand");
    let dropped = bench.record(id(0, 10), 0, Verdict::Drop, &[]);
    bench
        .send(0, [vec![dropped], bench.events(0, 11, 10)].concat())
        .await;
    bench.send(1, bench.events(1, 0, 10)).await;
    bench.is_settled(1, 10).await;
    bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_inserts_total",
            "ambiguous",
            4.0,
            PATIENCE,
        )
        .await
        .expect("its insert is tried several times");
    assert_eq!(
        bench.settled(0).await,
        10,
        "it waits, past the time after which a table is given up"
    );
    let back = format!("RENAME TABLE {outcomes}_away TO {outcomes}");
    bench.pipeline.execute(&back).await.expect("mended by hand");
    bench.is_settled(0, 21).await;
    let sql = format!("SELECT toUInt32(count()) AS n FROM {outcomes} WHERE verdict = 'drop'");
    let rows = bench.pipeline.query(&sql).await.expect("answered");
    assert_eq!(rows[0]["n"], 1, "the drop is written down, once");
    let handed_over = bench
        .pipeline
        .metric("bulker", "millrace_bulker_rows_handed_over_total", "");
    assert!(handed_over.await.expect("there") < 1.0);
}

#[tokio::test]
async fn planned_records_that_retention_deleted_are_counted_and_the_rest_arrives() {
    let mut bench = Bench::start(settings()).await;
    let bulker = bench.pipeline.process("bulker");
    bulker.terminate(PATIENCE).await.expect("it ends");
    bulker.arm(Some("bulker::after_plan=1*return(kill)"));
    bulker.start_again().expect("started");
    bulker.arm(None);
    bench.send(0, bench.events(0, 0, 40)).await;
    bench
        .pipeline
        .process("bulker")
        .killed(PATIENCE)
        .await
        .expect("it dies there");
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    topics::delete_records(&connection, &bench.pipeline.topic("transformed"), 0, 30)
        .await
        .expect("deleted");
    bench.pipeline.process("bulker").start_again().expect("started");
    bench.send(0, bench.events(0, 40, 10)).await;
    bench.is_settled(0, 50).await;
    assert_eq!(bench.pipeline.count().await.expect("answered"), 20);
    let lost = bench
        .pipeline
        .metric("bulker", "millrace_bulker_lost_offsets_total", "");
    assert_eq!(lost.await.expect("there"), 30.0);
}

#[tokio::test]
async fn an_owner_that_is_held_at_its_insert_while_its_partition_moves_to_another_adds_no_second_copy() {
    let mut further = settings();
    for (name, value) in [
        ("MILLRACE__INSERT__DEADLINE", "1s"),
        ("MILLRACE__CONSUMER__DRAIN", "2s"),
    ] {
        further.push((name, value.to_owned()));
    }
    let mut bench = Bench::start(further).await;
    let bulker = bench.pipeline.process("bulker");
    bulker.terminate(PATIENCE).await.expect("it ends");
    // All three partitions are held, whichever of them moves.
    bulker.arm(Some("bulker::before_insert=3*return(pause:8000)"));
    bulker.start_again().expect("started");
    bulker.arm(None);
    for partition in 0..3 {
        bench.send(partition, bench.events(partition, 0, 50)).await;
    }
    let bulker = bench.pipeline.process("bulker");
    let held = until("it is about to insert", PATIENCE, || async {
        Ok((bulker.hits("bulker::before_insert") == 3).then_some(()))
    });
    held.await.expect("it comes there");
    let (successor, url) = bench.pipeline.another("bulker").expect("started");
    let taken = until(
        "the other one owns a partition and has settled it",
        2 * PATIENCE,
        || async {
            let text = bench.pipeline.client.get(&format!("{url}/metrics")).await?.body;
            let mut lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("millrace_bulker_recoveries_total "));
            Ok(lines.any(|count| count != "0").then_some(()))
        },
    );
    taken
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", successor.tail()));
    for partition in 0..3 {
        bench.is_settled(partition, 50).await;
    }
    assert_eq!(bench.not_once(3, 50).await, [0_u8; 0]);
}
