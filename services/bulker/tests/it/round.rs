//! What goes round: attempts and their arbiter, tables that are given up, journals that leave the metadata.

use millrace_event::envelope::{Envelope as _, Retry, RowPayload, Stage};
use millrace_event::{Identity, JournalId, Verdict, header};
use millrace_kafka::{Connection, Record, reader};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE, id};

const EVENT: &str = r#"{"type":"track","event":"Tested","properties":{"n":1}}"#;

fn quick() -> Vec<(&'static str, String)> {
    vec![
        ("MILLRACE__CHUNK__TIME", "20ms".into()),
        ("MILLRACE__INSERT__GIVE_UP_AFTER", "1s".into()),
    ]
}

async fn copies(bench: &Bench, wanted: usize) -> Vec<Record> {
    copies_in(bench, "retry-1s", wanted).await
}

async fn copies_in(bench: &Bench, tier: &str, wanted: usize) -> Vec<Record> {
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    let topic = bench.pipeline.topic(tier);
    let read = until("copies", PATIENCE, || async {
        let copies: Vec<Record> = reader::gather(&connection, &topic)
            .await?
            .into_values()
            .flatten()
            .collect();
        Ok(Some(copies).filter(|copies| copies.len() >= wanted))
    });
    read.await.expect("the copies come")
}

/// Sends a record and waits until it is settled, so that the next one is of another chunk.
async fn send_alone(bench: &Bench, record: millrace_kafka::Outgoing, settled: f64) {
    bench.send(0, vec![record]).await;
    bench
        .pipeline
        .counted("bulker", "millrace_bulker_chunks_total", "", settled, PATIENCE)
        .await
        .expect("settled");
}

#[tokio::test]
async fn an_attempt_is_decided_once_however_often_its_copy_comes_and_each_attempt_for_itself() {
    let bench = Bench::start(quick()).await;
    let send =
        |attempt, verdict, events: &'static [&'static str]| bench.record(id(0, 0), attempt, verdict, events);
    send_alone(&bench, send(1, Verdict::Drop, &[]), 1.0).await;
    // A second copy of the dropped attempt, whose function says otherwise now.
    send_alone(&bench, send(1, Verdict::Forward, &[EVENT]), 2.0).await;
    assert_eq!(bench.pipeline.count().await.expect("answered"), 0);
    // Replayed, twice.
    send_alone(&bench, send(2, Verdict::Forward, &[EVENT]), 3.0).await;
    send_alone(&bench, send(2, Verdict::Forward, &[EVENT]), 4.0).await;
    assert_eq!(bench.pipeline.count().await.expect("answered"), 1);
}

#[tokio::test]
async fn a_table_that_cannot_be_written_is_given_up_its_neighbour_goes_on_and_its_rows_arrive_once_when_it_mends()
 {
    let bench = Bench::start(quick()).await;
    let broken = format!("{}_broken", bench.pipeline.table);
    let sql = format!("CREATE TABLE {broken} (x UInt8) ENGINE = Memory");
    bench.pipeline.query(&sql).await.expect("created");
    let into_broken = |seq| {
        let target = (broken.as_str(), None);
        bench.write(id(0, seq), 0, Verdict::Forward, target, &[EVENT])
    };
    let mut records = bench.events(0, 0, 10);
    records.extend((10..13).map(into_broken));
    bench.send(0, records).await;
    bench
        .pipeline
        .rows(10, PATIENCE)
        .await
        .expect("the neighbour's rows arrive");
    let copies = copies(&bench, 3).await;
    assert_eq!(copies.len(), 3);
    for (copy, seq) in copies.iter().zip(10..) {
        assert_eq!(
            copy.headers.text(header::ID),
            Some(id(0, seq).to_string().as_str())
        );
        let retry = Retry::read(&copy.value).expect("an envelope");
        assert_eq!(
            (retry.stage, retry.attempt, retry.sub),
            (Stage::Bulker, 1, Some(0))
        );
        assert_eq!(retry.table.expect("named").as_str(), broken);
        assert_eq!(retry.reason.code.as_str(), "table_failing");
        let row = RowPayload::read(retry.payload.get().as_bytes()).expect("a row");
        assert_eq!(row.output.event.get(), EVENT);
    }
    // A later chunk does not wait for the broken table again.
    bench.send(0, bench.events(0, 13, 10)).await;
    bench.pipeline.rows(20, PATIENCE).await.expect("they arrive");

    bench
        .pipeline
        .query(&format!("DROP TABLE {broken}"))
        .await
        .expect("mended");
    // The table is left alone for a while yet: until then its rows go round once more. Each attempt comes twice.
    let attempt = std::cell::Cell::new(0);
    let held = until("the rows are there", PATIENCE, || async {
        attempt.set(attempt.get() + 1);
        let back = (10..13).map(|seq| bench.came_back(id(0, seq), attempt.get(), (&broken, 0), EVENT));
        let back: Vec<_> = back.collect();
        bench.send(0, [back.clone(), back].concat()).await;
        let sql = format!("SELECT toUInt32(count()) AS n, toUInt32(uniqExact(_seq)) AS u FROM {broken}");
        let rows = bench.pipeline.query(&sql).await.ok();
        Ok(rows.filter(|rows| rows[0]["u"] == 3))
    });
    let held = held.await.expect("they arrive");
    assert_eq!(held[0]["n"], 3, "each once");
}

