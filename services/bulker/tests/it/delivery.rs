use millrace_event::header;
use millrace_event::{Identity, Verdict};
use millrace_kafka::{Connection, Outgoing, Record, reader};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE, id};

pub(crate) async fn dead_letters(bench: &Bench, wanted: usize) -> Vec<Record> {
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    let topic = bench.pipeline.topic("dlq");
    let read = until("dead letters", PATIENCE, || async {
        let letters: Vec<Record> = reader::gather(&connection, &topic)
            .await?
            .into_values()
            .flatten()
            .collect();
        Ok(Some(letters).filter(|letters| letters.len() >= wanted))
    });
    let letters = read.await.expect("the letters come");
    assert_eq!(letters.len(), wanted);
    letters
}

#[tokio::test]
async fn rows_of_several_partitions_arrive_once_with_their_properties() {
    let bench = Bench::start(vec![]).await;
    for partition in 0..3 {
        bench.send(partition, bench.events(partition, 0, 500)).await;
    }
    bench.pipeline.rows(1500, PATIENCE).await.expect("they arrive");
    assert_eq!(bench.not_once(3, 500).await, [0_u8; 0]);
    let sums = format!(
        "SELECT toUInt64(sum(n)) AS s, uniqExact(message_id) AS m FROM {}",
        bench.pipeline.table
    );
    let row = &bench.pipeline.query(&sums).await.expect("answered")[0];
    assert_eq!(
        row.to_string().replace('"', ""),
        format!("{{s:{},m:1500}}", 3 * (499 * 500 / 2))
    );
}

#[tokio::test]
async fn a_row_that_did_not_fit_the_columns_known_is_judged_by_those_that_are_there() {
    let bench = Bench::start(vec![]).await;
    let event = |x: &str| format!(r#"{{"type":"track","event":"Tested","properties":{{"x":{x}}}}}"#);
    bench
        .send(0, vec![bench.forward(id(0, 0), &[&event("\"one\"")])])
        .await;
    let table = bench.pipeline.table.clone();
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the column x is text");
    let moved = format!("ALTER TABLE {table} RENAME COLUMN x TO x_text, ADD COLUMN x Nullable(Float64)");
    bench.pipeline.execute(&moved).await.expect("altered");
    bench.send(0, vec![bench.forward(id(0, 1), &[&event("2")])]).await;
    bench
        .pipeline
        .rows(2, PATIENCE)
        .await
        .expect("the number is stored");
    let sql = format!("SELECT toUInt32(x) AS x FROM {table} WHERE _seq = 1");
    let held = &bench.pipeline.query(&sql).await.expect("answered")[0];
    assert_eq!(held["x"], 2);
}

#[tokio::test]
async fn a_batch_that_was_shipped_twice_is_stored_once() {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 200)).await;
    bench.send(0, bench.events(0, 100, 150)).await;
    bench.pipeline.rows(250, PATIENCE).await.expect("they arrive");
    assert_eq!(bench.not_once(1, 250).await, [0_u8; 0]);
    let duplicates = bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_records_total",
            "duplicate",
            100.0,
            PATIENCE,
        )
        .await;
    assert_eq!(duplicates.expect("they are counted"), 100.0);
}

#[tokio::test]
async fn numbers_that_come_late_are_taken_and_none_is_taken_twice() {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 100, 50)).await;
    bench.send(0, bench.events(0, 0, 150)).await;
    bench.pipeline.rows(150, PATIENCE).await.expect("they arrive");
    assert_eq!(bench.not_once(1, 150).await, [0_u8; 0]);
}

