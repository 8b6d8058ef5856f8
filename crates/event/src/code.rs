//! The closed lists: verdicts, key kinds and error codes, with the one spelling each has on the wire.

use serde::{Deserialize, Serialize};

macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The spelling on the wire, in headers, columns and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = Unknown;

            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(Unknown(stringify!($name))),
                }
            }
        }
    };
}

/// A text that is not in the named list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known {0}")]
pub struct Unknown(&'static str);

closed_list! {
    /// What was decided about one event.
    Verdict {
        /// It goes on as one or many rows.
        Forward = "forward",
        /// A function dropped it on purpose.
        Drop = "drop",
        /// It goes round again through a retry topic.
        Retry = "retry",
        /// It is set aside in the dead-letter topic.
        DeadLetter = "dead_letter",
    }
}

closed_list! {
    /// What a write key may do.
    KeyKind {
        /// Held by a server, secret required.
        Server = "server",
        /// Public, in a page or an app; bound to origins.
        Browser = "browser",
        /// For history: late events are welcome.
        Import = "import",
    }
}

closed_list! {
    /// Why a function did not give a result.
    FunctionCode {
        /// It threw.
        Thrown = "thrown",
        /// It returned something that is not an event.
        InvalidReturn = "invalid_return",
        /// Its result is larger than allowed, or has too many events.
        OutputLimit = "output_limit",
        /// It used more CPU than allowed.
        CpuLimit = "cpu_limit",
        /// It took longer than allowed.
        WallLimit = "wall_limit",
        /// It used more heap than allowed.
        HeapLimit = "heap_limit",
        /// It had more promises pending than allowed.
        PromiseLimit = "promise_limit",
        /// Its worker process grew past its memory cap.
        RssLimit = "rss_limit",
        /// Its worker process died.
        WorkerCrashed = "worker_crashed",
        /// Its promise can never settle.
        Unsettled = "unsettled",
        /// It is held back after killing too many workers.
        Quarantined = "quarantined",
        /// What should run could not be found out.
        Configuration = "configuration",
        /// Its code does not load.
        CompileError = "compile_error",
    }
}

closed_list! {
    /// Why the gateway refused a request or an event.
    IngestCode {
        /// The body is not JSON of the expected shape.
        InvalidJson = "invalid_json",
        /// No such write key, or a wrong secret.
        InvalidWriteKey = "invalid_write_key",
        /// The key does not allow this origin.
        OriginNotAllowed = "origin_not_allowed",
        /// The body is over its limit.
        BodyTooLarge = "body_too_large",
        /// One event is over its limit.
        EventTooLarge = "event_too_large",
        /// A batch has too many events.
        TooManyEvents = "too_many_events",
        /// The request did not arrive in time.
        Timeout = "timeout",
        /// The event is older than a live key may send.
        LateEvent = "late_event",
        /// A field that must be there is not.
        MissingField = "missing_field",
        /// A field has another type than the workspace knows.
        TypeConflict = "type_conflict",
        /// Both names of a renamed field are there, with different values.
        AliasConflict = "alias_conflict",
        /// A browser sent a name that is not its to send.
        ReservedField = "reserved_field",
        /// The workspace has no room for another field.
        TooManyFields = "too_many_fields",
        /// The event breaks another rule, named in the message.
        InvalidEvent = "invalid_event",
        /// Too many events in too little time.
        RateLimited = "rate_limited",
        /// The journal cannot take more.
        JournalFull = "journal_full",
        /// Kafka has not taken the events in time; a repeat learns whether it has.
        Unacknowledged = "unacknowledged",
        /// The key cannot be looked up now.
        KeyLookupUnavailable = "key_lookup_unavailable",
        /// The process is shutting down.
        Draining = "draining",
        /// No such path.
        NotFound = "not_found",
        /// The path has other methods.
        MethodNotAllowed = "method_not_allowed",
    }
}

closed_list! {
    /// Why the bulker could not write a row.
    RowCode {
        /// A value does not fit the stored type of its column.
        ColumnConflict = "column_conflict",
        /// The record is not a transformed envelope of a known version.
        InvalidRecord = "invalid_record",
        /// The row breaks a rule of its table that only the server knows.
        RowRejected = "row_rejected",
        /// The table cannot be written, for longer than retries last.
        TableFailing = "table_failing",
        /// The copy to be written is larger than its topic takes.
        CopyTooLarge = "copy_too_large",
        /// The last retry tier was reached.
        RetriesExhausted = "retries_exhausted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_spelling_and_from_json() {
        for code in IngestCode::ALL {
            assert_eq!(code.as_str().parse::<IngestCode>(), Ok(*code));
            assert_eq!(serde_json::to_string(code).expect("plain"), format!("\"{code}\""));
        }
        for code in FunctionCode::ALL {
            assert_eq!(code.as_str().parse::<FunctionCode>(), Ok(*code));
            assert_eq!(serde_json::to_string(code).expect("plain"), format!("\"{code}\""));
        }
    }

    #[test]
    fn the_wire_spelling_of_a_verdict_uses_an_underscore() {
        assert_eq!("dead_letter".parse::<Verdict>(), Ok(Verdict::DeadLetter));
        assert!("dead-letter".parse::<Verdict>().is_err());
    }
}
