use millrace_service::{Metrics as Registry, Readiness, SystemClock};
use millrace_store::{Postgres, Redis};

use super::*;

const KNOWN: &str = "wk_known";

/// Keys whose Postgres is nowhere, and which were written down as `keys`.
fn keys(dir: &tempfile::TempDir, keys: &str) -> Keys {
    keys_with(dir, keys, KeyCache::default())
}

fn keys_with(dir: &tempfile::TempDir, keys: &str, config: KeyCache) -> Keys {
    let file = dir.path().join("keys.json");
    std::fs::write(&file, keys).unwrap();
    let postgres = Postgres::new(&millrace_store::postgres::Config::new(
        "postgres://u@127.0.0.1:1/none",
    ))
    .unwrap();
    let redis = Redis::connect(&millrace_store::redis::Config::new("redis://127.0.0.1:1")).unwrap();
    let condition = Readiness::default().condition("keys");
    let metrics = Registry::default().register(Metrics::register);
    Keys::new(
        Store::new(postgres),
        Cache::new(redis),
        config,
        Arc::new(SystemClock),
        file,
        condition,
        metrics,
    )
}

fn snapshot_of(id: &str) -> String {
    let key = serde_json::json!({
        "id": id, "kind": "server", "workspace": "ws_a", "source": "src_a", "organization": "org_a",
        "origins": [], "tier": "default", "limits": {}, "secret": vec![7; 32],
    });
    serde_json::json!({ "version": 1, "keys": [key] }).to_string()
}

#[tokio::test]
async fn a_key_that_was_written_down_is_served_while_postgres_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &snapshot_of(KNOWN));
    assert!(keys.knows_any());
    let found = keys.find(&KNOWN.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(found.workspace.as_str(), "ws_a");
    assert_eq!(keys.metrics.key_lookups_failed.get(), 1);
    keys.find(&KNOWN.parse().unwrap()).await.unwrap();
    assert_eq!(
        keys.metrics.key_lookups_failed.get(),
        1,
        "postgres is left alone for a while"
    );
}

#[tokio::test]
async fn a_key_that_nobody_knows_is_no_wrong_key_while_postgres_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, "not json");
    assert!(!keys.knows_any());
    for _ in 0..2 {
        let refusal = keys.find(&KNOWN.parse().unwrap()).await.unwrap_err();
        assert_eq!(refusal.code, IngestCode::KeyLookupUnavailable);
    }
}

#[tokio::test]
async fn what_is_known_is_written_down_and_what_is_revoked_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &snapshot_of(KNOWN));
    keys.store_snapshot().await;
    assert_eq!(snapshot::load(&keys.file).len(), 1);
    let absent = Found::absent(Duration::from_secs(10));
    assert!(matches!(
        keys.learn(&KNOWN.parse().unwrap(), absent, 0),
        Some(None)
    ));
    keys.store_snapshot().await;
    assert!(snapshot::load(&keys.file).is_empty());
    assert!(
        keys.find(&KNOWN.parse().unwrap()).await.unwrap().is_none(),
        "absence is believed too"
    );
}

#[tokio::test]
async fn an_answer_from_before_a_notice_is_not_believed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &snapshot_of(KNOWN));
    let id: KeyId = KNOWN.parse().unwrap();
    let stale = keys.find(&id).await.unwrap().unwrap();
    keys.hear(&Notice::KeyRevoked(id.clone()));
    assert!(keys.find(&id).await.unwrap().is_none(), "dropped at once");
    let answer = Found::key(Key::clone(&stale), Duration::from_secs(10));
    assert!(
        keys.learn(&id, answer, 0).is_none(),
        "asked before, answered after"
    );
    assert!(keys.find(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stranger_who_makes_keys_up_drives_no_known_one_out_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let few = KeyCache {
        capacity: 3,
        ..KeyCache::default()
    };
    let keys = keys_with(&dir, &snapshot_of(KNOWN), few);
    let known: KeyId = KNOWN.parse().unwrap();
    let answer = keys.find(&known).await.unwrap().unwrap();
    let fresh = Found::key(Key::clone(&answer), Duration::from_secs(60));
    assert!(keys.learn(&known, fresh, 0).is_some());
    for number in 0..20 {
        let id: KeyId = format!("wk_madeup{number}").parse().unwrap();
        let absent = Found::absent(Duration::from_secs(60));
        assert!(keys.learn(&id, absent, 0).is_some());
        assert!(
            matches!(keys.remembered(&id), Remembered::Fresh(None)),
            "{number}"
        );
        assert!(keys.lock().keys.len() <= 3);
    }
    assert!(matches!(keys.remembered(&known), Remembered::Fresh(Some(_))));
}

#[test]
fn a_key_is_believed_for_half_a_minute_to_a_minute() {
    let ttl = KeyCache::default().ttl;
    for _ in 0..1_000 {
        let believed = ttl + jitter(ttl);
        assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&believed));
    }
}
