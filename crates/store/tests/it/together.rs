//! Calls that wait together share their way to Redis; counted by the server.

use std::time::Duration;

use futures_util::future::join_all;
use millrace_event::JournalId;
use millrace_store::dedup::{Config, Reservation, Window};
use millrace_store::limits::{Charged, Demand, Limiter, Rate};
use millrace_store::redis::{self, Redis};
use millrace_store::{Dedup, WorkspaceId};
use millrace_testkit::redis::Server;

struct Counted {
    server: Server,
    redis: Redis,
    _directory: tempfile::TempDir,
}

impl Counted {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::start(directory.path()).await.expect("a server");
        let mut config = redis::Config::new(server.url());
        config.call_timeout = Duration::from_secs(30);
        let redis = Redis::connect(&config).expect("an address");
        redis
            .wait_connected(Duration::from_secs(30))
            .await
            .expect("a connection");
        Self {
            server,
            redis,
            _directory: directory,
        }
    }

    /// Scripts that were run.
    async fn scripts(&self) -> u64 {
        self.server.calls("evalsha").await.expect("counts") + self.server.calls("eval").await.expect("counts")
    }
}

fn workspaces() -> [WorkspaceId; 3] {
    ["ws_a", "ws_b", "ws_c"].map(|id| id.parse().expect("an id"))
}

#[tokio::test]
async fn requests_that_wait_together_reserve_and_mark_with_one_script_for_each_workspace() {
    let counted = Counted::start().await;
    let dedup = Dedup::new(counted.redis.clone(), JournalId(7), Config::default()).expect("random bytes");
    let workspaces = workspaces();
    for workspace in &workspaces {
        let first = dedup.reserve(workspace, &["first"]).await;
        assert_eq!(first.expect("an answer"), [Reservation::Reserved]);
        dedup
            .done(workspace, Window::Live, &["first"])
            .await
            .expect("marked");
    }
    let before = counted.scripts().await;
    // A request of each workspace brings a copy of another's event.
    let ids: Vec<String> = (0..120).map(|n| format!("m-{}", n.min(116))).collect();
    let reserve = |(n, id)| dedup.reserve(&workspaces[n % 3], std::slice::from_ref(id));
    let answers = join_all(ids.iter().enumerate().map(reserve)).await;
    let known: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("an answer")[0])
        .collect();
    assert_eq!(counted.scripts().await - before, 3, "of 120 requests");
    let mut expected = [Reservation::Reserved; 120];
    // 116 to 119 are the same id, in the workspaces c, a, b and c again.
    expected[119] = Reservation::PendingOwn;
    assert_eq!(known, expected);

    let done = |(n, id)| dedup.done(&workspaces[n % 3], Window::Live, std::slice::from_ref(id));
    for marked in join_all(ids.iter().enumerate().map(done)).await {
        marked.expect("marked");
    }
    assert_eq!(counted.scripts().await - before, 6, "of 240 calls");
    let again = dedup.reserve(&workspaces[1], &["m-1", "m-4", "new"]).await;
    let wanted = [Reservation::Done, Reservation::Done, Reservation::Reserved];
    assert_eq!(again.expect("an answer"), wanted);
}

#[tokio::test]
async fn requests_that_wait_together_are_charged_in_one_call_and_one_by_one_where_it_is_too_much() {
    let counted = Counted::start().await;
    let limiter = Limiter::new(counted.redis.clone());
    let demand = Demand {
        events: 2,
        rate: Rate {
            per_second: None,
            per_day: None,
            burst: Some(100),
        },
        guests: None,
    };
    let [a, b, _] = workspaces();
    let taken = |answers: Vec<Result<Charged, _>>| {
        let taken = Charged::Taken { noticed: false };
        answers
            .into_iter()
            .filter(|answer| *answer.as_ref().expect("an answer") == taken)
            .count()
    };
    let charge = async |workspace: &WorkspaceId, requests: usize| {
        taken(join_all((0..requests).map(|_| limiter.charge(workspace, &demand))).await)
    };
    assert_eq!(charge(&a, 1).await, 1);
    let before = counted.scripts().await;
    assert_eq!(charge(&a, 30).await, 30);
    assert_eq!(counted.scripts().await - before, 1, "of 30 requests");
    // 38 events are left: 19 requests of 25.
    assert_eq!(charge(&a, 25).await, 19);
    assert_eq!(counted.scripts().await - before, 1 + 1 + 25);
    // Together more than the window holds, which would pass where nothing was charged before.
    assert_eq!(charge(&b, 60).await, 50);
}
