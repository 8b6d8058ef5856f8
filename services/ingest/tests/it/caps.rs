//! What one request may take, each with what is answered beyond it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

async fn post(pipeline: &Pipeline, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
    let url = format!("{}{path}", pipeline.url("ingest"));
    let key = [
        ("x-write-key", pipeline.write_key.as_str()),
        ("origin", "http://a"),
    ];
    let headers = [&key[..], headers].concat();
    let answer = pipeline.client.post(&url, &headers, body).await.unwrap();
    assert_eq!(
        value_of(&answer.headers, "access-control-allow-origin"),
        "*",
        "pages may read it"
    );
    (answer.status.as_u16(), answer.json().unwrap())
}

#[tokio::test]
async fn bodies_that_grow_too_large_are_answered_413_wherever_they_grow() {
    let settings = vec![
        ("MILLRACE__HTTP__BODY_LIMIT", "64KiB".to_owned()),
        ("MILLRACE__HTTP__DECODED_LIMIT", "1MiB".to_owned()),
    ];
    let pipeline = start(settings).await;
    let url = format!("{}/v1/batch", pipeline.url("ingest"));
    let bomb = gzip(&vec![b' '; 20 << 20]);
    let answer = pipeline
        .client
        .post(&url, &[("content-encoding", "gzip")], bomb)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json().unwrap()["code"], "body_too_large");

    let mut request = b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..100 {
        request.extend(b"1000\r\n");
        request.extend([b' '; 0x1000]);
        request.extend(b"\r\n");
    }
    let answer = raw(&pipeline, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 "),
        "never ends, is answered: {answer}"
    );
    let announced = b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n";
    let answer = raw(&pipeline, announced).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 "),
        "before a byte of it came: {answer}"
    );
}

#[tokio::test]
async fn a_body_that_grows_by_more_than_the_ratio_is_answered_413_below_the_cap_on_its_size() {
    let settings = vec![("MILLRACE__HTTP__DECODED_RATIO", "20".to_owned())];
    let pipeline = start(settings).await;
    let gzipped = [("content-encoding", "gzip")];
    let padded = |size: usize| {
        let mut text = json!({ "batch": [track(&format!("padded-{size}"))] }).to_string();
        text.push_str(&" ".repeat(size));
        gzip(text.as_bytes())
    };
    let (status, said) = post(&pipeline, "/v1/batch", &gzipped, padded(1 << 19)).await;
    assert_eq!(
        status, 200,
        "a small body may be as compressible as it likes: {said}"
    );
    let (status, said) = post(&pipeline, "/v1/batch", &gzipped, padded(3 << 20)).await;
    assert_eq!((status, &said["code"]), (413, &json!("body_too_large")), "{said}");
}

#[tokio::test]
async fn events_are_limited_in_number_size_and_depth_by_what_is_configured() {
    let settings = vec![
        ("MILLRACE__EVENTS__BATCH", "2".to_owned()),
        ("MILLRACE__EVENTS__EVENT_LIMIT", "2KB".to_owned()),
    ];
    let pipeline = start(settings).await;
    let batch = |events: &[Value]| json!({ "batch": events }).to_string().into_bytes();
    let three = [track("1"), track("2"), track("3")];
    let (status, said) = post(&pipeline, "/v1/batch", &[], batch(&three)).await;
    assert_eq!((status, &said["code"]), (413, &json!("too_many_events")));
    let mut large = track("large");
    large["properties"] = json!({ "p": "x".repeat(2_000) });
    let (status, said) = post(&pipeline, "/v1/batch", &[], batch(&[large.clone(), track("1")])).await;
    assert_eq!(
        (status, &said["accepted"]),
        (200, &json!(1)),
        "it is refused alone"
    );
    assert_eq!(said["rejected"][0]["code"], "event_too_large");
    let (status, said) = post(&pipeline, "/v1/track", &[], large.to_string().into_bytes()).await;
    assert_eq!((status, &said["code"]), (413, &json!("event_too_large")));
    // The event itself and its properties are two levels.
    for (levels, status) in [(98, 200), (99, 400)] {
        let deep = format!(
            r#"{{"messageId":"deep-{levels}","properties":{{"p":{}{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        );
        let (answered, said) = post(&pipeline, "/v1/track", &[], deep.into_bytes()).await;
        assert_eq!(answered, status, "{levels}: {said}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408() {
    let pipeline = start(vec![("MILLRACE__HTTP__BODY_TIMEOUT", "200ms".to_owned())]).await;
    let request = b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{\"a\"";
    let answer = raw(&pipeline, request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains(r#""code":"timeout""#), "{answer}");
}

#[tokio::test]
async fn a_head_that_stalls_is_answered_408_and_an_idle_connection_is_closed_in_silence() {
    let pipeline = start(vec![("MILLRACE__HTTP__HEADER_TIMEOUT", "300ms".to_owned())]).await;
    let answer = raw(&pipeline, b"POST /v1/track HTTP/1.1\r\nhost: x\r\nx-wri").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    let said: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&said["success"], &said["code"]),
        (&json!(false), &json!("timeout"))
    );
    assert!(head.contains(said["request_id"].as_str().unwrap()), "{answer}");
    assert_eq!(raw(&pipeline, b"").await, "", "nothing was asked");
    let whole = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = raw(&pipeline, whole).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn bodies_that_arrive_slowly_take_no_more_memory_than_all_may_together() {
    let settings = vec![
        ("MILLRACE__HTTP__BODY_LIMIT", "1MiB".to_owned()),
        ("MILLRACE__HTTP__DECODED_LIMIT", "1MiB".to_owned()),
        ("MILLRACE__HTTP__BODY_MEMORY", "3MiB".to_owned()),
        ("MILLRACE__HTTP__BODY_TIMEOUT", "10m".to_owned()),
    ];
    let pipeline = start(settings).await;
    let address = pipeline.url("ingest").strip_prefix("http://").unwrap();
    let head = "POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
    let hold = async || {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b' '; (1 << 20) - 1]).await?;
        anyhow::Ok(stream)
    };
    // Three bodies that lack their last byte hold all of the memory.
    let held = tokio::sync::Mutex::new(Vec::new());
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let refused = until("no memory for another body", PATIENCE, || async {
        let mut held = held.lock().await;
        // One that waited for longer than it may, behind a probe on a slow machine, was answered and holds nothing.
        let waits = |stream: &tokio::net::TcpStream| {
            let answered = stream.try_read(&mut [0; 1]);
            answered.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        held.retain(waits);
        while held.len() < 3 {
            held.push(hold().await?);
        }
        let body = vec![b' '; 512 << 10];
        // The answer comes before the body is read, and may be lost with the connection.
        let answer = pipeline.client.post(&url, &[], body).await?;
        Ok((answer.status == 429).then_some(answer.json()?))
    });
    assert_eq!(refused.await.unwrap()["code"], "rate_limited");
    drop(held);
    insist(&pipeline.sender(), "/v1/track", &track("after")).await;
}
