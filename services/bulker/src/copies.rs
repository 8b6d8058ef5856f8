//! Records that the bulker writes: copies for the retry topics and dead letters.

use millrace_event::envelope::{Envelope as _, Reason, Resume, Retry, RowPayload, Stage, Text, V1};
use millrace_event::header::{self, Headers};
use millrace_event::topic::{MAX_WRAPPED_BYTES, RetryTier, Topics};
use millrace_event::{Identity, Timestamp};
use millrace_kafka::{Outgoing, Record};
use serde_json::value::RawValue;

/// Longest error message in a header, in bytes.
const MOST_MESSAGE_BYTES: usize = 1024;

/// Longest stack in a header, in bytes.
const MOST_STACK_BYTES: usize = 2048;

/// A record and the topic it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The topic.
    pub topic: String,
    /// The record.
    pub record: Outgoing,
}

/// What a copy says about the record that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// The record of the transformed log.
    pub record: &'a Record,
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The event; not known of a record that cannot be read.
    pub identity: Option<Identity>,
    /// How often the event had gone round.
    pub attempt: u32,
    /// The workspace; not known of a record that cannot be read.
    pub workspace: &'a str,
    /// Who failed.
    pub stage: Stage,
    /// Why.
    pub reason: &'a Reason<'a>,
    /// Now.
    pub at: Timestamp,
}

/// Which tier comes next: the first that waits as long as was asked, one further for each attempt; `None` past
/// the last one.
pub fn tier(topics: &Topics, attempt: u32, retry_after_ms: Option<u64>) -> Option<&RetryTier> {
    let by_attempt = usize::try_from(attempt).unwrap_or(usize::MAX);
    let asked_seconds = retry_after_ms.unwrap_or(0).div_ceil(1000);
    let by_delay = topics
        .retry
        .iter()
        .position(|tier| tier.delay_seconds >= asked_seconds)
        .unwrap_or(topics.retry.len().saturating_sub(1));
    if by_attempt >= topics.retry.len() {
        None
    } else {
        topics.retry.get(by_attempt.max(by_delay))
    }
}

/// How long a row waits for its table before it is a dead letter, in seconds.
const LONGEST_WAIT_SECONDS: u64 = 24 * 60 * 60;

/// Which tier a row whose table cannot be written takes: one further for each attempt, and then the longest again
/// and again; `None` once it has waited a day.
pub fn row_tier(topics: &Topics, attempt: u32) -> Option<&RetryTier> {
    let (longest, shorter) = topics.retry.split_last()?;
    let attempt = usize::try_from(attempt).unwrap_or(usize::MAX);
    let Some(beyond) = attempt.checked_sub(shorter.len()) else {
        return topics.retry.get(attempt);
    };
    let waited: u64 = shorter.iter().map(|tier| tier.delay_seconds).sum();
    let times = u64::try_from(beyond).unwrap_or(u64::MAX);
    let waited = waited.saturating_add(times.saturating_mul(longest.delay_seconds.max(1)));
    (waited < LONGEST_WAIT_SECONDS).then_some(longest)
}

/// A copy of stage `bulker` for `tier`: the row goes into its table when it is due, without running functions
/// again. `None` where it would be larger than a topic takes.
pub fn row_retry(failed: &Failed<'_>, tier: &RetryTier, row: &RowPayload<'_>, sub: u16) -> Option<Copy> {
    // What is written here is read here: a row's text is valid JSON.
    let payload = RawValue::from_string(String::from_utf8(row.to_bytes()).ok()?).ok()?;
    let made = copy(failed, tier, |due_at| Retry {
        version: V1,
        stage: Stage::Bulker,
        attempt: failed.attempt + 1,
        due_at,
        resume: None,
        reason: failed.reason.clone(),
        table: Some(row.output.table.clone()),
        sub: Some(sub),
        payload: &payload,
    });
    made.map(|mut made| {
        name_row(&mut made, row, sub);
        made
    })
}

/// Which row a record is about, for readers that do not open its value.
fn name_row(copy: &mut Copy, row: &RowPayload<'_>, sub: u16) {
    copy.record.headers.push(header::TABLE, row.output.table.as_str());
    copy.record.headers.push(header::SUB, sub.to_string());
}

/// A copy of stage `rotor` for `tier`: the functions run again when it is due. `None` where it would be larger
/// than a topic takes.
pub fn retry(
    failed: &Failed<'_>,
    tier: &RetryTier,
    resume: Option<Resume<'_>>,
    ingest: &RawValue,
) -> Option<Copy> {
    copy(failed, tier, |due_at| Retry {
        version: V1,
        stage: Stage::Rotor,
        attempt: failed.attempt + 1,
        due_at,
        resume,
        reason: failed.reason.clone(),
        table: None,
        sub: None,
        payload: ingest,
    })
}

