use std::borrow::Cow;
use std::ops::Range;

use millrace_event::Timestamp;
use millrace_event::flatten;
use millrace_event::json::{Kind, Value};

use super::{Batch, Row, RowError, RowErrorKind};
use crate::column_type::{ColumnType, Scalar};
use crate::layout;
use crate::native::Cell;
use crate::retype;
use crate::schema::{ColumnSpec, Dialect};
use crate::value::{self, DateTime, Fit};

/// A field of the event itself that has a column.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) column: &'static str,
    pub(super) is_time: bool,
}

/// The fields of the event itself that have a column each.
pub(super) const FIELDS: [Field; 12] = [
    text("type", "type"),
    text("messageId", "message_id"),
    text("event", "event"),
    text("anonymousId", "anonymous_id"),
    text("userId", "user_id"),
    text("groupId", "group_id"),
    text("previousId", "previous_id"),
    text("name", "name"),
    text("category", "category"),
    time("timestamp", "timestamp"),
    time("originalTimestamp", "original_timestamp"),
    time("sentAt", "sent_at"),
];

const fn text(key: &'static str, column: &'static str) -> Field {
    Field {
        key,
        column,
        is_time: false,
    }
}

const fn time(key: &'static str, column: &'static str) -> Field {
    Field {
        key,
        column,
        is_time: true,
    }
}

/// The objects whose leaves become columns, in the order in which they take a name that two of them want.
pub(super) const FLATTENED: [&str; 3] = ["properties", "traits", CONTEXT];

/// The object whose leaves have its own name in front.
pub(super) const CONTEXT: &str = "context";

/// Cells of one row, each with the position of its column.
pub(super) type Cells<'a> = Vec<(usize, Cell<'a>)>;

/// The leaves of one event in the order of its text: names behind one another, each with its end, and values.
#[derive(Debug, Default)]
pub(super) struct Leaves<'a> {
    names: String,
    leaves: Vec<(usize, Value<'a>)>,
}

impl<'a> Leaves<'a> {
    fn push(&mut self, name: &str, value: Value<'a>) {
        self.names.push_str(name);
        self.leaves.push((self.names.len(), value));
    }

    /// The leaves of that range, each with its name.
    fn iter(&self, range: Range<usize>) -> impl Iterator<Item = (&str, Value<'a>)> {
        let before = range.start.checked_sub(1).and_then(|last| self.leaves.get(last));
        let mut start = before.map_or(0, |(end, _)| *end);
        self.leaves
            .get(range)
            .unwrap_or_default()
            .iter()
            .map(move |(end, value)| {
                let name = self.names.get(start..*end).unwrap_or_default();
                start = *end;
                (name, *value)
            })
    }

    /// The buffers alone, for leaves of another text.
    fn emptied<'b>(mut self) -> Leaves<'b> {
        self.names.clear();
        Leaves {
            names: self.names,
            leaves: emptied(self.leaves, |_| None),
        }
    }
}

/// The buffer alone, for items with another lifetime: the standard library collects in place.
pub(super) fn emptied<T, U>(mut buffer: Vec<T>, never: impl FnMut(T) -> Option<U>) -> Vec<U> {
    buffer.clear();
    buffer.into_iter().filter_map(never).collect()
}

/// Turns one event into cells, without touching the columns.
pub(super) struct Staging<'b, 'a> {
    pub(super) batch: &'b mut Batch,
    pub(super) cells: Cells<'a>,
    pub(super) extra: String,
    /// The column of the leaf before; at the start that of `extra`, which no leaf has.
    pub(super) before: usize,
    pub(super) error: Option<RowError>,
}

impl<'b, 'a> Staging<'b, 'a> {
    pub(super) fn new(batch: &'b mut Batch) -> Self {
        batch.scratch.row += 1;
        let mut extra = std::mem::take(&mut batch.scratch.extra);
        extra.clear();
        let cells = std::mem::take(&mut batch.scratch.cells);
        let before = batch.core.extra;
        Self {
            batch,
            cells,
            extra,
            before,
            error: None,
        }
    }

