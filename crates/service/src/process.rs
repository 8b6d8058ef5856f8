//! The `main` that all services share.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use prometheus_client::metrics::info::Info;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::admin::{Admin, Readiness, Server};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{self, ProcessConfiguration, Sources};
use crate::metrics::Metrics;
use crate::processor;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

/// `EX_USAGE` of sysexits: the command line or the configuration cannot be used.
const EXIT_USAGE: u8 = 64;
/// Blocking work may outlive the service by this much before the process ends without it.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// Which program this is.
#[derive(Clone, Debug)]
pub struct About {
    /// The name of the binary, such as `millrace-ingest`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The commit it was built from, where the build knew (`MILLRACE_GIT`).
    pub git: Option<&'static str>,
    extra: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl About {
    /// Name and version, usually `env!("CARGO_PKG_NAME")` and `env!("CARGO_PKG_VERSION")`.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            git: option_env!("MILLRACE_GIT"),
            extra: Arc::default(),
        }
    }

    /// Adds a field to `/version`, such as the engine of the rotor.
    pub fn set(&self, key: &'static str, value: impl Into<String>) {
        self.extra
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, value.into());
    }
}

impl Serialize for About {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extra = self.extra.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("version", self.version)?;
        map.serialize_entry("git", &self.git)?;
        for (key, value) in extra.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The command line of a service.
#[derive(Clone, Debug, Default, clap::Parser)]
pub struct Options {
    /// TOML file with the configuration; the environment (`MILLRACE__SECTION__KEY`) wins over it.
    #[arg(long, value_name = "FILE", env = "MILLRACE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the effective configuration, secrets redacted, and exit: 0 when it can be used, 64 when not.
    #[arg(long)]
    pub check_config: bool,
}

/// What a service is handed.
#[derive(Debug)]
pub struct Context<C> {
    /// Its configuration, checked.
    pub config: C,
    /// Which program this is; add to it what `/version` should show.
    pub about: About,
    /// Tells when to end. A service returns once it has drained.
    pub shutdown: Shutdown,
    /// A service must call [`Readiness::started`] once its conditions are registered.
    pub readiness: Readiness,
    /// Where its metrics are registered.
    pub metrics: Metrics,
    /// The admin routes, for a service that serves them on its own port.
    pub admin: Admin,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Runs a service: command line, configuration, telemetry, admin port, signals, and `service` itself.
///
/// Exits 0 when `service` returns in time, 1 when it fails or overruns the deadline, 64 when the command
/// line or the configuration cannot be used.
pub fn run<C, F, S>(about: About, service: F) -> ExitCode
where
    C: ProcessConfiguration,
    F: FnOnce(Context<C>) -> S,
    S: Future<Output = anyhow::Result<()>>,
{
    if !processor::suffices() {
        return ExitCode::FAILURE;
    }
    let parsed = Options::command()
        .name(about.name)
        .version(about.version)
        .try_get_matches()
        .and_then(|matches| Options::from_arg_matches(&matches));
    match parsed {
        Ok(options) => run_with(about, options, service),
        Err(error) => {
            let printed = error.print();
            if error.use_stderr() || printed.is_err() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

/// [`run`] for a program that reads its command line itself.
pub fn run_with<C, F, S>(about: About, options: Options, service: F) -> ExitCode
where
    C: ProcessConfiguration,
    F: FnOnce(Context<C>) -> S,
    S: Future<Output = anyhow::Result<()>>,
{
    let configuration = match config::load::<C>(&Sources::new(options.config)) {
        Ok(configuration) => configuration,
        Err(faults) => return end_early(&faults.to_string(), EXIT_USAGE),
    };
    if options.check_config {
        return match config::render(&configuration) {
            Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            },
            Err(error) => end_early(&error.to_string(), 1),
        };
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end_early(&format!("no runtime: {error}"), 1),
    };
    let code = runtime.block_on(Box::pin(supervise(about, configuration, service)));
    runtime.shutdown_timeout(RUNTIME_END);
    code
}

async fn supervise<C, F, S>(about: About, configuration: C, service: F) -> ExitCode
where
    C: ProcessConfiguration,
    F: FnOnce(Context<C>) -> S,
    S: Future<Output = anyhow::Result<()>>,
{
    let telemetry = match Telemetry::install(configuration.telemetry(), &about) {
        Ok(telemetry) => telemetry,
        Err(error) => return end_early(&Causes(&error).to_string(), 1),
    };
    if let Err(fault) = crate::failpoint::install() {
        return end_early(&format!("{}: {fault}", crate::failpoint::VARIABLE), EXIT_USAGE);
    }
    log_panics();
    tracing::info!(
        name = about.name,
        version = about.version,
        git = about.git,
        "starting"
    );

    let shutdown = Shutdown::new(configuration.shutdown().deadline);
    let signals = shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = signals.on_signals().await {
            tracing::error!(%error, "signals are not handled, the process can only be killed");
        }
    });

    let outcome = Box::pin(serve(about, configuration, shutdown, service)).await;
    let code = match outcome {
        Ok(()) => {
            tracing::info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended by a failure");
            ExitCode::FAILURE
        }
    };
    telemetry.flush().await;
    code
}

async fn serve<C, F, S>(about: About, config: C, shutdown: Shutdown, service: F) -> anyhow::Result<()>
where
    C: ProcessConfiguration,
    F: FnOnce(Context<C>) -> S,
    S: Future<Output = anyhow::Result<()>>,
{
    let metrics = Metrics::default();
    let labels = vec![("name", about.name), ("version", about.version)];
    metrics.register(|registry| registry.register("build", "The program that runs", Info::new(labels)));
    let readiness = Readiness::default();
    let admin = Admin::new(about.clone(), readiness.clone(), metrics.clone());
    if let Some(address) = config.admin().listen {
        let server = Server::bind(admin.clone(), address).await;
        let server = server.context("admin.listen cannot be used")?;
        let address = server.address()?;
        tracing::info!(%address, "admin routes are served");
        tokio::spawn(server.serve());
    }
    let drain = (shutdown.clone(), readiness.clone());
    tokio::spawn(async move {
        drain.0.requested().await;
        drain.1.draining();
    });

    let overdue = shutdown.clone();
    let deadline = shutdown.deadline();
    #[cfg(all(feature = "failpoints", debug_assertions))]
    let clock = crate::clock::stepped::of_this_process();
    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    let clock = Arc::new(crate::clock::SystemClock);
    let context = Context {
        config,
        about,
        shutdown,
        readiness,
        metrics,
        admin,
        clock,
    };
    tokio::select! {
        ended = Box::pin(service(context)) => ended,
        () = overdue.overdue() => anyhow::bail!("not drained within {deadline:?}"),
    }
}

/// A panic is a bug; it must be seen where everything else is seen.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(message, location, %backtrace, "panicked");
    }));
}

fn end_early(message: &str, code: u8) -> ExitCode {
    // Standard error is all there is before logs are set up; when it is closed nobody can be told.
    drop(writeln!(std::io::stderr(), "{message}"));
    ExitCode::from(code)
}
