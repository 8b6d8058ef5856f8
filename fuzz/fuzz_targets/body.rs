//! A request's body: its encoding, its JSON, and every event in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millrace_ingest::fuzzing::body(bytes));
