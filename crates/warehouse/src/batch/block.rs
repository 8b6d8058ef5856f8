use bytes::Bytes;
use millrace_event::destination::Compression;

use super::{RowId, SchemaMoved};
use crate::native::frame::{self, Frames};
use crate::native::{self, Cell, Column, NamedColumn};
use crate::schema::ColumnSpec;

/// Bytes of events' text that become one piece of a block. Columns in the making are as large as that, however large the
/// block is: memory that is used again while the processor still has it, instead of pages that the kernel must clear.
pub(super) const PIECE_BYTES: usize = 4 << 20;

/// The rows of one table partition as one insert takes them, compressed and ready to be sent: blocks of the Native
/// format behind one another, which the server puts together to one.
#[derive(Clone, Debug)]
pub struct Block {
    month: u32,
    rows: Vec<RowId>,
    columns: String,
    byte_size: usize,
    compression: Compression,
    frames: Vec<Bytes>,
}

impl Block {
    pub(crate) fn new(
        month: u32,
        rows: Vec<RowId>,
        columns: &[NamedColumn<'_>],
        compression: Compression,
    ) -> Self {
        let mut pieces = Pieces::new(compression);
        pieces.write(columns);
        pieces.into_block(month, rows, columns.iter().map(|named| named.name))
    }

    /// The table partition, as `toYYYYMM` shows it.
    pub const fn month(&self) -> u32 {
        self.month
    }

    /// The rows in the order of the block.
    pub fn rows(&self) -> &[RowId] {
        &self.rows
    }

    /// The size before compression, in bytes, to within the few of the block's head.
    pub const fn byte_size(&self) -> usize {
        self.byte_size
    }

    /// The size as it is held and sent, in bytes.
    pub fn compressed_size(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// The columns' names, quoted, as `INSERT` lists them.
    pub(crate) fn columns(&self) -> &str {
        &self.columns
    }

    /// How its frames are compressed; all of a body are in one way.
    pub(crate) const fn compression(&self) -> Compression {
        self.compression
    }

    /// The block as it is sent.
    pub(crate) fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// The block in the Native format, decompressed for who wants to look at it.
    pub fn body(&self) -> Vec<u8> {
        frame::decompress(&self.frames)
    }
}

/// Native blocks behind one another.
#[derive(Debug)]
struct Pieces {
    frames: Frames,
    compression: Compression,
    byte_size: usize,
}

impl Pieces {
    fn new(compression: Compression) -> Self {
        Self {
            frames: Frames::new(compression),
            compression,
            byte_size: 0,
        }
    }

    fn write(&mut self, columns: &[NamedColumn<'_>]) {
        let count = columns.first().map_or(0, |named| named.column.len());
        native::write_block(&mut self.frames, count, columns);
        let size =
            |named: &NamedColumn<'_>| named.column.byte_size() + named.name.len() + named.type_name.len() + 2;
        self.byte_size += columns.iter().map(size).sum::<usize>();
    }

    /// A block with these columns: all that any of its pieces has.
    fn into_block<'n>(self, month: u32, rows: Vec<RowId>, names: impl Iterator<Item = &'n str>) -> Block {
        let mut columns = String::new();
        for name in names {
            let separator = if columns.is_empty() { "" } else { ", " };
            columns.push_str(separator);
            columns.push('`');
            columns.push_str(name);
            columns.push('`');
        }
        Block {
            month,
            rows,
            columns,
            byte_size: self.byte_size,
            compression: self.compression,
            frames: self.frames.finish(),
        }
    }
}

/// The rows of one partition while they come in.
#[derive(Debug)]
pub(super) struct Part {
    rows: Vec<RowId>,
    /// What was written of them.
    pieces: Pieces,
    /// How many that are.
    written: usize,
    /// By position in the schema, added columns behind; `None` where no row has a value. Without what was written.
    columns: Vec<Option<Column>>,
    /// Bytes of text in them.
    pending: usize,
}

impl Part {
    pub(super) fn new(compression: Compression) -> Self {
        Self {
            rows: Vec::new(),
            pieces: Pieces::new(compression),
            written: 0,
            columns: Vec::new(),
            pending: 0,
        }
    }

    /// Adds a row whose cells were made for these very columns.
    pub(super) fn append<'s, 'c>(
        &mut self,
        id: RowId,
        cells: impl Iterator<Item = (usize, &'c Cell<'c>)>,
        spec: impl Fn(usize) -> Option<&'s ColumnSpec>,
    ) {
        let row = self.rows.len() - self.written;
        for (position, cell) in cells {
            if self.columns.len() <= position {
                self.columns.resize_with(position + 1, || None);
            }
            let Some(slot) = self.columns.get_mut(position) else {
                continue;
            };
            if slot.is_none() {
                *slot = spec(position).and_then(|spec| Column::new(&spec.column_type));
            }
            #[expect(
                clippy::expect_used,
                reason = "no cell is made for a column that cannot be encoded"
            )]
            let column = slot.as_mut().expect("a column that can be encoded");
            column.pad_to(row);
            #[expect(clippy::expect_used, reason = "the cell was made for this column's type")]
            column.push(cell).expect("a cell of the column's form");
        }
        self.rows.push(id);
    }

