//! What stands in front of a body: path, query, write keys, forwarded addresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millrace_ingest::fuzzing::head(bytes));
