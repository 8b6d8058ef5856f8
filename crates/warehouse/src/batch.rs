//! Events become columns, straight from their JSON text.
//!
//! `properties.x` and `traits.x` become column `x`, `context.a.b` becomes `context_a_b`; a property whose name
//! the table itself needs, or that starts with `_`, gets `properties_` or `traits_` in front. Of two fields that
//! become one column the first wins, properties before traits before context, whatever their order in the source.
//!
//! **`extra`** is a JSON object in text form: whatever has no column, or has one that says less than the source,
//! as the exact text it came as. Its keys are the names that the columns have or would have had, and a name can
//! occur more than once (where two fields became one). It is empty where there is nothing to keep. `null`s are
//! kept there too; a missing field and one whose text is empty are the same.
//!
//! Columns that a table does not have yet are made up as their first value comes along, and encoded before the
//! table has them; [`Batch::finish`] then compares with what the table really got.

mod block;
mod event;
mod shape;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_event::destination::Compression;
use millrace_event::flatten::Flattener;
use millrace_event::{Identity, Timestamp};
use serde_json::value::RawValue;

use crate::error::UnfitReason;
use crate::layout;
use crate::native::Cell;
use crate::schema::{ColumnSpec, Schema};
use crate::value::DateTime;
pub use block::Block;
use block::Part;
pub(crate) use block::month_of;
use event::{Cells, Leaves, Staging, emptied};

/// Which row of which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The event.
    pub identity: Identity,
    /// Its row, from 0.
    pub sub: u16,
}

/// One row to encode: an event as the functions left it, and what it brings along.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Which row of which event.
    pub id: RowId,
    /// When the gateway had read the request; decides the row's partition.
    pub received_at: Timestamp,
    /// When the client says it sent the request; for rows whose event does not say.
    pub sent_at: Option<Timestamp>,
    /// The source that the write key belongs to.
    pub source: &'a str,
    /// The workspace that this belongs to; in shared tables a column of its own.
    pub workspace: &'a str,
    /// The message id that the gateway knows the event by; for rows whose event does not say.
    pub message_id: &'a str,
    /// The event, a JSON object.
    pub event: &'a RawValue,
}

/// What has all that a [`Row`] has. A row is made when its turn comes: a hundred thousand of them beside one another are
/// memory that is gone through for nothing.
pub trait AsRow {
    /// The row.
    fn as_row(&self) -> Row<'_>;
}

impl AsRow for Row<'_> {
    fn as_row(&self) -> Row<'_> {
        *self
    }
}

/// What a batch refuses to exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many columns a table may have besides the ones it is made with. Fields beyond it go to `extra`.
    pub columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { columns: 500 }
    }
}

/// A row that cannot be written as it is; the rest of the batch is not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?}: {kind}")]
pub struct RowError {
    /// The column, as it is called or would have been called in the table; empty for the event as a whole.
    pub field: String,
    /// What is wrong with it.
    pub kind: RowErrorKind,
}

/// Why a row cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowErrorKind {
    /// The event is not a JSON object.
    #[error("the event is no JSON object")]
    NotAnObject,
    /// The column is of another type, and nothing is converted.
    #[error("a {found} does not fit the column's type {stored}")]
    Conflict {
        /// The column's type.
        stored: String,
        /// The kind of JSON value.
        found: &'static str,
    },
    /// A core date-time is none.
    #[error("not a date-time")]
    NotADateTime,
    /// A core text has a character that the server keeps in no text.
    #[error("the server keeps no text with a NUL character")]
    NulCharacter,
}

/// The table is not as the batch was encoded; encode again with the schema that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} is not of the type that it was encoded with")]
pub struct SchemaMoved {
    /// The first column that differs.
    pub column: String,
}

/// Rows of one table on their way into blocks, one block per partition of the table.
#[derive(Debug)]
pub struct Batch {
    schema: Arc<Schema>,
    limits: Limits,
    ingested_at: DateTime,
    compression: Compression,
    core: Core,
    /// Columns that the table does not have yet; their positions follow those of the schema.
    added: Vec<ColumnSpec>,
    added_positions: HashMap<String, usize>,
    parts: BTreeMap<u32, Part>,
    rows: usize,
    scratch: Scratch,
}

/// Where the columns that every row fills are in the schema.
#[derive(Clone, Copy, Debug)]
struct Core {
    /// For each of [`event::FIELDS`].
    fields: [usize; event::FIELDS.len()],
    message_id: usize,
    timestamp: usize,
    sent_at: usize,
    received_at: usize,
    ingested_at: usize,
    source: usize,
    extra: usize,
    /// In shared tables alone.
    workspace: Option<usize>,
    identity: [usize; 4],
}

impl Core {
    /// Where they are; nothing where one is missing.
    fn of(schema: &Schema) -> Option<Self> {
        let mut fields = [0; event::FIELDS.len()];
        for (position, field) in fields.iter_mut().zip(&event::FIELDS) {
            *position = schema.position(field.column)?;
        }
        let mut identity = [0; 4];
        for (position, (column, _)) in identity.iter_mut().zip(layout::IDENTITY) {
            *position = schema.position(column)?;
        }
        Some(Self {
            fields,
            message_id: schema.position("message_id")?,
            timestamp: schema.position("timestamp")?,
            sent_at: schema.position("sent_at")?,
            received_at: schema.position("received_at")?,
            ingested_at: schema.position("ingested_at")?,
            source: schema.position("source")?,
            extra: schema.position("extra")?,
            workspace: schema.position(layout::WORKSPACE),
            identity,
        })
    }
}

