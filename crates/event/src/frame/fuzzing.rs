//! What the fuzz target `frames` does with its bytes; its corpus is an ordinary test.
//!
//! A worker runs what strangers wrote, so the rotor reads its frames as bytes of a stranger. The first byte says which way
//! in is tried: frames one behind the other, verdicts beside the events that they are of, or one event beside what it
//! became.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::payload::PayloadError;
use super::{
    Batch, Call, EventText, Frame, HEADER_LEN, Kind, Load, Log, Outcome, Progress, Reply, Resume, Shared,
    Verdicts, encode,
};

/// Most bytes that a read payload may take in memory for each of its own, and beside them: no count in a payload is
/// believed before what it counts is there.
const SPREAD: usize = 128;
const BESIDE: usize = 1 << 20;

/// Takes bytes as the rotor takes a worker's.
///
/// # Panics
/// Something that was read is not what was written, is not JSON where it must be, takes memory without end, or is called
/// intact where something of the event was lost.
pub fn frames(bytes: &[u8]) {
    let Some((way, bytes)) = bytes.split_first() else {
        return;
    };
    match way % 3 {
        0 => stream(bytes),
        1 => {
            let (source, payload) = parts(bytes);
            if is_json(source) {
                beside(payload, source);
            }
        }
        _ => {
            let (source, output) = parts(bytes);
            if let (true, Ok(output)) = (is_json(source), std::str::from_utf8(output)) {
                became(source, output);
            }
        }
    }
}

/// What is in front of the first zero byte, which no JSON has, and what is behind it.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (source, rest) = bytes.split_at(at);
    (source, rest.get(1..).unwrap_or_default())
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok() && std::str::from_utf8(text).is_ok()
}

#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
fn stream(mut bytes: &[u8]) {
    while let Ok(Some((frame, taken))) = Frame::decode(bytes) {
        assert_eq!(taken, HEADER_LEN + frame.payload.len());
        let mut again = Vec::new();
        encode(frame.kind, frame.id, frame.payload, &mut again).expect("it was read");
        let (whole, rest) = bytes.split_at(taken);
        assert_eq!(again, whole, "a frame is read back");
        payload(frame.kind, frame.payload);
        bytes = rest;
    }
}

#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
fn payload(kind: Kind, bytes: &[u8]) {
    match kind {
        Kind::Load => drop(serde_json::from_slice::<Load>(bytes)),
        Kind::Progress => drop(serde_json::from_slice::<Progress>(bytes)),
        Kind::Call => drop(serde_json::from_slice::<Call>(bytes)),
        Kind::Reply => drop(serde_json::from_slice::<Reply>(bytes)),
        Kind::Log => drop(serde_json::from_slice::<Log>(bytes)),
        Kind::Cancel => {}
        Kind::Verdicts => {
            drop(read(bytes, None));
        }
        Kind::Batch => {
            if let Ok(batch) = Batch::decode(bytes) {
                let room =
                    batch.records.capacity() * size_of_val(batch.records.as_slice().first().unwrap_or(&NONE));
                assert!(
                    room <= SPREAD * bytes.len() + BESIDE,
                    "{room} bytes for {}",
                    bytes.len()
                );
                assert_eq!(
                    batch.encode().expect("it was read"),
                    bytes,
                    "a batch is read back"
                );
            }
        }
        Kind::Shared => {
            if let Ok(shared) = Shared::decode(bytes) {
                assert_eq!(shared.encode().as_slice(), bytes, "it is read back");
            }
        }
    }
}

const NONE: super::Record<'_> = super::Record {
    context: "",
    event: "",
    position: 0,
};

/// Reads verdicts beside an event, or beside none, and sees that what they hold is JSON and stays as it is.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
fn read(bytes: &[u8], source: Option<&[u8]>) -> Result<Option<Vec<Outcome>>, PayloadError> {
    let outcomes = match Verdicts::decode_beside(&Bytes::copy_from_slice(bytes), |_| source)? {
        Verdicts::Outcomes(outcomes) => outcomes,
        Verdicts::UnknownChain => return Ok(None),
    };
    let lists = outcomes
        .iter()
        .map(|outcome| outcome.events.capacity() * size_of::<EventText>());
    let room = outcomes.capacity() * size_of::<Outcome>() + lists.sum::<usize>();
    let most = SPREAD * bytes.len() + BESIDE;
    assert!(room <= most, "{room} bytes for {}", bytes.len());
    let again: Vec<Outcome<String>> = outcomes.iter().map(owned).collect();
    for text in again.iter().flat_map(|outcome| &outcome.events) {
        assert!(is_json(text.as_bytes()), "{text}");
    }
    let written = Verdicts::encode(&again).expect("it was read");
    let Ok(Verdicts::Outcomes(second)) = Verdicts::decode(&written) else {
        panic!("what was read is read again");
    };
    let second: Vec<Outcome<String>> = second.iter().map(owned).collect();
    assert_eq!(
        Verdicts::encode(&second).expect("it was read"),
        written,
        "and is the same"
    );
    Ok(Some(outcomes))
}

