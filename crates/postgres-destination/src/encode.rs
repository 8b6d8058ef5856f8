//! Rows become blocks of a binary `COPY`.
//!
//! Which field goes where is decided by the rules that ClickHouse's columns follow (`millrace_warehouse::batch`); here
//! cells become PostgreSQL's bytes. While rows come in only the fields that they have are kept; once it is known which
//! columns any of them fills, they are written out with `NULL` in the gaps.

use std::sync::Arc;

use bytes::Bytes;
use millrace_event::Timestamp;
use millrace_warehouse::batch::SchemaMoved;
use millrace_warehouse::column_type::{ColumnType, Scalar};
use millrace_warehouse::layout::IDENTITY;
use millrace_warehouse::native::Cell;
use millrace_warehouse::{
    AsRow, Batch, ColumnSpec, Limits, Row, RowError, RowErrorKind, RowId, Schema, TableName,
};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::client::Postgres;
use crate::error::{Error, Unfit};
use crate::{layout, sql};

/// Where a block ends; one row may be larger.
pub const MOST_BLOCK_BYTES: usize = 8 << 20;

/// Rounds of encoding, adding and reading back, as for ClickHouse.
const ROUNDS: usize = 4;

/// Columns that a table may have in all, dropped ones included, some of which belong to others.
const MOST_COLUMNS: usize = 1_500;

/// The head of a binary `COPY`: signature, no flags, no extension.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
const END: [u8; 2] = (-1_i16).to_be_bytes();

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts, in milliseconds.
const EPOCH_MILLIS: i64 = 946_684_800_000;

/// Rows on their way into a table, as `COPY` takes them.
#[derive(Clone, Debug)]
pub struct Block {
    rows: Vec<RowId>,
    columns: Arc<str>,
    body: Bytes,
}

impl Block {
    /// The rows in the order of the block.
    pub fn rows(&self) -> &[RowId] {
        &self.rows
    }

    /// The columns' names, quoted, as `COPY` lists them.
    pub(crate) fn columns(&self) -> &str {
        &self.columns
    }

    /// All of it.
    pub(crate) const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Rows of one table as blocks.
#[derive(Debug)]
pub struct Encoded {
    /// The blocks, in the order of the rows.
    pub blocks: Vec<Block>,
    /// The rows that do not fit, by their index, each with the field.
    pub refused: Vec<(usize, RowError)>,
    /// The table's schema as of now, for the next call.
    pub schema: Arc<Schema>,
}

impl Postgres {
    /// Encodes rows of one table, adding the columns that it lacks.
    ///
    /// `schema` is the table's as it was last read; that it is out of date costs a second round and nothing else.
    ///
    /// # Errors
    /// The server does not answer or refuses, the table is not fit for events, or its types keep changing. Rows that
    /// do not fit are no error: see [`Encoded::refused`].
    ///
    /// # Cancellation
    /// Columns may be added that no row has values for. Calling again is safe.
    pub async fn encode(
        &self,
        table: &TableName,
        schema: Arc<Schema>,
        limits: Limits,
        ingested_at: Timestamp,
        rows: &[impl AsRow + Sync],
    ) -> Result<Encoded, Error> {
        let mut schema = schema;
        let limits = Limits {
            columns: limits.columns.min(MOST_COLUMNS),
        };
        for _ in 0..ROUNDS {
            let mut batch = Batch::new(Arc::clone(&schema), limits, ingested_at)
                .map_err(|reason| layout::unfit(table, lacks(&reason)))?;
            let (sparse, refused) = busy(|| take_apart(&mut batch, rows));
            let columns: Vec<ColumnSpec> = schema.columns().iter().chain(batch.added()).cloned().collect();
            if !batch.added().is_empty() {
                tracing::info!(table = %table, columns = batch.added().len(), "adding columns");
                schema = Arc::new(self.add_columns(table, batch.added()).await?);
            }
            match busy(|| sparse.write(&columns, &schema)) {
                Ok(blocks) => {
                    return Ok(Encoded {
                        blocks,
                        refused,
                        schema,
                    });
                }
                Err(moved) => {
                    tracing::info!(table = %table, column = moved.column, "the table has another type, encoding again");
                }
            }
        }
        Err(Error::UnstableSchema { table: table.clone() })
    }
}

/// A table that was checked lacks nothing; this is for one that was changed since.
fn lacks(reason: &millrace_warehouse::error::UnfitReason) -> Unfit {
    Unfit::Column {
        name: reason.to_string(),
        wanted: "as the table was made",
        found: None,
    }
}

fn take_apart(batch: &mut Batch, rows: &[impl AsRow]) -> (Sparse, Vec<(usize, RowError)>) {
    let mut sparse = Sparse::default();
    let mut refused = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let row = row.as_row();
        let begun = sparse.mark();
        let pushed =
            check(&row).and_then(|()| batch.take_apart(&row, |position, cell| sparse.push(position, cell)));
        match pushed {
            Ok(()) => sparse.end(row.id),
            Err(error) => {
                sparse.back_to(begun);
                refused.push((index, error));
            }
        }
    }
    (sparse, refused)
}

