//! The two requests that a gateway makes, and their answers: Metadata version 4 and Produce version 3, which every broker
//! since 0.11 speaks, those of Kafka 4 included. Pure: bytes in, bytes out.

use bytes::{BufMut as _, BytesMut};

use super::fault::{Code, Fault};

/// Bytes of an answer in front of it: its length.
pub(super) const LENGTH: usize = 4;
/// Largest answer that is read: a topic's metadata, or what became of a batch.
pub(super) const ANSWER_LIMIT: usize = 4 << 20;

const PRODUCE: (i16, i16) = (0, 3);
const METADATA: (i16, i16) = (3, 4);
/// `acks`: all replicas in sync.
const ALL: i16 = -1;

/// Where a topic's partitions are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Each partition with the address of its leader; none while there is none.
    pub(super) leaders: Vec<(u32, Option<String>)>,
}

/// What precedes a batch: all of the request but for the batch itself, which must follow.
pub(super) fn produce(
    id: i32,
    client: &str,
    (topic, partition): (&str, i32),
    timeout_ms: i32,
    batch: usize,
) -> BytesMut {
    let mut out = head(PRODUCE, id, client);
    out.put_i16(-1); // no transaction
    out.put_i16(ALL);
    out.put_i32(timeout_ms);
    out.put_i32(1);
    put_text(&mut out, topic);
    out.put_i32(1);
    out.put_i32(partition);
    out.put_i32(i32::try_from(batch).unwrap_or(i32::MAX));
    finish(out, batch)
}

/// Asks where `topic` is; a broker that makes topics by itself does not make this one.
pub(super) fn metadata(id: i32, client: &str, topic: &str) -> BytesMut {
    let mut out = head(METADATA, id, client);
    out.put_i32(1);
    put_text(&mut out, topic);
    out.put_u8(0);
    finish(out, 0)
}

/// The answer to [`produce`].
///
/// # Errors
/// What the broker says against the batch, or [`Fault::Malformed`].
pub(super) fn produced(answer: &[u8], id: i32, (topic, partition): (&str, i32)) -> Result<(), Fault> {
    let mut rest = Rest(answer);
    rest.is_for(id)?;
    let about = (rest.i32()?, rest.text()?, rest.i32()?, rest.i32()?);
    if about != (1, topic, 1, partition) {
        return Err(Fault::Malformed);
    }
    rest.code()
}

/// The answer to [`metadata`]; no partitions where the topic is not there.
///
/// # Errors
/// What the broker says against the topic, or [`Fault::Malformed`].
pub(super) fn located(answer: &[u8], id: i32, topic: &str) -> Result<Metadata, Fault> {
    let mut rest = Rest(answer);
    rest.is_for(id)?;
    rest.i32()?; // throttled for so long, which the broker sees to itself
    let mut brokers = Vec::new();
    for _ in 0..rest.i32()? {
        let (node, host, port) = (rest.i32()?, rest.text()?, rest.i32()?);
        rest.nullable()?;
        brokers.push((node, host, port));
    }
    rest.nullable()?;
    rest.i32()?;
    if rest.i32()? != 1 {
        return Err(Fault::Malformed);
    }
    let code = rest.code();
    if rest.text()? != topic {
        return Err(Fault::Malformed);
    }
    match code {
        Ok(()) => {}
        Err(Fault::Refused(Code::UNKNOWN_TOPIC)) => return Ok(Metadata { leaders: Vec::new() }),
        Err(fault) => return Err(fault),
    }
    rest.take(1)?; // internal or not
    let mut leaders = Vec::new();
    for _ in 0..rest.i32()? {
        rest.i16()?; // a partition without a leader has none below
        let (partition, leader) = (rest.i32()?, rest.i32()?);
        for _ in 0..2 {
            for _ in 0..rest.i32()? {
                rest.i32()?;
            }
        }
        let broker = brokers.iter().find(|(node, ..)| *node == leader);
        let address = broker.map(|(_, host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        });
        leaders.push((u32::try_from(partition).map_err(|_| Fault::Malformed)?, address));
    }
    Ok(Metadata { leaders })
}

fn head((key, version): (i16, i16), id: i32, client: &str) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0); // length, at the end
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(id);
    put_text(&mut out, client);
    out
}

/// Writes the length of a request with so many bytes behind it.
fn finish(mut out: BytesMut, behind: usize) -> BytesMut {
    let length = i32::try_from(out.len() - LENGTH + behind).unwrap_or(i32::MAX);
    out[..LENGTH].copy_from_slice(&length.to_be_bytes());
    out
}

fn put_text(out: &mut BytesMut, text: &str) {
    // Names of topics and clients are checked by the broker; none is longer than this.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

/// What is left of an answer.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Fault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Malformed)
    }

    fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    fn nullable(&mut self) -> Result<Option<&'a str>, Fault> {
        let Ok(length) = usize::try_from(self.i16()?) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(length)?);
        text.map(Some).map_err(|_| Fault::Malformed)
    }

    fn text(&mut self) -> Result<&'a str, Fault> {
        self.nullable()?.ok_or(Fault::Malformed)
    }

    fn is_for(&mut self, id: i32) -> Result<(), Fault> {
        (self.i32()? == id).then_some(()).ok_or(Fault::Malformed)
    }

    fn code(&mut self) -> Result<(), Fault> {
        match self.i16()? {
            0 => Ok(()),
            code => Err(Fault::Refused(Code(code))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn an_answer_to_another_request_or_cut_anywhere_is_malformed_and_never_a_success() {
        let whole = answer(&[
            &7_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            b"\0\x01t",
            &1_i32.to_be_bytes(),
            &2_i32.to_be_bytes(),
            &0_i16.to_be_bytes(),
        ]);
        assert!(produced(&whole, 7, ("t", 2)).is_ok());
        assert!(matches!(produced(&whole, 8, ("t", 2)), Err(Fault::Malformed)));
        assert!(matches!(produced(&whole, 7, ("t", 3)), Err(Fault::Malformed)));
        for cut in 0..whole.len() {
            let fault = produced(&whole[..cut], 7, ("t", 2)).unwrap_err();
            assert!(matches!(fault, Fault::Malformed), "{cut}: {fault}");
        }
    }

    #[test]
    fn leaders_are_found_by_their_node_and_a_partition_without_one_has_none() {
        let whole = answer(&[
            &7_i32.to_be_bytes(),
            &0_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &4_i32.to_be_bytes(),
            b"\0\x03::1",
            &9092_i32.to_be_bytes(),
            b"\xff\xff\xff\xff",
            &4_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &0_i16.to_be_bytes(),
            b"\0\x01t\0",
            &2_i32.to_be_bytes(),
            // led by 4, with one replica
            b"\0\0\0\0\0\0\0\0\0\x04\0\0\0\x01\0\0\0\x04\0\0\0\0",
            // led by nobody
            b"\0\x05\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
        ]);
        let found = located(&whole, 7, "t").unwrap();
        assert_eq!(found.leaders, [(0, Some("[::1]:9092".to_owned())), (1, None)]);
        for cut in 0..whole.len() {
            assert!(located(&whole[..cut], 7, "t").is_err(), "{cut}");
        }
    }

    #[test]
    fn an_answer_that_announces_more_than_it_has_takes_no_memory_for_it() {
        let whole = answer(&[
            &7_i32.to_be_bytes(),
            &0_i32.to_be_bytes(),
            &i32::MAX.to_be_bytes(),
        ]);
        assert!(matches!(located(&whole, 7, "t"), Err(Fault::Malformed)));
    }
}
