//! Paths, codings, browsers, proxies: what surrounds an event.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{Method, StatusCode};

use super::*;

const TYPES: [&str; 6] = ["track", "identify", "page", "group", "screen", "alias"];

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_path_that_a_client_knows_takes_its_events() {
    let pipeline = start(Vec::new()).await;
    let sender = pipeline.sender();
    let mut sent = BTreeSet::new();
    let short = TYPES.map(|kind| (format!("/v1/{}", kind.chars().next().unwrap()), kind));
    let jitsu = TYPES.map(|kind| (format!("/api/s/{kind}"), kind));
    let servers = TYPES.map(|kind| (format!("/api/s/s2s/{kind}"), kind));
    let merge = ("/v1/merge".to_owned(), "merge");
    for (path, kind) in short.into_iter().chain(jitsu).chain(servers).chain([merge]) {
        let id = format!("{path} {kind}");
        let answer = sender
            .post(&path, &json!({ "messageId": id, "userId": "u" }))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::OK, r#"{"success":true}"#),
            "{path}"
        );
        sent.insert(id);
    }
    for path in [
        "/v1/b",
        "//v1/b/",
        "/v1/import",
        "/beacon/v1/batch",
        "/api/s/batch",
        "/v1/batch//",
    ] {
        let id = format!("{path} track");
        let answer = sender
            .post(path, &json!({ "batch": [{ "type": "track", "messageId": id }] }))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        sent.insert(id);
    }
    for (message_id, records) in all_arrived(&pipeline, &sent).await {
        let event = stored(records.values().next().unwrap());
        assert_eq!(
            event["type"].as_str(),
            message_id.rsplit(' ').next(),
            "{message_id}"
        );
    }
}

#[tokio::test]
async fn a_pixel_is_an_image_whatever_becomes_of_its_event() {
    let pipeline = start(Vec::new()).await;
    let (url, key) = (pipeline.url("ingest"), pipeline.write_key.replace(':', "%3A"));
    let event = json!({ "event": "Opened", "messageId": "m-data", "writeKey": pipeline.write_key });
    let data = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, event.to_string());
    let mut sent = BTreeSet::from(["m-data".to_owned()]);
    let mut paths = vec![
        format!("/v1/pixel/track?data={data}"),
        "/v1/pixel/track?data=%%%".to_owned(),
        "/v1/pixel/page".to_owned(),
        "/api/px/track?data=e30&writeKey=wk_unknown%3Asecret".to_owned(),
    ];
    for prefix in ["/v1/pixel", "/pixel/v1", "/api/px"] {
        for kind in TYPES {
            let id = format!("m{prefix}/{kind}");
            paths.push(format!(
                "{prefix}/{kind}?messageId={id}&userId=u&properties.subject=Hello+you&writeKey={key}"
            ));
            sent.insert(id);
        }
    }
    for path in paths {
        let answer = pipeline.client.get(&format!("{url}{path}")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(value_of(&answer.headers, "content-type"), "image/gif");
        assert!(answer.body.starts_with("GIF89a"));
    }
    let events = all_arrived(&pipeline, &sent).await;
    assert_eq!(events.len(), sent.len(), "what was refused is not kept");
    let event = stored(the(&events, "m/pixel/v1/page"));
    assert_eq!(
        (&event["type"], &event["properties"]["subject"]),
        (&json!("page"), &json!("Hello you"))
    );
}

#[tokio::test]
async fn clients_load_their_settings_and_leave_their_metrics() {
    let settings = vec![(
        "MILLRACE__HTTP__PUBLIC_URL",
        "https://events.example.com".to_owned(),
    )];
    let pipeline = start(settings).await;
    let url = pipeline.url("ingest");
    for path in [
        "/v1/projects/wk_a:secret/settings",
        "/projects/wk_a/settings/",
        "/v1/projects/projects/wk_a/settings",
    ] {
        let answer = pipeline.client.get(&format!("{url}{path}")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let settings = answer.json().unwrap();
        assert_eq!(
            settings["integrations"]["Segment.io"],
            json!({ "apiKey": "wk_a", "apiHost": "events.example.com/v1", "protocol": "https" })
        );
        assert!(value_of(&answer.headers, "cache-control").contains("max-age"));
    }
    let answer = pipeline
        .client
        .get(&format!("{url}/sourceConfig/?p=web&writeKey=wk_a%3Asecret"))
        .await
        .unwrap();
    let source = answer.json().unwrap()["source"].clone();
    assert_eq!(
        (&source["id"], &source["enabled"], &source["destinations"]),
        (&json!("wk_a"), &json!(true), &json!([]))
    );
    assert!(!answer.body.contains("secret"));
    let metrics = r#"{"series":[{"type":"Counter","metric":"m","value":1,"tags":{}}]}"#;
    let answer = pipeline
        .client
        .post(&format!("{url}/v1/m"), &[], metrics)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, r#"{"success":true}"#)
    );
}

