//! The one place where outcomes become HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use millrace_event::IngestCode;
use millrace_service::listen::Unfinished;
use serde::Serialize;

use super::pixel;
use crate::pipeline::{Accepted, Refusal, Rejected};

/// An answer with a body in memory.
pub(super) type Answer = Response<Full<Bytes>>;

const SUCCESS: &[u8] = br#"{"success":true}"#;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESET: &str = "x-ratelimit-reset";
/// Seconds over which clients that are refused together are spread, at first and at most.
const SPREAD: (u64, u64) = (5, 60);

#[derive(Serialize)]
struct Success<'a> {
    success: bool,
    accepted: usize,
    duplicates: usize,
    rejected: Vec<Fault<'a>>,
}

#[derive(Serialize)]
struct Failure<'a> {
    success: bool,
    #[serde(flatten)]
    fault: Fault<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Fault<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    code: IngestCode,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl<'a> Fault<'a> {
    fn of(refusal: &'a Refusal) -> Self {
        let Refusal {
            code, message, field, ..
        } = refusal;
        Self {
            index: None,
            message_id: None,
            code: *code,
            message,
            field: field.as_deref(),
        }
    }

    fn of_rejected(rejected: &'a Rejected) -> Self {
        Self {
            index: Some(rejected.index),
            message_id: rejected.message_id.as_deref(),
            ..Self::of(&rejected.refusal)
        }
    }
}

/// 200. Exactly `{"success":true}` unless something was rejected: clients compare.
pub(super) fn accepted(accepted: &Accepted, request_id: &str) -> Answer {
    let body = if accepted.rejected.is_empty() {
        Bytes::from_static(SUCCESS)
    } else {
        json(&Success {
            success: true,
            accepted: accepted.accepted,
            duplicates: accepted.duplicates,
            rejected: accepted.rejected.iter().map(Fault::of_rejected).collect(),
        })
    };
    answer(StatusCode::OK, body, request_id)
}

/// 200 where there was nothing to take.
pub(super) fn done(request_id: &str) -> Answer {
    answer(StatusCode::OK, Bytes::from_static(SUCCESS), request_id)
}

/// 200 with what a client loads before it sends; the same for everybody, so it may be kept a while.
pub(super) fn settings(settings: &serde_json::Value, request_id: &str) -> Answer {
    let mut answer = answer(StatusCode::OK, Bytes::from(settings.to_string()), request_id);
    let cached = HeaderValue::from_static("public, max-age=300");
    answer.headers_mut().insert(CACHE_CONTROL, cached);
    answer
}

/// 200 with an image, whatever became of the event: a page must not show a broken one.
pub(super) fn pixel(request_id: &str) -> Answer {
    let mut answer = answer(StatusCode::OK, Bytes::from_static(pixel::GIF), request_id);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    answer
}

