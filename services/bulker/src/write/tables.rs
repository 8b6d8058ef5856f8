//! What a session has learned of one destination's tables.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_event::JournalId;
use millrace_ledger::metadata::table_hash;
use millrace_warehouse::{Schema, TableName};

use super::Writer;
use super::destination::Destination;
use super::trial::Trial;
use crate::error::Error;

/// Schemas kept; past it all are forgotten and read again.
const MOST_SCHEMAS: usize = 10_000;
/// Tables that are made or read at once, at most.
const STRIPES: usize = 16;

/// A destination with what is known of its tables.
#[derive(Debug)]
pub(super) struct Tables<D> {
    pub(super) destination: D,
    schemas: Mutex<HashMap<TableName, Learned>>,
    /// Turns at making and reading tables, by the table's hash.
    turns: [tokio::sync::Mutex<()>; STRIPES],
}

/// What is known of a table.
#[derive(Clone, Debug)]
struct Learned {
    schema: Arc<Schema>,
    /// The version of its destination's settings that it follows.
    settings: u64,
}

impl<D> Tables<D> {
    pub(super) fn new(destination: D) -> Self {
        Self {
            destination,
            schemas: Mutex::default(),
            turns: Default::default(),
        }
    }

    fn known(&self, table: &TableName, settings: u64) -> Option<Arc<Schema>> {
        let schemas = self.schemas();
        let learned = schemas.get(table)?;
        // An older picture of the settings is no reason to go back to them.
        (learned.settings >= settings).then(|| Arc::clone(&learned.schema))
    }

    fn turn_to_read(&self, table: &TableName) -> &tokio::sync::Mutex<()> {
        let stripe = table_hash(&table.to_string()) % STRIPES as u64;
        &self.turns[usize::try_from(stripe).unwrap_or(0)]
    }

    pub(super) fn learn(&self, table: &TableName, schema: &Arc<Schema>, settings: u64) {
        let mut schemas = self.schemas();
        if schemas.len() >= MOST_SCHEMAS {
            schemas.clear();
        }
        let learned = Learned {
            schema: Arc::clone(schema),
            settings,
        };
        schemas.insert(table.clone(), learned);
    }

    pub(super) fn forget(&self, table: &TableName) {
        self.schemas().remove(table);
    }

    fn schemas(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Learned>> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// How many rows a table holds of a range of events, and how many different ones.
    ///
    /// # Errors
    /// The table's server does not answer or refuses.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn sum(
        &self,
        table: &TableName,
        journal: JournalId,
        partition: u32,
        seqs: RangeInclusive<u64>,
    ) -> Result<(u64, u64), Box<dyn std::error::Error + Send + Sync>> {
        match self.postgres.opened(table.database().as_str()) {
            Some(tables) => Ok(tables.destination.sum(table, journal, partition, seqs).await?),
            None => Ok(self.warehouse.sum(table, journal, partition, seqs).await?),
        }
    }

    /// The table's schema as it was last read; made, checked and read at the first use, and again once its
    /// destination's settings are others.
    pub(super) async fn schema<D: Destination>(
        &self,
        trial: &mut Trial<'_, D>,
    ) -> Result<Arc<Schema>, Error> {
        let (table, tables) = (trial.table, Arc::clone(&trial.tables));
        if let Some(schema) = tables.known(table, trial.settings) {
            return Ok(schema);
        }
        loop {
            // One partition makes or reads it, the others have it from here.
            let turn = tables.turn_to_read(table).lock().await;
            if let Some(schema) = tables.known(table, trial.settings) {
                return Ok(schema);
            }
            let made = match trial.layout() {
                Ok(layout) => tables.destination.create_table(table, layout).await,
                Err(error) => Err(error),
            };
            drop(turn);
            match made {
                Ok(schema) => {
                    let schema = Arc::new(schema);
                    tables.learn(table, &schema, trial.settings);
                    return Ok(schema);
                }
                Err(error) => trial.failed(&error, "a table cannot take events").await?,
            }
        }
    }
}