#[tokio::test]
async fn a_row_whose_value_does_not_fit_its_column_goes_to_the_dead_letters_with_the_field_and_its_neighbours_arrive()
 {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench
        .pipeline
        .rows(10, PATIENCE)
        .await
        .expect("the column n is a number now");
    let mut records = bench.events(0, 10, 10);
    records[3] = bench.forward(
        id(0, 13),
        &[r#"{"type":"track","event":"Tested","properties":{"n":"thirteen"}}"#],
    );
    bench.send(0, records).await;
    bench
        .pipeline
        .rows(19, PATIENCE)
        .await
        .expect("the neighbours arrive");
    let letters = dead_letters(&bench, 1).await;
    let headers = &letters[0].headers;
    assert_eq!(headers.text(header::ID), Some(id(0, 13).to_string().as_str()));
    assert_eq!(headers.text(header::ERROR_CODE), Some("column_conflict"));
    assert_eq!(headers.text(header::ERROR_FIELD), Some("n"));
    assert_eq!(headers.text(header::TABLE), Some(bench.pipeline.table.as_str()));
    assert_eq!(
        headers.text(header::connect::TOPIC),
        Some(bench.pipeline.topic("transformed").as_str())
    );
    assert!(
        String::from_utf8_lossy(&letters[0].value).contains("thirteen"),
        "the row itself is kept"
    );
}

/// Sends 200 good rows and between them 200 whose `n` is no number, and checks what becomes of them.
async fn half_of_them_bad(make: impl Fn(&Bench, u64, &str) -> Outgoing) {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 1)).await;
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the column n is a number now");
    let records = (1..=400).map(|seq| {
        let n = if seq % 2 == 0 { r#""text""# } else { "1" };
        let event = format!(r#"{{"type":"track","event":"Tested","properties":{{"n":{n}}}}}"#);
        make(&bench, seq, &event)
    });
    bench.send(0, records.collect()).await;
    bench
        .pipeline
        .rows(201, PATIENCE)
        .await
        .expect("the good ones arrive");
    dead_letters(&bench, 200).await;
    assert_eq!(bench.pipeline.count().await.expect("answered"), 201);
    let given_up = bench
        .pipeline
        .metric("bulker", "millrace_bulker_rows_handed_over_total", "")
        .await;
    assert!(given_up.expect("there") < 1.0, "the table was given up");
}

#[tokio::test]
async fn more_bad_rows_than_a_plan_can_name_are_cut_into_several_plans() {
    half_of_them_bad(|bench, seq, event| bench.forward(id(0, seq), &[event])).await;
}

#[tokio::test]
async fn more_bad_rows_than_a_plan_can_name_among_rows_that_came_back_are_cut_too() {
    half_of_them_bad(|bench, seq, event| {
        let table = bench.pipeline.table.clone();
        bench.came_back(id(0, seq), 1, (&table, 0), event)
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_no_envelope_goes_to_the_dead_letters_untouched() {
    let bench = Bench::start(vec![]).await;
    let foreign = bench.forward(
        Identity {
            partition: 7,
            ..id(0, 0)
        },
        &["{}"],
    );
    let garbage = Outgoing {
        value: b"\xffnot json".to_vec(),
        ..foreign.clone()
    };
    bench.send(0, vec![garbage.clone(), foreign.clone()]).await;
    bench.send(0, bench.events(0, 0, 5)).await;
    bench.pipeline.rows(5, PATIENCE).await.expect("the others arrive");
    let letters = dead_letters(&bench, 2).await;
    for (letter, sent) in letters.iter().zip([&garbage, &foreign]) {
        let sent_text = (sent.key.as_deref(), sent.value.as_slice());
        assert_eq!((letter.key.as_deref(), letter.value.as_ref()), sent_text);
        assert_eq!(letter.headers.text(header::ERROR_CODE), Some("invalid_record"));
    }
}

#[tokio::test]
async fn a_row_that_the_rotor_set_aside_on_its_second_way_is_one_dead_letter_however_often_it_comes() {
    let bench = Bench::start(vec![]).await;
    let aside = |seq| {
        let target = (bench.pipeline.table.as_str(), Some(3));
        bench.write(id(0, seq), 2, Verdict::DeadLetter, target, &["null"])
    };
    bench.send(0, vec![aside(0), aside(0)]).await;
    bench.send(0, bench.events(0, 1, 1)).await;
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the next one arrives");
    bench.send(0, vec![aside(0), aside(2)]).await;
    bench.send(0, bench.events(0, 3, 1)).await;
    bench
        .pipeline
        .rows(2, PATIENCE)
        .await
        .expect("the next one arrives");
    let letters = dead_letters(&bench, 2).await;
    let headers = |n: usize| &letters[n].headers;
    assert_eq!(headers(0).text(header::ID), Some(id(0, 0).to_string().as_str()));
    assert_eq!(headers(1).text(header::ID), Some(id(0, 2).to_string().as_str()));
    assert_eq!(headers(0).text(header::ERROR_CODE), Some("output_limit"));
}

#[tokio::test]
async fn one_event_may_become_several_rows_or_none() {
    let bench = Bench::start(vec![]).await;
    let event = |n: u32| format!(r#"{{"type":"track","event":"Split","properties":{{"n":{n}}}}}"#);
    let (one, two, three) = (event(1), event(2), event(3));
    bench
        .send(
            0,
            vec![
                bench.forward(id(0, 0), &[&one, &two, &three]),
                bench.record(id(0, 1), 0, Verdict::Drop, &[]),
                bench.forward(id(0, 2), &[&one]),
            ],
        )
        .await;
    bench.pipeline.rows(4, PATIENCE).await.expect("they arrive");
    let sql = format!(
        "SELECT _sub AS sub, n FROM {} WHERE _seq = 0 ORDER BY sub",
        bench.pipeline.table
    );
    let rows: Vec<String> = bench
        .pipeline
        .query(&sql)
        .await
        .expect("answered")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        rows,
        [r#"{"sub":0,"n":1}"#, r#"{"sub":1,"n":2}"#, r#"{"sub":2,"n":3}"#]
    );
    let outcomes = format!("SELECT verdict FROM {}_system.outcomes", bench.pipeline.name);
    assert_eq!(
        bench.pipeline.query(&outcomes).await.expect("answered")[0]["verdict"],
        "drop"
    );
}

#[tokio::test]
async fn an_attempt_that_came_round_twice_counts_once() {
    let bench = Bench::start(vec![]).await;
    let event = r#"{"type":"track","event":"Retried","properties":{}}"#;
    let again = |attempt| bench.record(id(0, 0), attempt, Verdict::Forward, &[event]);
    bench.send(0, vec![again(1), again(1)]).await;
    bench.pipeline.rows(1, PATIENCE).await.expect("it arrives");
    bench.send(0, vec![again(1)]).await;
    bench.send(0, bench.events(0, 1, 1)).await;
    bench
        .pipeline
        .rows(2, PATIENCE)
        .await
        .expect("the next one arrives");
    assert_eq!(
        bench.pipeline.count().await.expect("answered"),
        2,
        "the copies are duplicates"
    );
}

#[tokio::test]
async fn rows_of_two_months_go_into_blocks_of_their_own() {
    let bench = Bench::start(vec![]).await;
    let mut records = bench.events(0, 0, 4);
    for record in records.iter_mut().take(2) {
        let text = String::from_utf8(record.value.clone()).expect("JSON is UTF-8");
        record.value = text
            .replace("2026-11-21T04:00:00.120Z", "2026-10-31T23:59:59.999Z")
            .into_bytes();
    }
    bench.send(0, records).await;
    bench.pipeline.rows(4, PATIENCE).await.expect("they arrive");
    let sql = format!(
        "SELECT DISTINCT toYYYYMM(received_at) AS m FROM {} ORDER BY m",
        bench.pipeline.table
    );
    let months: Vec<_> = bench
        .pipeline
        .query(&sql)
        .await
        .expect("answered")
        .iter()
        .map(|row| row["m"].clone())
        .collect();
    assert_eq!(months, [202_610, 202_611]);
}
