//! Ids: short, prefixed with what they name, readable aloud, and cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;

/// 32 symbols, so that five random bits make one without bias; no `i`, `l`, `o` or `u` to misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Symbols of an id after its prefix: 60 bits.
const LENGTH: usize = 12;

/// Most symbols that are read after a prefix, so that what a client presents as an id stays small.
const LENGTH_LIMIT: usize = 32;

/// The text is not an id of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {0}_…")]
pub struct ParseError(&'static str);

/// `count` random symbols of 5 bits each, from the operating system's generator.
pub(crate) fn random_text(count: usize) -> Result<String, Error> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).map_err(Error::Entropy)?;
    Ok(bytes
        .into_iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect())
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// What every such id starts with, before an underscore.
            pub const PREFIX: &'static str = $prefix;

            pub(crate) fn mint() -> Result<Self, Error> {
                Ok(Self(format!("{}_{}", $prefix, random_text(LENGTH)?).into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let rest = text.strip_prefix(concat!($prefix, "_")).ok_or(ParseError($prefix))?;
                let symbols = rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                if rest.is_empty() || rest.len() > LENGTH_LIMIT || !symbols {
                    return Err(ParseError($prefix));
                }
                Ok(Self(text.into()))
            }
        }

        /// Maps by id are asked with the text of an envelope, without making an id of it.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// An organization: who is billed for the workspaces in it.
    OrganizationId,
    "org"
);
id!(
    /// A workspace.
    WorkspaceId,
    "ws"
);
id!(
    /// A source of events in a workspace.
    SourceId,
    "src"
);
id!(
    /// A destination of a workspace's rows.
    DestinationId,
    "dst"
);
id!(
    /// The way from one source to one destination.
    ChainId,
    "ch"
);
id!(
    /// A function.
    FunctionId,
    "fn"
);
id!(
    /// A write key, without its secret: safe to log.
    KeyId,
    "wk"
);
id!(
    /// A service token, without its secret: safe to log.
    TokenId,
    "st"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_reads_back_and_is_not_the_last_one() {
        let id = WorkspaceId::mint().expect("random bytes");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.as_str().len(), "ws_".len() + LENGTH);
        assert_ne!(id, WorkspaceId::mint().expect("random bytes"));
    }

    #[test]
    fn an_id_of_another_kind_or_with_other_symbols_is_refused() {
        let long = format!("ws_{}", "a".repeat(LENGTH_LIMIT + 1));
        for text in [
            "",
            "ws",
            "ws_",
            "src_abc",
            "ws_ABC",
            "ws_a:b",
            "ws_a b",
            "ws_ä",
            " ws_a",
            long.as_str(),
        ] {
            assert!(text.parse::<WorkspaceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_map_by_id_is_asked_with_text() {
        let id: ChainId = "ch_4f".parse().expect("an id");
        let map = std::collections::HashMap::from([(id.clone(), 1)]);
        assert_eq!(
            (map.get("ch_4f"), map.get(&id), map.get("ch_5f")),
            (Some(&1), Some(&1), None)
        );
    }

    #[test]
    fn json_holds_an_id_as_text_and_refuses_what_is_none() {
        let id: SourceId = "src_4f".parse().expect("an id");
        assert_eq!(serde_json::to_string(&id).expect("plain"), r#""src_4f""#);
        assert_eq!(
            serde_json::from_str::<SourceId>(r#""src_4f""#).expect("an id"),
            id
        );
        assert!(serde_json::from_str::<SourceId>(r#""ws_4f""#).is_err());
    }
}
