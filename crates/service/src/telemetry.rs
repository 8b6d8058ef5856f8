//! Logs to standard error and, when an endpoint is configured, spans over OTLP.

mod traceparent;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{LogFormat, Telemetry as Config};
use crate::process::About;

pub use traceparent::{InvalidTraceparent, Traceparent};

/// How long the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(5);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log level is no filter.
    #[error("the log level is not a filter")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The OTLP endpoint cannot be used.
    #[error("the otlp exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber is there already.
    #[error("logs are set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// What has to be flushed at the end.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Installs the subscriber of this process. Needs a Tokio runtime when an endpoint is configured.
    ///
    /// # Errors
    /// When the filter or the endpoint cannot be used, or a subscriber was installed before.
    pub fn install(config: &Config, about: &About) -> Result<Self, Error> {
        let filter: EnvFilter = config.log_level.parse()?;
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = match config.log_format {
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .boxed(),
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        };
        let provider = config
            .otlp_endpoint
            .as_deref()
            .map(|endpoint| exporter(endpoint, config, about))
            .transpose()?;
        let spans = provider.as_ref().map(|provider| {
            // The exporter's own HTTP/2 client makes spans too; exporting those would never end.
            let ours = filter_fn(|metadata| {
                metadata.is_span()
                    && *metadata.level() <= Level::DEBUG
                    && metadata.target().starts_with("millrace")
            });
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(about.name))
                .with_filter(ours)
        });
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(spans)
            .try_init()?;
        Ok(Self { provider })
    }

    /// Sends the spans that are still here, for at most five seconds.
    ///
    /// # Cancellation
    /// The flush goes on in its thread; only its result is lost.
    pub async fn flush(self) {
        let Some(provider) = self.provider else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not exported"),
            Err(error) => tracing::warn!(%error, "the flush of spans ended early"),
        }
    }
}

fn exporter(endpoint: &str, config: &Config, about: &About) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(about.name)
        .with_attribute(KeyValue::new("service.version", about.version))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .with_sampler(sampler)
        .build())
}
