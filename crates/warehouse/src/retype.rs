//! A column moves to another type while events go on: a new column is filled from the old one, and then they change
//! names.
//!
//! The old column stays, under a name that no event can write to (`_price_string`), with everything it held: a value that
//! does not fit the new type is `NULL` or empty in the new column and still there in the old one. Both columns carry a
//! comment that says so. Every step can be repeated, so a move that was interrupted is gone on with by the same call.
//!
//! Events that were on their way with a value of the old type find the old column too ([`kept_for`]), as those that came
//! before them; the same call again brings such values into the new one.
//!
//! Names are changed while no insert runs: one that began before would leave its values in neither column (tried). The
//! table refuses inserts for that moment, as if it had too many parts; who inserts comes again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Warehouse;
use crate::column_type::{ColumnType, Scalar};
use crate::error::{Error, UnfitReason};
use crate::layout::{self, Layout};
use crate::name::TableName;
use crate::schema::Schema;

/// Between two looks at what runs.
const LOOK: Duration = Duration::from_millis(50);
/// How long the names wait for running inserts.
const INSERTS_END: Duration = Duration::from_secs(60);

/// A column that is to be of another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retype {
    table: TableName,
    layout: Layout,
    column: String,
    from: ColumnType,
    to: ColumnType,
    /// Whether the names are changed already: what is left is to fill the gap.
    renamed: bool,
}

/// How far rows that are there are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Parts of the table that are still to be rewritten.
    pub parts_left: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct MutationRow {
    running: u64,
    parts_left: u64,
    failed: String,
}

impl Retype {
    /// What it takes; nothing where the column is of that type and no move of it was left unfinished.
    ///
    /// # Errors
    /// [`UnfitReason::Retype`] where the column is one of the table's own, is not there, or is of a type that nothing
    /// can be read from.
    pub fn plan(
        table: &TableName,
        layout: &Layout,
        schema: &Schema,
        column: &str,
        to: &ColumnType,
    ) -> Result<Option<Self>, Error> {
        let unfit = |reason: String| Error::UnfitTable {
            table: table.clone(),
            reason: UnfitReason::Retype(reason),
        };
        if layout::is_reserved(column) {
            return Err(unfit(format!("{column} is one of the table's own columns")));
        }
        let found = schema
            .get(column)
            .ok_or_else(|| unfit(format!("it has no column {column}")))?;
        let plan = |from, renamed| Self {
            table: table.clone(),
            layout: layout.clone(),
            column: column.to_owned(),
            from,
            to: to.clone(),
            renamed,
        };
        if word(&found.column_type).is_none() {
            let reason = format!(
                "{column} is {}, which is not moved to another type",
                found.type_name
            );
            return Err(unfit(reason));
        }
        if word(&found.column_type) != word(to) {
            let kept = plan(found.column_type.clone(), false).kept();
            if schema.get(&kept).is_some() {
                let reason = format!("{kept} is there from an earlier move: drop it when nobody needs it");
                return Err(unfit(reason));
            }
            return Ok(Some(plan(found.column_type.clone(), false)));
        }
        // Moved before: the old values may not all be in the new column yet.
        let kept = WORDS.iter().find_map(|old| schema.get(&kept_name(column, old)));
        Ok(kept.map(|kept| plan(kept.column_type.clone(), true)))
    }

    /// The column that keeps the values as they were.
    pub fn kept(&self) -> String {
        kept_name(&self.column, word(&self.from).unwrap_or("before"))
    }

    fn staged(&self) -> String {
        format!("_new_{}", self.column)
    }

    fn alter(&self) -> String {
        format!("ALTER TABLE {}{}", self.table.quoted(), self.layout.on_cluster())
    }

    /// Adds the new column; what comes from now on is in both.
    fn add(&self) -> String {
        let codec = match self.layout.codec(&self.to.to_string(), "") {
            "" => String::new(),
            codec => format!(" CODEC({codec})"),
        };
        format!(
            "{} ADD COLUMN IF NOT EXISTS `{}` {} DEFAULT {}{codec} AFTER `{}`",
            self.alter(),
            self.staged(),
            self.to,
            self.converted(&self.column),
            self.column
        )
    }

    /// Fills the new column of what was there before.
    fn fill(&self) -> String {
        format!("{} MATERIALIZE COLUMN `{}`", self.alter(), self.staged())
    }

    fn detach(&self) -> String {
        format!(
            "{} MODIFY COLUMN `{}` REMOVE DEFAULT",
            self.alter(),
            self.staged()
        )
    }

    /// Refuses inserts; `ALTER` goes on.
    fn close(&self) -> String {
        format!("{} MODIFY SETTING max_parts_in_total = 0", self.alter())
    }

    fn open(&self) -> String {
        format!("{} RESET SETTING max_parts_in_total", self.alter())
    }

    fn rename(&self) -> String {
        format!(
            "{} RENAME COLUMN `{}` TO `{}`, RENAME COLUMN `{}` TO `{}`",
            self.alter(),
            self.column,
            self.kept(),
            self.staged(),
            self.column
        )
    }

