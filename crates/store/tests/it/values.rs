use std::time::Duration;

use millrace_store::redis::Config;
use millrace_store::values::{MAX_KEY_BYTES, Quota, Refused, Ttl};
use millrace_store::{Redis, Values};
use millrace_testkit::wait::until;

const PATIENCE: Duration = Duration::from_secs(10);
const QUOTA: Quota = Quota {
    keys: 3,
    bytes: 100,
    value_bytes: 80,
};

async fn values(quota: Quota) -> Values {
    let mut config = Config::new(millrace_testkit::redis::url().expect("redis"));
    config.key_prefix = millrace_testkit::redis::prefix();
    config.call_timeout = PATIENCE;
    let redis = Redis::connect(&config).expect("redis");
    redis.wait_connected(PATIENCE).await.expect("connected");
    Values::new(redis, quota)
}

async fn get(values: &Values, key: &str) -> Option<String> {
    values.get("ws_a", key).await.expect("an answer")
}

async fn set(values: &Values, key: &str, value: &str, ttl: Ttl) -> Result<(), Refused> {
    values.set("ws_a", key, value, ttl).await.expect("an answer")
}

async fn incr(values: &Values, key: &str, by: i64) -> Result<i64, Refused> {
    values
        .incr("ws_a", key, by, Ttl::Forever)
        .await
        .expect("an answer")
}

async fn gone(values: &Values, key: &str) {
    let what = format!("{key} leaves when it is due");
    until(&what, PATIENCE, || async {
        Ok(get(values, key).await.is_none().then_some(()))
    })
    .await
    .expect("gone");
}

#[tokio::test]
async fn a_value_is_there_until_it_is_deleted_and_for_its_own_workspace_only() {
    let values = values(QUOTA).await;
    assert_eq!(get(&values, "k").await, None);
    for value in ["\"a b\"", "{\"é\":1}", "", "0 1"] {
        assert_eq!(set(&values, "k", value, Ttl::Forever).await, Ok(()));
        assert_eq!(get(&values, "k").await.as_deref(), Some(value));
    }
    assert_eq!(values.get("ws_b", "k").await.expect("an answer"), None);
    assert!(!values.del("ws_b", "k").await.expect("an answer"));
    assert!(values.del("ws_a", "k").await.expect("an answer"));
    assert!(!values.del("ws_a", "k").await.expect("an answer"));
    assert_eq!(get(&values, "k").await, None);
}

#[tokio::test]
async fn what_is_due_is_gone_and_its_room_is_free_again() {
    let values = values(QUOTA).await;
    let soon = Ttl::For(Duration::from_millis(300));
    for key in ["a", "b", "c"] {
        assert_eq!(set(&values, key, "1", soon).await, Ok(()));
    }
    gone(&values, "a").await;
    gone(&values, "b").await;
    gone(&values, "c").await;
    // A value that is set anew has the new lifetime.
    assert_eq!(set(&values, "d", "1", soon).await, Ok(()));
    assert_eq!(set(&values, "d", "2", Ttl::Forever).await, Ok(()));
    for key in ["a", "b"] {
        assert_eq!(set(&values, key, &"x".repeat(30), soon).await, Ok(()));
    }
    gone(&values, "a").await;
    gone(&values, "b").await;
    assert_eq!(get(&values, "d").await.as_deref(), Some("2"));
    assert_eq!(set(&values, "big", &"x".repeat(80), Ttl::Forever).await, Ok(()));
}

#[tokio::test]
async fn a_workspace_keeps_no_more_than_its_quota() {
    let values = values(QUOTA).await;
    for key in ["a", "b", "c"] {
        assert_eq!(set(&values, key, "1", Ttl::Forever).await, Ok(()));
    }
    assert_eq!(set(&values, "d", "1", Ttl::Forever).await, Err(Refused::Keys(3)));
    assert_eq!(incr(&values, "d", 1).await, Err(Refused::Keys(3)));
    // Another workspace has its own.
    assert_eq!(
        values
            .set("ws_b", "d", "1", Ttl::Forever)
            .await
            .expect("an answer"),
        Ok(())
    );
    assert_eq!(set(&values, "a", &"x".repeat(80), Ttl::Forever).await, Ok(()));
    assert_eq!(
        set(&values, "b", &"x".repeat(17), Ttl::Forever).await,
        Err(Refused::Bytes(100))
    );
    assert_eq!(set(&values, "b", &"x".repeat(16), Ttl::Forever).await, Ok(()));
    assert_eq!(
        get(&values, "b").await,
        Some("x".repeat(16)),
        "a refused value changes nothing"
    );
    assert_eq!(
        set(&values, "a", &"x".repeat(81), Ttl::Forever).await,
        Err(Refused::Value(80))
    );
    assert_eq!(set(&values, "", "1", Ttl::Forever).await, Err(Refused::Key));
    assert_eq!(
        set(&values, &"k".repeat(MAX_KEY_BYTES + 1), "1", Ttl::Forever).await,
        Err(Refused::Key)
    );
    for key in ["a", "b", "c"] {
        assert!(values.del("ws_a", key).await.expect("an answer"));
    }
    assert_eq!(
        set(&values, "e", &"x".repeat(80), Ttl::Forever).await,
        Ok(()),
        "all room is free again"
    );
}

#[tokio::test]
async fn a_counter_adds_whole_numbers_and_ends_with_the_lifetime_of_its_first_addition() {
    let values = values(QUOTA).await;
    assert_eq!(incr(&values, "n", 5).await, Ok(5));
    assert_eq!(incr(&values, "n", -7).await, Ok(-2));
    assert_eq!(get(&values, "n").await.as_deref(), Some("-2"));
    assert_eq!(set(&values, "n", "9007199254740990", Ttl::Forever).await, Ok(()));
    assert_eq!(incr(&values, "n", 1).await, Ok(9_007_199_254_740_991));
    assert_eq!(incr(&values, "n", 1).await, Err(Refused::Range));
    assert_eq!(get(&values, "n").await.as_deref(), Some("9007199254740991"));
    assert_eq!(set(&values, "n", "1.5", Ttl::Forever).await, Ok(()));
    assert_eq!(incr(&values, "n", 1).await, Err(Refused::NotANumber));

    let window = Ttl::For(Duration::from_millis(1500));
    let add = async || values.incr("ws_a", "w", 1, window).await.expect("an answer");
    assert_eq!(add().await, Ok(1));
    // Additions go on all the time and the window ends all the same.
    let what = "a new window begins";
    until(what, PATIENCE, || async {
        Ok((add().await == Ok(1)).then_some(()))
    })
    .await
    .expect("a new window");
}

#[tokio::test]
async fn additions_at_the_same_time_are_all_counted() {
    let values = values(QUOTA).await;
    let adding = (0..50).map(|_| {
        let values = values.clone();
        tokio::spawn(async move { incr(&values, "n", 2).await })
    });
    for task in adding.collect::<Vec<_>>() {
        task.await.expect("it ends").expect("added");
    }
    assert_eq!(get(&values, "n").await.as_deref(), Some("100"));
}
