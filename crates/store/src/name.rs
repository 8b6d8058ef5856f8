//! Names that people give to workspaces, sources, destinations and functions.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Longest name, in bytes: with a prefix it still fits where databases cap theirs.
const LONGEST: usize = 60;

/// 1 to 60 of `a-z A-Z 0-9 _ - .`, the first a letter or a digit: it can stand in a path, a metric label and a
/// shell command as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name of the source and the destination that every workspace starts with.
    pub fn default_part() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let symbols = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let start = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !start || !symbols || text.len() > LONGEST {
            let reason = "is 1 to 60 letters, digits, `_`, `-` or `.`, and starts with a letter or a digit";
            return Err(Error::Invalid {
                what: "a name",
                reason,
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_misread_elsewhere_are_refused() {
        for text in [
            "",
            "-x",
            ".x",
            "_x",
            "a b",
            "a/b",
            "a\"b",
            "ä",
            &"a".repeat(LONGEST + 1),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for text in ["a", "demo", "Web-shop_2.eu", "0"] {
            assert_eq!(text.parse::<Name>().expect("a name").as_str(), text);
        }
    }
}
