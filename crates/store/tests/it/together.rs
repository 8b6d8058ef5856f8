//! Calls that wait together share their way to Redis; counted by the server.

use std::time::Duration;

use futures_util::future::join_all;
use millrace_event::JournalId;
use millrace_store::admission::{self, Admitted, Round};
use millrace_store::dedup::{Config, Fingerprint, Reservation, Window};
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

#[tokio::test]
async fn requests_are_charged_reserved_and_marked_in_one_script_and_one_beyond_its_limit_leaves_no_trace() {
    let counted = Counted::start().await;
    let dedup = Dedup::new(counted.redis.clone(), JournalId(7), Config::default()).expect("random bytes");
    let other = Dedup::new(counted.redis.clone(), JournalId(8), Config::default()).expect("random bytes");
    let [workspace, ..] = workspaces();
    let rate = Rate {
        burst: Some(10),
        ..Rate::NONE
    };
    let ids = |ids: &'static [&str]| ids.iter().map(|id| Fingerprint::of(id));
    let mut first = Round::default();
    first.request(2, ids(&["a", "b"]));
    let begun = tokio::time::Instant::now();
    let known = admission::admit(&dedup, &workspace, rate, &first).await;
    let reserved = vec![Reservation::Reserved; 2];
    assert_eq!(known.expect("an answer"), [Admitted::Taken(reserved)]);
    other.reserve(&workspace, &["theirs"]).await.expect("an answer");

    let before = counted.scripts().await;
    let mut round = Round::default();
    round.done(Window::Live, &[Fingerprint::of("a")]);
    round.done(Window::Import, &[Fingerprint::of("never reserved")]);
    round.request(5, ids(&["a", "b", "c", "c", "never reserved"]));
    round.request(4, ids(&["too much"]));
    round.request(1, ids(&["theirs"]));
    round.request(0, ids(&["charged before"]));
    let known = admission::admit(&dedup, &workspace, rate, &round)
        .await
        .expect("an answer");
    assert_eq!(counted.scripts().await - before, 1);
    let [one, two, three, four] = known.as_slice() else {
        panic!("{known:?}");
    };
    let expected = [
        Reservation::Done,
        Reservation::PendingOwn,
        Reservation::Reserved,
        Reservation::Repeated,
        Reservation::Done,
    ];
    assert_eq!(*one, Admitted::Taken(expected.to_vec()));
    let Admitted::Refused { reset } = two else {
        panic!("7 of 10 are charged, 4 more are too many: {two:?}");
    };
    assert!(
        *reset + begun.elapsed() > Duration::from_secs(4) && *reset <= Duration::from_millis(5_500),
        "{reset:?}"
    );
    let pending = Reservation::PendingOther(JournalId(8));
    assert_eq!(*three, Admitted::Taken(vec![pending]));
    assert_eq!(*four, Admitted::Taken(vec![Reservation::Reserved]));

    // 8 are charged by now, and the limiter counts the same.
    let limiter = Limiter::new(counted.redis.clone());
    let demand = |events| Demand {
        events,
        rate,
        guests: None,
    };
    let charge = async |events| {
        limiter
            .charge(&workspace, &demand(events))
            .await
            .expect("an answer")
    };
    assert!(matches!(charge(3).await, Charged::Refused { .. }));
    assert_eq!(charge(2).await, Charged::Taken { noticed: false });
    let again = dedup.reserve(&workspace, &["too much", "b"]).await;
    let wanted = [Reservation::Reserved, Reservation::PendingOwn];
    assert_eq!(
        again.expect("an answer"),
        wanted,
        "nothing of the refused one was reserved"
    );
}

#[tokio::test]
async fn a_request_larger_than_the_limit_goes_first_and_alone() {
    let counted = Counted::start().await;
    let dedup = Dedup::new(counted.redis.clone(), JournalId(7), Config::default()).expect("random bytes");
    let [workspace, ..] = workspaces();
    let rate = Rate {
        burst: Some(10),
        ..Rate::NONE
    };
    let mut round = Round::default();
    round.request(25, std::iter::once(Fingerprint::of("a")));
    round.request(1, std::iter::once(Fingerprint::of("b")));
    let known = admission::admit(&dedup, &workspace, rate, &round)
        .await
        .expect("an answer");
    assert!(
        matches!(known.as_slice(), [Admitted::Taken(_), Admitted::Refused { .. }]),
        "{known:?}"
    );
}
