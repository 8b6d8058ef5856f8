use millrace_store::dedup::{CHUNK, Reservation, Settled, Window};

use Reservation::{Done, PendingOther, PendingOwn, Reserved};

use crate::dedup::{A, B, Memory, workspace};

#[tokio::test]
async fn a_restart_makes_done_what_the_journal_has_and_frees_the_rest() {
    let memory = Memory::new().await;
    let ws = workspace();
    memory
        .run(A)
        .reserve(&ws, &["kept", "lost", "imported"])
        .await
        .expect("an answer");

    let next = memory.run(A);
    assert_eq!(
        next.reserve(&ws, &["kept"]).await.expect("an answer"),
        [PendingOwn],
        "not settled yet"
    );
    let mut settlement = next.settlement().await.expect("a settlement");
    assert!(!settlement.is_empty());
    settlement.held(&ws, Window::Live, "kept").await.expect("held");
    settlement
        .held(&ws, Window::Import, "imported")
        .await
        .expect("held");
    settlement
        .held(&ws, Window::Live, "older than any pending")
        .await
        .expect("held");
    assert_eq!(
        settlement.finish().await.expect("settled"),
        Settled {
            done: 2,
            discarded: 1
        }
    );

    let answers = next
        .reserve(&ws, &["kept", "lost", "imported"])
        .await
        .expect("an answer");
    assert_eq!(answers, [Done, Reserved, Done]);
    let other = next
        .reserve(&ws, &["older than any pending"])
        .await
        .expect("an answer");
    assert_eq!(other, [Reserved], "what was not pending is not made known");
}

#[tokio::test]
async fn nothing_is_left_to_settle_after_an_orderly_run() {
    let memory = Memory::new().await;
    let ws = workspace();
    let first = memory.run(A);
    first.reserve(&ws, &["x", "y"]).await.expect("an answer");
    first.done(&ws, Window::Live, &["x"]).await.expect("done");
    first.release(&ws, &["y"]).await.expect("released");
    let next = memory.run(A);
    let settlement = next.settlement().await.expect("a settlement");
    assert_eq!(settlement.finish().await.expect("settled"), Settled::default());
    assert!(
        memory.run(A).settlement().await.expect("a settlement").is_empty(),
        "the run is off the list"
    );
}

#[tokio::test]
async fn what_the_present_run_reserves_is_left_alone_by_its_settlement() {
    let memory = Memory::new().await;
    let ws = workspace();
    memory.run(A).reserve(&ws, &["old"]).await.expect("an answer");
    let next = memory.run(A);
    let settlement = next.settlement().await.expect("a settlement");
    assert_eq!(next.reserve(&ws, &["new"]).await.expect("an answer"), [Reserved]);
    assert_eq!(
        settlement.finish().await.expect("settled"),
        Settled {
            done: 0,
            discarded: 1
        }
    );
    assert_eq!(
        memory
            .run(B)
            .reserve(&ws, &["new", "old"])
            .await
            .expect("an answer"),
        [PendingOther(A), Reserved]
    );
}

#[tokio::test]
async fn a_settlement_that_does_not_finish_forgets_nothing() {
    let memory = Memory::new().await;
    let ws = workspace();
    memory.run(A).reserve(&ws, &["x"]).await.expect("an answer");
    let next = memory.run(A);
    drop(next.settlement().await.expect("a settlement"));
    assert_eq!(next.reserve(&ws, &["x"]).await.expect("an answer"), [PendingOwn]);
    assert_eq!(
        next.settlement()
            .await
            .expect("another")
            .finish()
            .await
            .expect("settled")
            .discarded,
        1
    );
}

#[tokio::test]
async fn pendings_of_other_journals_are_not_settled() {
    let memory = Memory::new().await;
    let ws = workspace();
    memory.run(B).reserve(&ws, &["x"]).await.expect("an answer");
    let a = memory.run(A);
    assert!(a.settlement().await.expect("a settlement").is_empty());
    assert_eq!(
        a.reserve(&ws, &["x"]).await.expect("an answer"),
        [PendingOther(B)]
    );
}

#[tokio::test]
async fn runs_that_died_one_after_the_other_are_settled_together_however_much_they_left() {
    let memory = Memory::new().await;
    let (ws, other) = (workspace(), "ws_two".parse().expect("an id"));
    let ids: Vec<String> = (0..CHUNK + CHUNK / 2).map(|n| n.to_string()).collect();
    memory.run(A).reserve(&ws, &ids).await.expect("an answer");
    memory.run(A).reserve(&other, &ids).await.expect("an answer");
    memory.run(A).reserve(&ws, &["late"]).await.expect("an answer");

    let next = memory.run(A);
    let mut settlement = next.settlement().await.expect("a settlement");
    for id in ids.iter().step_by(2) {
        settlement.held(&ws, Window::Live, id).await.expect("held");
        settlement.held(&other, Window::Live, id).await.expect("held");
    }
    let half = u64::try_from(ids.len() / 2).expect("small");
    let settled = settlement.finish().await.expect("settled");
    assert_eq!(
        settled,
        Settled {
            done: half * 2,
            discarded: half * 2 + 1
        }
    );
    for ws in [&ws, &other] {
        let answers = next.reserve(ws, &ids).await.expect("an answer");
        assert!(
            answers.chunks(2).all(|pair| pair == [Done, Reserved]),
            "{answers:?}"
        );
    }
}
