//! What functions of a workspace know and reach: secrets, fetch origins, and that a change of either is a change of
//! the configuration.

use millrace_store::keyring::Keyring;
use millrace_store::{Chains, Entity, Error, FetchOrigins, Origin, Secrets};

use super::*;

fn keyring(folder: &tempfile::TempDir) -> Keyring {
    let path = folder.path().join("keys");
    Keyring::create(&path).expect("a key file");
    Keyring::read(&path).expect("keys")
}

#[tokio::test]
async fn a_secret_lies_sealed_opens_from_the_snapshot_and_gives_its_chains_a_new_version() {
    let (database, postgres) = migrated().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, secrets) = (keyring(&folder), Secrets::new(postgres.clone()));
    let (chains, one, other) = (
        Chains::new(postgres.clone()),
        workspace(&postgres, "one").await,
        workspace(&postgres, "other").await,
    );
    let (one, other) = (one.workspace.id, other.workspace.id);
    let version_of = async |id: &millrace_store::WorkspaceId| {
        let snapshot = chains.snapshot().await.expect("a snapshot");
        let version = snapshot
            .iter()
            .find(|chain| chain.workspace == *id)
            .map(|chain| chain.version);
        (snapshot.version, version.expect("a chain"))
    };
    let before = (version_of(&one).await, version_of(&other).await);
    secrets.set(&keys, &one, "TOKEN", "hunter2").await.expect("set");
    let after = (version_of(&one).await, version_of(&other).await);
    assert!(after.0.0 > before.0.0, "the configuration is newer");
    assert!(after.0.1 > before.0.1, "the chains of the workspace are newer");
    assert_eq!(after.1.1, before.1.1, "those of others are not");

    let snapshot = chains.snapshot().await.expect("a snapshot");
    let sealed = snapshot.secrets(&one);
    assert_eq!((sealed.len(), snapshot.secrets(&other).len()), (1, 0));
    assert_eq!(keys.open(&one, &sealed[0]).as_deref(), Ok("hunter2"));
    assert!(keys.open(&other, &sealed[0]).is_err());
    let client = database.client().await.expect("a client");
    let query = "SELECT encode(sealed, 'escape') FROM secrets";
    let dump: String = client.query_one(query, &[]).await.expect("a row").get(0);
    assert!(!dump.contains("hunter2"), "{dump}");

    secrets
        .set(&keys, &one, "TOKEN", "hunter3")
        .await
        .expect("set again");
    let listed = secrets.list(&one).await.expect("a list");
    assert_eq!(
        listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["TOKEN"]
    );
    assert_eq!(listed[0].key_id, keys.current());
    assert!(version_of(&one).await.1 > after.0.1);
    secrets.unset(&one, "TOKEN").await.expect("unset");
    assert!(
        chains
            .snapshot()
            .await
            .expect("a snapshot")
            .secrets(&one)
            .is_empty()
    );
    match secrets.unset(&one, "TOKEN").await {
        Err(Error::NotFound {
            entity: Entity::Secret,
            name,
        }) => assert_eq!(name, "TOKEN"),
        unset => panic!("{unset:?}"),
    }
}

#[tokio::test]
async fn names_and_values_of_secrets_have_bounds() {
    let (_database, postgres) = migrated().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, secrets) = (keyring(&folder), Secrets::new(postgres.clone()));
    let id = workspace(&postgres, "one").await.workspace.id;
    let (long_name, long_value) = ("N".repeat(129), "x".repeat((16 << 10) + 1));
    for (name, value) in [
        ("", "v"),
        ("1A", "v"),
        ("A-B", "v"),
        ("É", "v"),
        (long_name.as_str(), "v"),
        ("A", ""),
        ("A", long_value.as_str()),
    ] {
        assert!(
            matches!(
                secrets.set(&keys, &id, name, value).await,
                Err(Error::Invalid { .. })
            ),
            "{name}"
        );
    }
    secrets
        .set(&keys, &id, "A", &"x".repeat(16 << 10))
        .await
        .expect("as large as may be");
    for n in 1..100 {
        secrets
            .set(&keys, &id, &format!("S{n}"), "v")
            .await
            .expect("room");
    }
    assert!(matches!(
        secrets.set(&keys, &id, "ONE_MORE", "v").await,
        Err(Error::Invalid { .. })
    ));
    secrets
        .set(&keys, &id, "S5", "w")
        .await
        .expect("one that is there can be changed");
}

#[tokio::test]
async fn after_a_rotation_everything_can_be_sealed_under_the_new_key() {
    let (_database, postgres) = migrated().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (old, secrets) = (keyring(&folder), Secrets::new(postgres.clone()));
    let id = workspace(&postgres, "one").await.workspace.id;
    for (name, value) in [("A", "1"), ("B", "2")] {
        secrets.set(&old, &id, name, value).await.expect("set");
    }
    let path = folder.path().join("keys");
    Keyring::rotate(&path).expect("rotated");
    let keys = Keyring::read(&path).expect("keys");
    secrets.set(&keys, &id, "B", "3").await.expect("set");
    let resealed = secrets.reseal(&keys).await.expect("resealed");
    assert_eq!((resealed.moved, resealed.kept, resealed.failed.len()), (1, 1, 0));
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, text.lines().next().expect("a line")).expect("written");
    let only_new = Keyring::read(&path).expect("keys");
    let snapshot = Chains::new(postgres.clone())
        .snapshot()
        .await
        .expect("a snapshot");
    let opened: Vec<_> = snapshot
        .secrets(&id)
        .iter()
        .map(|sealed| only_new.open(&id, sealed))
        .collect();
    assert_eq!(opened, [Ok("1".to_owned()), Ok("3".to_owned())]);
    // A key file without the key: nothing is lost, and it is said.
    let other = tempfile::tempdir().expect("a folder");
    let resealed = secrets.reseal(&keyring(&other)).await.expect("an answer");
    assert_eq!((resealed.moved, resealed.failed.len()), (0, 2));
    assert_eq!(only_new.open(&id, &snapshot.secrets(&id)[0]).as_deref(), Ok("1"));
}

#[tokio::test]
async fn fetch_origins_are_the_workspaces_own_and_part_of_its_chains() {
    let (_database, postgres) = migrated().await;
    let (origins, chains) = (FetchOrigins::new(postgres.clone()), Chains::new(postgres.clone()));
    let (one, other) = (
        workspace(&postgres, "one").await.workspace.id,
        workspace(&postgres, "other").await.workspace.id,
    );
    let api: Origin = "api.example.com".parse().expect("an origin");
    let before = chains.version().await.expect("a version");
    origins.allow(&one, &api).await.expect("allowed");
    origins.allow(&one, &api).await.expect("twice is once");
    assert!(chains.version().await.expect("a version") > before);
    let snapshot = chains.snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.origins(&one), std::slice::from_ref(&api));
    assert!(snapshot.origins(&other).is_empty());
    assert_eq!(
        origins.list(&one).await.expect("a list"),
        std::slice::from_ref(&api)
    );
    origins.forbid(&one, &api).await.expect("forbidden");
    assert!(matches!(
        origins.forbid(&one, &api).await,
        Err(Error::NotFound {
            entity: Entity::Origin,
            ..
        })
    ));
    for n in 0..100 {
        let origin = format!("h{n}.example.com").parse().expect("an origin");
        origins.allow(&one, &origin).await.expect("room");
    }
    assert!(matches!(
        origins.allow(&one, &api).await,
        Err(Error::Invalid { .. })
    ));
}