#[tokio::test]
async fn bodies_come_plain_or_encoded_and_under_any_content_type() {
    let pipeline = start(Vec::new()).await;
    let url = format!("{}/v1/batch", pipeline.url("ingest"));
    let body = |id: &str| json!({ "batch": [track(id)] }).to_string();
    let zlib = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body("zlib").as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body("deflate").as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = ruzstd::encoding::compress_to_vec(
        body("zstd").as_bytes(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    // `{"batch":[{"type":"track","event":"Sent","messageId":"m-1"}]}` through another implementation.
    let brotli = b"\x0b\x1e\x80\x7b\x22\x62\x61\x74\x63\x68\x22\x3a\x5b\x7b\x22\x74\x79\x70\x65\x22\x3a\x22\x74\x72\x61\x63\x6b\x22\x2c\x22\x65\x76\x65\x6e\x74\x22\x3a\x22\x53\x65\x6e\x74\x22\x2c\x22\x6d\x65\x73\x73\x61\x67\x65\x49\x64\x22\x3a\x22\x6d\x2d\x31\x22\x7d\x5d\x7d\x03";
    let all = [
        (
            "gzip",
            "application/x-www-form-urlencoded",
            gzip(body("gzip").as_bytes()),
        ),
        ("", "text/plain", gzip(body("sniffed").as_bytes())),
        ("gzip", "application/json", body("plain under gzip").into_bytes()),
        ("identity", "", body("plain").into_bytes()),
        ("deflate", "nonsense", zlib),
        ("deflate", "application/json;charset=UTF-8", deflate),
        ("zstd", "application/json", zstd),
        ("br", "application/json", brotli.to_vec()),
    ];
    for (encoding, kind, body) in all {
        let mut headers = vec![
            ("x-write-key", pipeline.write_key.as_str()),
            ("content-type", kind),
            ("accept", "image/png"),
        ];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding));
        }
        let answer = pipeline.client.post(&url, &headers, body).await.unwrap();
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{encoding} {kind}: {}",
            answer.body
        );
        assert_eq!(value_of(&answer.headers, "content-type"), "application/json");
    }
    let chunked = gzip(body("chunked").as_bytes());
    let mut request = format!(
        "POST /v1/b HTTP/1.1\r\nhost: x\r\nx-write-key: {}\r\nconnection: close\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        pipeline.write_key
    )
    .into_bytes();
    for piece in chunked.chunks(20) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let answer = raw(&pipeline, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let sent = [
        "gzip",
        "sniffed",
        "plain under gzip",
        "plain",
        "zlib",
        "deflate",
        "zstd",
        "m-1",
        "chunked",
    ];
    all_arrived(&pipeline, &sent.map(str::to_owned).into()).await;
}

#[tokio::test]
async fn browsers_are_told_what_they_may_send_and_may_read_every_answer() {
    let pipeline = start(Vec::new()).await;
    let url = pipeline.url("ingest");
    let origin = ("origin", "https://shop.example");
    for path in [
        "/v1/t",
        "/v1/b",
        "/v1/m",
        "/v1/batch/",
        "/v1/pixel/page",
        "/v1/projects/wk_a/settings",
    ] {
        let headers = [
            origin,
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type,x-custom",
            ),
        ];
        let url = format!("{url}{path}");
        let answer = pipeline
            .client
            .send(Method::OPTIONS, &url, &headers, "")
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::NO_CONTENT, ""),
            "{path}"
        );
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET,POST,OPTIONS"),
            (
                "access-control-allow-headers",
                "authorization,content-type,x-custom",
            ),
            ("access-control-max-age", "86400"),
            ("access-control-allow-credentials", ""),
            ("vary", "Origin, Access-Control-Request-Headers"),
        ] {
            assert_eq!(value_of(&answer.headers, name), value, "{path}: {name}");
        }
    }
    for (method, path, body, status) in [
        (Method::POST, "/v1/t", "{", 400),
        (Method::POST, "/v1/t", "{}", 401),
        (Method::POST, "/v1/nothing", "{}", 404),
        (Method::OPTIONS, "/v1/nothing", "", 404),
        (Method::GET, "/v1/t", "", 405),
        (Method::GET, "/v1/pixel/page", "", 200),
        (Method::GET, "/v1/projects/wk_a/settings", "", 200),
    ] {
        let url = format!("{url}{path}");
        let answer = pipeline.client.send(method, &url, &[origin], body).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(value_of(&answer.headers, "access-control-allow-origin"), "*");
        assert_eq!(
            value_of(&answer.headers, "access-control-expose-headers"),
            "Retry-After, X-RateLimit-Reset, X-Request-Id"
        );
        if status >= 400 {
            let json = answer.json().unwrap();
            assert_eq!(json["success"], false);
            assert_eq!(json["request_id"], value_of(&answer.headers, "x-request-id"));
        }
    }
    let answer = pipeline.client.get(&format!("{url}/v1/nothing")).await.unwrap();
    assert!(
        !answer.headers.contains_key("access-control-allow-origin"),
        "servers do not ask"
    );
}

