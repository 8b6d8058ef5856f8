//! What a phase came to, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// What a phase came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// Active workspaces.
    pub workspaces: u64,
    /// Events that were acknowledged, of all workspaces.
    pub accepted: u64,
    /// Inserts that the bulker made while events were sent.
    pub inserts_a_second: f64,
    /// Events of watched, sound workspaces that did not arrive.
    pub missing: u64,
    /// Events of all workspaces that were in no table when those of the watched, sound ones were: of the broken ones, and
    /// of those that nobody watches.
    pub held_back: u64,
    /// From acknowledgement to being found, of watched, sound workspaces; ascending.
    pub ages: Vec<Duration>,
    /// Rows that are there more than once.
    pub repeated: u64,
}

impl Measured {
    /// The age that `hundredths` of a hundred events did not pass, in seconds.
    fn percentile(&self, hundredths: usize) -> f64 {
        let last = self.ages.len().saturating_sub(1);
        let at = (self.ages.len() * hundredths)
            .div_ceil(100)
            .saturating_sub(1)
            .min(last);
        self.ages.get(at).map_or(0.0, Duration::as_secs_f64)
    }
}

/// Whether everything arrived once, and no phase was more than `most` times as slow as the first.
pub fn is_sound(phases: &[Measured], most: f64) -> bool {
    let all = phases
        .iter()
        .all(|phase| phase.missing == 0 && phase.repeated == 0);
    let first = phases.first().map_or(0.0, |phase| phase.percentile(99));
    all && phases.iter().all(|phase| phase.percentile(99) <= most * first)
}

/// For people.
pub fn as_text(phases: &[Measured], most: f64) -> String {
    let mut text = String::from(
        "| phase | workspaces | accepted | inserts/s | p50 | p90 | p99 | max | held back | missing | repeated |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for phase in phases {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|hundredths| phase.percentile(hundredths));
        let ages = match phase.ages.is_empty() {
            true => "– | – | – | –".to_owned(),
            false => format!("{p50:.2} s | {p90:.2} s | {p99:.2} s | {max:.2} s"),
        };
        text.push_str(&format!(
            "| {} | {} | {} | {:.0} | {ages} | {} | {} | {} |\n",
            phase.name,
            phase.workspaces,
            phase.accepted,
            phase.inserts_a_second,
            phase.held_back,
            phase.missing,
            phase.repeated
        ));
    }
    if let [first, second, ..] = phases {
        let ratio = second.percentile(99) / first.percentile(99).max(f64::MIN_POSITIVE);
        text.push_str(&format!(
            "the others' p99 beside two broken ones: {ratio:.2} times, {most} are allowed\n"
        ));
    }
    text
}

/// For programs.
pub fn as_json(phases: &[Measured], sound: bool) -> Value {
    let phase = |phase: &Measured| {
        json!({
            "phase": phase.name, "workspaces": phase.workspaces, "accepted": phase.accepted,
            "inserts_a_second": phase.inserts_a_second, "measured": phase.ages.len(),
            "p50_seconds": phase.percentile(50), "p90_seconds": phase.percentile(90),
            "p99_seconds": phase.percentile(99), "max_seconds": phase.percentile(100),
            "held_back": phase.held_back, "missing": phase.missing, "repeated": phase.repeated,
        })
    };
    json!({ "ok": sound, "phases": phases.iter().map(phase).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ages: impl IntoIterator<Item = u64>) -> Measured {
        Measured {
            name: "all sound",
            workspaces: 20,
            accepted: 100,
            inserts_a_second: 10.0,
            missing: 0,
            held_back: 0,
            ages: ages.into_iter().map(Duration::from_secs).collect(),
            repeated: 0,
        }
    }

    #[test]
    fn a_percentile_is_the_age_that_so_many_of_a_hundred_events_did_not_pass() {
        let phase = measured(1..=200);
        assert_eq!(
            [50, 99, 100].map(|hundredths| phase.percentile(hundredths)),
            [100.0, 198.0, 200.0]
        );
        assert_eq!(measured([7]).percentile(50), 7.0);
        assert_eq!(measured([]).percentile(99), 0.0);
    }

    #[test]
    fn a_run_is_sound_while_all_arrive_once_and_the_others_are_at_most_twice_as_slow() {
        let (first, twice, slower) = (measured([1]), measured([2]), measured([3]));
        assert!(is_sound(&[first.clone(), twice], 2.0));
        assert!(!is_sound(&[first.clone(), slower], 2.0));
        let lost = Measured {
            missing: 1,
            ..first.clone()
        };
        assert!(!is_sound(&[lost], 2.0));
        let doubled = Measured { repeated: 1, ..first };
        assert!(!is_sound(&[doubled], 2.0));
    }
}