    /// Takes note of the text that the row which was added last came from. Where that makes a piece, it is written;
    /// `columns` are those of the table, and all that any row has.
    pub(super) fn count(&mut self, bytes: usize, columns: Option<&[ColumnSpec]>) {
        self.pending += bytes;
        let Some(columns) = columns.filter(|_| self.pending >= PIECE_BYTES) else {
            return;
        };
        let rows = self.rows.len() - self.written;
        let mut named = Vec::with_capacity(self.columns.len());
        for (spec, column) in columns.iter().zip(&mut self.columns) {
            if let Some(column) = column.as_mut().filter(|column| !column.is_empty()) {
                column.pad_to(rows);
                named.push(NamedColumn::new(spec, column));
            }
        }
        self.pieces.write(&named);
        self.columns.iter_mut().flatten().for_each(Column::clear);
        self.written = self.rows.len();
        self.pending = 0;
    }

    pub(super) fn byte_size(&self) -> usize {
        let rows = self.rows.len() - self.written;
        let size = |column: &Column| match column.is_empty() {
            true => 0,
            false => column.byte_size() + (rows - column.len()) * column.byte_size_of_missing(),
        };
        self.pieces.byte_size + self.columns.iter().flatten().map(size).sum::<usize>()
    }

    /// The block, with the types that the table has. Columns without any value are left to their defaults.
    pub(super) fn finish(
        mut self,
        month: u32,
        specs: &[(&ColumnSpec, Option<&ColumnSpec>)],
    ) -> Result<Block, SchemaMoved> {
        let rows = self.rows.len() - self.written;
        let mut names = Vec::with_capacity(self.columns.len());
        let mut named = Vec::with_capacity(self.columns.len());
        for ((encoded, stored), column) in specs.iter().zip(&mut self.columns) {
            let Some(column) = column else { continue };
            let Some(stored) = stored.filter(|stored| stored.column_type == encoded.column_type) else {
                return Err(SchemaMoved {
                    column: encoded.name.clone(),
                });
            };
            names.push(stored.name.as_str());
            if !column.is_empty() {
                column.pad_to(rows);
                named.push(NamedColumn::new(stored, column));
            }
        }
        if rows > 0 {
            self.pieces.write(&named);
        }
        Ok(self.pieces.into_block(month, self.rows, names.into_iter()))
    }
}

/// The month of a point in time as `toYYYYMM` shows it, in UTC. Howard Hinnant's `civil_from_days`.
pub(crate) fn month_of(millis: i64) -> u32 {
    let days = millis.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Four-digit years: what is clamped to `DateTime64(3)` never leaves them.
    u32::try_from(year * 100 + month).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{MAX_MILLIS, MIN_MILLIS};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_month_is_the_one_of_the_calendar(millis in MIN_MILLIS..=MAX_MILLIS) {
            let zoned = jiff::Timestamp::from_millisecond(millis).expect("in range").to_zoned(jiff::tz::TimeZone::UTC);
            prop_assert_eq!(month_of(millis).to_string(), zoned.strftime("%Y%m").to_string());
        }
    }
}
