//! Whether this processor has the instructions that the program was compiled with.
//!
//! A program compiled for `x86-64-v3` ends on an older processor with SIGILL, at whatever instruction comes first.
//! The check runs before anything else does and names what is missing. It asks the processor itself, since
//! `is_x86_feature_detected!` answers yes without asking for everything that the compiler was allowed to use.

use std::io::Write as _;

/// Instructions that programs may be compiled with, by name, and whether this program was.
#[derive(Debug)]
struct Feature {
    name: &'static str,
    needed: bool,
    has: fn(&Processor) -> bool,
}

/// What CPUID says.
#[derive(Clone, Copy, Debug, Default)]
struct Processor {
    /// Leaf 1, ECX.
    basic: u32,
    /// Leaf 7, EBX.
    extended: u32,
    /// Leaf 8000_0001h, ECX.
    amd: u32,
}

macro_rules! features {
    ($($name:tt: $register:ident $bit:literal),* $(,)?) => {
        [$(Feature {
            name: $name,
            needed: cfg!(target_feature = $name),
            has: |processor| processor.$register & (1 << $bit) != 0,
        }),*]
    };
}

/// What x86-64-v2 and x86-64-v3 add, by Rust's names.
const FEATURES: [Feature; 14] = features! {
    "sse3": basic 0,
    "ssse3": basic 9,
    "fma": basic 12,
    "cmpxchg16b": basic 13,
    "sse4.1": basic 19,
    "sse4.2": basic 20,
    "movbe": basic 22,
    "popcnt": basic 23,
    "avx": basic 28,
    "f16c": basic 29,
    "bmi1": extended 3,
    "avx2": extended 5,
    "bmi2": extended 8,
    "lzcnt": amd 5,
};

/// Says on standard error what this processor lacks, if anything; `false` then, and the program has to end.
#[must_use]
#[inline(never)]
pub fn suffices() -> bool {
    let processor = asked();
    let mut lacking = FEATURES
        .iter()
        .filter(|feature| feature.needed && !(feature.has)(&processor));
    let Some(first) = lacking.next() else { return true };
    let mut error = std::io::stderr();
    // Nobody is left to tell when standard error is closed.
    drop(error.write_all(b"this program was compiled for newer processors; this one lacks "));
    drop(error.write_all(first.name.as_bytes()));
    for feature in lacking {
        drop(error.write_all(b", "));
        drop(error.write_all(feature.name.as_bytes()));
    }
    drop(error.write_all(b". Build for it with `./dev cpu=x86-64 build-release`\n"));
    false
}

#[cfg(target_arch = "x86_64")]
fn asked() -> Processor {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let (highest, highest_extended) = (__cpuid(0).eax, __cpuid(0x8000_0000).eax);
    Processor {
        basic: __cpuid(1).ecx,
        extended: if highest >= 7 { __cpuid_count(7, 0).ebx } else { 0 },
        amd: if highest_extended > 0x8000_0000 {
            __cpuid(0x8000_0001).ecx
        } else {
            0
        },
    }
}

/// Elsewhere none of these is needed.
#[cfg(not(target_arch = "x86_64"))]
fn asked() -> Processor {
    Processor::default()
}
