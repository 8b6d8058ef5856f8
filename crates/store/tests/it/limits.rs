use std::time::Duration;

use millrace_store::limits::{Charged, Demand, GuestWindows, Guests, Rate, Window};
use millrace_store::redis::Config;
use millrace_store::{KeyId, Limiter, Redis, WorkspaceId};

const PATIENCE: Duration = Duration::from_secs(10);
const NOTICED: Charged = Charged::Taken { noticed: true };
const TAKEN: Charged = Charged::Taken { noticed: false };

async fn limiter() -> (Limiter, WorkspaceId) {
    let mut config = Config::new(millrace_testkit::redis::url().expect("redis"));
    config.key_prefix = millrace_testkit::redis::prefix();
    let redis = Redis::connect(&config).expect("redis");
    redis.wait_connected(PATIENCE).await.expect("connected");
    (Limiter::new(redis), "ws_a".parse().expect("an id"))
}

fn demand(events: u64, burst: u64) -> Demand<'static> {
    let rate = Rate {
        per_second: None,
        per_day: None,
        burst: Some(burst),
    };
    Demand {
        events,
        rate,
        guests: None,
    }
}

fn reset_of(charged: Charged) -> Duration {
    match charged {
        Charged::Refused { reset } => reset,
        Charged::Taken { .. } => panic!("taken"),
    }
}

#[tokio::test]
async fn a_burst_is_taken_to_its_last_event_and_room_comes_back_when_it_was_said_to() {
    let (limiter, workspace) = limiter().await;
    let charge = async |events| {
        limiter
            .charge(&workspace, &demand(events, 10))
            .await
            .expect("an answer")
    };
    let begun = tokio::time::Instant::now();
    assert_eq!(charge(6).await, TAKEN);
    reset_of(charge(5).await);
    assert_eq!(charge(4).await, TAKEN, "a refused request costs nothing");
    let reset = reset_of(charge(1).await);
    // What has passed since the first of them is over already.
    assert!(
        reset + begun.elapsed() > Duration::from_secs(4) && reset <= Duration::from_millis(5_500),
        "{reset:?}"
    );
    tokio::time::sleep(reset).await;
    assert_eq!(charge(1).await, TAKEN);
}

#[tokio::test]
async fn a_request_larger_than_the_limit_goes_when_nothing_else_counts() {
    let (limiter, workspace) = limiter().await;
    let charge = async |events| {
        limiter
            .charge(&workspace, &demand(events, 10))
            .await
            .expect("an answer")
    };
    assert_eq!(charge(25).await, TAKEN);
    reset_of(charge(1).await);
    let unlimited = Demand {
        rate: Rate {
            per_second: None,
            per_day: None,
            burst: None,
        },
        ..demand(1_000_000, 0)
    };
    assert_eq!(
        limiter.charge(&workspace, &unlimited).await.expect("an answer"),
        TAKEN
    );
}

#[tokio::test]
async fn a_guest_is_marked_then_refused_and_new_ids_do_not_help() {
    let (limiter, workspace) = limiter().await;
    let key: KeyId = "wk_a".parse().expect("an id");
    let window = |soft, hard| Window {
        span: Duration::from_secs(60),
        steps: 6,
        soft,
        hard,
    };
    let windows = GuestWindows {
        id: window(2, 3),
        network: window(50, 50),
        first_seen: window(3, 4),
        remember: Duration::from_secs(60),
    };
    let send = async |id: &str, events: u64, network: &str| {
        let guests = Guests {
            key: &key,
            ids: vec![(id, events)],
            network: Some(network.to_owned()),
            windows,
        };
        let demand = Demand {
            guests: Some(guests),
            ..demand(events, 1_000)
        };
        limiter.charge(&workspace, &demand).await.expect("an answer")
    };
    assert_eq!(send("ann", 2, "n1").await, TAKEN);
    assert_eq!(send("ann", 1, "n1").await, NOTICED);
    reset_of(send("ann", 1, "n1").await);
    assert_eq!(send("bob", 1, "n1").await, TAKEN, "somebody else");
    assert_eq!(send("cid", 1, "n1").await, TAKEN);
    assert_eq!(send("dan", 1, "n1").await, NOTICED);
    reset_of(send("eve", 1, "n1").await);
    assert_eq!(send("bob", 1, "n1").await, TAKEN, "known ones go on");
    assert_eq!(send("bob", 1, "n2").await, NOTICED);
}
