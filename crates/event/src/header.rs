//! Kafka header names, in one place, and the text forms of their values.

/// The identity, as text.
pub const ID: &str = "id";
/// How often the event went round already, decimal; absent means 0.
pub const ATTEMPT: &str = "attempt";
/// When a retry copy is due: RFC 3339.
pub const DUE_AT: &str = "due-at";
/// The stage that failed: `ingest`, `rotor` or `bulker`.
pub const STAGE: &str = "stage";
/// The workspace, so that dead letters can be filtered without reading their values.
pub const WORKSPACE: &str = "workspace";
/// A code of [`crate::code`].
pub const ERROR_CODE: &str = "error-code";
/// What went wrong, for people; never a value of the event.
pub const ERROR_MESSAGE: &str = "error-message";
/// The field that did not fit.
pub const ERROR_FIELD: &str = "error-field";
/// The frames of the functions' own code, innermost first, one on a line.
pub const ERROR_STACK: &str = "error-stack";
/// The function that failed.
pub const FUNCTION: &str = "function";
/// Its version, decimal.
pub const FUNCTION_VERSION: &str = "function-version";
/// The table a row was meant for, `database.table`.
pub const TABLE: &str = "table";
/// Which of the event's rows it is, decimal.
pub const SUB: &str = "sub";
/// When it failed: RFC 3339.
pub const FAILED_AT: &str = "failed-at";
/// Topic of the record that failed.
pub const ORIGIN_TOPIC: &str = "origin-topic";
/// Partition of the record that failed, decimal.
pub const ORIGIN_PARTITION: &str = "origin-partition";
/// Offset of the record that failed, decimal.
pub const ORIGIN_OFFSET: &str = "origin-offset";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The names that Kafka Connect's tools read on dead letters.
pub mod connect {
    /// Topic of the record that failed.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// Partition of the record that failed, decimal.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// Offset of the record that failed, decimal.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// The stage that failed.
    pub const STAGE: &str = "__connect.errors.stage";
    /// The error's code, in the place of a class name.
    pub const CLASS_NAME: &str = "__connect.errors.exception.class.name";
    /// The error's message.
    pub const MESSAGE: &str = "__connect.errors.exception.message";
    /// The error's frames.
    pub const STACKTRACE: &str = "__connect.errors.exception.stacktrace";
}

/// Headers of one record, in order; a name may stand more than once, the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Adds a header, for chains.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.push(name, value);
        self
    }

    /// The value of the last header of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// As [`Self::get`], where the value is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_header_of_a_name_counts() {
        let headers = Headers::new().with(ID, "a").with(ATTEMPT, "1").with(ID, "b");
        assert_eq!(headers.text(ID), Some("b"));
        assert_eq!(headers.text(TABLE), None);
        assert_eq!(headers.size(), 2 + 1 + 7 + 1 + 2 + 1);
    }
}
