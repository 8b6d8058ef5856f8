//! An error with all that is behind it, in one line.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes, joined by colons. Errors show themselves only, so this is what is logged, once,
/// where an error is handled.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the batch was not sent")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_shown_once() {
        let error = Outer(std::io::Error::other("connection refused"));
        assert_eq!(
            Causes(&error).to_string(),
            "the batch was not sent: connection refused"
        );
    }
}
