//! Blocks of Millrace's own tables, whose columns this build knows.

use millrace_event::destination::Compression;

use crate::batch::{Block, RowId};
use crate::column_type::ColumnType;
use crate::native::{Cell, Column, NamedColumn};

/// A table's columns, by name and type, as its migration made them.
pub(crate) type Columns = [(&'static str, ColumnType)];

/// Rows on their way into one block.
#[derive(Debug)]
pub(crate) struct FixedRows {
    names: &'static Columns,
    columns: Vec<Column>,
    ids: Vec<RowId>,
}

impl FixedRows {
    /// No rows yet. All types are this build's own, so every column can be made.
    pub(crate) fn new(names: &'static Columns) -> Self {
        Self {
            names,
            columns: names.iter().filter_map(|(_, kind)| Column::new(kind)).collect(),
            ids: Vec::new(),
        }
    }

    /// Adds a row, its cells in the order of the columns; `id` where rows of the table have identities.
    pub(crate) fn push(&mut self, cells: &[Cell<'_>], id: Option<RowId>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            let pushed = column.push(cell);
            debug_assert!(pushed.is_ok(), "the cells follow the columns");
        }
        self.ids.extend(id);
    }

    /// The block; `month` is that of its partition, or 0 where the table has none.
    pub(crate) fn finish(self, month: u32) -> Block {
        let types: Vec<String> = self.names.iter().map(|(_, kind)| kind.to_string()).collect();
        let named: Vec<_> = self
            .names
            .iter()
            .zip(&types)
            .zip(&self.columns)
            .map(|(((name, _), type_name), column)| NamedColumn {
                name,
                type_name,
                column,
            })
            .collect();
        Block::new(month, self.ids, &named, Compression::default())
    }
}
