//! Postgres and Redis are killed and come back while requests are served.

use millrace_testkit::{postgres, redis};

use super::*;

/// A gateway with a Postgres and a Redis of its own.
struct Stores {
    pipeline: Pipeline,
    postgres: postgres::Server,
    redis: redis::Server,
    _directory: tempfile::TempDir,
}

impl Stores {
    async fn start(tier: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let redis = redis::Server::start(directory.path()).await.unwrap();
        let postgres = postgres::Server::start().await.unwrap();
        let set = |name, value: &str| (name, value.to_owned());
        let settings = vec![
            ("MILLRACE__REDIS__URL", redis.url()),
            // What is believed is asked for again all the time.
            set("MILLRACE__KEYS__TTL", "50ms"),
            set("MILLRACE__KEYS__ABSENT_TTL", "50ms"),
            set("MILLRACE__FIELDS__TTL", "50ms"),
        ];
        let options = Options {
            services: Some(vec!["ingest"]),
            tier: Some(tier),
            postgres: Some(postgres.url()),
            settings: [("ingest", settings)].into(),
            ..Options::default()
        };
        let pipeline = Pipeline::start(options).await.expect("the gateway starts");
        Self {
            pipeline,
            postgres,
            redis,
            _directory: directory,
        }
    }
}

/// Sends numbered events, each with a field of its own, until told to stop; gives how many.
async fn send(
    sender: Sender,
    from: String,
    stop: tokio_util::sync::CancellationToken,
) -> (usize, Vec<(u16, String)>) {
    let (mut count, mut others) = (0, Vec::new());
    while !stop.is_cancelled() {
        let mut event = track(&format!("{from}-{count}"));
        event["properties"] = json!({ format!("field_{from}_{count}"): count, "known": "text" });
        let answer = sender.post("/v1/track", &event).await.expect("an answer");
        if answer.status != 200 {
            others.push((answer.status.as_u16(), answer.body));
        }
        count += 1;
    }
    (count, others)
}

#[tokio::test]
async fn postgres_and_redis_are_killed_and_come_back_without_an_outage_or_a_loss() {
    let mut stores = Stores::start("enterprise").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sender = stores.pipeline.sender();
    insist(&sender, "/v1/track", &track("first")).await;
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (sender, stop) = (sender.clone(), stop.clone());
        senders.spawn(async move {
            let from = format!("s{number}");
            (from.clone(), send(sender, from, stop).await)
        });
    }
    // As many events as it takes to see that they are taken.
    let accepted = async |pipeline: &Pipeline| {
        let name = "millrace_ingest_events_accepted_total";
        pipeline.metric("ingest", name, "").await.unwrap()
    };
    let more = async |pipeline: &Pipeline, when: &str| {
        let before = accepted(pipeline).await;
        let more = until(when, PATIENCE, || async {
            Ok((accepted(pipeline).await > before + 50.0).then_some(()))
        });
        more.await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", pipeline.tails()));
    };
    more(&stores.pipeline, "events while both are there").await;
    stores.postgres.kill().await.unwrap();
    more(&stores.pipeline, "events without postgres").await;
    stores.redis.kill().await.unwrap();
    more(&stores.pipeline, "events without both").await;
    stores.postgres.start_again().await.unwrap();
    more(&stores.pipeline, "events without redis").await;
    stores.postgres.kill().await.unwrap();
    stores.redis.start_again().await.unwrap();
    more(&stores.pipeline, "events with redis again").await;
    stores.postgres.start_again().await.unwrap();
    more(&stores.pipeline, "events with both again").await;
    stop.cancel();
    let mut ids = BTreeSet::from(["first".to_owned()]);
    while let Some(sent) = senders.join_next().await {
        let (from, (count, others)) = sent.unwrap();
        assert_eq!(others, [], "every answer is 200");
        ids.extend((0..count).map(|number| format!("{from}-{number}")));
    }
    let events = all_arrived(&stores.pipeline, &ids).await;
    assert_eq!(events.len(), ids.len());
    // Types are learned and judged again. One that passed unchecked before that is known from then on: each is another.
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let conflict = until("a type conflict", PATIENCE, || async {
        let number = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut event = track(&format!("conflict-{number}"));
        event["properties"] = json!({ "known": 1 });
        let answer = sender.post("/v1/track", &event).await?;
        Ok((answer.status == 400).then_some(answer))
    });
    let conflict = conflict.await.unwrap().json().unwrap();
    assert_eq!(
        (&conflict["code"], &conflict["field"]),
        (&json!("type_conflict"), &json!("known"))
    );
}

