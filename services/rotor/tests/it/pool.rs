//! The pool with real worker processes and functions that try to end them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::frame::payload::Records;
use millrace_event::frame::{Function, Limits, Load, Outcome, Record, Text};
use millrace_event::{FunctionCode, Verdict};
use millrace_rotor::pool::{Chain, Config, Metrics, Pool};
use millrace_service::{Readiness, SystemClock};
use millrace_testkit::wait::until;
use serde_json::value::RawValue;

use super::{BINARY, children};

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON in the test")
}

pub(crate) fn pool(workers: usize) -> (Pool, millrace_service::Metrics) {
    pool_of(workers, PathBuf::from(BINARY))
}

/// A pool that is small enough for a test machine.
pub(crate) fn small(workers: usize) -> Config {
    Config {
        workers: NonZeroUsize::new(workers).expect("at least one"),
        rss_limit: 400 << 20,
        grace: Duration::from_millis(300),
        program: Some(PathBuf::from(BINARY)),
        ..Config::default()
    }
}

fn pool_of(workers: usize, program: PathBuf) -> (Pool, millrace_service::Metrics) {
    let registry = millrace_service::Metrics::default();
    let config = Config {
        program: Some(program),
        ..small(workers)
    };
    let metrics = registry.register(Metrics::register);
    let condition = Readiness::default().condition("workers");
    let pool = Pool::start(config, metrics, Arc::new(SystemClock), &condition);
    (pool.expect("threads"), registry)
}

pub(crate) fn chain(name: &str, version: u64, wall_ms: u64, code: &str) -> Arc<Chain> {
    let load = Load {
        chain: name.into(),
        version,
        workspace: "demo".into(),
        source: "web".into(),
        destination: "warehouse".into(),
        functions: vec![Function {
            id: "fn_1".into(),
            version: 1,
            code: code.into(),
            typescript: false,
        }],
        environment: Text(raw("{}")),
        environment_fault: None,
        limits: Limits {
            wall_ms,
            cpu_ms: None,
            heap_bytes: 64 << 20,
            output_bytes: 1 << 20,
            outputs: 100,
            log_lines: 10,
            promises: Some(1000),
        },
    };
    Arc::new(Chain::new(load).expect("plain"))
}

pub(crate) fn events(texts: &[&str]) -> Records {
    let mut events = Records::default();
    for event in texts {
        events.push(Record {
            context: r#"{"attempt":0,"receivedAt":"2026-01-02T03:04:05.678Z","headers":{}}"#,
            event,
            position: 0,
        });
    }
    events
}

#[track_caller]
pub(crate) fn forwarded(outcome: &Outcome) -> &str {
    assert_eq!(
        (outcome.verdict, outcome.events.len()),
        (Verdict::Forward, 1),
        "{outcome:?}"
    );
    outcome.events[0].get()
}

#[track_caller]
fn code(outcome: &Outcome) -> FunctionCode {
    assert_eq!(outcome.verdict, Verdict::DeadLetter, "{outcome:?}");
    outcome.fault.as_ref().expect("a dead letter says why").code
}

/// What is met first by who exhausts the engine, or the engine ends its process: that is the machine's to decide.
const EXHAUSTED: [FunctionCode; 4] = [
    FunctionCode::HeapLimit,
    FunctionCode::RssLimit,
    FunctionCode::WallLimit,
    FunctionCode::WorkerCrashed,
];