    fn comment(&self) -> String {
        format!(
            "{} COMMENT COLUMN `{}` 'was {}; values from then that do not fit are in {}', COMMENT COLUMN `{}` \
             'what {} held as {}, and what still comes as that'",
            self.alter(),
            self.column,
            quoteless(&self.from),
            self.kept(),
            self.kept(),
            self.column,
            quoteless(&self.from)
        )
    }

    /// Fills what came after the new column ended to follow the old one, before they changed names.
    fn close_gap(&self) -> String {
        let (column, kept) = (format!("`{}`", self.column), format!("`{}`", self.kept()));
        let empty = match &self.to {
            ColumnType::Plain(Scalar::String) => format!("{column} = ''"),
            _ => format!("isNull({column})"),
        };
        let there = match &self.from {
            ColumnType::Plain(Scalar::String) | ColumnType::LowCardinality => format!("{kept} != ''"),
            _ => format!("isNotNull({kept})"),
        };
        format!(
            "{} UPDATE {column} = {} WHERE {empty} AND {there}",
            self.alter(),
            self.converted(&self.kept())
        )
    }

    /// The value of a column in the new type; `NULL`, or for text empty, where it does not fit exactly.
    fn converted(&self, column: &str) -> String {
        let (text, value) = (format!("toString(`{column}`)"), format!("`{column}`"));
        let is_text = word(&self.from) == Some("string");
        match (word(&self.to), is_text) {
            (Some("string"), _) => format!("ifNull({text}, '')"),
            (Some("number"), true) => format!(
                "if(match({text}, '^-?[0-9]+(\\\\.[0-9]+)?([eE][+-]?[0-9]+)?$') AND \
                 ifNull(isFinite(toFloat64OrNull({text})), 0), toFloat64OrNull({text}), NULL)"
            ),
            (Some("number"), false) => format!("accurateCastOrNull({value}, 'Float64')"),
            (Some("boolean"), true) => {
                format!("multiIf({text} = 'true', true, {text} = 'false', false, NULL)")
            }
            (Some("boolean"), false) => format!("multiIf({value} = 1, true, {value} = 0, false, NULL)"),
            // A number says nothing of its unit, so only text becomes a time.
            (Some("date_time"), true) => format!(
                "if(match({text}, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}'), \
                 parseDateTime64BestEffortOrNull({text}, 3, 'UTC'), NULL)"
            ),
            _ => "NULL".to_owned(),
        }
    }

    /// Every statement in turn, as it would be sent.
    pub fn statements(&self) -> Vec<String> {
        match self.renamed {
            true => vec![self.open(), self.comment(), self.close_gap()],
            false => vec![
                self.add(),
                self.fill(),
                self.detach(),
                self.close(),
                self.rename(),
                self.open(),
                self.comment(),
                self.close_gap(),
            ],
        }
    }
}

/// The words of [`word`].
const WORDS: [&str; 4] = ["string", "number", "boolean", "date_time"];

fn kept_name(column: &str, word: &str) -> String {
    format!("_{column}_{word}")
}

/// Where the values are that a column had before it was moved: names of columns, for a table may have none of them.
pub(crate) fn kept_for(column: &str) -> impl Iterator<Item = String> {
    WORDS.into_iter().map(move |word| kept_name(column, word))
}

/// A type's word in the name of the column that keeps its values; nothing for those that are not moved.
fn word(column_type: &ColumnType) -> Option<&'static str> {
    let scalar = match column_type {
        ColumnType::Plain(scalar) | ColumnType::Nullable(scalar) => *scalar,
        ColumnType::LowCardinality | ColumnType::LowCardinalityNullable => Scalar::String,
        ColumnType::Array(_) | ColumnType::Other => return None,
    };
    Some(match scalar {
        Scalar::String => "string",
        Scalar::Bool => "boolean",
        Scalar::DateTime64 => "date_time",
        Scalar::UInt(_) | Scalar::Int(_) | Scalar::Float32 | Scalar::Float64 => "number",
    })
}

/// A type within a text of SQL.
fn quoteless(column_type: &ColumnType) -> String {
    column_type.to_string().replace('\'', "")
}

impl Warehouse {
    /// Carries a move out; `moving` hears how far it is. Returns once every row is moved.
    ///
    /// # Errors
    /// The server does not answer or refuses, or inserts do not end within a minute. The same call goes on from there.
    ///
    /// # Cancellation
    /// The move stays where it is; the same call goes on from there. If it was between two names, inserts into the
    /// table are refused until then.
    pub async fn retype(&self, retype: &Retype, mut moving: impl FnMut(Progress)) -> Result<(), Error> {
        let _turn = self.turn(&retype.table).await;
        if !retype.renamed {
            self.execute(&retype.add()).await?;
            self.execute(&retype.fill()).await?;
            self.moved(&retype.table, &mut moving).await?;
            self.execute(&retype.detach()).await?;
            self.execute(&retype.close()).await?;
            let renamed = self.rename_alone(retype).await;
            self.execute(&retype.open()).await?;
            renamed?;
        } else {
            self.execute(&retype.open()).await?;
        }
        self.execute(&retype.comment()).await?;
        self.execute(&retype.close_gap()).await?;
        self.moved(&retype.table, &mut moving).await?;
        if retype.layout.shared {
            self.refresh_shares(&retype.table).await?;
        }
        Ok(())
    }

