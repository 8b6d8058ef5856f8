use millrace_store::functions::{Language, MAX_CODE_BYTES, Route};
use millrace_store::workspaces::{Limits, NewWorkspace, Tier};
use millrace_store::{Chains, Entity, Error, Functions, Postgres, WorkspaceId, Workspaces};

use crate::{migrated, name, new_workspace, workspace};

const JS: Language = Language::JavaScript;

async fn put(postgres: &Postgres, workspace: &WorkspaceId, function: &str, code: &str) -> u32 {
    let put = Functions::new(postgres.clone())
        .put(workspace, &name(function), JS, code)
        .await;
    put.expect("a version").version
}

/// The functions of the one chain of the workspace named `demo`, as `name@version`.
async fn running(postgres: &Postgres, source: &str) -> Vec<String> {
    let snapshot = Chains::new(postgres.clone())
        .snapshot()
        .await
        .expect("a snapshot");
    let [chain] = snapshot.of(source) else {
        panic!("one chain, not {:?}", snapshot.of(source))
    };
    chain
        .functions
        .iter()
        .map(|function| format!("{}@{}", function.name, function.version))
        .collect()
}

#[tokio::test]
async fn a_new_workspace_has_a_source_a_destination_and_an_empty_chain() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    assert!(demo.created);
    assert_eq!(
        (demo.source.name.as_str(), demo.destination.name.as_str()),
        ("default", "default")
    );
    assert_eq!(
        (demo.workspace.tier, demo.workspace.limits),
        (Tier::Default, Limits::default())
    );

    let snapshot = Chains::new(postgres).snapshot().await.expect("a snapshot");
    let [chain] = snapshot.of(demo.source.id.as_str()) else {
        panic!("one chain")
    };
    assert_eq!(
        (&chain.workspace, &chain.destination),
        (&demo.workspace.id, &demo.destination)
    );
    assert_eq!(
        (
            chain.destination.database.as_str(),
            chain.destination.table.as_str()
        ),
        ("ws_demo", "events")
    );
    assert!(chain.functions.is_empty());
    assert!(snapshot.of("src_unknown").is_empty());
}

#[tokio::test]
async fn making_a_workspace_again_finds_it_even_when_many_do_at_once() {
    let (_database, postgres) = migrated().await;
    let workspaces = Workspaces::new(postgres);
    let new = new_workspace("demo");
    let (a, b, c) = tokio::join!(
        workspaces.create(&new),
        workspaces.create(&new),
        workspaces.create(&new)
    );
    let made = [a, b, c].map(|result| result.expect("a workspace"));
    assert_eq!(made.iter().filter(|one| one.created).count(), 1);
    assert!(
        made.iter()
            .all(|one| one.destination == made[0].destination && one.source == made[0].source)
    );
    for text in ["demo", made[0].workspace.id.as_str()] {
        assert_eq!(
            workspaces.find(text).await.expect("a workspace"),
            made[0].workspace
        );
    }
    assert_eq!(workspaces.list().await.expect("a list").len(), 1);
}