    /// The cells of a row but for `extra`, which the scratch buffer of that name holds then.
    pub(super) fn stage(mut self, row: &Row<'a>) -> Result<Cells<'a>, RowError> {
        let event = Value::from(row.event);
        if event.kind() == Kind::Object {
            let known = self.along_a_known_path(event);
            if !known {
                self.fields(event);
            }
            self.defaults(row);
            if !known && self.error.is_none() {
                self.remember(event);
            }
        } else {
            self.fail("", RowErrorKind::NotAnObject);
        }
        if !self.extra.is_empty() {
            self.extra.push('}');
        }
        self.batch.scratch.extra = self.extra;
        match self.error {
            None => Ok(self.cells),
            Some(error) => {
                self.batch.scratch.cells = emptied(self.cells, |_| None);
                Err(error)
            }
        }
    }

    /// All fields of the event, in one pass over its text. Of a field that is there twice the last one counts, as
    /// in every JSON parser.
    fn fields(&mut self, event: Value<'a>) {
        let mut flattener = std::mem::take(&mut self.batch.scratch.flattener);
        let mut leaves: Leaves<'a> = std::mem::take(&mut self.batch.scratch.leaves);
        let mut flattened = [const { None }; FLATTENED.len()];
        let mut fields = [None; FIELDS.len()];
        let mut entries = event.entries();
        while let Some(key) = entries.key() {
            let key = key.unescape().text;
            let object = FLATTENED
                .iter()
                .zip(&mut flattened)
                .find(|(name, _)| **name == key);
            let superseded = match object.filter(|_| entries.kind() == Kind::Object) {
                Some((source, slot)) => {
                    let first = leaves.leaves.len();
                    let prefix = if *source == CONTEXT { CONTEXT } else { "" };
                    let mut leaf = |name: &str, value| leaves.push(name, value);
                    let whole = flattener.walk_value(prefix, &mut entries, &mut leaf);
                    let range = first..leaves.leaves.len();
                    slot.replace((whole, range)).and_then(|(whole, _)| whole)
                }
                None => {
                    let Some(value) = entries.value() else { break };
                    let field = FIELDS.iter().zip(&mut fields).find(|(field, _)| field.key == key);
                    match field {
                        Some((_, slot)) => slot.replace(value),
                        None => Some(value),
                    }
                }
            };
            if let Some(value) = superseded {
                self.keep(&flatten::name_of(&key), value);
            }
        }
        let positions = self.batch.core.fields;
        for ((field, value), position) in FIELDS.iter().zip(fields).zip(positions) {
            match value {
                None => {}
                Some(value) if value.kind() == Kind::Null => self.keep(field.column, value),
                Some(value) if field.is_time => self.time(field.column, position, value),
                Some(value) => self.text(field.column, position, value),
            }
        }
        for (object, source) in flattened.into_iter().zip(FLATTENED) {
            if let Some((_, range)) = object {
                self.leaves(source, leaves.iter(range));
            }
        }
        self.batch.scratch.leaves = leaves.emptied();
        self.batch.scratch.flattener = flattener;
    }

    /// The leaves of one object. Names of `context` have it in front already.
    fn leaves<'n>(&mut self, source: &str, leaves: impl Iterator<Item = (&'n str, Value<'a>)>) {
        let mut prefixed = String::new();
        for (name, value) in leaves {
            if source == CONTEXT || !layout::is_reserved(name) {
                self.leaf(name, value);
                continue;
            }
            prefixed.clear();
            prefixed.push_str(source);
            prefixed.push('_');
            prefixed.push_str(name);
            self.leaf(&prefixed, value);
        }
    }

