use std::time::Duration;

use fred::prelude::{Builder, ClientLike, LuaInterface};
use millrace_event::JournalId;
use millrace_store::dedup::{self, Reservation, Window};
use millrace_store::postgres::{self, Postgres};
use millrace_store::redis::{self, Redis};
use millrace_store::{Chains, Dedup, Error, Keys, Part, Retry};
use millrace_testkit::postgres::Database;
use millrace_testkit::proxy::Proxy;
use tokio::net::TcpListener;

use crate::migrated;

/// For what happens at once on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// An address where nothing listens any more.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn redis_away_is_a_typed_error_at_once_and_no_reason_not_to_start() {
    let redis =
        Redis::connect(&redis::Config::new(format!("redis://{}", nowhere().await))).expect("a handle");
    assert!(!redis.is_connected());
    let dedup = Dedup::new(redis.clone(), JournalId(1), dedup::Config::default()).expect("random bytes");
    let ws = "ws_one".parse().expect("an id");
    for error in [
        dedup.reserve(&ws, &["x"]).await.expect_err("no server"),
        dedup
            .done(&ws, Window::Live, &["x"])
            .await
            .expect_err("no server"),
        dedup.settlement().await.map(drop).expect_err("no server"),
        redis.ping().await.expect_err("no server"),
    ] {
        assert!(
            matches!(
                error,
                Error::Unavailable {
                    part: Part::Redis,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!((error.kind(), error.retry()), ("unavailable", Retry::Transient));
    }
    let error = redis
        .wait_connected(Duration::from_millis(50))
        .await
        .expect_err("no server");
    assert!(
        matches!(
            error,
            Error::Timeout {
                part: Part::Redis,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn postgres_away_is_a_typed_error_and_no_reason_not_to_start() {
    let url = format!("postgres://nobody:secret@{}/x", nowhere().await);
    let config = postgres::Config::new(url);
    assert!(!format!("{config:?}").contains("secret"));
    let keys = Keys::new(Postgres::new(&config).expect("a handle"));
    let error = keys
        .find(&"wk_x".parse().expect("an id"))
        .await
        .expect_err("no server");
    assert!(
        matches!(
            error,
            Error::Unavailable {
                part: Part::Postgres,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.retry(), Retry::Transient);
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_from_one_that_is_away() {
    let database = Database::create().await.expect("a database");
    let chains = Chains::new(Postgres::new(&postgres::Config::new(database.url())).expect("a pool"));
    let error = chains.version().await.expect_err("no schema");
    assert!(matches!(error, Error::Unmigrated { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Permanent);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_costs_a_call_its_time_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let mut config = postgres::Config::new(format!("postgres://nobody@{address}/x"));
    config.call_timeout = Duration::from_millis(100);
    config.connect_timeout = Duration::from_millis(100);
    let error = Postgres::new(&config)
        .expect("a handle")
        .ping()
        .await
        .expect_err("no answer");
    assert_eq!(error.retry(), Retry::Transient, "{error:?}");

    let mut config = redis::Config::new(format!("redis://{address}"));
    config.call_timeout = Duration::from_millis(100);
    config.connect_timeout = Duration::from_millis(100);
    let error = Redis::connect(&config)
        .expect("a handle")
        .ping()
        .await
        .expect_err("no answer");
    assert_eq!(error.retry(), Retry::Transient, "{error:?}");
}

#[tokio::test]
async fn a_call_that_waits_for_a_lock_ends_at_its_limit_and_the_pool_stays_usable() {
    let (database, migrated) = migrated().await;
    migrated.close();
    let mut config = postgres::Config::new(database.url());
    // Long enough for a slow machine to connect, and all that the test waits.
    config.call_timeout = Duration::from_secs(2);
    config.connections = 1;
    let chains = Chains::new(Postgres::new(&config).expect("a pool"));
    chains.version().await.expect("a version");

    let mut client = database.client().await.expect("a connection");
    let holder = client.transaction().await.expect("a transaction");
    holder
        .batch_execute("LOCK TABLE config_version")
        .await
        .expect("a lock");
    let error = chains.version().await.expect_err("the table is locked");
    assert_eq!(
        (error.kind(), error.retry()),
        ("timeout", Retry::Transient),
        "{error:?}"
    );
    holder.rollback().await.expect("released");
    // The one connection of the pool may still be busy with the call that was given up.
    tokio::time::timeout(Duration::from_secs(20), async {
        while chains.version().await.is_err() {}
    })
    .await
    .expect("usable again");
}

#[tokio::test]
async fn addresses_that_cannot_be_read_are_named_without_their_password() {
    let postgres =
        Postgres::new(&postgres::Config::new("postgres://u:hunter2@h:notaport/x")).expect_err("a bad port");
    let redis = |url: &str| Redis::connect(&redis::Config::new(url)).expect_err("not an address");
    let (port, tls) = (
        redis("redis://u:hunter2@h:notaport"),
        redis("rediss://u:hunter2@h:6379"),
    );
    for error in [postgres, port, tls] {
        assert!(matches!(error, Error::Configuration { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_redis_that_goes_and_comes_back_is_used_again() {
    let (proxy, url) = Proxy::through(&millrace_testkit::redis::url().expect("an address"), 6379)
        .await
        .expect("a proxy");
    let mut config = redis::Config::new(url);
    config.key_prefix = millrace_testkit::redis::prefix();
    config.call_timeout = Duration::from_secs(10);
    let redis = Redis::connect(&config).expect("a handle");
    redis
        .wait_connected(Duration::from_secs(10))
        .await
        .expect("a connection");
    let dedup = Dedup::new(redis.clone(), JournalId(1), dedup::Config::default()).expect("random bytes");
    let ws = "ws_one".parse().expect("an id");
    assert_eq!(
        dedup.reserve(&ws, &["x"]).await.expect("an answer"),
        [Reservation::Reserved]
    );

    proxy.set_up(false);
    let error = tokio::time::timeout(PATIENCE, async {
        loop {
            match dedup.reserve(&ws, &["y"]).await {
                Ok(_) => tokio::task::yield_now().await,
                // A call that was on its way when the connection went may wait in vain for its answer, once.
                Err(error) if error.kind() == "timeout" => {}
                Err(error) => break error,
            }
        }
    });
    let error = error.await.expect("the cut is noticed");
    assert_eq!(
        (error.kind(), error.retry()),
        ("unavailable", Retry::Transient),
        "{error:?}"
    );

    proxy.set_up(true);
    redis.wait_connected(PATIENCE).await.expect("connected again");
    let settled = tokio::time::timeout(PATIENCE, async {
        while dedup.done(&ws, Window::Live, &["x", "y"]).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    settled.await.expect("used again");
    let answers = dedup.reserve(&ws, &["x", "y"]).await.expect("an answer");
    assert_eq!(answers, [Reservation::Done, Reservation::Done]);
}

#[tokio::test]
async fn a_redis_that_forgot_its_scripts_is_given_them_again() {
    let url = millrace_testkit::redis::url().expect("an address");
    let mut config = redis::Config::new(url.clone());
    config.key_prefix = millrace_testkit::redis::prefix();
    config.call_timeout = Duration::from_secs(10);
    let redis = Redis::connect(&config).expect("a handle");
    redis.wait_connected(PATIENCE).await.expect("a connection");
    let dedup = Dedup::new(redis, JournalId(1), dedup::Config::default()).expect("random bytes");
    let ws = "ws_one".parse().expect("an id");
    dedup.reserve(&ws, &["x"]).await.expect("an answer");

    let address = fred::prelude::Config::from_url(&url).expect("an address");
    let client = Builder::from_config(address).build().expect("a client");
    client.init().await.expect("a connection");
    client.script_flush(false).await.expect("flushed");
    assert_eq!(
        dedup.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [Reservation::PendingOwn, Reservation::Reserved]
    );
}

#[tokio::test]
async fn a_postgres_that_goes_and_comes_back_is_used_again() {
    let (database, migrated) = migrated().await;
    migrated.close();
    let (proxy, url) = Proxy::through(database.url(), 5432).await.expect("a proxy");
    let chains = Chains::new(Postgres::new(&postgres::Config::new(url)).expect("a pool"));
    let version = chains.version().await.expect("a version");

    proxy.set_up(false);
    let error = tokio::time::timeout(PATIENCE, async {
        loop {
            match chains.version().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        }
    });
    let error = error.await.expect("the cut is noticed");
    assert_eq!(
        (error.kind(), error.retry()),
        ("unavailable", Retry::Transient),
        "{error:?}"
    );

    proxy.set_up(true);
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            match chains.version().await {
                Ok(version) => break version,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(again.await.expect("used again"), version);
}
