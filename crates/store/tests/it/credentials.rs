use std::time::Duration;

use millrace_event::KeyKind;
use millrace_store::keys::{Cache, Cached, Key, NewKey, Presented, Refusal};
use millrace_store::redis::Config;
use millrace_store::{Entity, Error, Keys, Notice, Redis, Tokens, notice};

use crate::{migrated, name, workspace};

const PATIENCE: Duration = Duration::from_secs(10);

fn presented(text: &str) -> Presented {
    Presented::parse(text).expect("the form of a key")
}

#[tokio::test]
async fn a_server_key_opens_with_its_secret_only() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let keys = Keys::new(postgres);
    for kind in [KeyKind::Server, KeyKind::Import] {
        let (workspace, source) = (demo.workspace.id.clone(), demo.source.id.clone());
        let issued = keys
            .create(&NewKey {
                kind,
                workspace,
                source,
                origins: vec![],
            })
            .await
            .expect("a key");
        let other = keys
            .create(&NewKey {
                kind,
                workspace: demo.workspace.id.clone(),
                source: demo.source.id.clone(),
                origins: vec![],
            })
            .await
            .expect("a key");
        let found = keys.find(&issued.id).await.expect("an answer").expect("a key");
        assert_eq!(
            (&found.workspace, &found.source),
            (&demo.workspace.id, &demo.source.id)
        );
        assert_eq!(
            (&found.organization, found.kind),
            (&demo.workspace.organization, kind)
        );

        assert_eq!(found.admit(presented(&issued.expose()).secret.as_ref()), Ok(()));
        assert_eq!(
            found.admit(presented(issued.id.as_str()).secret.as_ref()),
            Err(Refusal::SecretMissing)
        );
        assert_eq!(
            found.admit(presented(&other.expose()).secret.as_ref()),
            Err(Refusal::SecretWrong)
        );
    }
}