/// 405.
pub(super) fn not_allowed(refusal: &Refusal, methods: &'static str, request_id: &str) -> Answer {
    let mut answer = refused(refusal, 0, request_id);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

/// Any refusal of a whole request, which the client has tried `attempts` times before.
pub(super) fn refused(refusal: &Refusal, attempts: u32, request_id: &str) -> Answer {
    let status = status(refusal.code);
    let body = json(&Failure {
        success: false,
        fault: Fault::of(refusal),
        request_id,
    });
    let mut answer = answer(status, body, request_id);
    let headers = answer.headers_mut();
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = retry_after(refusal.reset, attempts);
        headers.insert(RETRY_AFTER, HeaderValue::from(wait));
        if refusal.code == IngestCode::RateLimited {
            let reset = refusal.reset.map_or(wait, whole_seconds);
            headers.insert(RESET, HeaderValue::from(reset));
        }
    }
    // The rest of the body is not read.
    if matches!(
        refusal.code,
        IngestCode::BodyTooLarge | IngestCode::Timeout | IngestCode::Draining
    ) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// 408 or 503 as it goes over the wire, for a request whose head did not end: it has no route and no account yet.
pub(super) fn unfinished(why: Unfinished) -> Bytes {
    let (refusal, again) = match why {
        Unfinished::Late => {
            let message = "the head of the request did not arrive in time";
            (Refusal::new(IngestCode::Timeout, message), String::new())
        }
        Unfinished::Draining => {
            let again = format!("{RETRY_AFTER}: {}\r\n", retry_after(None, 0));
            (Refusal::draining(), again)
        }
    };
    let id = format!("req_{}", uuid::Uuid::new_v4().simple());
    let body = json(&Failure {
        success: false,
        fault: Fault::of(&refusal),
        request_id: &id,
    });
    let mut text = format!(
        "HTTP/1.1 {}\r\n{CONTENT_TYPE}: application/json\r\n{CACHE_CONTROL}: no-store\r\n{REQUEST_ID}: {id}\r\n\
         {again}{CONNECTION}: close\r\n{CONTENT_LENGTH}: {}\r\n\r\n",
        status(refusal.code),
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(&body);
    text.into()
}

pub(super) const fn status(code: IngestCode) -> StatusCode {
    match code {
        IngestCode::InvalidJson
        | IngestCode::TypeConflict
        | IngestCode::AliasConflict
        | IngestCode::ReservedField
        | IngestCode::TooManyFields
        | IngestCode::InvalidEvent => StatusCode::BAD_REQUEST,
        IngestCode::InvalidWriteKey => StatusCode::UNAUTHORIZED,
        IngestCode::OriginNotAllowed => StatusCode::FORBIDDEN,
        IngestCode::NotFound => StatusCode::NOT_FOUND,
        IngestCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        IngestCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        IngestCode::BodyTooLarge | IngestCode::EventTooLarge | IngestCode::TooManyEvents => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        IngestCode::LateEvent | IngestCode::MissingField => StatusCode::UNPROCESSABLE_ENTITY,
        IngestCode::RateLimited
        | IngestCode::JournalFull
        | IngestCode::Unacknowledged
        | IngestCode::KeyLookupUnavailable => StatusCode::TOO_MANY_REQUESTS,
        IngestCode::Draining => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Whole seconds: clients that were refused together must not come back together, and those that were refused
/// before are spread wider.
fn retry_after(reset: Option<Duration>, attempts: u32) -> u64 {
    let (first, most) = SPREAD;
    let spread = (first << attempts.min(8)).min(most);
    let earliest = reset.map_or(1, whole_seconds);
    earliest + getrandom::u64().unwrap_or_default() % spread
}

/// Rounded up, one at least.
fn whole_seconds(duration: Duration) -> u64 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + begun).max(1)
}

fn json(value: &impl Serialize) -> Bytes {
    // Plain structs of strings and numbers; were one not to serialize, the status still tells.
    serde_json::to_vec(value).map_or_else(|_| Bytes::from_static(br#"{"success":false}"#), Bytes::from)
}

fn answer(status: StatusCode, body: Bytes, request_id: &str) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: Answer) -> serde_json::Value {
        let mut body = answer.into_body();
        let frame = std::pin::Pin::new(&mut body);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match http_body::Body::poll_frame(frame, &mut context) {
            std::task::Poll::Ready(Some(Ok(frame))) => {
                serde_json::from_slice(frame.data_ref().unwrap()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_error_says_success_false_with_code_message_and_request_id() {
        for code in IngestCode::ALL {
            let answer = refused(&Refusal::of_field(*code, "type", "why"), 0, "req_1");
            let status = answer.status();
            assert!(
                status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{code}"
            );
            assert_eq!(
                body(answer),
                serde_json::json!({
                    "success": false, "code": code.as_str(), "message": "why", "field": "type", "request_id": "req_1",
                })
            );
        }
    }

    #[test]
    fn who_shall_come_again_is_told_when_in_whole_seconds() {
        let seconds = |answer: &Answer, name: &str| -> u64 {
            answer.headers()[name].to_str().unwrap().parse().unwrap()
        };
        let answer = refused(&Refusal::new(IngestCode::JournalFull, "full"), 0, "req_1");
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!((1..=5).contains(&seconds(&answer, "retry-after")));
        assert!(!answer.headers().contains_key(RESET));

        let mut limited = Refusal::new(IngestCode::RateLimited, "too fast");
        limited.reset = Some(Duration::from_millis(7_200));
        let answer = refused(&limited, 0, "req_1");
        assert_eq!(seconds(&answer, RESET), 8);
        assert!((8..=12).contains(&seconds(&answer, "retry-after")));
    }

    #[test]
    fn who_was_refused_before_is_spread_wider_up_to_a_minute() {
        let latest = |attempts| (0..2_000).map(|_| retry_after(None, attempts)).max().unwrap();
        assert!(latest(0) <= 5);
        assert!((6..=20).contains(&latest(2)));
        assert!((21..=60).contains(&latest(u32::MAX)));
    }

    #[test]
    fn success_is_bare_unless_something_was_rejected() {
        let mut outcome = Accepted {
            accepted: 2,
            duplicates: 1,
            rejected: Vec::new(),
        };
        assert_eq!(
            body(accepted(&outcome, "r")),
            serde_json::json!({ "success": true })
        );
        outcome.rejected.push(Rejected {
            index: 3,
            message_id: Some("m".to_owned()),
            refusal: Refusal::of_field(IngestCode::MissingField, "type", "needed"),
        });
        assert_eq!(
            body(accepted(&outcome, "r")),
            serde_json::json!({
                "success": true, "accepted": 2, "duplicates": 1,
                "rejected": [{ "index": 3, "message_id": "m", "code": "missing_field", "message": "needed", "field": "type" }],
            })
        );
    }
}
