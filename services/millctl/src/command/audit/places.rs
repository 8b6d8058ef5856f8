//! Where the rows are: in ClickHouse, or in PostgreSQL destinations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use millrace_event::destination::postgres::DATABASE_PREFIX;
use millrace_postgres_destination::Config;
use millrace_store::Keyring;
use millrace_store::destinations::{Configured, Destinations, Settings, open_url};
use millrace_warehouse::{TableName, Warehouse};

use super::books::Question;
use crate::parts::Parts;

/// The servers that an audit asks.
pub(super) struct Places {
    warehouse: Warehouse,
    destinations: BTreeMap<String, Arc<Configured>>,
    key_file: Option<PathBuf>,
}

impl Places {
    /// Where the installation's rows may be.
    pub(super) async fn read(parts: &Parts) -> Result<Self> {
        let everything = Destinations::new(parts.postgres()?).newer(None).await?;
        let all = everything.into_iter().flat_map(|all| all.destinations);
        let readable = all.filter_map(|(id, configured)| Some((id.to_string(), configured.ok()?)));
        Ok(Self {
            warehouse: parts.warehouse(),
            destinations: readable
                .filter(|(_, one)| matches!(one.settings, Settings::Postgres(_)))
                .collect(),
            key_file: parts.key_file().map(Path::to_owned),
        })
    }

    /// The ids of PostgreSQL destinations.
    pub(super) fn postgres(&self) -> BTreeSet<String> {
        self.destinations.keys().cloned().collect()
    }

    /// How often a table holds each row that a question is about.
    pub(super) async fn copies(
        &self,
        table: &TableName,
        question: &Question,
    ) -> Result<BTreeMap<(u64, u16), u64>> {
        let Question {
            journal,
            partition,
            seqs,
            ..
        } = question;
        let id = table.database().as_str().strip_prefix(DATABASE_PREFIX);
        let Some(configured) = id.and_then(|id| self.destinations.get(id)) else {
            return Ok(self
                .warehouse
                .copies(table, *journal, *partition, seqs.clone())
                .await?);
        };
        let destination = &configured.destination;
        let failed = || {
            format!(
                "destination {} ({}) cannot be asked",
                destination.name, destination.id
            )
        };
        let url = self.url(configured).with_context(failed)?;
        let mut config = Config::new(table.database().as_str(), "millctl", url);
        config.schema.clone_from(&destination.database);
        let postgres = config.build().with_context(failed)?;
        postgres
            .copies(table, *journal, *partition, seqs.clone())
            .await
            .with_context(failed)
    }

    fn url(&self, configured: &Configured) -> Result<String> {
        let Settings::Postgres(settings) = &configured.settings else {
            anyhow::bail!("it is no PostgreSQL destination");
        };
        let sealed = settings.url.as_ref().context("its address is not set")?;
        let file = self.key_file.as_deref();
        let keys = Keyring::read(file.context("secrets.key_file is not set")?)?;
        let name = &configured.destination.name;
        Ok(open_url(&keys, &configured.workspace, name, sealed)?)
    }
}