#[tokio::test]
async fn a_key_that_was_never_seen_is_429_without_postgres_and_known_once_it_is_back() {
    let mut stores = Stores::start("enterprise").await;
    let unseen = stores.pipeline.key("server", &[]).await.unwrap();
    stores.postgres.kill().await.unwrap();
    stores.redis.kill().await.unwrap();
    let url = format!("{}/v1/track", stores.pipeline.url("ingest"));
    let client = stores.pipeline.client.clone();
    let post = async |key: &str| {
        let headers = [("x-write-key", key)];
        client.post(&url, &headers, track("unseen").to_string()).await
    };
    for key in [unseen.as_str(), "wk_never:made"] {
        let answer = post(key).await.unwrap();
        assert_eq!(answer.status, 429, "never 401: {}", answer.body);
        let seconds = answer.headers["retry-after"].to_str().unwrap();
        assert!(seconds.parse::<u64>().unwrap() >= 1, "{seconds}");
        assert_eq!(answer.json().unwrap()["code"], "key_lookup_unavailable");
    }
    stores.postgres.start_again().await.unwrap();
    let judged = |key: String, status: u16| {
        let post = &post;
        async move {
            let judged = until("a judgement", PATIENCE, || async {
                Ok((post(&key).await?.status == status).then_some(()))
            });
            judged.await.unwrap_or_else(|error| panic!("{status}: {error:#}"));
        }
    };
    judged(unseen, 200).await;
    judged("wk_never:made".to_owned(), 401).await;
}

#[tokio::test]
async fn a_gateway_that_starts_while_postgres_and_redis_are_away_serves_the_keys_that_it_knew() {
    let mut stores = Stores::start("enterprise").await;
    let unseen = stores.pipeline.key("server", &[]).await.unwrap();
    insist(&stores.pipeline.sender(), "/v1/track", &track("before")).await;
    let keys = stores.pipeline.directory().join("journal/keys.json");
    let written = until("the key is written down", PATIENCE, || async {
        Ok(std::fs::read_to_string(&keys).ok())
    });
    let written = written.await.unwrap();
    let (id, secret) = stores.pipeline.write_key.split_once(':').unwrap();
    assert!(written.contains(id) && !written.contains(secret), "as a hash");

    stores.postgres.kill().await.unwrap();
    stores.redis.kill().await.unwrap();
    stores.pipeline.kill_and_restart("ingest").await.unwrap();
    stores.pipeline.ready("ingest").await.unwrap();
    let answer = stores
        .pipeline
        .sender()
        .post("/v1/track", &track("after"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = stores.pipeline.sender_as(&unseen);
    let answer = answer.post("/v1/track", &track("unseen")).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.json().unwrap()["code"]),
        (429, &json!("key_lookup_unavailable"))
    );
    let ids = BTreeSet::from(["before".to_owned(), "after".to_owned()]);
    let events = all_arrived(&stores.pipeline, &ids).await;
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn limits_hold_while_redis_is_away_and_after_it_came_back_empty() {
    let mut stores = Stores::start("default").await;
    let sender = stores.pipeline.sender();
    let batch = |from: &str, count: usize| {
        let events: Vec<_> = (0..count)
            .map(|number| track(&format!("{from}-{number}")))
            .collect();
        json!({ "batch": events })
    };
    let status = async |from: &str, count| {
        let answer = sender.post("/v1/batch", &batch(from, count)).await.unwrap();
        answer.status.as_u16()
    };
    // Of a day, which no slow machine gets to the end of.
    let set = [
        "workspace",
        "set",
        &stores.pipeline.name,
        "--events-per-day",
        "600",
        "--burst",
        "100000",
    ];
    stores.pipeline.millctl(&set).await.unwrap();
    let limited = until("the new limits", PATIENCE, || async {
        Ok((status("a", 550).await == 200).then_some(()))
    });
    limited.await.unwrap();
    assert_eq!(status("b", 400).await, 429);
    stores.redis.kill().await.unwrap();
    // The gateway's own bucket begins empty.
    assert_eq!(status("c", 550).await, 200);
    assert_eq!(status("d", 400).await, 429);
    stores.redis.start_again().await.unwrap();
    let again = until("redis again", PATIENCE, || async {
        let ready = format!("{}/ready", stores.pipeline.url("ingest"));
        let answer = stores.pipeline.client.get(&ready).await?;
        Ok((answer.json()?["conditions"]["redis"]["ready"] == true).then_some(()))
    });
    again.await.unwrap();
    // So do the shared windows; a call or two may still miss them.
    insist(&sender, "/v1/batch", &batch("e", 550)).await;
    assert_eq!(status("f", 400).await, 429);
}