fn copy<'r>(
    failed: &Failed<'_>,
    tier: &RetryTier,
    envelope: impl FnOnce(Timestamp) -> Retry<'r>,
) -> Option<Copy> {
    let delay_ms = i64::try_from(tier.delay_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    let due_at = Timestamp::clamped_from_millis(failed.at.as_millis().saturating_add(delay_ms));
    let envelope = envelope(due_at);
    let headers = headers(failed, envelope.attempt).with(header::DUE_AT, due_at.to_string());
    let record = Outgoing {
        key: failed.record.key.as_deref().map(<[u8]>::to_vec),
        value: envelope.to_bytes(),
        headers,
    };
    (record.size() <= MAX_WRAPPED_BYTES).then(|| Copy {
        topic: tier.topic.clone(),
        record,
    })
}

/// A dead letter with `value` as it is.
pub fn dead_letter(topics: &Topics, failed: &Failed<'_>, value: Vec<u8>) -> Copy {
    let headers = headers(failed, failed.attempt);
    Copy {
        topic: topics.dlq.clone(),
        record: Outgoing {
            key: failed.record.key.as_deref().map(<[u8]>::to_vec),
            value,
            headers,
        },
    }
}

/// The dead letter of one row.
pub fn dead_row(topics: &Topics, failed: &Failed<'_>, row: &RowPayload<'_>, sub: u16) -> Copy {
    let mut copy = dead_letter(topics, failed, row.to_bytes());
    name_row(&mut copy, row, sub);
    copy
}

/// A reason of this stage.
pub fn reason<'a>(code: millrace_event::code::RowCode, message: String, field: Option<String>) -> Reason<'a> {
    Reason {
        code: Text::from(code.as_str()),
        message: message.into(),
        field: field.map(Text::from),
        function: None,
        function_version: None,
        stack: None,
    }
}

fn headers(failed: &Failed<'_>, attempt: u32) -> Headers {
    let reason = failed.reason;
    let message = truncated(reason.message.as_str());
    let (partition, offset) = (failed.partition.to_string(), failed.record.offset.to_string());
    let mut headers = Headers::new();
    if let Some(identity) = failed.identity {
        headers.push(header::ID, identity.to_string());
    }
    headers.push(header::ATTEMPT, attempt.to_string());
    headers.push(header::STAGE, failed.stage.as_str());
    headers.push(header::WORKSPACE, failed.workspace);
    headers.push(header::ERROR_CODE, reason.code.as_str());
    headers.push(header::ERROR_MESSAGE, message);
    if let Some(field) = &reason.field {
        headers.push(header::ERROR_FIELD, truncated(field.as_str()));
    }
    if let Some(stack) = &reason.stack {
        headers.push(
            header::ERROR_STACK,
            truncated_to(stack.as_str(), MOST_STACK_BYTES),
        );
    }
    if let Some(function) = &reason.function {
        headers.push(header::FUNCTION, function.as_str());
    }
    if let Some(version) = reason.function_version {
        headers.push(header::FUNCTION_VERSION, version.to_string());
    }
    headers.push(header::FAILED_AT, failed.at.to_string());
    headers.push(header::ORIGIN_TOPIC, failed.topic);
    headers.push(header::ORIGIN_PARTITION, partition.as_str());
    headers.push(header::ORIGIN_OFFSET, offset.as_str());
    if let Some(traceparent) = failed.record.headers.get(header::TRACEPARENT) {
        headers.push(header::TRACEPARENT, traceparent);
    }
    headers.push(header::connect::TOPIC, failed.topic);
    headers.push(header::connect::PARTITION, partition);
    headers.push(header::connect::OFFSET, offset);
    headers.push(header::connect::STAGE, failed.stage.as_str());
    headers.push(header::connect::CLASS_NAME, reason.code.as_str());
    headers.push(header::connect::MESSAGE, message);
    if let Some(stack) = &reason.stack {
        headers.push(
            header::connect::STACKTRACE,
            truncated_to(stack.as_str(), MOST_STACK_BYTES),
        );
    }
    headers
}

fn truncated(text: &str) -> &str {
    truncated_to(text, MOST_MESSAGE_BYTES)
}

/// The longest prefix within the limit that ends at a character.
fn truncated_to(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_goes_one_tier_further_and_the_last_one_ends() {
        let topics = Topics::default();
        let delay = |attempt, asked| tier(&topics, attempt, asked).map(|tier| tier.delay_seconds);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|attempt| delay(attempt, None)),
            [Some(10), Some(60), Some(300), Some(3600), None]
        );
    }

    #[test]
    fn a_function_that_asks_for_a_longer_wait_gets_it_up_to_the_longest_tier() {
        let topics = Topics::default();
        let delay = |attempt, asked| tier(&topics, attempt, asked).map(|tier| tier.delay_seconds);
        assert_eq!(delay(0, Some(1)), Some(10));
        assert_eq!(delay(0, Some(10_000)), Some(10));
        assert_eq!(delay(0, Some(10_001)), Some(60));
        assert_eq!(delay(0, Some(86_400_000)), Some(3600));
        assert_eq!(delay(2, Some(1)), Some(300));
    }

    #[test]
    fn a_row_takes_the_longest_tier_while_its_table_stays_broken_and_is_set_aside_after_a_day() {
        let topics = Topics::default();
        let delay = |attempt| row_tier(&topics, attempt).map(|tier| tier.delay_seconds);
        assert_eq!(
            [0, 1, 2, 3, 4, 20].map(delay),
            [10, 60, 300, 3600, 3600, 3600].map(Some)
        );
        assert_eq!(
            (delay(26), delay(27), delay(u32::MAX)),
            (Some(3600), None, None),
            "370 seconds and 24 hours"
        );
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let text = "ä".repeat(1000);
        assert_eq!(truncated(&text).len(), MOST_MESSAGE_BYTES);
        assert_eq!(truncated("short"), "short");
    }
}
