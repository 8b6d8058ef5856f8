//! Frames from a worker process, as the rotor reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millrace_event::frame::fuzzing::frames(bytes));
