//! Events into columns and columns into blocks, read back by a strict reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millrace_warehouse::fuzzing::encode(bytes));
