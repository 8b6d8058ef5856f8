//! The recovery of a torn or damaged segment.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory");
    millrace_journal::fuzzing::recovery(directory.path(), bytes);
});
