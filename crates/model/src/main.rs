//! Runs many seeds and says what broke.

use std::process::ExitCode;

use clap::Parser;
use millrace_model::{Control, Stats, run};

/// The way from journal to table under faults, seed after seed.
#[derive(Debug, Parser)]
#[command(name = "millrace-model")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Also run every negative control, each until it goes wrong.
    #[arg(long)]
    controls: bool,
}

#[expect(
    clippy::print_stdout,
    reason = "a report on the terminal is all that it makes"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut total = Stats::default();
    let mut broken = 0_u64;
    for seed in arguments.from..arguments.from + arguments.seeds {
        match run(seed, Control::None) {
            Ok(stats) => total.add(&stats),
            Err(violation) => {
                broken += 1;
                println!("seed {seed}: {violation}");
            }
        }
    }
    println!("{} seeds, {broken} violations; {total:?}", arguments.seeds);
    if arguments.controls {
        for control in Control::ALL {
            let seeds = arguments.from..arguments.from + arguments.seeds;
            let found = seeds
                .into_iter()
                .find_map(|seed| Some((seed, run(seed, control).err()?)));
            match found {
                Some((seed, violation)) => println!("{control:?}: red at seed {seed}: {violation}"),
                None => {
                    broken += 1;
                    println!("{control:?}: never red");
                }
            }
        }
    }
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
