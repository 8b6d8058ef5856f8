//! The whole pipeline as real processes, with topics, groups, databases and a workspace of its own.

mod metrics;
mod sender;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use uuid::Uuid;

use crate::http::Client;
use crate::postgres::Database;
use crate::process::{Process, Program, binary, ended, free_address, output, release};
use crate::redis;
use crate::stack::{self, address};
use crate::wait::until;

pub use sender::Sender;

/// The three services.
pub const SERVICES: [&str; 3] = ["ingest", "rotor", "bulker"];

const READY: Duration = Duration::from_secs(60);

/// What a test wants different from the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Another broker than the stack's.
    pub kafka: Option<String>,
    /// Another ClickHouse than the stack's, `http://host:port`.
    pub clickhouse: Option<String>,
    /// Another Postgres than the stack's, `postgres://…`.
    pub postgres: Option<String>,
    /// Further settings, such as `MILLRACE__CHUNK__TIME`, by service; those of `millctl` are for its commands.
    pub settings: BTreeMap<&'static str, Vec<(&'static str, String)>>,
    /// Which services to start; all where it is not set.
    pub services: Option<Vec<&'static str>>,
    /// The workspace's tier; `enterprise`, which has no limits, where it is not set.
    pub tier: Option<&'static str>,
    /// Partitions of every topic; 3 where it is not set.
    pub partitions: Option<u32>,
    /// The services as `./dev build-release` makes them: without failpoints.
    pub release: bool,
}

/// A running pipeline. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Pipeline {
    /// A client for its ports.
    pub client: Client,
    /// Its own name, in front of its topics and in its databases.
    pub name: String,
    /// The workspace's id.
    pub workspace: String,
    /// Where its events go, `database.table`.
    pub table: String,
    /// A server key, `id:secret`.
    pub write_key: String,
    kafka: String,
    clickhouse: String,
    processes: BTreeMap<&'static str, Process>,
    urls: BTreeMap<&'static str, String>,
    environment: Vec<(String, String)>,
    of_millctl: Vec<(String, String)>,
    directory: TempDir,
    _postgres: Database,
}

