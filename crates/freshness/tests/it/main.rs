//! Broken workspaces beside sound ones, in short. How old events are is measured by `./dev prove freshness --broken`.

use std::time::Duration;

use millrace_freshness::{Options, run};

#[tokio::test]
async fn beside_a_read_only_workspace_and_one_whose_view_throws_the_others_arrive_and_after_the_repair_all_once()
 {
    let options = Options {
        workspaces: 20,
        length: Duration::from_secs(4),
        rate: 120,
        partitions: 3,
        per_second: None,
        broken: true,
        release: false,
    };
    let phases = Box::pin(run(&options, |_| ())).await.expect("it is carried out");
    let [sound, broken, mended] = phases.as_slice() else {
        panic!("three phases: {phases:?}");
    };
    assert_eq!(sound.missing, 0, "{sound:?}");
    // The phase ends before anything is mended: nobody waited for the broken ones.
    assert_eq!(broken.missing, 0, "{broken:?}");
    assert!(!broken.ages.is_empty() && broken.held_back > 0, "{broken:?}");
    assert!(mended.accepted > broken.accepted, "{mended:?}");
    assert_eq!(mended.repeated, 0, "{mended:?}");
}
