use millrace_testkit::pipeline::{Options, Pipeline};
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use crate::PATIENCE;

const THROWS: &str = r#"export default function (event) {
  if (event.event === "Bad") throw new Error("not yet");
  return event;
}"#;
const MENDED: &str = "export default function (event) { return event; }";
const BAD: u64 = 5;

async fn dead_letters(pipeline: &Pipeline) -> Value {
    let all = until("the dead letters", PATIENCE, || async {
        let stats = pipeline.millctl(&["dlq", "stats", "--code", "thrown"]).await?;
        Ok(Some(stats).filter(|stats| stats["total"] == BAD))
    });
    all.await.expect("they are set aside")
}

/// The audit once nothing is under way.
pub(crate) async fn audit(pipeline: &Pipeline) -> (Option<i32>, Value) {
    let (bulker, rotor) = (pipeline.group("bulker"), pipeline.group("rotor"));
    let settled = until("everything is settled", PATIENCE, || async {
        let arguments = ["audit", "--group", &bulker, "--rotor-group", &rotor];
        let (status, answer) = pipeline.millctl_ended(&arguments).await?;
        let hours = answer["hours"].as_array().cloned().unwrap_or_default();
        let open = |hour: &Value| hour["under_way"] != 0 || hour["waiting"] != 0;
        Ok(Some((status, answer)).filter(|_| !hours.is_empty() && !hours.iter().any(open)))
    });
    settled.await.expect("it answers")
}

fn sum(answer: &Value, outcome: &str) -> u64 {
    let hours = answer["hours"].as_array().expect("hours");
    hours.iter().filter_map(|hour| hour[outcome].as_u64()).sum()
}

#[tokio::test]
async fn what_a_function_refused_is_stored_once_when_it_is_mended_and_replayed_and_the_audit_agrees_throughout()
 {
    let pipeline = Pipeline::start(Options::default())
        .await
        .expect("the pipeline starts");
    pipeline.put_function("guard", THROWS).await.expect("taken");
    let sender = pipeline.sender();
    for n in 0..BAD {
        for name in ["Bad", "Good"] {
            let event = json!({"type": "track", "userId": format!("u{n}"), "event": name, "messageId": format!("{name}-{n}")});
            let answer = sender.post("/v1/track", &event).await.expect("answered");
            assert_eq!(answer.status, 200);
        }
    }
    pipeline.rows(BAD, PATIENCE).await.expect("the good ones arrive");
    let stats = dead_letters(&pipeline).await;
    assert_eq!(stats["groups"][0]["stage"], "rotor");
    let (status, answer) = audit(&pipeline).await;
    assert_eq!(status, Some(0), "{answer}");
    assert_eq!(
        (
            &answer["accepted"],
            sum(&answer, "stored"),
            sum(&answer, "dead_letter")
        ),
        (&(2 * BAD).into(), BAD, BAD)
    );

    let left = pipeline.millctl(&["dlq", "replay"]).await.expect("judged");
    assert_eq!(
        (&left["replayed"], &left["left"]["pointless"]),
        (&0.into(), &BAD.into()),
        "the same version is in force"
    );
    pipeline.put_function("guard", MENDED).await.expect("taken");
    for _ in 0..2 {
        let sent = pipeline
            .millctl(&["dlq", "replay", "--workspace", &pipeline.name])
            .await
            .expect("sent");
        assert_eq!(sent["replayed"], BAD, "{sent}");
    }
    pipeline
        .rows(2 * BAD, PATIENCE)
        .await
        .expect("the mended ones arrive");
    let (status, answer) = audit(&pipeline).await;
    assert_eq!(status, Some(0), "{answer}");
    assert_eq!(
        (sum(&answer, "stored"), sum(&answer, "dead_letter")),
        (2 * BAD, 0),
        "{answer}"
    );
    assert_eq!(
        pipeline.count().await.expect("answered"),
        2 * BAD,
        "replayed twice, stored once"
    );
    let trail = pipeline.millctl(&["dlq", "replays"]).await.expect("shown");
    assert_eq!(trail["replays"].as_array().map(Vec::len), Some(2));
}