impl Pipeline {
    /// Makes topics, databases and a workspace, and starts the three services.
    ///
    /// # Errors
    /// A part of the stack is missing, or a service does not become ready; with the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let mut pipeline = Self::prepare(options).await?;
        for service in pipeline.processes.keys().copied().collect::<Vec<_>>() {
            pipeline.ready(service).await?;
        }
        Ok(pipeline)
    }

    async fn prepare(options: Options) -> Result<Self> {
        let name = format!(
            "e2e{}",
            &Uuid::new_v4()
                .simple()
                .to_string()
                .get(..12)
                .context("32 digits")?
        );
        let directory = TempDir::with_prefix("millrace-")?;
        let kafka = options.kafka.clone().map_or_else(|| address(stack::KAFKA), Ok)?;
        let clickhouse = options
            .clickhouse
            .clone()
            .map_or_else(|| address(stack::CLICKHOUSE), Ok)?;
        let postgres = match options.postgres.clone() {
            Some(server) => Database::create_on(server).await?,
            None => Database::create().await?,
        };
        let config = directory.path().join("topics.toml");
        std::fs::write(&config, topics_section(&name))?;
        let environment = [
            ("MILLRACE_CONFIG", config.display().to_string()),
            ("MILLRACE__KAFKA__BROKERS", kafka.clone()),
            ("MILLRACE__POSTGRES__URL", postgres.url().to_owned()),
            ("MILLRACE__REDIS__URL", redis::url()?),
            ("MILLRACE__CLICKHOUSE__URL", clickhouse.clone()),
            ("MILLRACE__CLICKHOUSE__DATABASE", format!("{name}_system")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec();

        output("millctl", &["migrate", "up"], &environment).await?;
        let partitions = options.partitions.unwrap_or(3).to_string();
        output(
            "millctl",
            &["topics", "apply", "--partitions", &partitions],
            &environment,
        )
        .await?;
        let made = millctl(
            &environment,
            &[
                "workspace",
                "create",
                &name,
                "--organization",
                &name,
                "--tier",
                options.tier.unwrap_or("enterprise"),
            ],
        )
        .await?;
        let key = millctl(
            &environment,
            &["key", "create", "--workspace", &name, "--kind", "server"],
        )
        .await?;
        let field = |from: &serde_json::Value, field: &str| -> Result<String> {
            Ok(from[field]
                .as_str()
                .with_context(|| format!("{field} is missing in {from}"))?
                .to_owned())
        };
        let mut pipeline = Self {
            client: Client::default(),
            workspace: field(&made, "workspace")?,
            table: format!("{}.{}", field(&made, "database")?, field(&made, "table")?),
            write_key: field(&key, "key")?,
            name,
            kafka,
            clickhouse,
            processes: BTreeMap::new(),
            urls: BTreeMap::new(),
            environment,
            of_millctl: options
                .settings
                .get("millctl")
                .into_iter()
                .flatten()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
            directory,
            _postgres: postgres,
        };
        for service in options.services.unwrap_or_else(|| SERVICES.to_vec()) {
            let name = format!("millrace-{service}");
            let program = if options.release {
                release(&name)?
            } else {
                binary(&name)?
            };
            let settings = options.settings.get(service).map_or(&[][..], Vec::as_slice);
            pipeline.spawn(service, &program, settings)?;
        }
        Ok(pipeline)
    }

    fn spawn(
        &mut self,
        service: &'static str,
        program: &Path,
        settings: &[(&'static str, String)],
    ) -> Result<()> {
        let listen = free_address()?;
        let mut environment = self.environment.clone();
        let mut set = |key: &str, value: String| environment.push((key.to_owned(), value));
        match service {
            "ingest" => {
                set("MILLRACE__HTTP__LISTEN", listen.to_string());
                set(
                    "MILLRACE__JOURNAL__DIR",
                    self.directory.path().join("journal").display().to_string(),
                );
            }
            _ => {
                set("MILLRACE__ADMIN__LISTEN", listen.to_string());
                set("MILLRACE__CONSUMER__GROUP", format!("{}-{service}", self.name));
            }
        }
        for (key, value) in settings {
            set(key, value.clone());
        }
        let program = Program {
            name: service.into(),
            argv: vec![program.display().to_string()],
            environment,
            log: self.directory.path().join(format!("{service}.log")),
        };
        self.processes.insert(service, Process::start(program)?);
        self.urls.insert(service, format!("http://{listen}"));
        Ok(())
    }

    /// The process of a service.
    ///
    /// # Panics
    /// There is no such service.
    #[expect(
        clippy::expect_used,
        reason = "a test that misspells a service's name is to end"
    )]
    pub fn process(&mut self, service: &str) -> &mut Process {
        self.processes.get_mut(service).expect("a service's name")
    }

    /// Where a service listens.
    ///
    /// # Panics
    /// There is no such service.
    #[expect(
        clippy::expect_used,
        reason = "a test that misspells a service's name is to end"
    )]
    pub fn url(&self, service: &str) -> &str {
        self.urls.get(service).expect("a service's name")
    }

    /// Its database in Postgres, as a URL.
    pub fn postgres(&self) -> &str {
        self._postgres.url()
    }

    /// The broker's address.
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// One of its topics: `ingest`, `transformed`, `dlq`.
    pub fn topic(&self, which: &str) -> String {
        format!("{}.events.{which}.v1", self.name)
    }

    /// The name of the consumer group of a service.
    pub fn group(&self, service: &str) -> String {
        format!("{}-{service}", self.name)
    }

    /// Waits until a service is ready.
    ///
    /// # Errors
    /// It ended or does not become ready; with the end of its log.
    pub async fn ready(&mut self, service: &'static str) -> Result<()> {
        let url = format!("{}/ready", self.url(service));
        let client = self.client.clone();
        self.process(service).ready(&client, &url).await
    }

    /// Kills a service with SIGKILL and starts it again; does not wait until it is ready.
    ///
    /// # Errors
    /// It does not run, or cannot be started.
    pub async fn kill_and_restart(&mut self, service: &'static str) -> Result<()> {
        self.process(service).kill().await?;
        self.process(service).start_again()
    }

    /// Starts a further process of a service: a member of the group of `rotor` or `bulker`, or another `ingest` with
    /// a journal of its own. Also its URL, that of the admin routes. It is killed when it is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn another(&mut self, service: &'static str) -> Result<(Process, String)> {
        let listen = free_address()?.to_string();
        let journal = self.directory.path().join("journal-more").display().to_string();
        let own = match service {
            "ingest" => vec![
                ("MILLRACE__HTTP__LISTEN", listen.clone()),
                ("MILLRACE__JOURNAL__DIR", journal),
            ],
            _ => vec![("MILLRACE__ADMIN__LISTEN", listen.clone())],
        };
        let mut program = self.process(service).program().clone();
        let environment = &mut program.environment;
        environment.retain(|(name, _)| !own.iter().any(|(own, _)| own == name));
        environment.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        program.name = format!("another {service}");
        program.log = self.directory.path().join(format!("{service}-more.log"));
        Ok((Process::start(program)?, format!("http://{listen}")))
    }

    /// Leaves its files where they are when it is dropped; says where.
    pub fn keep_files(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory()
    }

    /// Puts a function into the workspace's chain, makes it the one that runs, and returns when the rotor has it.
    ///
    /// # Errors
    /// It is refused, or the rotor does not take it on within a minute.
    pub async fn put_function(&self, name: &str, code: &str) -> Result<serde_json::Value> {
        let file = self.directory.path().join(format!("{name}.js"));
        std::fs::write(&file, code)?;
        let file = file.display().to_string();
        let arguments = [
            "function",
            "put",
            "--workspace",
            &self.name,
            "--name",
            name,
            "--promote",
            &file,
        ];
        let version = async || self.metric("rotor", "millrace_rotor_config_version", "").await;
        let before = version().await?;
        let put = millctl(&self.environment, &arguments).await?;
        until("the rotor has the function", READY, || async {
            Ok((version().await? > before).then_some(()))
        })
        .await?;
        Ok(put)
    }

    /// Runs a `millctl` command with this pipeline's settings; returns its JSON.
    ///
    /// # Errors
    /// It fails, with what it said.
    pub async fn millctl(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        millctl(&[&self.environment[..], &self.of_millctl].concat(), arguments).await
    }

    /// As [`Self::millctl`] for commands whose exit status says something: the status and the answer.
    ///
    /// # Errors
    /// It printed no JSON.
    pub async fn millctl_ended(&self, arguments: &[&str]) -> Result<(Option<i32>, serde_json::Value)> {
        let arguments = [arguments, &["--json"]].concat();
        let environment = [&self.environment[..], &self.of_millctl].concat();
        let output = ended("millctl", &arguments, &environment).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON; {said}"))?;
        Ok((output.status.code(), answer))
    }

    /// Makes a key of the workspace, of kind `server`, `browser` or `import`; returns it whole, `id:secret`. A browser's
    /// key needs the origins of its pages.
    ///
    /// # Errors
    /// As [`Self::millctl`].
    pub async fn key(&self, kind: &str, origins: &[&str]) -> Result<String> {
        let mut arguments = vec!["key", "create", "--workspace", &self.name, "--kind", kind];
        arguments.extend(origins.iter().flat_map(|origin| ["--origin", *origin]));
        let made = self.millctl(&arguments).await?;
        let key = made["key"].as_str().context("a key was printed")?;
        Ok(key.to_owned())
    }

    /// A way to send events that lives beside the pipeline, whatever happens to its processes.
    pub fn sender(&self) -> Sender {
        self.sender_as(&self.write_key)
    }

    /// The same with another server key, `id:secret`: of another workspace.
    pub fn sender_as(&self, write_key: &str) -> Sender {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::STANDARD.encode(write_key);
        let url = self.url("ingest").to_owned();
        Sender {
            client: self.client.clone(),
            url,
            authorization: format!("Basic {key}"),
        }
    }

    /// Has ClickHouse carry out a statement that answers nothing.
    ///
    /// # Errors
    /// It refuses, with what it said.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let answer = self.client.post(&self.clickhouse, &[], sql.to_owned()).await?;
        if answer.status != http::StatusCode::OK {
            bail!("{sql}: {}", answer.body);
        }
        Ok(())
    }

    /// Asks ClickHouse, again where it is away for a moment; the answer in JSON, a row an object.
    ///
    /// # Errors
    /// It refuses, with what it said, or stays away.
    pub async fn query(&self, sql: &str) -> Result<Vec<serde_json::Value>> {
        let sql = format!("{sql} FORMAT JSONEachRow");
        let headers = [("x-clickhouse-format", "JSONEachRow")];
        let ask = async || self.client.post(&self.clickhouse, &headers, sql.clone()).await;
        let answered = until("ClickHouse answers", READY, async || Ok(ask().await.ok()));
        let answer = answered.await?;
        if answer.status != http::StatusCode::OK {
            bail!("{sql}: {}", answer.body);
        }
        answer
            .body
            .lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    /// How many rows the table holds.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn count(&self) -> Result<u64> {
        let rows = self
            .query(&format!("SELECT toString(count()) AS n FROM {}", self.table))
            .await?;
        Ok(rows
            .first()
            .and_then(|row| row["n"].as_str())
            .context("a count")?
            .parse()?)
    }

    /// Waits until the table holds at least `wanted` rows.
    ///
    /// # Errors
    /// Not within `patience`; with the ends of all logs.
    pub async fn rows(&self, wanted: u64, patience: Duration) -> Result<u64> {
        let what = format!("{wanted} rows in {}", self.table);
        let found = until(&what, patience, || async {
            Ok(Some(self.count().await?).filter(|count| *count >= wanted))
        });
        found
            .await
            .with_context(|| format!("{} rows are there\n{}", "fewer", self.tails()))
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        self.processes
            .iter()
            .map(|(name, process)| format!("── {name}\n{}\n", process.tail()))
            .collect()
    }

    /// Where its files are.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

async fn millctl(environment: &[(String, String)], arguments: &[&str]) -> Result<serde_json::Value> {
    let text = output("millctl", &[arguments, &["--json"]].concat(), environment).await?;
    serde_json::from_str(&text).with_context(|| format!("{text} is no JSON"))
}

/// The `[topics]` that a service and `millctl` share, every name with the test's own in front.
fn topics_section(prefix: &str) -> String {
    let mut text = format!(
        "[topics]\ningest = \"{prefix}.events.ingest.v1\"\ntransformed = \"{prefix}.events.transformed.v1\"\n\
         dlq = \"{prefix}.events.dlq.v1\"\nusage = \"{prefix}.usage.requests.v1\"\n\
         functions_log = \"{prefix}.functions.log.v1\"\n"
    );
    for (name, seconds) in [("1s", 1), ("2s", 2), ("4s", 4)] {
        text.push_str(&format!(
            "[[topics.retry]]\ntopic = \"{prefix}.events.retry-{name}.v1\"\ndelay_seconds = {seconds}\n"
        ));
    }
    text
}
