//! Named steps at which a test ends, stops or fails a real process.
//!
//! A site is one line, `failpoint!("bulker::after_plan")`, and does nothing until the process is started with
//! `FAILPOINTS="name=action;name=action"` in its environment. An action is written as the `fail` crate does:
//!
//! | action | at the site |
//! |---|---|
//! | `return(kill)` | the process ends by SIGKILL |
//! | `return(pause:1500)` | the task, or at a site that is not async the thread, waits 1,500 ms |
//! | `return(error)` | the site's own error; does nothing at a site that has none |
//! | `3*off->1*return(kill)` | the fourth time only |
//! | `20%return(error)` | one time in five |
//!
//! Each hit is logged as `failpoint hit` with its name and action. A name that is not in [`NAMES`] does not compile
//! at a site, and in the environment it is refused at the start of the process.
//!
//! Only builds with the feature `failpoints` **and** debug assertions have any of this: a release build has neither
//! the names nor the code, and says at its start that it ignores the variable.

use std::time::Duration;

/// The variable that arms failpoints.
pub const VARIABLE: &str = "FAILPOINTS";

/// The variable that names the file with the milliseconds by which a process's wall clock is off.
pub const CLOCK: &str = "FAILPOINT_CLOCK";

/// Every site, in the order in which an event meets them.
pub const NAMES: &[&str] = &[
    "ingest::in_recovery",
    "ingest::in_new_segment",
    "ingest::before_settle",
    "ingest::answer_first",
    "ingest::before_append",
    "ingest::after_write",
    "ingest::in_sync",
    "ingest::after_sync",
    "ingest::before_mark",
    "ingest::after_ship",
    "ingest::before_positions",
    "ingest::before_delete",
    "ingest::in_delete",
    "rotor::before_produce",
    "rotor::after_produce",
    "rotor::after_commit",
    "bulker::before_plan",
    "bulker::after_plan",
    "bulker::before_insert",
    "bulker::insert_checked",
    "bulker::after_insert",
    "bulker::after_outcomes",
    "bulker::before_copies",
    "bulker::after_copies",
    "bulker::after_naming",
    "bulker::after_giving_up",
    "bulker::before_commit",
    "bulker::after_commit",
    // Negative controls: what a protection is for must go wrong without it.
    "control::question",
    "control::token",
];

/// Whether this build has failpoints.
pub const BUILT_IN: bool = cfg!(all(feature = "failpoints", debug_assertions));

/// What an armed site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the process by SIGKILL.
    Kill,
    /// Waits.
    Pause(Duration),
    /// Takes the site's error, where it has one.
    Error,
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "kill" => Ok(Self::Kill),
            None if text == "error" => Ok(Self::Error),
            Some(("pause", milliseconds)) => milliseconds
                .parse()
                .map(|milliseconds| Self::Pause(Duration::from_millis(milliseconds)))
                .map_err(|error| format!("{text}: the milliseconds are none: {error}")),
            _ => Err(format!("{text} is none of kill, pause:MILLISECONDS, error")),
        }
    }
}

/// Whether `name` is a site. Sites ask while they are compiled.
pub const fn is_known(name: &str) -> bool {
    let mut index = 0;
    while index < NAMES.len() {
        if same(NAMES[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Every `name=action` of the variable's value, checked without arming anything.
///
/// # Errors
/// A name that is no site, or what an action returns is none of [`Action`]; says which.
pub fn check(value: &str) -> Result<Vec<(String, String)>, String> {
    let parts = value.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, actions) = part
                .split_once('=')
                .ok_or_else(|| format!("{part} is no name=action"))?;
            if !is_known(name) {
                return Err(format!("{name} is no failpoint; there are {}", NAMES.join(", ")));
            }
            for action in actions.split("->") {
                let argument = action
                    .split_once("return(")
                    .map(|(_, rest)| rest.trim_end_matches(')'));
                match argument {
                    Some(argument) => drop(argument.parse::<Action>()?),
                    None if action.ends_with("off") => {}
                    None => return Err(format!("{name}: {action} is neither off nor return(…)")),
                }
            }
            Ok((name.to_owned(), actions.to_owned()))
        })
        .collect()
}

#[cfg(all(feature = "failpoints", debug_assertions))]
mod armed {
    use super::{Action, VARIABLE, check};

    /// Arms what the environment names. Called once, at the start of a process.
    ///
    /// # Errors
    /// The variable cannot be used; says why.
    pub(crate) fn install() -> Result<(), String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "failpoints are no configuration: only tests set them"
        )]
        let value = std::env::var(VARIABLE).unwrap_or_default();
        for (name, actions) in check(&value)? {
            fail::cfg(name.as_str(), &actions).map_err(|error| format!("{name}={actions}: {error}"))?;
        }
        Ok(())
    }

    /// What the site is to do now; a kill is carried out here.
    fn taken(name: &'static str) -> Option<Action> {
        let argument = fail::eval(name, |argument| argument)??;
        let action: Action = argument.parse().ok()?;
        tracing::warn!(name, action = argument, "failpoint hit");
        if action == Action::Kill {
            let own = rustix::process::getpid();
            // Nothing after it runs.
            if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
                tracing::error!(%error, "the process could not kill itself");
            }
        }
        Some(action)
    }

    /// A number that nobody else in this process got.
    pub fn fresh() -> u32 {
        static LAST: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }

    /// A site that is not async; true where it is to fail.
    pub fn hit(name: &'static str) -> bool {
        match taken(name) {
            Some(Action::Pause(time)) => {
                std::thread::sleep(time);
                false
            }
            action => action == Some(Action::Error),
        }
    }

    /// An async site; true where it is to fail.
    ///
    /// # Cancellation
    /// Ends a pause.
    pub async fn reached(name: &'static str) -> bool {
        match taken(name) {
            Some(Action::Pause(time)) => {
                tokio::time::sleep(time).await;
                false
            }
            action => action == Some(Action::Error),
        }
    }
}