    /// Changes the names once no insert runs; none begins meanwhile.
    async fn rename_alone(&self, retype: &Retype) -> Result<(), Error> {
        let until = Instant::now() + INSERTS_END;
        loop {
            let query = self
                .client()
                .query(
                    "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND position(query, ?) > 0",
                )
                .bind(retype.table.quoted());
            let running: u64 = self.bounded(query.fetch_one()).await?;
            if running == 0 {
                return self.execute(&retype.rename()).await;
            }
            if Instant::now() >= until {
                return Err(Error::Deadline);
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the table's mutations are done.
    async fn moved(&self, table: &TableName, moving: &mut impl FnMut(Progress)) -> Result<(), Error> {
        loop {
            let query = self
                .client()
                .query(
                    "SELECT count() AS running, toUInt64(sum(parts_to_do)) AS parts_left, \
                     max(latest_fail_reason) AS failed FROM system.mutations \
                     WHERE database = ? AND table = ? AND NOT is_done",
                )
                .bind(table.database().as_str())
                .bind(table.table());
            let found: MutationRow = self.bounded(query.fetch_one()).await?;
            if !found.failed.is_empty() {
                return Err(Error::UnfitTable {
                    table: table.clone(),
                    reason: UnfitReason::Retype(format!("a mutation fails: {}", found.failed)),
                });
            }
            moving(Progress {
                parts_left: found.parts_left,
            });
            if found.running == 0 {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ColumnSpec;

    fn plan(columns: &[(&str, &str)], column: &str, to: &str) -> Result<Option<Retype>, Error> {
        let table = "db.events".parse().expect("a name");
        let columns = columns
            .iter()
            .map(|(name, kind)| ColumnSpec::new(*name, ColumnType::parse(kind)));
        let schema = Schema::new(columns.collect());
        Retype::plan(
            &table,
            &Layout::default(),
            &schema,
            column,
            &ColumnType::parse(to),
        )
    }

    #[test]
    fn a_column_is_filled_beside_the_old_one_and_then_takes_its_name() {
        let retype = plan(&[("price", "String")], "price", "Nullable(Bool)")
            .expect("a plan")
            .expect("to do");
        assert_eq!(
            retype.statements(),
            [
                "ALTER TABLE `db`.`events` ADD COLUMN IF NOT EXISTS `_new_price` Nullable(Bool) DEFAULT \
                 multiIf(toString(`price`) = 'true', true, toString(`price`) = 'false', false, NULL) AFTER `price`",
                "ALTER TABLE `db`.`events` MATERIALIZE COLUMN `_new_price`",
                "ALTER TABLE `db`.`events` MODIFY COLUMN `_new_price` REMOVE DEFAULT",
                "ALTER TABLE `db`.`events` MODIFY SETTING max_parts_in_total = 0",
                "ALTER TABLE `db`.`events` RENAME COLUMN `price` TO `_price_string`, RENAME COLUMN `_new_price` TO `price`",
                "ALTER TABLE `db`.`events` RESET SETTING max_parts_in_total",
                "ALTER TABLE `db`.`events` COMMENT COLUMN `price` 'was String; values from then that do not fit are in \
                 _price_string', COMMENT COLUMN `_price_string` 'what price held as String, and what still comes as that'",
                "ALTER TABLE `db`.`events` UPDATE `price` = multiIf(toString(`_price_string`) = 'true', true, \
                 toString(`_price_string`) = 'false', false, NULL) WHERE isNull(`price`) AND `_price_string` != ''",
            ]
        );
    }

    #[test]
    fn what_is_of_the_type_already_is_left_unless_a_move_was_interrupted() {
        assert_eq!(
            plan(&[("n", "Nullable(Float64)")], "n", "Nullable(Float64)").expect("a plan"),
            None
        );
        let columns = [("n", "Nullable(Float64)"), ("_n_string", "String")];
        let retype = plan(&columns, "n", "Nullable(Float64)")
            .expect("a plan")
            .expect("to do");
        assert_eq!(retype.statements().len(), 3);
    }

    #[test]
    fn what_cannot_be_moved_is_refused_with_the_reason() {
        for (columns, column, said) in [
            (vec![], "price", "it has no column price"),
            (vec![("type", "String")], "type", "one of the table's own"),
            (
                vec![("a", "Array(String)")],
                "a",
                "a is Array(String), which is not moved",
            ),
            (
                vec![("p", "String"), ("_p_string", "String")],
                "p",
                "_p_string is there from an earlier move",
            ),
        ] {
            let refused = plan(&columns, column, "Nullable(Float64)").expect_err("refused");
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }
}
