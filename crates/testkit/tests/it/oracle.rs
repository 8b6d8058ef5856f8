use millrace_testkit::oracle::{Oracle, Report, row};
use millrace_testkit::pipeline::{Options, Pipeline};

/// The control of every proof here: an oracle that cannot say no proves nothing.
#[tokio::test]
async fn the_oracle_names_what_is_missing_repeated_altered_and_never_sent() {
    let options = Options {
        services: Some(Vec::new()),
        ..Options::default()
    };
    let pipeline = Pipeline::start(options).await.expect("a table");
    let columns = "n Nullable(Float64), label String, flag Nullable(Bool), price Nullable(Float64), \
                   tags Array(String), nested_deep_value Nullable(Float64), stamped String";
    let columns = columns
        .split(", ")
        .map(|column| format!("ADD COLUMN {column}"))
        .collect::<Vec<_>>()
        .join(", ");
    pipeline
        .execute(&format!("ALTER TABLE {} {columns}", pipeline.table))
        .await
        .expect("altered");

    let oracle = Oracle::default();
    for n in 0..6 {
        oracle.sending(n);
    }
    // The event 5 was never acknowledged: it may be there or not.
    (0..5).for_each(|n| oracle.acknowledged(n));
    let (mut changed, mut foreign) = (row(3), row(4));
    changed["label"] = "another".into();
    foreign["message_id"] = "m-77".into();
    let rows = [row(0), row(1), row(1), changed, row(4), foreign];
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let insert = format!(
        "INSERT INTO {} FORMAT JSONEachRow {}",
        pipeline.table,
        rows.join(" ")
    );
    pipeline.execute(&insert).await.expect("inserted");

    let report = oracle.check(&pipeline).await.expect("answered");
    let expected = Report {
        missing: vec![2],
        repeated: vec![1],
        altered: vec![(3, "label".into())],
        phantom: vec!["m-77".into()],
        right: 3,
        sent_again: 0,
    };
    assert_eq!(report, expected);
    assert!(!report.is_clean());
}
