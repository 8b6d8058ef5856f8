//! The model in short: many seeds without a violation, and none without its protections.
#![expect(clippy::panic, reason = "a broken promise ends the test, with its seed")]

use millrace_model::{Control, Stats, run};

const SEEDS: u64 = 2000;
/// A world without a protection goes wrong at one of these; most do within a hundred.
const CONTROL_SEEDS: u64 = 10_000;

#[test]
fn every_event_is_where_it_belongs_once_whatever_happens_on_its_way() {
    let mut total = Stats::default();
    for seed in 0..SEEDS {
        match run(seed, Control::None) {
            Ok(stats) => total.add(&stats),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{total:?}");
    // A world in which nothing happens proves nothing.
    let happened = [
        total.kills,
        total.stops,
        total.moves,
        total.halves,
        total.recoveries,
        total.duplicates,
        total.deduplicated,
        total.found,
        total.bad_rows,
        total.given_up,
        total.waited_out,
        total.journals,
        total.cuts,
        total.views,
        total.adoptions,
        total.repeats,
        total.lapses,
    ];
    assert!(happened.iter().all(|count| *count > 100), "{total:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..20 {
        assert_eq!(run(seed, Control::None), run(seed, Control::None));
    }
}

#[test]
fn without_any_one_of_the_protections_a_promise_is_broken() {
    let green: Vec<_> = Control::ALL
        .into_iter()
        .filter(|control| (0..CONTROL_SEEDS).all(|seed| run(seed, *control).is_ok()))
        .collect();
    assert!(green.is_empty(), "these are never missed: {green:?}");
}
