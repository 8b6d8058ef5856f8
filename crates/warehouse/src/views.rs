//! Materialized views behind a table: each insert goes into their targets too, and each target deduplicates for
//! itself. One without a window would get a block's rows again with every attempt.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::client::Warehouse;
use crate::error::{Error, UnfitReason};
use crate::layout;
use crate::name::TableName;

/// A database and a table or view in it; not a [`TableName`], because targets can have names of the server's own.
type Place = (String, String);

#[derive(clickhouse::Row, serde::Deserialize)]
struct RelationRow {
    database: String,
    name: String,
    engine: String,
    engine_full: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
    target_database: String,
    target_table: String,
}

impl Warehouse {
    /// Refuses a table with a materialized view behind it, directly or through other views, whose target keeps no
    /// deduplication window of at least `window`.
    ///
    /// # Errors
    /// The server does not answer, or [`Error::UnfitTable`] with the view and its target.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn check_views(&self, table: &TableName, window: NonZeroU32) -> Result<(), Error> {
        let start = (table.database().as_str().to_owned(), table.table().to_owned());
        let mut seen = BTreeSet::from([start.clone()]);
        let mut sources = vec![start];
        while !sources.is_empty() {
            let views: Vec<Place> = self
                .relations(&sources)
                .await?
                .into_iter()
                .flat_map(dependents)
                .collect();
            let mut targets = Vec::new();
            for view in self.relations(&views).await? {
                if view.engine == "MaterializedView" {
                    let target = (view.target_database, view.target_table);
                    targets.push((format!("{}.{}", view.database, view.name), target));
                }
            }
            let places: Vec<_> = targets.iter().map(|(_, target)| target.clone()).collect();
            for found in self.relations(&places).await? {
                // What is written to a Null table goes on to the views behind it and is kept nowhere.
                let kept = layout::window_of(&found.engine, &found.engine_full);
                if found.engine == "Null" || kept >= u64::from(window.get()) {
                    continue;
                }
                let view = targets
                    .iter()
                    .find(|(_, target)| *target == (found.database.clone(), found.name.clone()));
                let view = view.map_or_else(String::new, |(view, _)| view.clone());
                let target = format!("{}.{}", found.database, found.name);
                let reason = UnfitReason::ViewTarget {
                    view,
                    target,
                    found: kept,
                    wanted: u64::from(window.get()),
                };
                return Err(Error::UnfitTable {
                    table: table.clone(),
                    reason,
                });
            }
            sources = places
                .into_iter()
                .filter(|place| seen.insert(place.clone()))
                .collect();
        }
        Ok(())
    }

    async fn relations(&self, places: &[Place]) -> Result<Vec<RelationRow>, Error> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let databases: BTreeSet<_> = places.iter().map(|(database, _)| database).collect();
        let names: BTreeSet<_> = places.iter().map(|(_, name)| name).collect();
        // By pairs alone the server would look at every table that it has.
        let query = self
            .client()
            .query(
                "SELECT database, name, engine, engine_full, dependencies_database, dependencies_table, \
                 target_database, target_table FROM system.tables \
                 WHERE database IN ? AND name IN ? AND (database, name) IN ?",
            )
            .bind(databases.into_iter().collect::<Vec<_>>())
            .bind(names.into_iter().collect::<Vec<_>>())
            .bind(places);
        self.bounded(query.fetch_all()).await
    }
}

fn dependents(row: RelationRow) -> impl Iterator<Item = Place> {
    row.dependencies_database.into_iter().zip(row.dependencies_table)
}
