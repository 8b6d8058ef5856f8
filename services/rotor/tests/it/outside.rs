//! What functions reach outside of their worker: real workers, a real Redis.

use std::sync::Arc;
use std::time::Duration;

use millrace_event::{FunctionCode, Verdict};
use millrace_rotor::outside::{Metrics, Outside, Store};
use millrace_rotor::pool::{Config, Pool};
use millrace_service::{Readiness, SystemClock};
use millrace_store::values::Quota;
use millrace_store::{Redis, Values, redis};

use super::pool::{chain, events, forwarded, small};

/// Longer than any of these takes on a slow machine.
const WALL_MS: u64 = 20_000;

const PATIENCE: Duration = Duration::from_secs(20);

const QUOTA: Quota = Quota {
    keys: 100,
    bytes: 100_000,
    value_bytes: 1_000,
};

/// A store in the Redis at `url`, under a prefix of its own, whose calls may take so long.
fn store_at(url: &str, call_timeout: Duration) -> (Store, Redis) {
    let mut config = redis::Config::new(url);
    config.call_timeout = call_timeout;
    config.key_prefix = millrace_testkit::redis::prefix();
    let redis = Redis::connect(&config).expect("an address");
    (Store::new(Values::new(redis.clone(), QUOTA)), redis)
}

pub(crate) fn pool_with(outside: Outside) -> Pool {
    let registry = millrace_service::Metrics::default();
    let config = Config { outside, ..small(1) };
    let metrics = registry.register(millrace_rotor::pool::Metrics::register);
    let condition = Readiness::default().condition("workers");
    Pool::start(config, metrics, Arc::new(SystemClock), &condition).expect("threads")
}

async fn pool_with_store() -> Pool {
    let (store, redis) = store_at(&millrace_testkit::redis::url().expect("redis"), PATIENCE);
    redis.wait_connected(PATIENCE).await.expect("connected");
    pool_with(Outside::new(Some(store), None, Metrics::default()))
}

#[tokio::test]
async fn values_outlive_events_chains_and_workers() {
    let pool = pool_with_store().await;
    let code = "export default async (event, { store }) => {
        if (event.crash) for (const kept = [];;) kept.push({ n: kept.length });
        event.before = await store.get('last') ?? null;
        event.count = await store.incr('count');
        await store.set('last', { n: event.n });
    }";
    let first = chain("counts", 1, WALL_MS, code);
    let batch = events(&[r#"{"n":1}"#, r#"{"n":2}"#]);
    let outcomes = pool
        .run(Arc::clone(&first), batch)
        .await
        .expect("the pool is open");
    assert_eq!(forwarded(&outcomes[0]), r#"{"n":1,"before":null,"count":1}"#);
    assert_eq!(forwarded(&outcomes[1]), r#"{"n":2,"before":{"n":1},"count":2}"#);
    let crash = pool
        .run(first, events(&[r#"{"crash":true}"#]))
        .await
        .expect("the pool is open");
    assert_eq!(crash[0].verdict, Verdict::DeadLetter);
    let second = chain("counts", 2, WALL_MS, code);
    let outcomes = pool
        .run(second, events(&[r#"{"n":3}"#]))
        .await
        .expect("the pool is open");
    assert_eq!(forwarded(&outcomes[0]), r#"{"n":3,"before":{"n":2},"count":3}"#);
}

#[tokio::test]
async fn many_calls_of_many_events_each_get_their_own_reply() {
    let pool = pool_with_store().await;
    let code = "export default async (event, { store }) => {
        const keys = Array.from({ length: 8 }, (_, at) => `k${event.n}-${at}`);
        await Promise.all(keys.map((key) => store.set(key, key, { ttl: '1m' })));
        event.right = (await Promise.all(keys.map((key) => store.get(key)))).every((value, at) => value === keys[at]);
        await Promise.all(keys.map((key) => store.del(key)));
    }";
    let texts: Vec<_> = (0..100).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let chain = chain("many", 1, WALL_MS, code);
    let outcomes = pool.run(chain, events(&texts)).await.expect("the pool is open");
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(forwarded(outcome), format!(r#"{{"n":{n},"right":true}}"#));
    }
}

#[tokio::test]
async fn a_quota_is_an_error_that_a_function_can_catch() {
    let pool = pool_with_store().await;
    let code = "export default async (event, { store }) => {
        try { await store.set('k', 'x'.repeat(event.length)); event.said = null; } catch (error) { event.said = error.message; }
    }";
    let batch = events(&[r#"{"length":900}"#, r#"{"length":1100}"#]);
    let outcomes = pool
        .run(chain("quota", 1, WALL_MS, code), batch)
        .await
        .expect("the pool is open");
    assert_eq!(forwarded(&outcomes[0]), r#"{"length":900,"said":null}"#);
    assert_eq!(
        forwarded(&outcomes[1]),
        r#"{"length":1100,"said":"a value has 1000 bytes at most"}"#
    );
}

#[tokio::test]
async fn events_ask_for_another_try_while_the_store_is_away() {
    // Nothing listens on the discard port.
    let (store, _redis) = store_at("redis://127.0.0.1:9", Duration::from_millis(250));
    let pool = pool_with(Outside::new(Some(store), None, Metrics::default()));
    let code = "export default async (event, { store }) => {
        if (!event.tries) { await store.incr('n'); return; }
        try { await store.incr('n'); } catch (error) { event.said = [error.name, error.message]; }
    }";
    let batch = events(&["{}", r#"{"tries":true}"#]);
    let outcomes = pool
        .run(chain("away", 1, WALL_MS, code), batch)
        .await
        .expect("the pool is open");
    assert_eq!(outcomes[0].verdict, Verdict::Retry, "{:?}", outcomes[0]);
    let fault = outcomes[0].fault.as_ref().expect("a retry says why");
    assert_eq!(fault.message, "RetryError: the store is away");
    assert_eq!(
        forwarded(&outcomes[1]),
        r#"{"tries":true,"said":["RetryError","the store is away"]}"#
    );
}

#[tokio::test]
async fn without_a_store_a_function_is_told_so() {
    let pool = pool_with(Outside::new(None, None, Metrics::default()));
    let code = "export default async (event, { store }) => { await store.get('k'); }";
    let outcomes = pool
        .run(chain("none", 1, WALL_MS, code), events(&["{}"]))
        .await
        .expect("the pool is open");
    let fault = outcomes[0].fault.as_ref().expect("a dead letter says why");
    assert_eq!(fault.code, FunctionCode::Thrown);
    assert_eq!(fault.message, "Error: there is no store: the rotor has no Redis");
}