#[tokio::test]
async fn of_an_event_and_a_copy_of_its_row_in_one_plan_the_copy_goes_round_too_while_their_table_fails() {
    let mut settings = quick();
    // Together in one chunk, as where a log is read again from its beginning.
    settings[0].1 = "1s".into();
    let bench = Bench::start(settings).await;
    let broken = format!("{}_broken", bench.pipeline.table);
    let sql = format!("CREATE TABLE {broken} (x UInt8) ENGINE = Memory");
    bench.pipeline.query(&sql).await.expect("created");
    let event = bench.write(id(0, 0), 0, Verdict::Forward, (&broken, None), &[EVENT]);
    let came_back = |attempt| bench.came_back(id(0, 0), attempt, (&broken, 0), EVENT);
    bench.send(0, vec![event, came_back(1)]).await;
    let attempt = |copy: &Record| Retry::read(&copy.value).expect("an envelope").attempt;
    for (tier, expected) in [("retry-1s", 1), ("retry-2s", 2)] {
        let copies = copies_in(&bench, tier, 1).await;
        assert_eq!(
            copies.iter().map(attempt).collect::<Vec<_>>(),
            [expected],
            "{tier}"
        );
    }

    let sql = format!("DROP TABLE {broken}");
    bench.pipeline.query(&sql).await.expect("mended");
    // What is copied as attempt 1 was decided by the second record; later ones carry the row on.
    let next = std::cell::Cell::new(1);
    let held = until("the row is there", PATIENCE, || async {
        next.set(next.get() + 1);
        bench.send(0, vec![came_back(1), came_back(next.get())]).await;
        let sql = format!("SELECT toUInt32(count()) AS n FROM {broken}");
        let rows = bench.pipeline.query(&sql).await.ok();
        Ok(rows.filter(|rows| rows[0]["n"] != 0))
    });
    assert_eq!(held.await.expect("it arrives")[0]["n"], 1, "once");
}

#[tokio::test]
async fn a_row_that_has_waited_a_day_for_its_table_is_a_dead_letter_and_the_table_is_not_waited_for() {
    let bench = Bench::start(quick()).await;
    let broken = format!("{}_broken", bench.pipeline.table);
    let sql = format!("CREATE TABLE {broken} (x UInt8) ENGINE = Memory");
    bench.pipeline.query(&sql).await.expect("created");
    // The longest tier of these topics is four seconds.
    let attempts = 24 * 60 * 60 / 4 + 10;
    let waited = bench.came_back(id(0, 0), attempts, (&broken, 0), EVENT);
    bench
        .send(0, [vec![waited], bench.events(0, 1, 5)].concat())
        .await;
    bench.pipeline.rows(5, PATIENCE).await.expect("the others arrive");
    let letters = super::delivery::dead_letters(&bench, 1).await;
    let headers = &letters[0].headers;
    assert_eq!(headers.text(header::ID), Some(id(0, 0).to_string().as_str()));
    assert_eq!(headers.text(header::ERROR_CODE), Some("table_failing"));
    assert_eq!(headers.text(header::TABLE), Some(broken.as_str()));
    assert_eq!(headers.text(header::ATTEMPT), Some(attempts.to_string().as_str()));
}

#[tokio::test]
async fn a_journal_that_left_the_metadata_is_looked_up_and_its_records_are_still_known() {
    let bench = Bench::start(quick()).await;
    let of = |journal, seq| Identity {
        journal: JournalId(journal),
        partition: 0,
        seq,
    };
    let first: Vec<_> = (1..=400)
        .map(|journal| bench.forward(of(journal, 0), &[EVENT]))
        .collect();
    bench.send(0, first).await;
    bench.pipeline.rows(400, PATIENCE).await.expect("they arrive");
    // Each journal's first record again, and one that follows it.
    let again = (1..=400).flat_map(|journal| {
        [of(journal, 0), of(journal, 1)].map(|identity| bench.forward(identity, &[EVENT]))
    });
    bench.send(0, again.collect()).await;
    bench.pipeline.rows(800, PATIENCE).await.expect("they arrive");
    let sql = format!(
        "SELECT toUInt32(count()) AS n, toUInt32(uniqExact(_journal, _seq)) AS u FROM {}",
        bench.pipeline.table
    );
    let row = &bench.pipeline.query(&sql).await.expect("answered")[0];
    assert_eq!((&row["n"], &row["u"]), (&800.into(), &800.into()));
    let written = bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_journals_written_total",
            "",
            200.0,
            PATIENCE,
        )
        .await;
    written.expect("they are written");
}