fn owned(outcome: &Outcome) -> Outcome<String> {
    Outcome {
        verdict: outcome.verdict,
        events: outcome
            .events
            .iter()
            .map(|event| event.get().to_owned())
            .collect(),
        fault: outcome.fault.clone(),
        retry_after_ms: outcome.retry_after_ms,
        resume: outcome.resume.as_ref().map(|resume| Resume {
            position: resume.position,
            event: resume.event.get().to_owned(),
        }),
        intact: outcome.intact,
    }
}

/// Verdicts are the same beside an event as without it, but for what is called intact: that has all of the event.
fn beside(payload: &[u8], source: &[u8]) {
    let (known, plain) = (read(payload, Some(source)), read(payload, None));
    assert_eq!(known.is_ok(), plain.is_ok(), "{known:?} {plain:?}");
    let (Ok(Some(known)), Ok(Some(plain))) = (known, plain) else {
        return;
    };
    assert_eq!(known.len(), plain.len());
    for (known, plain) in known.iter().zip(&plain) {
        assert!(!plain.intact, "nothing is known of what it was");
        let texts = |outcome: &Outcome| {
            let kept = outcome.resume.iter().map(|resume| resume.event.get());
            let all = outcome.events.iter().map(EventText::get).chain(kept);
            all.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(texts(known), texts(plain));
        for text in texts(known).iter().filter(|_| known.intact) {
            assert!(holds(text.as_bytes(), source), "{text}");
        }
    }
}

/// An event goes on as `output`.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
fn became(source: &[u8], output: &str) {
    let payload = Verdicts::encode(&[Outcome::forward(vec![output.to_owned()])]).expect("small");
    beside(&payload, source);
}

/// Whether a text has all of `source` as it was, with at most members added to the ends of its objects.
fn holds(output: &[u8], source: &[u8]) -> bool {
    let (Some(output), Some(source)) = (Parts::of(output), Parts::of(source)) else {
        return false;
    };
    match (output, source) {
        (Parts::Plain(output), Parts::Plain(source)) => output == source,
        (Parts::List(output), Parts::List(source)) => {
            output.len() == source.len() && all_hold(&output, &source)
        }
        (Parts::Object(names, output), Parts::Object(known, source)) => {
            names.starts_with(&known) && all_hold(&output, &source)
        }
        _ => false,
    }
}

fn all_hold(output: &[&RawValue], source: &[&RawValue]) -> bool {
    let mut pairs = output.iter().zip(source);
    pairs.all(|(output, source)| holds(output.get().as_bytes(), source.get().as_bytes()))
}

/// A value taken apart by one level; names that come twice are there twice.
enum Parts<'a> {
    Plain(&'a [u8]),
    List(Vec<&'a RawValue>),
    Object(Vec<String>, Vec<&'a RawValue>),
}

impl<'a> Parts<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        let plain = text.trim_ascii();
        if !matches!(plain.first(), Some(b'{' | b'[')) {
            return Some(Self::Plain(plain));
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        Apart(plain).deserialize(&mut reader).ok()
    }
}

struct Apart<'a>(&'a [u8]);

impl<'a> DeserializeSeed<'a> for Apart<'a> {
    type Value = Parts<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Parts<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Apart<'a> {
    type Value = Parts<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object or a list, not {} bytes", self.0.len())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Parts<'a>, A::Error> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            names.push(name.get().to_owned());
            values.push(value);
        }
        Ok(Parts::Object(names, values))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Parts<'a>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<&RawValue>()? {
            values.push(value);
        }
        Ok(Parts::List(values))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpus_of_the_fuzz_target_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frames");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus") {
            frames(&std::fs::read(entry.expect("an entry").path()).expect("bytes"));
            count += 1;
        }
        assert!(count >= 16, "{count} seeds");
    }

    #[test]
    fn a_number_in_a_payload_makes_no_room_for_what_is_not_there() {
        // One byte for the form and a count without end; and the same for the events of one outcome.
        read(&[1, 0xff, 0xff, 0xff, 0xff], None).expect_err("nothing is there");
        let many = [&[1, 1, 0, 0, 0][..], &[0; 4], &[0xff; 4], &[0; 1 << 20]].concat();
        read(&many, None).expect_err("empty texts are no JSON");
    }

    #[test]
    fn what_is_lost_is_seen_and_what_is_added_at_an_end_is_allowed() {
        let source = br#"{"a":{"b":[1,{"c":1.50}]},"a":"x"}"#;
        for (output, expected) in [
            (&br#"{"a":{"b":[1,{"c":1.50}]},"a":"x"}"#[..], true),
            (br#"{"a":{"b":[1,{"c":1.50,"d":2}],"e":[]},"a":"x","f":{}}"#, true),
            (br#"{"a":{"b":[1,{"c":1.5}]},"a":"x"}"#, false),
            (br#"{"a":{"b":[1,{"c":1.50}]},"a":"y"}"#, false),
            (br#"{"a":{"b":[1,{"c":1.50},2]},"a":"x"}"#, false),
            (br#"{"z":0,"a":{"b":[1,{"c":1.50}]},"a":"x"}"#, false),
            (br#"{"a":{"b":[1,{"c":1.50}]}}"#, false),
        ] {
            assert_eq!(
                holds(output, source),
                expected,
                "{}",
                String::from_utf8_lossy(output)
            );
        }
    }
}
