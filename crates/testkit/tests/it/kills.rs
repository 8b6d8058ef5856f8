use std::sync::Arc;

use millrace_testkit::oracle::{FUNCTION, Oracle};
use millrace_testkit::pipeline::{Options, Pipeline, SERVICES};
use millrace_testkit::wait::until;

use crate::replay::audit;
use crate::{PATIENCE, load, say};

const EVENTS: u64 = 20_000;
const KILLS_EACH: u64 = 3;

#[tokio::test]
async fn every_service_killed_three_times_under_load_loses_nothing_and_doubles_nothing() {
    let quick = |section: &'static str| vec![(section, "6s".to_owned())];
    let options = Options {
        settings: [
            ("rotor", quick("MILLRACE__CONSUMER__SESSION_TIMEOUT")),
            ("bulker", quick("MILLRACE__CONSUMER__SESSION_TIMEOUT")),
        ]
        .into(),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("the pipeline starts");
    pipeline
        .put_function("stamp", FUNCTION)
        .await
        .expect("the function is taken");
    let (sender, oracle) = (pipeline.sender(), Arc::new(Oracle::default()));

    // A kill falls due each time another ninth or so of the events was acknowledged; the services take turns.
    let load = tokio::spawn({
        let (sender, oracle) = (sender.clone(), Arc::clone(&oracle));
        async move { load::send(&sender, &oracle, 0..EVENTS).await }
    });
    let kills = KILLS_EACH * 3;
    for kill in 0..kills {
        let due = EVENTS * (kill + 1) / (kills + 2);
        let reached = until("the load goes on", PATIENCE, || async {
            Ok((oracle.acknowledged_count() >= due || load.is_finished()).then_some(()))
        });
        reached
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", pipeline.tails()));
        let service = SERVICES[usize::try_from(kill).expect("small") % 3];
        pipeline
            .kill_and_restart(service)
            .await
            .expect("killed and started");
    }
    load.await
        .expect("no panic")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pipeline.tails()));
    for service in SERVICES {
        pipeline.ready(service).await.expect("it comes back");
    }
    pipeline.rows(EVENTS, PATIENCE).await.expect("all arrive");
    // What is there twice would come late: the whole log must have been worked through.
    let (status, audited) = audit(&pipeline).await;
    assert_eq!(status, Some(0), "{audited}");

    let report = oracle.check(&pipeline).await.expect("the table answers");
    let ledger = pipeline
        .metric("bulker", "millrace_bulker_records_total", "duplicate")
        .await
        .expect("there");
    say(&format!(
        "{EVENTS} events, {kills} kills: {} sent again by the clients, {ledger} duplicates removed by the ledger since \
         its last kill; right {}, missing {}, repeated {}, altered {}, phantom {}",
        report.sent_again,
        report.right,
        report.missing.len(),
        report.repeated.len(),
        report.altered.len(),
        report.phantom.len(),
    ));
    assert!(report.is_clean(), "{report:?}\n{}", pipeline.tails());
    assert_eq!(report.right, EVENTS);
}

#[tokio::test]
async fn a_rotor_killed_between_writing_and_committing_writes_a_range_twice_and_it_is_stored_once() {
    let session = ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s".to_owned());
    let options = Options {
        settings: [("rotor", vec![session])].into(),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("the pipeline starts");
    pipeline
        .put_function("stamp", FUNCTION)
        .await
        .expect("the function is taken");
    let rotor = pipeline.process("rotor");
    rotor.terminate(PATIENCE).await.expect("it ends");
    rotor.arm(Some("rotor::after_produce=1*return(kill)"));
    rotor.start_again().expect("started");
    rotor.arm(None);
    let (sender, oracle) = (pipeline.sender(), Arc::new(Oracle::default()));
    load::send(&sender, &oracle, 0..300).await.expect("acknowledged");
    pipeline
        .process("rotor")
        .killed(PATIENCE)
        .await
        .expect("it dies there");
    pipeline.process("rotor").start_again().expect("started");
    load::send(&sender, &oracle, 300..400)
        .await
        .expect("acknowledged");
    pipeline.rows(400, PATIENCE).await.expect("all arrive");

    pipeline
        .counted(
            "bulker",
            "millrace_bulker_records_total",
            "duplicate",
            1.0,
            PATIENCE,
        )
        .await
        .expect("a range came twice");
    let report = oracle.check(&pipeline).await.expect("the table answers");
    assert!(report.is_clean(), "{report:?}\n{}", pipeline.tails());
    assert_eq!(report.right, 400);
}
