//! Kills, counted over all rotors.

use std::time::Duration;

use millrace_store::functions::{Language, Route};
use millrace_store::quarantine::{Kills, Policy};
use millrace_store::{FunctionDebug, Functions, Quarantines};

use super::*;

const POLICY: Policy = Policy {
    kills: 3,
    window: Duration::from_secs(600),
    first: Duration::from_secs(1000),
    longest: Duration::from_secs(3600),
};

#[tokio::test]
async fn kills_are_counted_together_hold_one_version_back_and_can_be_forgiven() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let functions = Functions::new(postgres.clone());
    let put = functions
        .put(&demo, &name("f"), Language::JavaScript, "export default () => 1;")
        .await;
    let put = put.expect("a version");
    let stored = functions
        .stored(None, put.function.as_str(), None)
        .await
        .expect("it is there");
    assert_eq!(
        (stored.version, stored.code.as_str()),
        (1, "export default () => 1;")
    );
    assert!(
        functions.stored(None, "f", None).await.is_err(),
        "a name needs its workspace"
    );
    assert_eq!(
        functions
            .stored(Some(&demo), "f", Some(1))
            .await
            .expect("by name"),
        stored
    );
    let chain = functions
        .promote(&demo, &Route::default(), "f", None)
        .await
        .expect("in force")
        .chain;

    let quarantines = Quarantines::new(postgres.clone());
    let kills = |version, count| Kills {
        chain: chain.as_str().into(),
        version,
        function: Some((put.function.as_str().into(), 1)),
        code: "worker_crashed".into(),
        count,
    };
    // Two rotors at once: neither overwrites what the other counted.
    let (one, two) = (kills(2, 1), kills(2, 1));
    let (a, b) = tokio::join!(quarantines.count(&one, &POLICY), quarantines.count(&two, &POLICY));
    assert_eq!((a.expect("counted"), b.expect("counted")), (None, None));
    let held = quarantines
        .count(&kills(2, 1), &POLICY)
        .await
        .expect("counted")
        .expect("held");
    assert_eq!((held.left, held.times), (POLICY.first, 1));
    let all = quarantines.held().await.expect("asked");
    let seen = &all[chain.as_str()];
    assert_eq!(
        (seen.version, &seen.function, seen.code.as_str()),
        (2, &held.function, "worker_crashed")
    );
    assert!(
        seen.left > Duration::from_secs(900) && seen.left <= POLICY.first,
        "{seen:?}"
    );

    // What an older version still did counts for nothing, another version begins anew.
    assert_eq!(
        quarantines.count(&kills(1, 9), &POLICY).await.expect("asked"),
        None
    );
    assert_eq!(
        quarantines.count(&kills(3, 2), &POLICY).await.expect("counted"),
        None
    );
    assert!(quarantines.held().await.expect("asked").is_empty());
    let held = quarantines
        .count(&kills(3, 1), &POLICY)
        .await
        .expect("counted")
        .expect("held");
    assert_eq!(held.times, 1);

    quarantines.release(&demo, &chain).await.expect("released");
    assert!(quarantines.held().await.expect("asked").is_empty());
    assert!(
        quarantines.release(&demo, &chain).await.is_err(),
        "there is nothing any more"
    );
    let gone = Kills {
        chain: "ch_gone".into(),
        ..kills(1, 9)
    };
    assert_eq!(quarantines.count(&gone, &POLICY).await.expect("asked"), None);

    let debug = FunctionDebug::new(postgres);
    debug.on(&demo, Duration::from_secs(60)).await.expect("on");
    assert!(debug.all().await.expect("asked").contains(demo.as_str()));
    debug.on(&demo, Duration::ZERO).await.expect("on, for no time");
    assert!(debug.all().await.expect("asked").is_empty(), "it ended by itself");
    debug.on(&demo, Duration::from_secs(60)).await.expect("on");
    debug.off(&demo).await.expect("off");
    assert!(debug.all().await.expect("asked").is_empty());
}