#[tokio::test]
async fn a_browser_key_opens_with_its_id_alone_and_carries_its_origins() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let keys = Keys::new(postgres);
    let origins = vec!["https://shop.example".to_owned(), "http://localhost".to_owned()];
    let new = NewKey {
        kind: KeyKind::Browser,
        workspace: demo.workspace.id,
        source: demo.source.id,
        origins: origins.clone(),
    };
    let issued = keys.create(&new).await.expect("a key");
    let found = keys.find(&issued.id).await.expect("an answer").expect("a key");
    assert_eq!(found.origins, origins);
    assert_eq!(found.admit(None), Ok(()));
    assert_eq!(found.admit(presented(&issued.expose()).secret.as_ref()), Ok(()));
    assert_eq!(
        found.admit(presented("wk_any:wrong").secret.as_ref()),
        Err(Refusal::SecretWrong)
    );

    let (without, path) = (vec![], vec!["https://shop.example/cart".to_owned()]);
    for new in [
        NewKey {
            kind: KeyKind::Server,
            ..new.clone()
        },
        NewKey {
            origins: without,
            ..new.clone()
        },
        NewKey {
            origins: path,
            ..new.clone()
        },
    ] {
        let refused = keys.create(&new).await;
        assert!(
            matches!(refused, Err(Error::Invalid { what: "origins", .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_revoked_key_is_as_unknown_as_one_that_never_was() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let keys = Keys::new(postgres);
    let new = NewKey {
        kind: KeyKind::Server,
        workspace: demo.workspace.id.clone(),
        source: demo.source.id,
        origins: vec![],
    };
    let issued = keys.create(&new).await.expect("a key");
    keys.revoke(&issued.id).await.expect("revoked");
    let since = keys.list(&demo.workspace.id).await.expect("a list")[0].revoked_at;
    keys.revoke(&issued.id).await.expect("revoked again");

    assert!(keys.find(&issued.id).await.expect("an answer").is_none());
    assert!(
        keys.find(&"wk_never".parse().expect("an id"))
            .await
            .expect("an answer")
            .is_none()
    );
    let listed = keys.list(&demo.workspace.id).await.expect("a list");
    assert_eq!(listed.len(), 1);
    assert!(
        since.is_some() && listed[0].revoked_at == since,
        "the first time counts"
    );
    let missing = keys.revoke(&"wk_never".parse().expect("an id")).await;
    assert!(
        matches!(
            missing,
            Err(Error::NotFound {
                entity: Entity::Key,
                ..
            })
        ),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_key_cannot_be_made_for_another_workspaces_source() {
    let (_database, postgres) = migrated().await;
    let (ours, theirs) = (
        workspace(&postgres, "ours").await,
        workspace(&postgres, "theirs").await,
    );
    let new = NewKey {
        kind: KeyKind::Server,
        workspace: ours.workspace.id,
        source: theirs.source.id,
        origins: vec![],
    };
    let refused = Keys::new(postgres).create(&new).await;
    assert!(
        matches!(
            refused,
            Err(Error::NotFound {
                entity: Entity::Source,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_secret_is_stored_or_printed_and_a_key_survives_a_file() {
    let (database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let keys = Keys::new(postgres.clone());
    let new = NewKey {
        kind: KeyKind::Server,
        workspace: demo.workspace.id,
        source: demo.source.id,
        origins: vec![],
    };
    let issued = keys.create(&new).await.expect("a key");
    let token = Tokens::new(postgres).create(&name("ci")).await.expect("a token");

    let client = database.client().await.expect("a connection");
    let query = "SELECT (SELECT string_agg(k::text, '') FROM write_keys k) || (SELECT string_agg(t::text, '') FROM service_tokens t)";
    let stored: String = client.query_one(query, &[]).await.expect("a row").get(0);
    let key = keys.find(&issued.id).await.expect("an answer").expect("a key");
    let file = serde_json::to_string(&key).expect("json");
    let shown = format!("{stored} {file} {key:?} {issued:?} {token:?}");
    for secret in [issued.expose(), token.expose()] {
        let secret = secret.split([':', '.']).next_back().expect("a secret").to_owned();
        assert!(secret.len() >= 32 && !shown.contains(&secret), "{shown}");
    }
    let read: Key = serde_json::from_str(&file).expect("a key");
    assert_eq!(read.admit(presented(&issued.expose()).secret.as_ref()), Ok(()));
    assert_eq!(read.id, key.id);
}

#[tokio::test]
async fn a_token_opens_until_it_is_revoked() {
    let (_database, postgres) = migrated().await;
    let tokens = Tokens::new(postgres);
    let (one, two) = (
        tokens.create(&name("ci")).await.expect("a token"),
        tokens.create(&name("ci")).await.expect("another"),
    );
    let verified = tokens
        .verify(&one.expose())
        .await
        .expect("an answer")
        .expect("a token");
    assert_eq!((verified.id, verified.name.as_str()), (one.id.clone(), "ci"));

    let swapped = format!(
        "{}.{}",
        one.id,
        two.expose().split_once('.').expect("two parts").1
    );
    for text in [
        "",
        ".",
        "ci",
        one.id.as_str(),
        &format!("{}.", one.id),
        &swapped,
        &one.expose().to_uppercase(),
    ] {
        assert_eq!(tokens.verify(text).await.expect("an answer"), None, "{text}");
    }
    tokens.revoke(&one.id).await.expect("revoked");
    assert_eq!(tokens.verify(&one.expose()).await.expect("an answer"), None);
    assert!(tokens.verify(&two.expose()).await.expect("an answer").is_some());
}

#[tokio::test]
async fn a_cached_key_is_the_key_and_a_revoked_one_is_not_written_over() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let keys = Keys::new(postgres);
    let new = NewKey {
        kind: KeyKind::Server,
        workspace: demo.workspace.id,
        source: demo.source.id,
        origins: vec![],
    };
    let issued = keys.create(&new).await.expect("a key");
    let found = keys.find(&issued.id).await.expect("an answer").expect("a key");
    let mut config = Config::new(millrace_testkit::redis::url().expect("redis"));
    config.key_prefix = millrace_testkit::redis::prefix();
    let redis = Redis::connect(&config).expect("redis");
    redis.wait_connected(PATIENCE).await.expect("connected");
    let (heard, mut notices) = tokio::sync::mpsc::channel(8);
    let listening = tokio::spawn(notice::listen(redis.clone(), move |notice| {
        heard.try_send(notice).expect("room");
    }));
    assert_eq!(
        notices.recv().await,
        Some(Notice::Missed),
        "what was before it listened"
    );

    let cache = Cache::new(redis);
    assert!(matches!(
        cache.find(&issued.id).await.expect("an answer"),
        Cached::Unknown
    ));
    cache.remember(&found, PATIENCE).await.expect("kept");
    match cache.find(&issued.id).await.expect("an answer") {
        Cached::Key { key, left } => {
            assert!(left <= PATIENCE);
            assert_eq!(key.admit(presented(&issued.expose()).secret.as_ref()), Ok(()));
        }
        other => panic!("{other:?}"),
    }
    cache.revoke(&issued.id).await.expect("revoked");
    assert_eq!(notices.recv().await, Some(Notice::KeyRevoked(issued.id.clone())));
    cache.remember(&found, PATIENCE).await.expect("no error");
    assert!(matches!(
        cache.find(&issued.id).await.expect("an answer"),
        Cached::Revoked
    ));
    drop(listening);
}
