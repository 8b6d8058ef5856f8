//! Where the parts of the stack are.

use anyhow::{Context, Result};

/// The variable that names a broker.
pub const KAFKA: &str = "MILLRACE_TEST_KAFKA";
/// The variable that names ClickHouse's HTTP interface.
pub const CLICKHOUSE: &str = "MILLRACE_TEST_CLICKHOUSE";
/// The variable that names the directory of the broker's jars, for tests that stop a broker of their own.
pub const KAFKA_JARS: &str = "MILLRACE_TEST_KAFKA_JARS";

/// The variable that names the directory of the local stack's Python package, which knows how to start a ClickHouse.
pub const PACKAGE: &str = "MILLRACE_TEST_STACK";

/// The value of one of these variables.
///
/// # Errors
/// It is not set: a test without its part fails.
#[expect(
    clippy::disallowed_methods,
    reason = "the address of the test stack is no configuration of a service"
)]
pub fn address(variable: &'static str) -> Result<String> {
    std::env::var(variable)
        .with_context(|| format!("{variable} is not set: this test needs it, see `./dev env`"))
}
