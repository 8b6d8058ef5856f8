//! What a PostgreSQL destination is set to, and what its tables are called among all others.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{InvalidSetting, Kind, MAX_COLUMNS, unknown, value};

/// The settings of a table in PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Postgres {
    /// How many columns the table may get besides its core columns; fields beyond it go to `extra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
    /// Where the server is and who asks, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SealedUrl>,
}

const NAMES: [&str; 2] = ["columns", "url"];

/// What stands in front of the id of a PostgreSQL destination where a table's database has its place.
pub const DATABASE_PREFIX: &str = "postgres-";

/// A table of a PostgreSQL destination as plans, tokens and audits know it: one name can be a table in two servers. `named`
/// is `schema.table`, as records name it.
pub fn table_of(id: &str, named: &str) -> String {
    let table = named.split_once('.').map_or(named, |(_, table)| table);
    format!("{DATABASE_PREFIX}{id}.{table}")
}

/// An address that holds a password, as it is stored: the id of the key that it is sealed under, a colon, and what was
/// sealed in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealedUrl {
    /// The key's id.
    pub key_id: String,
    /// Nonce, ciphertext and tag in base64.
    pub sealed: String,
}

impl TryFrom<String> for SealedUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        match text.split_once(':') {
            Some((key_id, sealed)) if !sealed.is_empty() && sealed.bytes().all(is_base64) => Ok(Self {
                key_id: key_id.to_owned(),
                sealed: sealed.to_owned(),
            }),
            _ => Err("not a sealed address"),
        }
    }
}

impl From<SealedUrl> for String {
    fn from(url: SealedUrl) -> Self {
        format!("{}:{}", url.key_id, url.sealed)
    }
}

impl Postgres {
    pub(super) fn set(&mut self, name: &str, given: &Value) -> Result<(), InvalidSetting> {
        match name {
            "columns" => {
                let allowed = format!("a number of columns up to {MAX_COLUMNS}");
                let columns = value(name, given, &allowed)?;
                if columns.is_some_and(|columns| columns > MAX_COLUMNS) {
                    return Err(InvalidSetting::new(name, format!("is {allowed}, not {given}")));
                }
                self.columns = columns;
            }
            "url" => {
                // What was given may be an address with its password: it is not repeated.
                let sealed = value(name, given, "");
                let reason = "is set by `--url-file` or `--url-env`, which seal it";
                self.url = sealed.map_err(|_| InvalidSetting::new(name, reason))?;
            }
            _ => return Err(unknown(Kind::Postgres, name, &NAMES)),
        }
        Ok(())
    }
}
