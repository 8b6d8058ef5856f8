//! Requests as a server's library sends them: kept connections, Basic authentication, events of 1 KB.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use millrace_benches::EVENT;
use millrace_benches::load::Requests;

/// Events in a batch.
pub(crate) const BATCH: u64 = 100;
/// What differs from event to event: a part of the message id, and the person.
const ID: &str = "5b3c1f0a-7d1e-4a8e-9c55-3f0c2a8e4b10";
const PERSON: &str = "8f14e45f-ceea-467f-a9e0-1d2c3b4a5968";
/// How many people there are.
const PEOPLE: u64 = 10_000;

/// An event with the places of its ids.
#[derive(Clone, Debug)]
struct Template {
    text: Vec<u8>,
    id: usize,
    person: usize,
}

impl Template {
    fn new() -> Self {
        let place = |part: &str| EVENT.find(part).unwrap_or(0);
        Self {
            text: EVENT.as_bytes().to_vec(),
            id: place(ID),
            person: place(PERSON),
        }
    }

    /// Appends event number `n` of the run `run`; no other has its message id.
    fn write(&self, run: u64, n: u64, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.text);
        let mut set = |place: usize, number: u64| {
            let digits = format!("{number:016x}");
            let place = start + place;
            // Eight digits, the dash that is there, four, the dash, four.
            for (from, to) in [(0..8, 0), (8..12, 9), (12..16, 14)] {
                let target = place + to..place + to + from.len();
                if let (Some(target), Some(digits)) = (into.get_mut(target), digits.as_bytes().get(from)) {
                    target.copy_from_slice(digits);
                }
            }
        };
        set(self.id, run.wrapping_shl(40) | n);
        set(self.person, n % PEOPLE);
    }
}

fn head(path: &str, address: SocketAddr, key: &str, length: usize) -> Vec<u8> {
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {key}\r\n\
         content-type: application/json\r\nuser-agent: analytics-node-next/latest\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// One event in a request.
pub(crate) fn single(address: SocketAddr, key: &str, run: u64) -> Requests {
    let template = Template::new();
    let head = head("/v1/track", address, key, template.text.len());
    Arc::new(move |n, into| {
        into.extend_from_slice(&head);
        template.write(run, n, into);
    })
}

/// [`BATCH`] events in a request.
pub(crate) fn batch(address: SocketAddr, key: &str, run: u64) -> Requests {
    const START: &[u8] = br#"{"batch":["#;
    const END: &[u8] = br#"]}"#;
    let template = Template::new();
    let count = usize::try_from(BATCH).unwrap_or(usize::MAX);
    let length = START.len() + END.len() + count * (template.text.len() + 1) - 1;
    let head = head("/v1/batch", address, key, length);
    Arc::new(move |n, into| {
        into.extend_from_slice(&head);
        into.extend_from_slice(START);
        for event in 0..BATCH {
            if event > 0 {
                into.push(b',');
            }
            template.write(run, n * BATCH + event, into);
        }
        into.extend_from_slice(END);
    })
}
