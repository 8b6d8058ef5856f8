//! The columns of a field that is to be of another type.

use anyhow::{Result, bail};
use millrace_store::destinations::TableLayout;
use millrace_store::fields::FieldType;
use millrace_store::{Destinations, WorkspaceId};
use millrace_warehouse::column_type::{ColumnType, Scalar};
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::{Error, Layout, Retype, Schema, TableName};
use serde_json::{Value, json};

use crate::command::destination::table_name;
use crate::output::Bar;
use crate::parts::Parts;

/// A column that moves.
pub(super) struct Move {
    table: TableName,
    retype: Retype,
}

/// What moves: the column in each table of the workspace's ClickHouse destinations that has it, and in `further` tables
/// of their databases.
pub(super) async fn moves(
    parts: &Parts,
    workspace: &WorkspaceId,
    further: &[String],
    name: &str,
    field_type: FieldType,
) -> Result<Vec<Move>> {
    let Some(to) = column_type(field_type) else {
        return Ok(Vec::new());
    };
    let (warehouse, mut moves) = (parts.warehouse(), Vec::new());
    for one in Destinations::new(parts.postgres()?).list(workspace).await? {
        let Some(settings) = one.settings.clickhouse() else {
            continue;
        };
        let layout = Layout::from(settings);
        let (own, database) = (&one.destination.table, &one.destination.database);
        for table in further.iter().chain([own]) {
            let table = table_name(database, table)?;
            let schema = match Schema::read(&warehouse, &table).await {
                Ok(schema) => schema,
                Err(Error::UnfitTable {
                    reason: UnfitReason::Missing,
                    ..
                }) => continue,
                Err(error) => return Err(error.into()),
            };
            if schema.get(name).is_none() {
                continue;
            }
            if settings.layout() == TableLayout::Shared {
                bail!(
                    "{table} shows rows of a shared table, whose columns are not one workspace's to move; \
                     `--gateway-only` leaves them as they are"
                );
            }
            if let Some(retype) = Retype::plan(&table, &layout, &schema, name, &to)? {
                moves.push(Move { table, retype });
            }
        }
    }
    Ok(moves)
}

/// Moves the columns, one after another.
pub(super) async fn carry_out(parts: &Parts, moves: &[Move]) -> Result<()> {
    let warehouse = parts.warehouse();
    for one in moves {
        let bar = Bar::new("parts of the table");
        let mut left = None;
        warehouse
            .retype(&one.retype, |progress| {
                match left {
                    Some(before) if progress.parts_left <= before => bar.step(before - progress.parts_left),
                    Some(before) => bar.expect(progress.parts_left - before),
                    None => bar.expect(progress.parts_left),
                }
                left = Some(progress.parts_left);
            })
            .await?;
    }
    Ok(())
}

pub(super) fn objects(moves: &[Move]) -> Vec<Value> {
    let one = |one: &Move| {
        json!({
            "table": one.table.to_string(), "kept": one.retype.kept(), "statements": one.retype.statements(),
        })
    };
    moves.iter().map(one).collect()
}

pub(super) fn lines(moves: &[Move], dry_run: bool) -> String {
    let mut lines = String::new();
    for one in moves {
        let verb = if dry_run { "would move" } else { "moved" };
        lines.push_str(&format!(
            "\n{} {verb}; what it held is in {}",
            one.table,
            one.retype.kept()
        ));
        if dry_run {
            for statement in one.retype.statements() {
                lines.push_str(&format!("\n  {statement};"));
            }
        }
    }
    lines
}

/// What a column of that type is; nothing for types that have no column of their own.
const fn column_type(field_type: FieldType) -> Option<ColumnType> {
    match field_type {
        FieldType::String => Some(ColumnType::Plain(Scalar::String)),
        FieldType::Number => Some(ColumnType::Nullable(Scalar::Float64)),
        FieldType::Boolean => Some(ColumnType::Nullable(Scalar::Bool)),
        FieldType::DateTime => Some(ColumnType::Nullable(Scalar::DateTime64)),
        FieldType::Array | FieldType::Object => None,
    }
}