/// Numbers of an identity that `bigint` does not hold. No journal comes to count so far.
fn check(row: &Row<'_>) -> Result<(), RowError> {
    match i64::try_from(row.id.identity.seq) {
        Ok(_) => Ok(()),
        Err(_) => Err(RowError {
            field: "_seq".to_owned(),
            kind: RowErrorKind::Conflict {
                stored: "bigint".to_owned(),
                found: "number",
            },
        }),
    }
}

/// Work that keeps a core busy, without keeping the runtime's thread from other tasks where there are several.
fn busy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A cell as it is kept until all rows are there.
#[derive(Debug)]
enum Kept {
    Bits(u64),
    /// Where its text ends in the bytes.
    Text(usize),
    /// Where its items end; they come before it.
    List(usize),
}

/// The fields that rows have, one behind another.
#[derive(Debug, Default)]
struct Sparse {
    rows: Vec<(RowId, usize)>,
    fields: Vec<(usize, Kept)>,
    items: Vec<Kept>,
    text: Vec<u8>,
}

impl Sparse {
    fn mark(&self) -> [usize; 3] {
        [self.fields.len(), self.items.len(), self.text.len()]
    }

    fn back_to(&mut self, [fields, items, text]: [usize; 3]) {
        self.fields.truncate(fields);
        self.items.truncate(items);
        self.text.truncate(text);
    }

    fn push(&mut self, position: usize, cell: &Cell<'_>) {
        let kept = match cell {
            Cell::Missing => return,
            Cell::List(items) => {
                for item in items {
                    if let Some(kept) = self.keep(item) {
                        self.items.push(kept);
                    }
                }
                Kept::List(self.items.len())
            }
            other => match self.keep(other) {
                Some(kept) => kept,
                None => return,
            },
        };
        self.fields.push((position, kept));
    }

    fn keep(&mut self, cell: &Cell<'_>) -> Option<Kept> {
        match cell {
            Cell::Bits(bits) => Some(Kept::Bits(*bits)),
            Cell::Text(text) => {
                self.text.extend_from_slice(text.as_bytes());
                Some(Kept::Text(self.text.len()))
            }
            // No column here holds arrays of arrays, nor of nothing.
            Cell::Missing | Cell::List(_) => None,
        }
    }

    fn end(&mut self, row: RowId) {
        self.rows.push((row, self.fields.len()));
    }

    /// The blocks, with the columns that any row fills. `encoded` are the columns that positions count.
    fn write(&self, encoded: &[ColumnSpec], stored: &Schema) -> Result<Vec<Block>, SchemaMoved> {
        let mut used = vec![false; encoded.len()];
        for (position, _) in &self.fields {
            if let Some(used) = used.get_mut(*position) {
                *used = true;
            }
        }
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for (position, column) in encoded
            .iter()
            .enumerate()
            .filter(|(at, _)| used.get(*at) == Some(&true))
        {
            if stored
                .get(&column.name)
                .is_none_or(|stored| stored.column_type != column.column_type)
            {
                return Err(SchemaMoved {
                    column: column.name.clone(),
                });
            }
            names.push(sql::name(&column.name));
            columns.push((position, Form::of(column)));
        }
        let mut writer = Writer {
            sparse: self,
            columns,
            names: names.join(", ").into(),
            slots: vec![None; encoded.len()],
            field: 0,
            item: 0,
            text: 0,
        };
        Ok(writer.blocks())
    }
}

/// How a column's values are written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Journal,
    /// As many of the low bytes, the highest first.
    Bytes(usize),
    Time,
    Text,
    /// The items' type by its number in `pg_type`, and their form.
    Array(u32, &'static Form),
}

impl Form {
    fn of(column: &ColumnSpec) -> Self {
        match IDENTITY.iter().position(|(name, _)| *name == column.name) {
            Some(0) => return Self::Journal,
            Some(1 | 2) => return Self::Bytes(8),
            Some(_) => return Self::Bytes(4),
            None => {}
        }
        match column.column_type {
            ColumnType::Plain(scalar) | ColumnType::Nullable(scalar) => Self::of_scalar(scalar).1,
            ColumnType::Array(scalar) => {
                let (number, form) = Self::of_scalar(scalar);
                let form: &'static Self = match form {
                    Self::Bytes(1) => &Self::Bytes(1),
                    Self::Bytes(2) => &Self::Bytes(2),
                    Self::Bytes(4) => &Self::Bytes(4),
                    Self::Bytes(_) => &Self::Bytes(8),
                    Self::Time => &Self::Time,
                    _ => &Self::Text,
                };
                Self::Array(number, form)
            }
            _ => Self::Text,
        }
    }

    const fn of_scalar(scalar: Scalar) -> (u32, Self) {
        match scalar {
            Scalar::Bool => (16, Self::Bytes(1)),
            Scalar::Int(16) => (21, Self::Bytes(2)),
            Scalar::Int(32) => (23, Self::Bytes(4)),
            Scalar::Float32 => (700, Self::Bytes(4)),
            Scalar::Float64 => (701, Self::Bytes(8)),
            Scalar::DateTime64 => (1184, Self::Time),
            Scalar::String => (25, Self::Text),
            Scalar::Int(_) | Scalar::UInt(_) => (20, Self::Bytes(8)),
        }
    }
}

