//! A database of places of IPv4 networks in the MaxMind DB format (version 2.0), made by a test.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

/// Bits of a record in the tree.
const RECORD_BITS: u32 = 24;
/// Between the tree and the data.
const SEPARATOR: usize = 16;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// Where a branch of the tree leads.
#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    Data(usize),
}

/// The bytes of a database: each network has an address, the bits of it that count, and what is known of it. Later ones
/// win; whole numbers become 32-bit integers, others doubles.
///
/// # Panics
/// When the database is larger than the form that is written here allows, or a network has no bits.
pub fn database(networks: &[(Ipv4Addr, u32, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Branch::Nothing; 2]];
    let mut data = Vec::new();
    for (address, bits, value) in networks {
        assert!((1..=32).contains(bits), "a network has between 1 and 32 bits");
        let leaf = Branch::Data(data.len());
        encode(value, &mut data);
        let mut node = 0;
        for depth in 0..*bits {
            let side = usize::from((address.to_bits() >> (31 - depth)) & 1 == 1);
            if depth + 1 == *bits {
                nodes[node][side] = leaf;
                break;
            }
            node = match nodes[node][side] {
                Branch::Node(next) => next,
                Branch::Nothing | Branch::Data(_) => {
                    nodes.push([nodes[node][side], nodes[node][side]].map(|branch| match branch {
                        Branch::Data(at) => Branch::Data(at),
                        _ => Branch::Nothing,
                    }));
                    let next = nodes.len() - 1;
                    nodes[node][side] = Branch::Node(next);
                    next
                }
            };
        }
    }
    let mut bytes = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => nodes.len(),
            Branch::Node(at) => *at,
            Branch::Data(at) => nodes.len() + SEPARATOR + at,
        };
        let record = u32::try_from(record)
            .ok()
            .filter(|record| *record < 1 << RECORD_BITS);
        let [_, rest @ ..] = record
            .unwrap_or_else(|| panic!("the database is too large"))
            .to_be_bytes();
        bytes.extend(rest);
    }
    bytes.extend([0; SEPARATOR]);
    bytes.append(&mut data);
    bytes.extend(MARKER);
    let metadata = json!({
        "node_count": nodes.len(), "record_size": RECORD_BITS, "ip_version": 4, "database_type": "Test-City",
        "languages": ["en"], "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1,
        "description": { "en": "made by a test" },
    });
    encode(&metadata, &mut bytes);
    bytes
}

fn encode(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            head(2, text.len(), bytes);
            bytes.extend(text.as_bytes());
        }
        Value::Number(number) => match number.as_u64().and_then(|whole| u32::try_from(whole).ok()) {
            Some(whole) => {
                head(6, 4, bytes);
                bytes.extend(whole.to_be_bytes());
            }
            None => {
                head(3, 8, bytes);
                bytes.extend(number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Value::Bool(is) => head(14, usize::from(*is), bytes),
        Value::Array(list) => {
            head(11, list.len(), bytes);
            list.iter().for_each(|one| encode(one, bytes));
        }
        Value::Object(map) => object(map, bytes),
        Value::Null => object(&Map::new(), bytes),
    }
}

fn object(map: &Map<String, Value>, bytes: &mut Vec<u8>) {
    head(7, map.len(), bytes);
    for (key, value) in map {
        encode(&Value::String(key.clone()), bytes);
        encode(value, bytes);
    }
}

/// The type and the size of a field; types past 7 stand in a byte of their own.
fn head(kind: u8, size: usize, bytes: &mut Vec<u8>) {
    let (first, more) = match size {
        0..29 => (size, None),
        _ => (29, Some(size - 29)),
    };
    let first = u8::try_from(first).unwrap_or_default();
    if kind > 7 {
        bytes.extend([first, kind - 7]);
    } else {
        bytes.push(kind << 5 | first);
    }
    bytes.extend(more.map(|more| u8::try_from(more).unwrap_or_else(|_| panic!("a field is too large"))));
}
