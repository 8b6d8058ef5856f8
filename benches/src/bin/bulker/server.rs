//! A ClickHouse of this program's own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_benches::measure::Cpu;
use millrace_benches::processes::children;
use millrace_benches::report::Progress;
use millrace_service::{Clock as _, SystemClock};
use millrace_testkit::clickhouse::ClickHouse;
use millrace_testkit::http::Client;
use millrace_warehouse::{Config, Layout, TableName, counts};
use tempfile::TempDir;

use crate::PATIENCE;

/// How often the server is asked.
const POLL: Duration = Duration::from_millis(100);
/// How long merges may go on once the rows are there, and for how long none must run to call it quiet.
const MERGES: Duration = Duration::from_secs(60);
const QUIET: u32 = 20;

/// The server and a way to ask it.
#[derive(Debug)]
pub(crate) struct Server {
    clickhouse: ClickHouse,
    client: Client,
    _directory: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Result<Self> {
        let directory = TempDir::with_prefix("millrace-bench-")?;
        Ok(Self {
            clickhouse: ClickHouse::start(directory.path()).await?,
            client: Client::default(),
            _directory: directory,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.clickhouse.url()
    }

    /// Has it carry out a statement; what it answers.
    pub(crate) async fn ask(&self, sql: &str) -> Result<String> {
        let answer = self.client.post(&self.url(), &[], sql.to_owned()).await?;
        ensure!(answer.status == http::StatusCode::OK, "{sql}: {}", answer.body);
        Ok(answer.body.trim_end().to_owned())
    }

    /// The CPU time of its process, and of those that it may have started.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let own = self.clickhouse.id().context("ClickHouse runs")?;
        let mut processes = vec![own];
        processes.extend(children(own)?);
        Cpu::of_all(&processes)
    }

    pub(crate) async fn rows(&self, table: &str) -> Result<u64> {
        Ok(self.ask(&format!("SELECT count() FROM {table}")).await?.parse()?)
    }

    /// An empty table like `table`, beside it: with its projection, its settings and live counts of its own, so that an
    /// insert costs the server the same in either.
    pub(crate) async fn copy_of(&self, table: &str, name: &str) -> Result<String> {
        let copy = format!("{table}_{name}");
        let made: TableName = copy.parse()?;
        let counts = format!("{}.{}", made.database(), counts::name_of(&made));
        for left in [format!("{counts}_view"), counts, copy.clone()] {
            self.ask(&format!("DROP TABLE IF EXISTS {left} SYNC")).await?;
        }
        self.ask(&format!("CREATE TABLE {copy} AS {table}")).await?;
        Config::new(self.url())
            .build()
            .create_table(&made, &Layout::default())
            .await?;
        Ok(copy)
    }

    /// The types of a table's columns.
    pub(crate) async fn types(&self, table: &str) -> Result<BTreeMap<String, String>> {
        let (database, name) = table.split_once('.').context("database.table")?;
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = '{database}' AND table = '{name}' FORMAT TSVRaw"
        );
        let answer = self.ask(&sql).await?;
        let line = |line: &str| {
            line.split_once('\t')
                .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        };
        Ok(answer.lines().filter_map(line).collect())
    }

    /// Waits until `table` holds `wanted` rows; says how long that took.
    pub(crate) async fn filled(&self, table: &str, wanted: u64) -> Result<Duration> {
        let began = SystemClock.instant();
        let mut progress = Progress::new("rows are there", wanted);
        loop {
            let rows = self.rows(table).await?;
            progress.at(rows);
            let passed = SystemClock.instant() - began;
            ensure!(rows <= wanted, "{table} holds {rows} rows instead of {wanted}");
            if rows == wanted {
                return Ok(passed);
            }
            ensure!(
                passed < PATIENCE,
                "{table} holds {rows} of {wanted} rows after {PATIENCE:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it merges nothing any more.
    pub(crate) async fn settled(&self) -> Result<()> {
        let end = SystemClock.instant() + MERGES;
        let mut quiet = 0;
        while quiet < QUIET && SystemClock.instant() < end {
            let merges: u32 = self.ask("SELECT count() FROM system.merges").await?.parse()?;
            quiet = if merges == 0 { quiet + 1 } else { 0 };
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
