use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::{Sink, write_string, write_varint};
use crate::column_type::{ColumnType, Scalar};

/// One value on its way into a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// `NULL` where the column knows it, else 0, `false`, an empty string or an empty array.
    Missing,
    /// Anything of fixed width: as many of the low bytes as the column is wide, little-endian.
    Bits(u64),
    /// Text.
    Text(Cow<'a, str>),
    /// The items of an array.
    List(Vec<Cell<'a>>),
}

/// A cell of another form than the column; the column is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cell is of another form than its column")]
pub struct WrongCell;

/// The values of one column of a block that is being built.
#[derive(Debug)]
pub struct Column {
    rows: usize,
    /// One byte a row, 1 for `NULL`; only for `Nullable(T)`.
    nulls: Option<Vec<u8>>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Fixed {
        width: usize,
        bytes: Vec<u8>,
    },
    /// Strings, each with its length in front.
    Text(Vec<u8>),
    Dictionary(Dictionary),
    Array {
        ends: Vec<u64>,
        items: Box<Column>,
    },
}

/// The values of `LowCardinality(String)` or `LowCardinality(Nullable(String))`.
///
/// Key 0 stands for what is missing: `NULL` where the type knows it, else the empty string.
#[derive(Debug)]
struct Dictionary {
    nullable: bool,
    /// Texts are as clients send them, so the hash has a seed of its own.
    positions: HashMap<Box<str>, u32, RandomState>,
    /// The keys, each with its length in front.
    keys: Vec<u8>,
    indexes: Vec<u32>,
    /// The text that was pushed last, and its position: mostly it is the next one too.
    last: (String, u32),
}

/// Additional keys follow, and they are all that the dictionary has.
const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;
const NEEDS_UPDATE: u64 = 1 << 10;
/// `SharedDictionariesWithAdditionalKeys`, the only version of keys there is.
const KEYS_VERSION: u64 = 1;

impl Column {
    /// An empty column of that type; nothing for [`ColumnType::Other`].
    pub fn new(column_type: &ColumnType) -> Option<Self> {
        let (nullable, values) = match column_type {
            ColumnType::Plain(scalar) => (false, Values::new(*scalar)),
            ColumnType::Nullable(scalar) => (true, Values::new(*scalar)),
            ColumnType::LowCardinality => (false, Values::Dictionary(Dictionary::new(false))),
            ColumnType::LowCardinalityNullable => (false, Values::Dictionary(Dictionary::new(true))),
            ColumnType::Array(scalar) => {
                let items = Self {
                    rows: 0,
                    nulls: None,
                    values: Values::new(*scalar),
                };
                (
                    false,
                    Values::Array {
                        ends: Vec::new(),
                        items: Box::new(items),
                    },
                )
            }
            ColumnType::Other => return None,
        };
        Some(Self {
            rows: 0,
            nulls: nullable.then(Vec::new),
            values,
        })
    }

    /// How many values it holds.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes all values out; what they lay in is kept for the next ones.
    pub fn clear(&mut self) {
        self.rows = 0;
        if let Some(nulls) = &mut self.nulls {
            nulls.clear();
        }
        match &mut self.values {
            Values::Fixed { bytes, .. } | Values::Text(bytes) => bytes.clear(),
            Values::Dictionary(dictionary) => dictionary.clear(),
            Values::Array { ends, items } => {
                ends.clear();
                items.clear();
            }
        }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// The cell is of another form than the column's type; nothing was added.
    pub fn push(&mut self, cell: &Cell<'_>) -> Result<(), WrongCell> {
        match cell {
            Cell::Missing => {
                self.pad_to(self.rows + 1);
                return Ok(());
            }
            Cell::Bits(bits) => match &mut self.values {
                Values::Fixed { width, bytes } => {
                    bytes.extend_from_slice(bits.to_le_bytes().get(..*width).unwrap_or_default());
                }
                _ => return Err(WrongCell),
            },
            Cell::Text(text) => match &mut self.values {
                Values::Text(bytes) => write_string(bytes, text),
                Values::Dictionary(dictionary) => dictionary.push(text),
                Values::Fixed { .. } | Values::Array { .. } => return Err(WrongCell),
            },
            Cell::List(cells) => match &mut self.values {
                Values::Array { ends, items } => {
                    if !cells.iter().all(|cell| items.takes(cell)) {
                        return Err(WrongCell);
                    }
                    for cell in cells {
                        items.push(cell)?;
                    }
                    ends.push(items.rows as u64);
                }
                _ => return Err(WrongCell),
            },
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.push(0);
        }
        self.rows += 1;
        Ok(())
    }

    fn takes(&self, item: &Cell<'_>) -> bool {
        match item {
            Cell::Bits(_) => matches!(self.values, Values::Fixed { .. }),
            Cell::Text(_) => matches!(self.values, Values::Text(_)),
            Cell::Missing | Cell::List(_) => false,
        }
    }

    /// Adds missing values until it holds `rows`; does nothing where it holds as many already.
    #[inline]
    pub fn pad_to(&mut self, rows: usize) {
        if let Some(missing) = rows.checked_sub(self.rows).filter(|missing| *missing > 0) {
            self.pad_by(missing);
        }
    }

    fn pad_by(&mut self, missing: usize) {
        let rows = self.rows + missing;
        match &mut self.values {
            Values::Fixed { width, bytes } => bytes.resize(bytes.len() + missing * *width, 0),
            Values::Text(bytes) => bytes.resize(bytes.len() + missing, 0),
            Values::Dictionary(dictionary) => dictionary.indexes.resize(rows, 0),
            Values::Array { ends, items } => ends.resize(rows, items.rows as u64),
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.resize(rows, 1);
        }
        self.rows = rows;
    }

    /// The bytes that its values take in a block now.
    pub fn byte_size(&self) -> usize {
        let values = match &self.values {
            Values::Fixed { bytes, .. } | Values::Text(bytes) => bytes.len(),
            Values::Dictionary(dictionary) => {
                32 + dictionary.keys.len() + dictionary.indexes.len() * dictionary.index_width()
            }
            Values::Array { ends, items } => ends.len() * 8 + items.byte_size(),
        };
        values + self.nulls.as_ref().map_or(0, Vec::len)
    }

    /// The bytes that one missing value takes.
    pub(crate) fn byte_size_of_missing(&self) -> usize {
        let value = match &self.values {
            Values::Fixed { width, .. } => *width,
            Values::Text(_) => 1,
            Values::Dictionary(dictionary) => dictionary.index_width(),
            Values::Array { .. } => 8,
        };
        value + usize::from(self.nulls.is_some())
    }

    /// Appends the values as they stand in a block, behind the column's name and type.
    pub(crate) fn write(&self, out: &mut impl Sink) {
        if let Some(nulls) = &self.nulls {
            out.put(nulls);
        }
        match &self.values {
            Values::Fixed { bytes, .. } | Values::Text(bytes) => out.put(bytes),
            Values::Dictionary(dictionary) => dictionary.write(out),
            Values::Array { ends, items } => {
                let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
                out.put(&ends);
                items.write(out);
            }
        }
    }
}

impl Values {
    fn new(scalar: Scalar) -> Self {
        match scalar {
            Scalar::String => Self::Text(Vec::new()),
            fixed => Self::Fixed {
                width: fixed.width(),
                bytes: Vec::new(),
            },
        }
    }
}

impl Dictionary {
    fn new(nullable: bool) -> Self {
        let mut keys = Vec::new();
        write_varint(&mut keys, 0);
        let mut positions = HashMap::default();
        if !nullable {
            positions.insert("".into(), 0);
        }
        Self {
            nullable,
            positions,
            keys,
            indexes: Vec::new(),
            last: (String::new(), 0),
        }
    }

    fn clear(&mut self) {
        self.positions.clear();
        self.keys.clear();
        write_varint(&mut self.keys, 0);
        if !self.nullable {
            self.positions.insert("".into(), 0);
        }
        self.indexes.clear();
        self.last.0.clear();
    }

    fn push(&mut self, text: &str) {
        if self.last.0 == text && !text.is_empty() {
            return self.indexes.push(self.last.1);
        }
        let position = match self.positions.get(text) {
            Some(position) => *position,
            None => {
                // A block of 2^32 different keys would be beyond every limit on its bytes.
                let next = self.positions.len() + usize::from(self.nullable);
                let next = u32::try_from(next).unwrap_or(u32::MAX);
                write_string(&mut self.keys, text);
                self.positions.insert(text.into(), next);
                next
            }
        };
        self.last.0.clear();
        self.last.0.push_str(text);
        self.last.1 = position;
        self.indexes.push(position);
    }

    fn key_count(&self) -> usize {
        self.positions.len() + usize::from(self.nullable)
    }

    /// The width of an index: the smallest that counts all keys.
    fn index_width(&self) -> usize {
        match self.key_count() {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        }
    }

    fn write(&self, out: &mut impl Sink) {
        let width = self.index_width();
        let index_type: u64 = match width {
            1 => 0,
            2 => 1,
            _ => 2,
        };
        for number in [
            KEYS_VERSION,
            index_type | HAS_ADDITIONAL_KEYS | NEEDS_UPDATE,
            self.key_count() as u64,
        ] {
            out.put(&number.to_le_bytes());
        }
        out.put(&self.keys);
        let mut indexes = Vec::with_capacity(8 + self.indexes.len() * width);
        indexes.extend_from_slice(&(self.indexes.len() as u64).to_le_bytes());
        for index in &self.indexes {
            indexes.extend_from_slice(index.to_le_bytes().get(..width).unwrap_or_default());
        }
        out.put(&indexes);
    }
}