#[tokio::test]
async fn methods_that_a_path_does_not_take_are_named_on_every_path() {
    let pipeline = start(Vec::new()).await;
    let url = pipeline.url("ingest");
    let (posted, read) = ("POST, OPTIONS", "GET, HEAD, OPTIONS");
    let mut paths = Vec::new();
    for prefix in ["/v1/", "/", "/api/s/", "/api/s/s2s/"] {
        let names = TYPES.into_iter().chain(["merge", "batch"]);
        paths.extend(names.map(|name| (format!("{prefix}{name}"), posted)));
    }
    let others = ["t", "i", "p", "g", "s", "a", "b", "m", "import"];
    paths.extend(others.map(|name| (format!("/v1/{name}"), posted)));
    paths.push(("/beacon/v1/batch".to_owned(), posted));
    for prefix in ["/v1/pixel/", "/pixel/v1/", "/api/px/"] {
        paths.extend(TYPES.map(|name| (format!("{prefix}{name}"), read)));
    }
    for prefix in ["/v1/projects", "/projects", "/v1/projects/projects"] {
        paths.push((format!("{prefix}/wk_a/settings"), read));
    }
    paths.push(("/sourceConfig/".to_owned(), read));
    for path in ["/health", "/ready", "/version", "/metrics"] {
        paths.push((path.to_owned(), "GET, HEAD"));
    }
    for (path, allow) in paths {
        let methods = match allow {
            "POST, OPTIONS" => [Method::GET, Method::PUT],
            _ => [Method::POST, Method::DELETE],
        };
        for method in methods {
            let url = format!("{url}{path}");
            let answer = pipeline.client.send(method, &url, &[], "").await.unwrap();
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(value_of(&answer.headers, "allow"), allow, "{path}");
            let said = answer.json().unwrap();
            assert_eq!(
                (&said["success"], &said["code"]),
                (&json!(false), &json!("method_not_allowed")),
                "{path}"
            );
        }
    }
    for (path, status, kind) in [
        ("/v1/pixel/page", 200, "image/gif"),
        ("/sourceConfig", 200, "application/json"),
        ("/v1/track", 405, "application/json"),
    ] {
        let answer = pipeline
            .client
            .send(Method::HEAD, &format!("{url}{path}"), &[], "")
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (status, ""),
            "{path}"
        );
        assert_eq!(value_of(&answer.headers, "content-type"), kind);
    }
}

#[tokio::test]
async fn only_trusted_proxies_say_who_sent_an_event() {
    let trusting = vec![(
        "MILLRACE__HTTP__TRUSTED_PROXIES",
        "127.0.0.0/8,10.0.0.0/8".to_owned(),
    )];
    for (settings, ip) in [(trusting, "203.0.113.9"), (Vec::new(), "127.0.0.1")] {
        let pipeline = start(settings).await;
        let headers = [
            ("x-write-key", pipeline.write_key.as_str()),
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.1.2.3"),
        ];
        let url = format!("{}/v1/track", pipeline.url("ingest"));
        let answer = pipeline
            .client
            .post(&url, &headers, track("m").to_string())
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let events = all_arrived(&pipeline, &BTreeSet::from(["m".to_owned()])).await;
        let record = the(&events, "m");
        assert_eq!(Ingest::read(&record.value).unwrap().ip.unwrap().as_str(), ip);
    }
}

#[tokio::test]
async fn what_a_key_keeps_of_addresses_is_decided_before_anything_is_written_down() {
    let settings = vec![("MILLRACE__HTTP__TRUSTED_PROXIES", "127.0.0.1".to_owned())];
    let pipeline = start(settings).await;
    let id = pipeline.write_key.split(':').next().unwrap();
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let mut before = "keep";
    for (policy, kept, said) in [
        ("anonymize", Some("203.0.113.0"), Some("198.51.100.0")),
        ("drop", None, None),
        ("keep", Some("203.0.113.9"), Some("198.51.100.7")),
    ] {
        let told = pipeline.millctl(&["key", "ip", id, policy]).await.unwrap();
        assert_eq!(
            told,
            json!({ "id": id, "ip": policy, "before": before, "told": true, "dry_run": false })
        );
        before = policy;
        let attempts = std::sync::atomic::AtomicU32::new(0);
        let in_force = until("the policy is in force", PATIENCE, || async {
            let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let message_id = format!("{policy}-{attempt}");
            let headers = [
                ("x-write-key", pipeline.write_key.as_str()),
                ("x-forwarded-for", "203.0.113.9"),
            ];
            let mut event = track(&message_id);
            event["context"] = json!({ "ip": "198.51.100.7", "locale": "de" });
            let answer = pipeline.client.post(&url, &headers, event.to_string()).await?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            let events = all_arrived(&pipeline, &BTreeSet::from([message_id.clone()])).await;
            let record = the(&events, &message_id);
            let envelope = Ingest::read(&record.value).unwrap();
            if envelope.ip.as_ref().map(|ip| ip.as_str()) != kept {
                return Ok(None);
            }
            let context = stored(record)["context"].clone();
            assert_eq!(context["locale"], "de");
            assert_eq!(context.get("ip").and_then(Value::as_str), said, "{policy}");
            Ok(Some(()))
        });
        in_force.await.unwrap();
    }
}
