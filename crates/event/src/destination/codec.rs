use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Codecs that make any bytes smaller, each with its highest level; 0 for those without levels.
const GENERAL: [(&str, u8); 4] = [("NONE", 0), ("LZ4", 0), ("LZ4HC", 12), ("ZSTD", 22)];
/// Codecs that rewrite numbers, so that a general one behind them finds more.
const OF_NUMBERS: [&str; 3] = ["Delta", "DoubleDelta", "Gorilla"];

/// How a column is compressed, as ClickHouse spells it: `ZSTD(3)`, or for numbers and times `Delta, ZSTD(1)`.
///
/// Only what is known here passes, so it can stand in a statement as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codec(String);

impl Codec {
    /// Its spelling, between the brackets of `CODEC(…)`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it fits numbers and times alone.
    pub fn is_of_numbers(&self) -> bool {
        self.0.contains(", ")
    }
}

impl FromStr for Codec {
    type Err = InvalidCodec;

    fn from_str(text: &str) -> Result<Self, InvalidCodec> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let general = |part: &str| {
            GENERAL
                .iter()
                .any(|(name, highest)| match part.strip_prefix(name) {
                    Some("") => true,
                    Some(level) => level
                        .strip_prefix('(')
                        .and_then(|level| level.strip_suffix(')')?.parse::<u8>().ok())
                        .is_some_and(|level| (1..=*highest).contains(&level)),
                    None => false,
                })
        };
        match parts.as_slice() {
            [one] if general(one) => Ok(Self((*one).to_owned())),
            [first, second] if OF_NUMBERS.contains(first) && general(second) => {
                Ok(Self(format!("{first}, {second}")))
            }
            _ => Err(InvalidCodec),
        }
    }
}

impl TryFrom<String> for Codec {
    type Error = InvalidCodec;

    fn try_from(text: String) -> Result<Self, InvalidCodec> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.0
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a codec such as `ZSTD(3)`, `LZ4` or `Delta, ZSTD(1)`")]
pub struct InvalidCodec;
