//! The functions API over HTTP.

use http::StatusCode;
use serde_json::{Value, json};

use super::ground::Ground;

const ADD: &str = "export default (event) => { event.added = true; }";

async fn run(ground: &Ground, request: &Value) -> (StatusCode, Value) {
    let token = format!("Bearer {}", ground.token().await);
    let url = format!("{}/v1/functions/run", ground.url);
    let answer = ground
        .client
        .post(&url, &[("authorization", &token)], request.to_string())
        .await
        .expect("an answer");
    (answer.status, answer.json().expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_run_with_the_limits_of_production_and_answers_with_one_result_per_event() {
    let ground = Ground::with(ADD).await;
    let code = "type Event = { do?: string; n: number };
export default function (event: Event, ctx: any) {
  ctx.log.info('seen', event.n, ctx.env.REGION, ctx.headers.a);
  if (event.do === 'drop') return null;
  if (event.do === 'retry') throw new RetryError('busy', { after: '10s' });
  if (event.do === 'throw') throw new TypeError('no');
  if (event.do === 'loop') for (;;);
  return [event, { n: event.n + 1 }];
}";
    let mut events = vec![
        json!({"n": 1}),
        json!({"n": 2, "do": "drop"}),
        json!({"n": 3, "do": "retry"}),
        json!({"n": 4, "do": "throw"}),
        json!({"n": 5, "do": "loop"}),
    ];
    events.extend((6..=12).map(|n| json!({ "n": n })));
    let context = json!({"env": {"REGION": "eu"}, "headers": {"a": "b"}});
    let request = json!({"code": code, "language": "ts", "events": events, "context": context});
    let (status, answer) = run(&ground, &request).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let results = answer["results"].as_array().expect("a list");
    assert_eq!(results.len(), 12);
    assert_eq!(
        results[0],
        json!({"verdict": "forward", "events": [{"n": 1}, {"n": 2}], "error": null, "retry_after_ms": null})
    );
    assert_eq!(
        results[1],
        json!({"verdict": "drop", "events": [], "error": null, "retry_after_ms": null})
    );
    assert_eq!(
        results[2],
        json!({"verdict": "retry", "events": [], "retry_after_ms": 10_000,
            "error": {"code": "thrown", "message": "RetryError: busy", "line": 5, "column": 29}})
    );
    assert_eq!(
        results[3],
        json!({"verdict": "dead_letter", "events": [], "retry_after_ms": null,
            "error": {"code": "thrown", "message": "TypeError: no", "line": 6, "column": 29}})
    );
    assert_eq!(results[4]["error"]["code"], "wall_limit");
    assert_eq!(results[11]["events"], json!([{"n": 12}, {"n": 13}]));
    let logs = answer["logs"].as_array().expect("a list");
    assert_eq!(logs.len(), 12);
    assert_eq!(
        logs[11],
        json!({"level": "info", "message": "seen 12 eu b", "event_index": 11})
    );
    for field in ["cpu_ms", "wall_ms", "heap_bytes"] {
        assert!(
            answer["usage"][field].as_f64().is_some_and(|used| used > 0.0),
            "{answer}"
        );
    }

    // What is in force runs by its id, and the list names it.
    let token = format!("Bearer {}", ground.token().await);
    let listed = ground
        .client
        .send(
            http::Method::GET,
            &format!("{}/v1/functions", ground.url),
            &[("authorization", &token)],
            "",
        )
        .await
        .expect("an answer")
        .json()
        .expect("JSON");
    let function = &listed["functions"][0];
    assert_eq!(
        (&function["version"], &function["language"], &function["position"]),
        (&json!(1), &json!("js"), &json!(0))
    );
    let request = json!({"function": function["function"], "events": [{}]});
    let (status, answer) = run(&ground, &request).await;
    assert_eq!(
        (status, &answer["results"][0]["events"]),
        (StatusCode::OK, &json!([{"added": true}]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_function_runs_by_its_id_whether_it_is_in_force_or_not() {
    let ground = Ground::with(ADD).await;
    let first = ground
        .put("g", "export default (event) => { event.by = 1; }")
        .await;
    ground
        .put("g", "export default (event) => { event.by = 2; }")
        .await;
    let id = first.function.as_str();
    for (named, by) in [(id.to_owned(), 2), (format!("{id}@1"), 1), (format!("{id}@2"), 2)] {
        let (status, answer) = run(&ground, &json!({"function": named, "events": [{}]})).await;
        assert_eq!(
            (status, &answer["results"][0]["events"]),
            (StatusCode::OK, &json!([{"by": by}])),
            "{named}"
        );
    }
    let (status, answer) = run(&ground, &json!({"function": format!("{id}@3"), "events": [{}]})).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::NOT_FOUND, &json!("not_found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_load_or_may_not_run_is_refused_with_its_reason() {
    let ground = Ground::with(ADD).await;
    for (code, language, line) in [
        ("export default () => {\n  return +;\n}", "js", 2),
        (
            "const a: number = 1;\nenum A { B }\nexport default () => null;",
            "ts",
            2,
        ),
        ("\nthrow new Error('top'); export default () => {};", "js", 2),
    ] {
        for events in [json!([]), json!([{}])] {
            let (status, answer) = run(
                &ground,
                &json!({"code": code, "language": language, "events": events}),
            )
            .await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            assert_eq!(
                (&answer["success"], &answer["code"], &answer["line"]),
                (&json!(false), &json!("compile_error"), &json!(line)),
                "{answer}"
            );
            assert!(
                answer["message"].is_string() && answer["column"].is_u64(),
                "{answer}"
            );
        }
    }
    let (status, answer) = run(&ground, &json!({"code": ADD, "events": []})).await;
    assert_eq!((status, &answer["results"]), (StatusCode::OK, &json!([])));

    for (request, expected) in [
        (json!({}), (StatusCode::BAD_REQUEST, "invalid_json")),
        (
            json!({"code": ADD, "events": [1]}),
            (StatusCode::BAD_REQUEST, "invalid_json"),
        ),
        (
            json!({"code": ADD, "events": vec![json!({}); 101]}),
            (StatusCode::BAD_REQUEST, "too_many_events"),
        ),
        (
            json!({"function": "fn_none", "events": []}),
            (StatusCode::NOT_FOUND, "not_found"),
        ),
    ] {
        let (status, answer) = run(&ground, &request).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (expected.0, Some(expected.1)),
            "{answer}"
        );
    }
    let url = format!("{}/v1/functions/run", ground.url);
    for header in ["", "Bearer st_x.y", "Basic st_x.y"] {
        let answer = ground
            .client
            .post(&url, &[("authorization", header)], "{}")
            .await
            .expect("an answer");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header}");
        assert_eq!(answer.json().expect("JSON")["code"], "invalid_token");
    }
    let answer = ground.client.get(&url).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers["allow"], "POST");
    let answer = ground
        .client
        .get(&format!("{}/v2", ground.url))
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