#[cfg(all(feature = "failpoints", debug_assertions))]
pub(crate) use armed::install;
#[cfg(all(feature = "failpoints", debug_assertions))]
#[doc(hidden)]
pub use armed::{fresh, hit, reached};

/// A build without failpoints says that it has none, so that nobody takes a run for a proof.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
pub(crate) fn install() -> Result<(), String> {
    if std::env::var_os(VARIABLE).is_some() {
        tracing::warn!(variable = VARIABLE, "ignored: this build has no failpoints");
    }
    Ok(())
}

/// A step at which a test may end, stop or fail the process; see the module [`failpoint`](crate::failpoint).
///
/// `failpoint!("name")`, and inside async code `failpoint!(async "name")`; with `, return …` at the end the site
/// can fail too.
#[cfg(all(feature = "failpoints", debug_assertions))]
#[macro_export]
macro_rules! failpoint {
    (async $name:literal) => {{
        const _: () = assert!($crate::failpoint::is_known($name), "not in failpoint::NAMES");
        let _: bool = $crate::failpoint::reached($name).await;
    }};
    (async $name:literal, return $failed:expr) => {{
        const _: () = assert!($crate::failpoint::is_known($name), "not in failpoint::NAMES");
        if $crate::failpoint::reached($name).await {
            return $failed;
        }
    }};
    ($name:literal) => {{
        const _: () = assert!($crate::failpoint::is_known($name), "not in failpoint::NAMES");
        let _: bool = $crate::failpoint::hit($name);
    }};
    ($name:literal, return $failed:expr) => {{
        const _: () = assert!($crate::failpoint::is_known($name), "not in failpoint::NAMES");
        if $crate::failpoint::hit($name) {
            return $failed;
        }
    }};
}

/// This build has no failpoints.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[macro_export]
macro_rules! failpoint {
    ($($site:tt)*) => {};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_and_an_unknown_action_are_refused_with_what_there_is() {
        let unknown = check("bulker::nowhere=return(kill)").expect_err("refused");
        assert!(unknown.contains("bulker::nowhere") && unknown.contains("bulker::after_insert"));
        let action = check("bulker::after_plan=return(explode)").expect_err("refused");
        assert!(action.contains("explode") && action.contains("pause:MILLISECONDS"));
        assert!(check("bulker::after_plan").is_err());
        assert!(check("bulker::after_plan=panic").is_err());
        let good = check("bulker::after_plan=2*off->1*return(kill); rotor::after_produce=5%return(pause:20)");
        assert_eq!(good.expect("good").len(), 2);
        assert_eq!("pause:20".parse(), Ok(Action::Pause(Duration::from_millis(20))));
    }

    /// A name without a site would make a test wait for nothing.
    #[test]
    fn every_name_has_a_site_and_every_site_a_name() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = std::collections::BTreeSet::new();
        let mut folders = vec![root.join("services"), root.join("crates")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("it is there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).expect("text");
                    found.extend(sites(&text));
                }
            }
        }
        let listed = NAMES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(found, listed);
    }

    /// What `failpoint!("…"` and `failpoint!(async "…"` name; the examples of this module's documentation are none.
    fn sites(text: &str) -> Vec<String> {
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let site = |after: &str| {
            let after = after.trim_start().trim_start_matches("async ").trim_start();
            let (name, _) = after.strip_prefix('"')?.split_once('"')?;
            name.contains("::").then(|| name.to_owned())
        };
        code.split("failpoint!(").skip(1).filter_map(site).collect()
    }
}
