//! Processes and brokers that end, and what is left of the work they did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millrace_event::Verdict;
use millrace_kafka::reader;
use millrace_testkit::broker::Broker;
use millrace_testkit::wait::until;

use super::children;
use super::ground::{Ground, PARTITIONS, read};

const ADD: &str = "export default (event) => { event.added = true; }";

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_it_goes_on_where_it_was_and_the_first_record_of_each_event_is_in_order() {
    let mut ground = Ground::with(ADD).await;
    let (rounds, count) = (3_u64, 1500_u64);
    for round in 0..rounds {
        for partition in 0..PARTITIONS {
            let numbers = round * count..(round + 1) * count;
            let records = numbers.map(|seq| ground.event(partition, seq, &format!(r#"{{"n":{seq}}}"#)));
            ground.write(partition, records.collect()).await;
        }
        // Somewhere in the middle of this round's records.
        let settled = usize::try_from(round * count * u64::from(PARTITIONS)).expect("small");
        ground.transformed(settled + 1).await;
        ground.rotor.kill().await.expect("it ran");
        ground.rotor.start_again().expect("it starts");
    }
    ground.ready().await;
    complete(&ground, rounds * count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing() {
    let mut ground = Ground::with(ADD).await;
    let (rounds, count) = (4_u64, 1000_u64);
    let mut others = Vec::new();
    for round in 0..rounds {
        for partition in 0..PARTITIONS {
            let numbers = round * count..(round + 1) * count;
            let records = numbers.map(|seq| ground.event(partition, seq, &format!(r#"{{"n":{seq}}}"#)));
            ground.write(partition, records.collect()).await;
        }
        // A member comes, the first one leaves in order, another comes, one is killed.
        match round {
            0 | 2 => others.push(ground.another().await),
            1 => {
                let status = ground
                    .rotor
                    .terminate(Duration::from_secs(60))
                    .await
                    .expect("it ends");
                assert_eq!(status.code(), Some(0));
            }
            _ => others.remove(0).kill().await.expect("it ran"),
        }
    }
    complete(&ground, rounds * count).await;
}

/// Waits until each event was decided, and checks that the first decisions stand in the source's order.
async fn complete(ground: &Ground, total: u64) {
    let firsts = until("every event", Duration::from_secs(90), || async {
        let gathered = reader::gather(&ground.connection, &ground.topics.transformed).await?;
        let mut firsts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (partition, records) in &gathered {
            let mut seen = BTreeSet::new();
            for record in records {
                let envelope = read(record);
                assert_eq!(envelope.id.partition, *partition);
                assert_eq!(envelope.verdict, Verdict::Forward);
                if seen.insert(envelope.id.seq) {
                    firsts.entry(*partition).or_default().push(envelope.id.seq);
                }
            }
        }
        let whole = firsts.len() == 2 && firsts.values().all(|seqs| seqs.len() as u64 == total);
        Ok(whole.then_some(firsts))
    });
    let firsts = firsts
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", ground.rotor.tail()));
    for seqs in firsts.values() {
        assert!(
            seqs.iter().copied().eq(0..total),
            "the first record of each event is in the source's order"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_drains_and_exits_with_0() {
    let mut ground = Ground::with(ADD).await;
    let records = (0..500).map(|seq| ground.event(1, seq, "{}"));
    ground.write(1, records.collect()).await;
    ground.transformed(1).await;
    let status = ground
        .rotor
        .terminate(Duration::from_secs(60))
        .await
        .expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", ground.rotor.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_costs_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut broker = Broker::start(directory.path()).await.expect("a broker");
    let mut ground = Ground::on(broker.address(), ADD).await;
    let pid = ground.rotor.id();
    let count = 2000_u64;
    for (round, numbers) in [(0, 0..count), (1, count..2 * count)] {
        for partition in 0..PARTITIONS {
            let records = numbers
                .clone()
                .map(|seq| ground.event(partition, seq, &format!(r#"{{"n":{seq}}}"#)));
            ground.write(partition, records.collect()).await;
        }
        if round == 0 {
            // While records are being read, run, written and committed.
            ground.transformed(1).await;
            broker.kill().await.expect("it ran");
            broker.start_again().await.expect("it comes back");
        }
    }
    complete(&ground, 2 * count).await;
    assert_eq!(ground.rotor.ended().expect("known"), None);
    assert_eq!(ground.rotor.id(), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_sandboxed_see_no_environment_and_die_with_the_rotor() {
    let mut ground = Ground::with(ADD).await;
    ground.write(0, vec![ground.event(0, 0, "{}")]).await;
    ground.transformed(1).await;
    let workers = children(ground.rotor.id().expect("it runs"));
    assert!(!workers.is_empty());
    for worker in &workers {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{worker}/{name}")).expect("it runs");
        assert_eq!(file("environ"), "", "not even the database's password");
        let status = file("status");
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        assert_eq!(file("oom_score_adj").trim(), "1000");
    }
    ground.rotor.kill().await.expect("it ran");
    let gone = until("the end of the workers", Duration::from_secs(60), || async {
        let alive = |worker: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
        };
        Ok((!workers.iter().any(alive)).then_some(()))
    });
    gone.await.expect("a worker outlived its rotor");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_has_a_control_group_of_its_own_where_the_rotor_may_make_some() {
    let ground = Ground::with(ADD).await;
    ground.write(0, vec![ground.event(0, 0, "{}")]).await;
    ground.transformed(1).await;
    let rotor = ground.rotor.id().expect("it runs");
    let mut own: Vec<String> = Vec::new();
    let workers = children(rotor);
    for worker in &workers {
        let groups = std::fs::read_to_string(format!("/proc/{worker}/cgroup")).expect("it runs");
        let name = groups
            .lines()
            .find_map(|line| line.split_once("/millrace-rotor-"));
        own.extend(name.map(|(_, name)| name.to_owned()));
    }
    let log = std::fs::read_to_string(ground.rotor.log()).expect("a log");
    if log.contains("workers have no control groups") {
        assert_eq!(own, [""; 0]);
        return;
    }
    assert!(log.contains("workers have control groups"), "{log}");
    own.sort();
    own.dedup();
    assert_eq!(own.len(), workers.len());
    assert!(
        own.iter().all(|name| name.starts_with(&format!("{rotor}-"))),
        "{own:?}"
    );
}
