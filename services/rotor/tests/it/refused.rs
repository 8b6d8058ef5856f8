//! Versions that came into Postgres past `millctl` and do not load.

use std::time::Duration;

use millrace_event::Verdict;
use millrace_testkit::wait::until;

use super::ground::{Ground, read};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_version_that_does_not_compile_are_set_aside_with_its_line_and_none_is_lost() {
    let ground = Ground::with("export default (event) => {\n  event.ok = ;\n}").await;
    let records: Vec<_> = (0..3).map(|seq| ground.event(0, seq, r#"{"n":1}"#)).collect();
    let originals: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
    ground.write(0, records).await;
    let transformed = ground.transformed(3).await;
    for (record, original) in transformed[&0].iter().zip(&originals) {
        let envelope = read(record);
        assert_eq!(envelope.verdict, Verdict::DeadLetter);
        let reason = envelope.reason.expect("a reason");
        assert_eq!(reason.code.as_str(), "compile_error");
        assert!(reason.message.as_str().contains("(line 2, column "), "{reason:?}");
        assert!(
            reason.function.is_some() && reason.function_version == Some(1),
            "{reason:?}"
        );
        let kept = envelope.original.expect("the event as it came");
        assert_eq!(kept.get().as_bytes(), original.as_slice());
    }
    // A version that loads takes its place, and nothing of the broken one stays.
    ground
        .promote("export default (event) => { event.ok = true; }")
        .await;
    for seq in 3_u64.. {
        ground.write(0, vec![ground.event(0, seq, r#"{"n":1}"#)]).await;
        let transformed = ground.transformed(usize::try_from(seq).expect("small") + 1).await;
        let last = read(transformed[&0].last().expect("records"));
        if last.verdict == Verdict::Forward {
            assert_eq!(last.outputs[0].event.get(), r#"{"n":1,"ok":true}"#);
            return;
        }
        assert!(seq < 300, "the version that loads never came into force");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_version_that_does_not_compile_wait_for_the_next_one_and_run_through_that() {
    let ground = Ground::set(
        "export default (event) => {",
        &[("MILLRACE__REGISTRY__HOLD", "10m")],
    )
    .await;
    let records = (0..3).map(|seq| ground.event(0, seq, r#"{"n":1}"#));
    ground.write(0, records.collect()).await;
    let log = until("the event that waits", Duration::from_secs(60), || async {
        let tail = ground.rotor.tail();
        Ok(tail.contains("the code of this one does not load").then_some(()))
    });
    log.await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", ground.rotor.tail()));
    ground
        .promote("export default (event) => { event.ok = true; }")
        .await;
    let transformed = ground.transformed(3).await;
    for record in &transformed[&0] {
        let envelope = read(record);
        assert_eq!(envelope.verdict, Verdict::Forward, "{:?}", envelope.reason);
        assert_eq!(envelope.outputs[0].event.get(), r#"{"n":1,"ok":true}"#);
    }
}