/// Walks over what was kept, in the order in which it came.
struct Writer<'a> {
    sparse: &'a Sparse,
    columns: Vec<(usize, Form)>,
    names: Arc<str>,
    /// The row's field of each column, with where its items and its text begin.
    slots: Vec<Option<(usize, usize, usize)>>,
    field: usize,
    item: usize,
    text: usize,
}

impl Writer<'_> {
    fn blocks(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let (mut rows, mut body) = (Vec::new(), HEAD.to_vec());
        let sparse = self.sparse;
        for (id, end) in &sparse.rows {
            self.find(*end);
            self.row(&mut body);
            rows.push(*id);
            if body.len() >= MOST_BLOCK_BYTES {
                blocks.push(self.block(
                    std::mem::take(&mut rows),
                    std::mem::replace(&mut body, HEAD.to_vec()),
                ));
            }
        }
        if !rows.is_empty() {
            blocks.push(self.block(rows, body));
        }
        blocks
    }

    fn block(&self, rows: Vec<RowId>, mut body: Vec<u8>) -> Block {
        body.extend_from_slice(&END);
        Block {
            rows,
            columns: Arc::clone(&self.names),
            body: body.into(),
        }
    }

    /// Notes where the fields of the next row are.
    fn find(&mut self, end: usize) {
        self.slots.fill(None);
        for at in self.field..end {
            let Some((position, kept)) = self.sparse.fields.get(at) else {
                continue;
            };
            if let Some(slot) = self.slots.get_mut(*position) {
                *slot = Some((at, self.item, self.text));
            }
            match kept {
                Kept::Bits(_) => {}
                Kept::Text(end) => self.text = *end,
                Kept::List(end) => {
                    for item in self.sparse.items.get(self.item..*end).unwrap_or_default() {
                        if let Kept::Text(end) = item {
                            self.text = *end;
                        }
                    }
                    self.item = *end;
                }
            }
        }
        self.field = end;
    }

    fn row(&self, body: &mut Vec<u8>) {
        let count = i16::try_from(self.columns.len()).unwrap_or(i16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for (position, form) in &self.columns {
            let slot = self.slots.get(*position).copied().flatten();
            let field = slot.and_then(|(at, item, text)| Some((&self.sparse.fields.get(at)?.1, item, text)));
            match field {
                None => body.extend_from_slice(&NULL),
                Some((kept, item, text)) => {
                    with_length(body, |body| self.value(body, *form, kept, item, text))
                }
            }
        }
    }

    fn value(&self, body: &mut Vec<u8>, form: Form, kept: &Kept, item: usize, text: usize) {
        match (kept, form) {
            (Kept::Bits(journal), Form::Journal) => {
                body.extend_from_slice(millrace_event::JournalId(*journal).to_string().as_bytes());
            }
            (Kept::Bits(bits), Form::Time) => {
                let micros = (bits.cast_signed() - EPOCH_MILLIS) * 1000;
                body.extend_from_slice(&micros.to_be_bytes());
            }
            (Kept::Bits(bits), Form::Bytes(width)) => {
                let bytes = bits.to_be_bytes();
                body.extend_from_slice(bytes.get(8 - width..).unwrap_or_default());
            }
            (Kept::Text(end), _) => {
                body.extend_from_slice(self.sparse.text.get(text..*end).unwrap_or_default());
            }
            (Kept::List(end), Form::Array(number, form)) => {
                let items = self.sparse.items.get(item..*end).unwrap_or_default();
                self.array(body, (number, *form), items, text);
            }
            // Cells are made for their column's type.
            (Kept::Bits(_) | Kept::List(_), _) => {}
        }
    }

    /// Dimensions, no nulls, the items' type; for each dimension its length and lower bound; the items.
    fn array(&self, body: &mut Vec<u8>, (number, form): (u32, Form), items: &[Kept], mut text: usize) {
        let dimensions = i32::from(!items.is_empty());
        body.extend_from_slice(&dimensions.to_be_bytes());
        body.extend_from_slice(&0_i32.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
        if items.is_empty() {
            return;
        }
        body.extend_from_slice(&length(items.len()));
        body.extend_from_slice(&1_i32.to_be_bytes());
        for item in items {
            with_length(body, |body| self.value(body, form, item, 0, text));
            if let Kept::Text(end) = item {
                text = *end;
            }
        }
    }
}

/// Appends what `write` does, with its length in front.
fn with_length(body: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = body.len();
    body.extend_from_slice(&NULL);
    write(body);
    let written = length(body.len() - at - NULL.len());
    if let Some(place) = body.get_mut(at..at + written.len()) {
        place.copy_from_slice(&written);
    }
}

/// A length as PostgreSQL writes it. Records of Kafka, and so events, are far below 2 GiB.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes()
}