/// Buffers that live from row to row.
#[derive(Debug, Default)]
struct Scratch {
    flattener: Flattener,
    leaves: Leaves<'static>,
    cells: Cells<'static>,
    /// What the row that was staged last has no column for; empty where there is nothing.
    extra: String,
    /// For each column the row that filled it last, counted from 1.
    filled: Vec<u64>,
    /// For each column the one whose field came after its own last time. Events of one kind have their fields in
    /// one order, so this mostly saves looking the name up; it is compared before it is believed.
    follower: Vec<usize>,
    row: u64,
    shapes: shape::Shapes,
}

impl Batch {
    /// An empty batch for a table of that schema. `ingested_at` is the caller's, so that a batch encoded again
    /// is the same again.
    ///
    /// # Errors
    /// The schema lacks what every row needs.
    pub fn new(schema: Arc<Schema>, limits: Limits, ingested_at: Timestamp) -> Result<Self, UnfitReason> {
        layout::check_columns(&schema)?;
        #[expect(clippy::expect_used, reason = "the check is over the same names")]
        let core = Core::of(&schema).expect("columns that were just checked");
        Ok(Self {
            scratch: Scratch {
                filled: vec![0; schema.columns().len()],
                follower: vec![usize::MAX; schema.columns().len()],
                ..Scratch::default()
            },
            schema,
            limits,
            ingested_at: DateTime::clamped(ingested_at.as_millis()),
            compression: Compression::default(),
            core,
            added: Vec::new(),
            added_positions: HashMap::new(),
            parts: BTreeMap::new(),
            rows: 0,
        })
    }

    /// The same batch, whose blocks are compressed in that way.
    #[must_use]
    pub fn compressed(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Adds a row. After an error the batch is as it was.
    ///
    /// # Errors
    /// The event is no object, or a field does not fit its column.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), RowError> {
        let cells = self.stage(row)?;
        self.append(row, &cells);
        self.scratch.cells = emptied(cells, |_| None);
        Ok(())
    }

    /// Takes a row apart without keeping it, for servers that want rows rather than columns: each cell with the
    /// position of its column, which counts those of the schema and then [`Self::added`].
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn take_apart(
        &mut self,
        row: &Row<'_>,
        mut take: impl FnMut(usize, &Cell<'_>),
    ) -> Result<(), RowError> {
        let cells = self.stage(row)?;
        for (position, cell) in &cells {
            take(*position, cell);
        }
        if !self.scratch.extra.is_empty() {
            take(self.core.extra, &Cell::Text(Cow::Borrowed(&self.scratch.extra)));
        }
        self.scratch.cells = emptied(cells, |_| None);
        Ok(())
    }

    fn stage<'a>(&mut self, row: &Row<'a>) -> Result<Cells<'a>, RowError> {
        let added_before = self.added.len();
        let result = Staging::new(self).stage(row);
        if result.is_err() {
            for column in self.added.drain(added_before..) {
                self.added_positions.remove(&column.name);
            }
            let columns = self.schema.columns().len() + added_before;
            self.scratch.filled.truncate(columns);
            self.scratch.follower.truncate(columns);
        }
        result
    }

    fn append(&mut self, row: &Row<'_>, cells: &[(usize, Cell<'_>)]) {
        let month = month_of(DateTime::clamped(row.received_at.as_millis()).millis);
        let (schema, added) = (&self.schema, &self.added);
        let spec = |position: usize| {
            let known = schema.columns();
            known.get(position).or_else(|| added.get(position - known.len()))
        };
        let compression = self.compression;
        let part = self.parts.entry(month).or_insert_with(|| Part::new(compression));
        let cells = cells.iter().map(|(position, cell)| (*position, cell));
        if self.scratch.extra.is_empty() {
            part.append(row.id, cells, spec);
        } else {
            let extra = Cell::Text(Cow::Borrowed(&self.scratch.extra));
            part.append(row.id, cells.chain([(self.core.extra, &extra)]), spec);
        }
        // Columns that the table does not have yet may get another type there: until that is known nothing is written.
        let columns = added.is_empty().then(|| schema.columns());
        part.count(row.event.get().len(), columns);
        self.rows += 1;
    }

    /// How many rows it holds.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The size of its blocks before compression, in bytes, to within a few per cent.
    pub fn byte_size(&self) -> usize {
        self.parts.values().map(Part::byte_size).sum()
    }

    /// The columns that the table must get before the blocks can be inserted.
    pub fn added(&self) -> &[ColumnSpec] {
        &self.added
    }

    /// The blocks, one per partition of the table in the order of their months; rows in the order of
    /// [`Self::push`]. `stored` is the table's schema as it is now, added columns included.
    ///
    /// # Errors
    /// The table has another type for a column of the batch: somebody else added it first, or changed it. The
    /// rows must be encoded again with `stored`.
    pub fn finish(self, stored: &Schema) -> Result<Vec<Block>, SchemaMoved> {
        let mut specs = Vec::with_capacity(self.schema.columns().len() + self.added.len());
        for spec in self.schema.columns().iter().chain(&self.added) {
            specs.push((spec, stored.get(&spec.name)));
        }
        self.parts
            .into_iter()
            .map(|(month, part)| part.finish(month, &specs))
            .collect()
    }
}

#[cfg(test)]
mod tests;
