//! Languages that functions are written in.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// What the code is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// JavaScript.
    JavaScript,
    /// TypeScript, whose types are stripped.
    TypeScript,
}

impl Language {
    /// The spelling in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JavaScript => "js",
            Self::TypeScript => "ts",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "js" => Ok(Self::JavaScript),
            "ts" => Ok(Self::TypeScript),
            _ => Err(Error::Invalid {
                what: "a language",
                reason: "is `js` or `ts`",
            }),
        }
    }
}
