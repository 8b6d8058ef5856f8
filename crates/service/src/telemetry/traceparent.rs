//! W3C trace context as one string, for HTTP and Kafka headers (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A valid `traceparent`. What follows the four fields of a later version is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

/// Why a text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceparent;

impl Traceparent {
    /// That of `span`; none when no spans are recorded in this process.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span().span_context().clone();
        span.is_valid().then(|| Self {
            trace: span.trace_id(),
            span: span.span_id(),
            flags: span.trace_flags(),
        })
    }

    /// That of the current span.
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// Makes `span` a child of this one. Must come before the span is entered; where no spans are
    /// recorded nothing happens.
    pub fn adopt(&self, span: &Span) {
        let parent = SpanContext::new(self.trace, self.span, self.flags, true, TraceState::default());
        if let Err(error) = span.set_parent(Context::new().with_remote_span_context(parent)) {
            tracing::debug!(%error, "the span keeps a trace of its own");
        }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the flags only `sampled` is known; the others must be sent as zero.
        let sampled = u8::from(self.flags.is_sampled());
        write!(f, "00-{}-{}-{sampled:02x}", self.trace, self.span)
    }
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = text.split('-');
        let mut field = |length: usize| {
            fields
                .next()
                .filter(|field| {
                    field.len() == length
                        && field
                            .bytes()
                            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                })
                .ok_or(InvalidTraceparent)
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return Err(InvalidTraceparent);
        }
        let trace = TraceId::from_hex(trace).map_err(|_| InvalidTraceparent)?;
        let span = SpanId::from_hex(span).map_err(|_| InvalidTraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceparent)?;
        if trace == TraceId::INVALID || span == SpanId::INVALID {
            return Err(InvalidTraceparent);
        }
        Ok(Self {
            trace,
            span,
            flags: TraceFlags::new(flags),
        })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_parsing_and_printing() {
        assert_eq!(TEXT.parse::<Traceparent>().unwrap().to_string(), TEXT);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more";
        assert_eq!(later.parse::<Traceparent>().unwrap().to_string(), TEXT);
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<Traceparent>(), Err(InvalidTraceparent), "{text}");
        }
    }

    #[test]
    fn a_span_that_adopts_a_traceparent_carries_its_trace_on() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let parent: Traceparent = TEXT.parse().unwrap();
        let span = tracing::info_span!("request");
        parent.adopt(&span);
        let child = Traceparent::of(&span).unwrap();
        assert_eq!(child.trace, parent.trace);
        assert_ne!(child.span, parent.span);
    }

    #[test]
    fn without_recorded_spans_there_is_no_traceparent() {
        assert_eq!(Traceparent::current(), None);
    }
}