/// Sends a batch with one guilty event and checks that the innocent get their verdicts, the guilty one of `codes`,
/// and that the pool runs the next batch.
async fn one_guilty(body: &str, wall_ms: u64, codes: &[FunctionCode]) {
    let (pool, _) = pool(1);
    let function =
        format!("export default async (event) => {{ if (event.bad) {{ {body} }} event.ok = true; }}");
    let chain = chain("guilty", 1, wall_ms, &function);
    let batch = events(&[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"bad":true}"#, r#"{"n":3}"#]);
    let outcomes = pool
        .run(Arc::clone(&chain), batch)
        .await
        .expect("the pool is open");
    assert_eq!(outcomes.len(), 4);
    for (at, n) in [(0, 1), (1, 2), (3, 3)] {
        assert_eq!(
            forwarded(&outcomes[at]),
            format!(r#"{{"n":{n},"ok":true}}"#),
            "{body}"
        );
    }
    let found = code(&outcomes[2]);
    assert!(codes.contains(&found), "{body}: {:?}", outcomes[2]);
    let outcomes = pool.run(chain, events(&["{}"])).await.expect("the pool is open");
    assert_eq!(forwarded(&outcomes[0]), r#"{"ok":true}"#);
}

#[tokio::test]
async fn a_batch_comes_back_with_one_outcome_each_in_order() {
    let (pool, _) = pool(2);
    let chain = chain(
        "order",
        1,
        10_000,
        "export default (event) => event.n % 3 ? { n: event.n } : null",
    );
    let texts: Vec<_> = (0..500)
        .map(|n| format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(1000)))
        .collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let outcomes = pool.run(chain, events(&texts)).await.expect("the pool is open");
    assert_eq!(outcomes.len(), 500);
    for (n, outcome) in outcomes.iter().enumerate() {
        if n % 3 == 0 {
            assert_eq!(outcome.verdict, Verdict::Drop);
        } else {
            assert_eq!(forwarded(outcome), format!(r#"{{"n":{n}}}"#));
        }
    }
}

#[tokio::test]
async fn a_batch_larger_than_a_frame_should_be_goes_in_several() {
    let (pool, _) = pool(1);
    let chain = chain(
        "large",
        1,
        5000,
        "export default (event) => ({ n: event.n, length: event.text.length })",
    );
    let texts: Vec<_> = (0..25)
        .map(|n| format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(900_000)))
        .collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let outcomes = pool.run(chain, events(&texts)).await.expect("the pool is open");
    assert_eq!(outcomes.len(), 25);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(forwarded(outcome), format!(r#"{{"n":{n},"length":900000}}"#));
    }
}

#[tokio::test]
async fn an_endless_loop_costs_one_event() {
    one_guilty("for (;;);", 1000, &[FunctionCode::WallLimit]).await;
}

#[tokio::test]
async fn a_throw_costs_one_event() {
    one_guilty("throw new Error('x');", 10_000, &[FunctionCode::Thrown]).await;
}

#[tokio::test]
async fn a_promise_that_never_settles_costs_one_event() {
    one_guilty("await new Promise(() => {});", 10_000, &[FunctionCode::Unsettled]).await;
}

#[tokio::test]
async fn a_heap_bomb_costs_one_event() {
    let body = "const kept = []; for (;;) kept.push({ n: kept.length });";
    one_guilty(body, 20_000, &[FunctionCode::HeapLimit]).await;
}

#[tokio::test]
async fn a_huge_filled_array_costs_one_event() {
    one_guilty("new Array(2 ** 27).fill(1.1);", 3000, &EXHAUSTED).await;
}

#[tokio::test]
async fn a_huge_split_costs_one_event() {
    // The engine ends the process by itself here, and says nothing that a program could read.
    one_guilty("'x'.repeat(2 ** 28).split('');", 20_000, &EXHAUSTED).await;
}

#[tokio::test]
async fn a_huge_parse_costs_one_event() {
    let body = "JSON.parse('[' + '[1,2,3,4],'.repeat(2 ** 24) + '0]');";
    one_guilty(body, 3000, &EXHAUSTED).await;
}

#[tokio::test]
async fn buffers_outside_the_heap_cost_one_event() {
    let body = "const kept = []; for (;;) kept.push(new Uint8Array(2 ** 24).fill(1));";
    let codes = [
        FunctionCode::HeapLimit,
        FunctionCode::RssLimit,
        FunctionCode::Thrown,
    ];
    one_guilty(body, 20_000, &codes).await;
}

#[tokio::test]
async fn a_builtin_that_cannot_be_interrupted_is_ended_by_the_deadline() {
    // Small enough that no other limit can come first, on any machine.
    let body = "[3, 1, 2].sort(() => { for (;;); });";
    one_guilty(body, 1000, &[FunctionCode::WallLimit]).await;
    let body = "const big = 'x'.repeat(2 ** 20); let n = 0; for (;;) n += big.indexOf('y'.repeat(2 ** 12));";
    one_guilty(body, 1000, &[FunctionCode::WallLimit]).await;
    // A long time within one call of the engine's own code, in 12 MiB.
    let body = "'x'.repeat(2 ** 23).indexOf('x'.repeat(2 ** 21) + 'y' + 'x'.repeat(2 ** 21));";
    one_guilty(body, 1000, &[FunctionCode::WallLimit]).await;
}

#[tokio::test]
async fn every_event_may_be_guilty() {
    let (pool, registry) = pool(1);
    let chain = chain(
        "all",
        1,
        2000,
        "export default () => { new Array(2 ** 27).fill(1.1); }",
    );
    let outcomes = pool
        .run(chain, events(&["{}", "{}", "{}"]))
        .await
        .expect("the pool is open");
    for outcome in &outcomes {
        code(outcome);
    }
    let text = registry.encode().expect("text");
    assert!(text.contains("millrace_workers_reruns_total 1"), "{text}");
    assert!(text.contains("millrace_workers_started_total"), "{text}");
}

#[tokio::test]
async fn versions_of_a_chain_do_not_mix() {
    let (pool, _) = pool(1);
    for round in 0..3 {
        for version in [1, 2] {
            let source = format!("export default (event) => {{ event.version = {version}; }}");
            let outcomes = pool
                .run(chain("versions", version, 10_000, &source), events(&["{}"]))
                .await
                .expect("open");
            assert_eq!(
                forwarded(&outcomes[0]),
                format!(r#"{{"version":{version}}}"#),
                "round {round}"
            );
        }
    }
}

#[tokio::test]
async fn more_chains_than_a_worker_keeps_are_loaded_again() {
    let (pool, _) = pool(1);
    for round in 0..2 {
        for n in 0..40 {
            let source = format!("export default (event) => {{ event.chain = {n}; }}");
            let outcomes = pool
                .run(chain(&format!("chain-{n}"), 1, 10_000, &source), events(&["{}"]))
                .await
                .expect("open");
            assert_eq!(
                forwarded(&outcomes[0]),
                format!(r#"{{"chain":{n}}}"#),
                "round {round}"
            );
        }
    }
}

#[tokio::test]
async fn of_more_chains_than_a_worker_keeps_the_one_used_least_leaves() {
    let config = Config {
        workers: NonZeroUsize::MIN,
        chains: NonZeroUsize::MIN.saturating_add(1),
        program: Some(BINARY.into()),
        ..Config::default()
    };
    let metrics = millrace_service::Metrics::default().register(Metrics::register);
    let condition = Readiness::default().condition("workers");
    let pool = Pool::start(config, metrics, Arc::new(SystemClock), &condition).expect("threads");
    let code = "let count = 0; export default () => ({ count: count += 1 });";
    // How often each ran in the isolate that it has now.
    for (name, count) in [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("c", 1),
        ("a", 3),
        ("b", 1),
        ("a", 4),
        ("c", 1),
    ] {
        let outcomes = pool.run(chain(name, 1, 10_000, code), events(&["{}"])).await;
        let expected = format!(r#"{{"count":{count}}}"#);
        assert_eq!(forwarded(&outcomes.expect("open")[0]), expected, "{name}");
    }
}

#[tokio::test]
async fn workers_that_cannot_be_started_make_the_process_unready_and_hold_their_events() {
    let readiness = Readiness::default();
    let condition = readiness.condition("workers");
    readiness.started();
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("rotor");
    let config = Config {
        workers: NonZeroUsize::MIN,
        program: Some(program.clone()),
        ..Config::default()
    };
    let metrics = millrace_service::Metrics::default().register(Metrics::register);
    let pool = Pool::start(config, metrics, Arc::new(SystemClock), &condition).expect("threads");
    let quick = chain("late", 1, 10_000, "export default (event) => { event.ok = 1; }");
    let running = pool.run(quick, events(&["{}"]));
    let installing = async {
        assert!(!readiness.is_ready());
        std::os::unix::fs::symlink(BINARY, &program).expect("a link");
    };
    let (outcomes, ()) = tokio::join!(running, installing);
    assert_eq!(forwarded(&outcomes.expect("the pool is open")[0]), r#"{"ok":1}"#);
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn a_run_that_is_given_up_does_not_disturb_the_next() {
    let (pool, _) = pool(1);
    let slow = chain("slow", 1, 1000, "export default () => { for (;;); }");
    let given_up =
        tokio::time::timeout(Duration::from_millis(50), pool.run(slow, events(&["{}", "{}"]))).await;
    assert!(given_up.is_err());
    let quick = chain("quick", 1, 10_000, "export default (event) => { event.ok = 1; }");
    let outcomes = pool.run(quick, events(&["{}"])).await.expect("the pool is open");
    assert_eq!(forwarded(&outcomes[0]), r#"{"ok":1}"#);
}

#[tokio::test]
async fn a_worker_that_is_killed_from_outside_costs_nothing() {
    // Under a name of its own, so that this test finds its worker among those of the others.
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("rotor");
    std::os::unix::fs::symlink(BINARY, &program).expect("a link");
    let (pool, registry) = pool_of(1, program.clone());
    let source = "export default (event) => { const until = Date.now() + 30; while (Date.now() < until); event.ok = 1; }";
    let chain = chain("killed", 1, 5000, source);
    drop(pool.run(Arc::clone(&chain), events(&["{}"])).await.expect("warm"));
    let running = pool.run(Arc::clone(&chain), events(&["{}"; 20]));
    let killing = async {
        for pid in children(std::process::id()) {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.starts_with(program.as_os_str().as_encoded_bytes()) {
                let pid = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .expect("a pid");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
            }
        }
    };
    let (outcomes, ()) = tokio::join!(running, killing);
    for outcome in outcomes.expect("the pool is open") {
        assert_eq!(forwarded(&outcome), r#"{"ok":1}"#);
    }
    let text = registry.encode().expect("text");
    assert!(
        text.contains(r#"millrace_workers_deaths_total{reason="worker_crashed"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn an_isolate_that_nobody_uses_leaves_its_worker_and_comes_back_when_it_is_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("rotor");
    std::os::unix::fs::symlink(BINARY, &program).expect("a link");
    let config = Config {
        workers: NonZeroUsize::MIN,
        idle: Duration::from_secs(1),
        program: Some(program.clone()),
        ..Config::default()
    };
    let metrics = millrace_service::Metrics::default().register(Metrics::register);
    let condition = Readiness::default().condition("workers");
    let pool = Pool::start(config, metrics, Arc::new(SystemClock), &condition).expect("threads");
    let code = "let count = 0; export default () => ({ count: count += 1 });";
    let chain = chain("idle", 1, 10_000, code);
    let one = || pool.run(Arc::clone(&chain), events(&["{}"]));
    assert_eq!(forwarded(&one().await.expect("open")[0]), r#"{"count":1}"#);
    let worker = children(std::process::id()).into_iter().find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(program.as_os_str().as_encoded_bytes())
    });
    let tasks = format!("/proc/{}/task", worker.expect("a worker"));
    let has_isolate = || {
        let tasks = std::fs::read_dir(&tasks).expect("it runs").flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "chain")
    };
    until("the end of the idle isolate", Duration::from_secs(60), || async {
        Ok((!has_isolate()).then_some(()))
    })
    .await
    .expect("it leaves");
    assert_eq!(
        forwarded(&one().await.expect("open")[0]),
        r#"{"count":1}"#,
        "loaded anew"
    );
}
