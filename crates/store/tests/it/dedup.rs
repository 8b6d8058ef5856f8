use std::time::Duration;

use fred::prelude::{Builder, ClientLike, KeysInterface};
use millrace_event::JournalId;
use millrace_store::dedup::{CHUNK, Config, Reservation, Window};
use millrace_store::redis::{self, Redis};
use millrace_store::{Dedup, WorkspaceId};
use millrace_testkit::redis::{prefix, url};

use Reservation::{Done, PendingOther, PendingOwn, Repeated, Reserved};

pub(crate) const A: JournalId = JournalId(0xa);
pub(crate) const B: JournalId = JournalId(0xb);

pub(crate) struct Memory {
    redis: Redis,
    pub(crate) prefix: String,
}

impl Memory {
    pub(crate) async fn new() -> Self {
        let prefix = prefix();
        let mut config = redis::Config::new(url().expect("an address"));
        config.key_prefix.clone_from(&prefix);
        // Far above what a call takes: a slow machine must not decide a test.
        config.call_timeout = Duration::from_secs(10);
        let redis = Redis::connect(&config).expect("an address");
        redis
            .wait_connected(Duration::from_secs(10))
            .await
            .expect("a connection");
        Self { redis, prefix }
    }

    /// A new run of the process that owns `journal`.
    pub(crate) fn run(&self, journal: JournalId) -> Dedup {
        self.run_with(journal, Config::default())
    }

    pub(crate) fn run_with(&self, journal: JournalId, config: Config) -> Dedup {
        Dedup::new(self.redis.clone(), journal, config).expect("random bytes")
    }
}

pub(crate) fn workspace() -> WorkspaceId {
    "ws_one".parse().expect("an id")
}

#[tokio::test]
async fn the_first_is_reserved_and_its_copies_are_duplicates_once_it_is_done() {
    let memory = Memory::new().await;
    let (dedup, ws) = (memory.run(A), workspace());
    assert_eq!(
        dedup.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [Reserved, Reserved]
    );
    assert_eq!(
        dedup.reserve(&ws, &["x", "z"]).await.expect("an answer"),
        [PendingOwn, Reserved]
    );
    dedup.done(&ws, Window::Live, &["x"]).await.expect("done");
    assert_eq!(
        dedup.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [Done, PendingOwn]
    );
}

#[tokio::test]
async fn another_process_is_told_whose_reservation_it_met() {
    let memory = Memory::new().await;
    let (a, b, ws) = (memory.run(A), memory.run(B), workspace());
    assert_eq!(a.reserve(&ws, &["x"]).await.expect("an answer"), [Reserved]);
    assert_eq!(
        b.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [PendingOther(A), Reserved]
    );
    a.done(&ws, Window::Live, &["x"]).await.expect("done");
    assert_eq!(b.reserve(&ws, &["x"]).await.expect("an answer"), [Done]);
}

#[tokio::test]
async fn a_released_id_is_free_again_and_nobody_releases_what_is_not_theirs() {
    let memory = Memory::new().await;
    let (a, b, ws) = (memory.run(A), memory.run(B), workspace());
    a.reserve(&ws, &["x", "y"]).await.expect("an answer");
    a.done(&ws, Window::Live, &["y"]).await.expect("done");
    b.release(&ws, &["x", "y", "never"]).await.expect("released");
    assert_eq!(
        b.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [PendingOther(A), Done]
    );
    a.release(&ws, &["x", "y"]).await.expect("released");
    assert_eq!(
        b.reserve(&ws, &["x", "y"]).await.expect("an answer"),
        [Reserved, Done]
    );
}

#[tokio::test]
async fn an_id_twice_in_one_call_is_not_taken_for_somebody_elses() {
    let memory = Memory::new().await;
    let (dedup, ws) = (memory.run(A), workspace());
    let answers = dedup
        .reserve(&ws, &["x", "y", "x", "x"])
        .await
        .expect("an answer");
    assert_eq!(answers, [Reserved, Reserved, Repeated, Repeated]);
    assert!(
        dedup
            .reserve(&ws, &[] as &[&str])
            .await
            .expect("an answer")
            .is_empty()
    );
}

#[tokio::test]
async fn workspaces_do_not_know_each_others_ids() {
    let memory = Memory::new().await;
    let (dedup, one, two) = (memory.run(A), workspace(), "ws_two".parse().expect("an id"));
    assert_eq!(dedup.reserve(&one, &["x"]).await.expect("an answer"), [Reserved]);
    assert_eq!(dedup.reserve(&two, &["x"]).await.expect("an answer"), [Reserved]);
}

#[tokio::test]
async fn more_ids_than_one_script_takes_are_answered_in_order() {
    let memory = Memory::new().await;
    let (dedup, ws) = (memory.run(A), workspace());
    let ids: Vec<String> = (0..CHUNK * 2 + 7).map(|n| format!("id {n}")).collect();
    let every_third: Vec<&String> = ids.iter().step_by(3).collect();
    dedup.reserve(&ws, &every_third).await.expect("an answer");
    dedup.done(&ws, Window::Live, &every_third).await.expect("done");
    let answers = dedup.reserve(&ws, &ids).await.expect("an answer");
    for (place, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, if place % 3 == 0 { Done } else { Reserved }, "{place}");
    }
}

#[tokio::test]
async fn a_reservation_that_nobody_settles_expires() {
    let memory = Memory::new().await;
    let config = Config {
        pending: Duration::from_millis(200),
        ..Config::default()
    };
    let (a, b, ws) = (
        memory.run_with(A, config),
        memory.run_with(B, config),
        workspace(),
    );
    a.reserve(&ws, &["x"]).await.expect("an answer");
    tokio::time::timeout(Duration::from_secs(20), async {
        while b.reserve(&ws, &["x"]).await.expect("an answer") != [Reserved] {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it expires");
}

#[tokio::test]
async fn everything_is_remembered_for_its_own_time_and_nothing_for_ever() {
    let memory = Memory::new().await;
    let (dedup, ws) = (memory.run(A), workspace());
    dedup
        .reserve(&ws, &["live", "import", "pending"])
        .await
        .expect("an answer");
    dedup.done(&ws, Window::Live, &["live"]).await.expect("done");
    dedup.done(&ws, Window::Import, &["import"]).await.expect("done");

    let address = fred::prelude::Config::from_url(&url().expect("an address")).expect("an address");
    let client = Builder::from_config(address).build().expect("a client");
    client.init().await.expect("a connection");
    let pattern = format!("{}*", memory.prefix);
    let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let scan = fred::types::CustomCommand::new_static("SCAN", fred::types::ClusterHash::FirstKey, false);
        let (next, some): (String, Vec<String>) = client
            .custom(scan, vec![&*cursor, "MATCH", &*pattern, "COUNT", "100000"])
            .await
            .expect("keys");
        keys.extend(some);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    // A key may come twice while others are made.
    keys.sort_unstable();
    keys.dedup();
    let mut minutes = Vec::new();
    for key in &keys {
        let left: i64 = client.pttl(key.as_str()).await.expect("a lifetime");
        assert!(left > 0, "{key} stays for ever");
        // Rounded up: a lifetime has lost some milliseconds by now, and no whole minute.
        minutes.push((left + 59_999) / 60_000);
    }
    minutes.sort_unstable();
    // The pending, the set of pendings, the list of runs, the live one, the import.
    assert_eq!(minutes, [10, 20, 30, 24 * 60, 7 * 24 * 60]);
}
