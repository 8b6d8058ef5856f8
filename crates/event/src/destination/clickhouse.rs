use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Codec, InvalidSetting, Kind, unknown, value};

/// Most columns that a table may be given, besides its core columns. Each costs files in every part of the table.
pub const MAX_COLUMNS: u16 = 5_000;

/// Longest name of a cluster, in bytes.
const MAX_CLUSTER_BYTES: usize = 128;

/// The settings of a table in ClickHouse. What is not set is as the process that uses it has it by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClickHouse {
    /// How long rows are kept. Where it is not set, a table that is there keeps the TTL that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_days: Option<Ttl>,
    /// How many columns the table may get besides its core columns; fields beyond it go to `extra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
    /// Whether the table has a column `extra_json`, for what ClickHouse's type JSON takes of `extra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_json: Option<bool>,
    /// Whose table it is. Decided when the destination is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<TableLayout>,
    /// How new columns of text and of arrays are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_text: Option<Codec>,
    /// How new columns of times are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_time: Option<Codec>,
    /// How new columns of numbers are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_number: Option<Codec>,
    /// The cluster that tables are made on, replicated. Experimental.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// How rows are compressed on their way to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

const NAMES: [&str; 9] = [
    "ttl_days",
    "columns",
    "extra_json",
    "layout",
    "codec_text",
    "codec_time",
    "codec_number",
    "cluster",
    "compression",
];

/// How long rows are kept, counted from `received_at`. Written as a number of days, or `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ttl {
    /// So many days.
    Days(NonZeroU16),
    /// For good.
    Never(Never),
}

/// The word of [`Ttl::Never`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Never {
    /// `"never"`
    Never,
}

impl Ttl {
    /// The number of days; nothing where rows are kept for good.
    pub const fn days(self) -> Option<NonZeroU16> {
        match self {
            Self::Days(days) => Some(days),
            Self::Never(_) => None,
        }
    }
}

/// How rows are compressed on their way to the server. How they are kept there is the columns' [`Codec`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// LZ4: the least CPU on both sides.
    #[default]
    Lz4,
    /// ZSTD at level 1: fewer bytes, for a server that is far away.
    Zstd,
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableLayout {
    /// The destination's own.
    #[default]
    Own,
    /// One of many small workspaces; each sees its rows through a view that has the destination's name.
    Shared,
}

/// The name of a cluster: ASCII letters, digits, `_` and `-`, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cluster(String);

impl Cluster {
    /// The name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Cluster {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match !text.is_empty() && text.len() <= MAX_CLUSTER_BYTES && text.bytes().all(allowed) {
            true => Ok(Self(text)),
            false => Err("not the name of a cluster"),
        }
    }
}

impl From<Cluster> for String {
    fn from(cluster: Cluster) -> Self {
        cluster.0
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClickHouse {
    /// Whose table it is.
    pub fn layout(&self) -> TableLayout {
        self.layout.unwrap_or_default()
    }

    pub(super) fn set(&mut self, name: &str, given: &Value) -> Result<(), InvalidSetting> {
        match name {
            "ttl_days" => self.ttl_days = value(name, given, "a number of days from 1 to 65535, or `never`")?,
            "columns" => {
                let allowed = format!("a number of columns up to {MAX_COLUMNS}");
                let columns = value(name, given, &allowed)?;
                if columns.is_some_and(|columns| columns > MAX_COLUMNS) {
                    return Err(InvalidSetting::new(name, format!("is {allowed}, not {given}")));
                }
                self.columns = columns;
            }
            "extra_json" => self.extra_json = value(name, given, "`true` or `false`")?,
            "layout" => self.layout = value(name, given, "`own` or `shared`")?,
            "codec_text" => {
                let codec: Option<Codec> = value(name, given, "a codec such as `ZSTD(3)` or `LZ4`")?;
                if codec.as_ref().is_some_and(Codec::is_of_numbers) {
                    return Err(InvalidSetting::new(
                        name,
                        format!("is a codec that takes text, not {given}"),
                    ));
                }
                self.codec_text = codec;
            }
            "codec_time" => self.codec_time = value(name, given, "a codec such as `Delta, ZSTD(1)`")?,
            "codec_number" => {
                self.codec_number = value(name, given, "a codec such as `Gorilla, ZSTD(1)` or `LZ4`")?
            }
            "compression" => self.compression = value(name, given, "`lz4` or `zstd`")?,
            "cluster" => self.cluster = value(name, given, "the name of a cluster")?,
            _ => return Err(unknown(Kind::ClickHouse, name, &NAMES)),
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        if self.layout() == TableLayout::Own {
            return Ok(());
        }
        let of_a_table = [
            ("ttl_days", self.ttl_days.is_some()),
            ("columns", self.columns.is_some()),
            ("extra_json", self.extra_json.is_some()),
            ("codec_text", self.codec_text.is_some()),
            ("codec_time", self.codec_time.is_some()),
            ("codec_number", self.codec_number.is_some()),
            ("cluster", self.cluster.is_some()),
            ("compression", self.compression.is_some()),
        ];
        match of_a_table.into_iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((name, _)) => Err(InvalidSetting::new(
                name,
                "is of a table of one's own: a shared one is the same for all of its workspaces",
            )),
        }
    }
}
