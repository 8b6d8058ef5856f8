//! Where Redis is, and a prefix that keeps one test's keys from another's.

use anyhow::{Context, Result};
use uuid::Uuid;

/// The variable that names the server.
pub const VARIABLE: &str = "MILLRACE_TEST_REDIS";

/// The address of the server, `redis://…`.
///
/// # Errors
/// When the variable is missing: a test without its server fails.
#[expect(
    clippy::disallowed_methods,
    reason = "the address of the test stack is no configuration of a service"
)]
pub fn url() -> Result<String> {
    std::env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set: this test needs Redis, see `./dev env`"))
}

/// A prefix for keys that no other test has.
pub fn prefix() -> String {
    format!("test:{}:", Uuid::new_v4().simple())
}
