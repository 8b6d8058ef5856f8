//! What every Millrace process shares: configuration, telemetry, the admin routes, shutdown, the clock.
//!
//! [`run`] is the whole `main` of a service: it reads the command line and the configuration, installs
//! logs and traces, serves the admin routes, listens for signals and hands the service a [`Context`].
//! Nothing here knows what a service does, and nothing here is a global except the log subscriber.

pub mod admin;
pub mod causes;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod listen;
pub mod metrics;
pub mod process;
pub mod processor;
pub mod shutdown;
pub mod telemetry;

pub use admin::{Admin, Condition, Readiness};
pub use causes::Causes;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Configuration, ProcessConfiguration};
pub use metrics::Metrics;
pub use process::{About, Context, Options, run, run_with};
pub use shutdown::Shutdown;
pub use telemetry::Traceparent;
