//! The Native format: columns of one block as ClickHouse takes them over HTTP (protocol revision 0).
//!
//! A block is the number of columns and of rows, then for each column its name, its type and its values. This is
//! a pure core: it knows no tables and no JSON. Layout of the formats: ClickHouse's `NativeReader.cpp` and
//! `SerializationLowCardinality.cpp`.

mod column;
pub mod frame;

use crate::schema::ColumnSpec;
pub use column::{Cell, Column, WrongCell};

/// A column of a block: what it is called, the type as the server spells it, and its values.
#[derive(Debug)]
pub struct NamedColumn<'a> {
    /// The column's name, unquoted.
    pub name: &'a str,
    /// Its type, in ClickHouse's spelling.
    pub type_name: &'a str,
    /// Its values, as many as the block has rows.
    pub column: &'a Column,
}

impl<'a> NamedColumn<'a> {
    /// The values of a table's column.
    pub fn new(spec: &'a ColumnSpec, column: &'a Column) -> Self {
        Self {
            name: &spec.name,
            type_name: &spec.type_name,
            column,
        }
    }
}

/// Where the bytes of a block go.
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends one block to `out`.
///
/// Every column must hold `rows` values; see [`Column::pad_to`].
pub fn write_block(out: &mut impl Sink, rows: usize, columns: &[NamedColumn<'_>]) {
    debug_assert!(
        columns.iter().all(|named| named.column.len() == rows),
        "columns of one length"
    );
    let mut head = Vec::new();
    write_varint(&mut head, columns.len() as u64);
    write_varint(&mut head, rows as u64);
    for named in columns {
        write_string(&mut head, named.name);
        write_string(&mut head, named.type_name);
        out.put(&head);
        head.clear();
        if rows > 0 {
            named.column.write(out);
        }
    }
    out.put(&head);
}

/// Appends an unsigned LEB128 number.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Appends a string with its length in front.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