    /// A field of text. Unlike a property it is refused where it is anything else: nothing of it would be left in
    /// the column that the table is sorted and joined by.
    pub(super) fn text(&mut self, column: &str, position: usize, value: Value<'a>) {
        if value.kind() == Kind::String {
            // Only one kind of server is worth the second look at the text.
            let dialect = self.dialect();
            let taken = dialect == Dialect::ClickHouse
                || value
                    .as_str()
                    .is_some_and(|string| dialect.takes_text(&string.text));
            if !taken {
                return self.fail(column, RowErrorKind::NulCharacter);
            }
            return self.fit(column, position, value);
        }
        let stored = self
            .spec(position)
            .map_or_else(String::new, |spec| spec.type_name.clone());
        self.fail(
            column,
            RowErrorKind::Conflict {
                stored,
                found: value::name_of_kind(value),
            },
        );
    }

    /// A field that is a date-time. Forms that the gateway takes beyond the strict one (without an offset, which
    /// is then UTC) are taken here too, and kept as they came.
    pub(super) fn time(&mut self, column: &str, position: usize, value: Value<'a>) {
        let parsed = value.as_str().and_then(|string| {
            DateTime::parse(&string.text).or_else(|| {
                let timestamp: Timestamp = string.text.parse().ok()?;
                Some(DateTime {
                    exact: false,
                    ..DateTime::clamped(timestamp.as_millis())
                })
            })
        });
        let Some(date_time) = parsed else {
            return self.fail(column, RowErrorKind::NotADateTime);
        };
        if !date_time.exact {
            self.keep(column, value);
        }
        self.put(position, Cell::Bits(date_time.bits()));
    }

    /// A leaf of `properties`, `traits` or `context`.
    fn leaf(&mut self, name: &str, value: Value<'a>) {
        if self.error.is_some() {
            return;
        }
        match self.position(name) {
            Some(position) if self.is_filled(position) => self.keep(name, value),
            Some(position) => self.fit(name, position, value),
            None => match value::type_for(value) {
                Some(column_type) if self.has_room() && self.dialect().takes_name(name) => {
                    let position = self.add(name, column_type);
                    self.fit(name, position, value);
                }
                _ => self.keep(name, value),
            },
        }
    }

    fn fit(&mut self, name: &str, position: usize, value: Value<'a>) {
        let Some(spec) = self.spec(position) else {
            return self.keep(name, value);
        };
        match value::fit(&spec.column_type, value) {
            Fit::Column { cell, .. } if !takes(self.dialect(), &cell) => self.keep(name, value),
            Fit::Column { cell, keep_source } => {
                if keep_source {
                    self.keep(name, value);
                }
                self.put(position, cell);
            }
            Fit::Extra => self.keep(name, value),
            Fit::Conflict => {
                let (stored, found) = (spec.type_name.clone(), value::name_of_kind(value));
                match self.before_the_move(name, value) {
                    Some((position, cell)) => self.put(position, cell),
                    None => self.fail(name, RowErrorKind::Conflict { stored, found }),
                }
            }
        }
    }

    /// The column that a field's values were in before it was moved to another type, where this value is one of those.
    fn before_the_move(&self, name: &str, value: Value<'a>) -> Option<(usize, Cell<'a>)> {
        retype::kept_for(name).find_map(|kept| {
            let position = self.batch.schema.position(&kept)?;
            match value::fit(&self.spec(position)?.column_type, value) {
                Fit::Column {
                    cell,
                    keep_source: false,
                } => Some((position, cell)),
                _ => None,
            }
        })
    }

    /// The columns that every row has whatever its event says.
    fn defaults(&mut self, row: &Row<'a>) {
        let core = self.batch.core;
        let time = |timestamp: Timestamp| Cell::Bits(DateTime::clamped(timestamp.as_millis()).bits());
        for (column, text) in [("message_id", row.message_id), ("source", row.source)] {
            if !self.dialect().takes_text(text) {
                self.fail(column, RowErrorKind::NulCharacter);
            }
        }
        if !self.is_filled(core.message_id) {
            self.put(core.message_id, Cell::Text(Cow::Borrowed(row.message_id)));
        }
        if !self.is_filled(core.timestamp) {
            self.put(core.timestamp, time(row.received_at));
        }
        if let Some(sent_at) = row.sent_at.filter(|_| !self.is_filled(core.sent_at)) {
            self.put(core.sent_at, time(sent_at));
        }
        self.put(core.received_at, time(row.received_at));
        self.put(core.ingested_at, Cell::Bits(self.batch.ingested_at.bits()));
        self.put(core.source, Cell::Text(Cow::Borrowed(row.source)));
        if let Some(position) = core.workspace {
            self.put(position, Cell::Text(Cow::Borrowed(row.workspace)));
        }
        let identity = row.id.identity;
        let parts = [
            identity.journal.0,
            u64::from(identity.partition),
            identity.seq,
            u64::from(row.id.sub),
        ];
        for (position, part) in core.identity.into_iter().zip(parts) {
            self.put(position, Cell::Bits(part));
        }
    }

