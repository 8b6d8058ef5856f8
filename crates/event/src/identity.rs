//! The identity of an event: minted once at the journal, kept through Kafka, functions, retries and replays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of one journal directory and topic, or of a topic's incarnation for records that were written
/// without a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalId(pub u64);

impl JournalId {
    /// The journal id of records that other producers write straight into a topic: FNV-1a 64 over the topic's
    /// name, a zero byte and its configured incarnation. Such records use their offset as `seq`.
    pub fn of_topic(name: &str, incarnation: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes().chain([0]).chain(incarnation.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash)
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for JournalId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(lower_hex) {
            return Err(ParseError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseError)
    }
}

/// `(journal, partition, seq)`: `seq` is dense per `(journal, partition)`.
///
/// Its text form, in JSON and in the header [`crate::header::ID`], is
/// `<journal: 16 lower-case hex digits>-<partition>-<seq>`; a JSON number would lose digits in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The journal that minted it.
    pub journal: JournalId,
    /// The partition chosen at the append; every topic of the event's way has the same number of partitions.
    pub partition: u32,
    /// The sequence number within `(journal, partition)`, from 0.
    pub seq: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.journal, self.partition, self.seq)
    }
}

impl FromStr for Identity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.split('-');
        let (Some(journal), Some(partition), Some(seq), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseError);
        };
        Ok(Self {
            journal: journal.parse()?,
            partition: decimal(partition)?,
            seq: decimal(seq)?,
        })
    }
}

/// A decimal number in its one canonical form: digits only, no sign, no leading zero.
fn decimal<T: FromStr>(text: &str) -> Result<T, ParseError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(ParseError);
    }
    text.parse().map_err(|_| ParseError)
}

/// The text is not an identity in its canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity of the form <16 hex digits>-<partition>-<seq>")]
pub struct ParseError;

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(Identity);
as_text!(JournalId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_form_is_fixed() {
        let identity = Identity {
            journal: JournalId(0xab),
            partition: 3,
            seq: u64::MAX,
        };
        assert_eq!(identity.to_string(), "00000000000000ab-3-18446744073709551615");
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        for text in [
            "",
            "ab-3-1",
            "00000000000000AB-3-1",
            "00000000000000ab-3",
            "00000000000000ab-03-1",
            "00000000000000ab-3-+1",
            "00000000000000ab-3-1-",
            "00000000000000ab-4294967296-1",
            "00000000000000ab-3-18446744073709551616",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(ParseError), "{text}");
        }
    }

    #[test]
    fn a_topic_recreated_under_another_incarnation_has_another_journal() {
        assert_ne!(
            JournalId::of_topic("events.ingest.v1", "1"),
            JournalId::of_topic("events.ingest.v1", "2")
        );
        assert_ne!(JournalId::of_topic("a", "b1"), JournalId::of_topic("ab", "1"));
    }

    proptest! {
        #[test]
        fn every_identity_reads_back(journal: u64, partition: u32, seq: u64) {
            let identity = Identity { journal: JournalId(journal), partition, seq };
            prop_assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
        }
    }
}