#[tokio::test]
async fn a_workspace_of_another_organization_is_not_handed_out() {
    let (_database, postgres) = migrated().await;
    workspace(&postgres, "demo").await;
    let new = NewWorkspace {
        organization: name("other"),
        ..new_workspace("demo")
    };
    let refused = Workspaces::new(postgres).create(&new).await;
    assert!(
        matches!(
            refused,
            Err(Error::Taken {
                entity: Entity::Workspace,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn two_workspaces_cannot_have_one_table() {
    let (_database, postgres) = migrated().await;
    workspace(&postgres, "a_b").await;
    let new = NewWorkspace {
        database: "ws_a_b".to_owned(),
        ..new_workspace("a-b")
    };
    let workspaces = Workspaces::new(postgres);
    let refused = workspaces.create(&new).await;
    assert!(
        matches!(
            refused,
            Err(Error::Taken {
                entity: Entity::Table,
                ..
            })
        ),
        "{refused:?}"
    );
    let missing = workspaces.find("a-b").await;
    assert!(
        matches!(
            missing,
            Err(Error::NotFound {
                entity: Entity::Workspace,
                ..
            })
        ),
        "nothing was left: {missing:?}"
    );
}

#[tokio::test]
async fn versions_count_up_and_the_same_code_again_is_the_same_version() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let functions = Functions::new(postgres);
    let first = functions
        .put(&demo, &name("enrich"), JS, "one")
        .await
        .expect("a version");
    let again = functions
        .put(&demo, &name("enrich"), JS, "one")
        .await
        .expect("a version");
    let typed = functions
        .put(&demo, &name("enrich"), Language::TypeScript, "one")
        .await
        .expect("a version");
    let back = functions
        .put(&demo, &name("enrich"), JS, "one")
        .await
        .expect("a version");
    assert_eq!(
        [first.version, again.version, typed.version, back.version],
        [1, 1, 2, 3]
    );
    assert_eq!([first.created, again.created, typed.created], [true, false, true]);
    assert_eq!(first.function, back.function);
}

#[tokio::test]
async fn versions_put_at_once_are_dense() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let functions = Functions::new(postgres);
    let f = name("f");
    let (a, b, c, d) = tokio::join!(
        functions.put(&demo, &f, JS, "a"),
        functions.put(&demo, &f, JS, "b"),
        functions.put(&demo, &f, JS, "c"),
        functions.put(&demo, &f, JS, "d")
    );
    let mut versions = [a, b, c, d].map(|put| put.expect("a version").version);
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[tokio::test]
async fn code_that_cannot_be_code_is_refused() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let functions = Functions::new(postgres);
    for code in ["", " \n", "a\0b", &"x".repeat(MAX_CODE_BYTES + 1)] {
        let refused = functions.put(&demo, &name("f"), JS, code).await;
        assert!(
            matches!(refused, Err(Error::Invalid { what: "code", .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn functions_run_in_the_order_of_their_first_promotion() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let (id, source) = (&demo.workspace.id, demo.source.id.as_str());
    let functions = Functions::new(postgres.clone());
    let route = Route::default();
    for (function, code) in [("b", "1"), ("a", "1"), ("b", "2")] {
        put(&postgres, id, function, code).await;
    }
    assert!(
        running(&postgres, source).await.is_empty(),
        "nothing runs before it is promoted"
    );
    functions
        .promote(id, &route, "b", Some(1))
        .await
        .expect("promoted");
    functions.promote(id, &route, "a", None).await.expect("promoted");
    assert_eq!(running(&postgres, source).await, ["b@1", "a@1"]);
    let newest = functions.promote(id, &route, "b", None).await.expect("promoted");
    assert_eq!(newest.version, 2);
    assert_eq!(running(&postgres, source).await, ["b@2", "a@1"]);

    let listed = functions.list(id).await.expect("a list");
    let shown: Vec<_> = listed
        .iter()
        .map(|one| {
            (
                one.name.as_str(),
                one.newest,
                one.promoted.iter().map(|p| (p.position, p.version)).collect(),
            )
        })
        .collect();
    assert_eq!(shown, [("a", 1, vec![(1, 1)]), ("b", 2, vec![(0, 2)])]);
}

#[tokio::test]
async fn a_rollback_returns_step_by_step_and_then_says_that_there_is_nothing_left() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await;
    let (id, source) = (&demo.workspace.id, demo.source.id.as_str());
    let functions = Functions::new(postgres.clone());
    let route = Route::default();
    for code in ["1", "2", "3"] {
        put(&postgres, id, "f", code).await;
        functions.promote(id, &route, "f", None).await.expect("promoted");
    }
    functions
        .promote(id, &route, "f", Some(1))
        .await
        .expect("promoted an older one");
    for expected in [3, 2, 1] {
        let now = functions.rollback(id, &route, "f").await.expect("rolled back");
        assert_eq!(now.version, expected);
        assert_eq!(running(&postgres, source).await, [format!("f@{expected}")]);
    }
    let refused = functions.rollback(id, &route, "f").await;
    assert!(
        matches!(refused, Err(Error::NothingToRollBack { .. })),
        "{refused:?}"
    );
    // After a rollback the next promotion builds on what is in force.
    functions
        .promote(id, &route, "f", Some(3))
        .await
        .expect("promoted");
    assert_eq!(
        functions
            .rollback(id, &route, "f")
            .await
            .expect("rolled back")
            .version,
        1
    );
}

#[tokio::test]
async fn what_is_not_there_cannot_be_promoted() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let other = workspace(&postgres, "other").await.workspace.id;
    put(&postgres, &demo, "f", "1").await;
    let functions = Functions::new(postgres);
    let route = Route::default();
    let elsewhere = Route {
        destination: "nowhere".to_owned(),
        ..Route::default()
    };
    for (result, entity) in [
        (
            functions.promote(&demo, &route, "g", None).await,
            Entity::Function,
        ),
        (
            functions.promote(&demo, &route, "f", Some(2)).await,
            Entity::FunctionVersion,
        ),
        (
            functions.promote(&demo, &route, "f", Some(u32::MAX)).await,
            Entity::FunctionVersion,
        ),
        (
            functions.promote(&demo, &elsewhere, "f", None).await,
            Entity::Destination,
        ),
        (
            functions.promote(&other, &route, "f", None).await,
            Entity::Function,
        ),
    ] {
        assert!(
            matches!(&result, Err(Error::NotFound { entity: found, .. }) if *found == entity),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn the_version_moves_with_every_change_that_a_rotor_must_see_and_with_no_other() {
    let (database, postgres) = migrated().await;
    let chains = Chains::new(postgres.clone());
    let demo = workspace(&postgres, "demo").await;
    let (id, route, functions) = (
        &demo.workspace.id,
        Route::default(),
        Functions::new(postgres.clone()),
    );
    let client = database.client().await.expect("a connection");

    let mut before = chains.version().await.expect("a version");
    put(&postgres, id, "f", "1").await;
    workspace(&postgres, "demo").await;
    assert_eq!(
        chains.version().await.expect("a version"),
        before,
        "nothing runs differently"
    );

    for change in [
        "promote",
        "put and promote",
        "rollback",
        "destination",
        "second workspace",
    ] {
        match change {
            "promote" => drop(functions.promote(id, &route, "f", None).await.expect("promoted")),
            "put and promote" => {
                put(&postgres, id, "f", "2").await;
                functions.promote(id, &route, "f", None).await.expect("promoted");
            }
            "rollback" => drop(functions.rollback(id, &route, "f").await.expect("rolled back")),
            "destination" => {
                client
                    .batch_execute("UPDATE destinations SET \"table\" = 'other'")
                    .await
                    .expect("an update");
            }
            _ => drop(workspace(&postgres, "second").await),
        }
        let after = chains.version().await.expect("a version");
        assert!(after > before, "{change}");
        assert_eq!(
            chains.snapshot().await.expect("a snapshot").version,
            after,
            "{change}"
        );
        before = after;
    }
    functions
        .promote(id, &route, "f", Some(1))
        .await
        .expect("promoted");
    assert_eq!(
        chains.version().await.expect("a version"),
        before,
        "it was in force already"
    );

    let snapshot = chains.snapshot().await.expect("a snapshot");
    let [chain] = snapshot.of(demo.source.id.as_str()) else {
        panic!("one chain")
    };
    assert_eq!(
        (chain.destination.table.as_str(), chain.destination.config_version),
        ("other", 2)
    );
    assert_eq!(chain.version, 4, "made, promoted twice, rolled back");
    assert_eq!(&*chain.functions[0].code, "1");
}

#[tokio::test]
async fn a_version_once_put_never_changes() {
    let (database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    put(&postgres, &demo, "f", "1").await;
    let client = database.client().await.expect("a connection");
    let refused = client
        .batch_execute("UPDATE function_versions SET code = 'other'")
        .await;
    assert!(refused.is_err_and(|error| error.code().is_some_and(|code| code.code() == "23001")));
}