    pub(super) fn put(&mut self, position: usize, cell: Cell<'a>) {
        if let Some(filled) = self.batch.scratch.filled.get_mut(position) {
            *filled = self.batch.scratch.row;
        }
        self.cells.push((position, cell));
    }

    fn is_filled(&self, position: usize) -> bool {
        self.batch.scratch.filled.get(position) == Some(&self.batch.scratch.row)
    }

    /// Adds a value to `extra` as it came. Names are letters, digits and underscores: nothing to escape.
    pub(super) fn keep(&mut self, name: &str, value: Value<'_>) {
        self.extra.push(if self.extra.is_empty() { '{' } else { ',' });
        self.extra.push('"');
        self.extra.push_str(name);
        self.extra.push_str("\":");
        self.extra.push_str(value.text());
    }

    fn fail(&mut self, field: &str, kind: RowErrorKind) {
        self.error.get_or_insert_with(|| RowError {
            field: field.to_owned(),
            kind,
        });
    }

    pub(super) fn position(&mut self, name: &str) -> Option<usize> {
        let guess = self.batch.scratch.follower.get(self.before).copied();
        if let Some(guess) = guess.filter(|guess| self.spec(*guess).is_some_and(|spec| spec.name == name)) {
            self.before = guess;
            return Some(guess);
        }
        let known = self.batch.schema.position(name);
        let found = known.or_else(|| self.batch.added_positions.get(name).copied())?;
        if let Some(follower) = self.batch.scratch.follower.get_mut(self.before) {
            *follower = found;
        }
        self.before = found;
        Some(found)
    }

    pub(super) fn spec(&self, position: usize) -> Option<&ColumnSpec> {
        let known = self.batch.schema.columns();
        known
            .get(position)
            .or_else(|| self.batch.added.get(position - known.len()))
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.batch.schema.dialect()
    }

    /// Whether the table may get another column.
    fn has_room(&self) -> bool {
        let options = [layout::WORKSPACE, layout::EXTRA_JSON];
        let options = options
            .iter()
            .filter(|name| self.batch.schema.position(name).is_some());
        let own = layout::CORE.len() + layout::IDENTITY.len() + options.count();
        let others = self.batch.schema.columns().len().saturating_sub(own) + self.batch.added.len();
        others < self.batch.limits.columns
    }

    fn add(&mut self, name: &str, column_type: ColumnType) -> usize {
        debug_assert!(
            !matches!(column_type, ColumnType::Plain(Scalar::Bool)),
            "new scalars are nullable"
        );
        let position = self.batch.schema.columns().len() + self.batch.added.len();
        self.batch.added.push(ColumnSpec::new(name, column_type));
        self.batch.added_positions.insert(name.to_owned(), position);
        self.batch.scratch.filled.push(0);
        self.batch.scratch.follower.push(usize::MAX);
        position
    }
}

/// Whether a column of such a server can hold the cell.
pub(super) fn takes(dialect: Dialect, cell: &Cell<'_>) -> bool {
    match cell {
        _ if dialect == Dialect::ClickHouse => true,
        Cell::Missing | Cell::Bits(_) => true,
        Cell::Text(text) => dialect.takes_text(text),
        Cell::List(items) => items.iter().all(|item| takes(dialect, item)),
    }
}
