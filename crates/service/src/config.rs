//! Configuration: defaults < TOML file < environment.
//!
//! A process has one plain struct that derives `Serialize` and `Deserialize` with
//! `#[serde(default, deny_unknown_fields)]`; its `Default` is the lowest layer. The environment names a
//! key as `MILLRACE__SECTION__KEY`. A secret comes from the environment, or from the file that
//! `<key>_file` names, never from the TOML file itself. Every fault is found and reported together.

mod fault;
mod secret;
mod sections;
mod size;
mod sources;
mod unknown;

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use fault::{Fault, Faults};
pub use secret::{REDACTED, Secret, ServiceUrl};
pub use sections::{Admin, ClickHouse, Kafka, LogFormat, Postgres, Redis, Shutdown, Telemetry, list};
pub use size::{ByteSize, InvalidSize};
pub use sources::Sources;

use sources::{Origin, Override};

/// The configuration of a process.
pub trait Configuration: Default + Serialize + DeserializeOwned {
    /// Reports what types cannot say: ranges, and keys that contradict each other.
    fn check(&self, faults: &mut Faults);
}

/// The configuration of a process that [`crate::run`] runs.
pub trait ProcessConfiguration: Configuration {
    /// `[admin]`
    fn admin(&self) -> &Admin;
    /// `[telemetry]`
    fn telemetry(&self) -> &Telemetry;
    /// `[shutdown]`
    fn shutdown(&self) -> &Shutdown;
}

/// Loads a configuration from its sources.
///
/// # Errors
/// With every fault of the file, the environment and the values, each naming its key.
pub fn load<T: Configuration>(sources: &Sources) -> Result<T, Faults> {
    let mut faults = Faults::default();
    let defaults = match Defaults::of::<T>() {
        Ok(defaults) => defaults,
        Err(error) => {
            faults.add("defaults", error.to_string());
            return Err(faults);
        }
    };
    let mut accepted = defaults.layer.clone();
    let mut given = BTreeSet::new();
    for mut entry in sources.overrides(&mut faults) {
        match defaults.admit::<T>(&mut entry) {
            Ok(Admission::Take) => {
                given.insert(entry.path.clone());
                accepted = accepted.set(entry);
            }
            Ok(Admission::Elsewhere) => {}
            Err(reason) => faults.push(entry.path, entry.origin, reason),
        }
    }
    match accepted.build::<T>() {
        Ok(loaded) => {
            loaded.check(&mut faults);
            faults.into_result(loaded)
        }
        Err(error) => {
            // Each value was accepted alone, so this is a conflict; when faults were found already they explain it.
            if faults.is_empty() {
                let keys = given.into_iter().collect::<Vec<_>>().join(", ");
                faults.add(keys, error.to_string());
            }
            Err(faults)
        }
    }
}

/// The effective configuration as TOML, secrets redacted.
///
/// # Errors
/// When the struct cannot be written as TOML.
pub fn render<T: Serialize>(configuration: &T) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(configuration)
}

enum Admission {
    Take,
    /// A shared section that this process does not have.
    Elsewhere,
}

struct Defaults {
    layer: Layer,
    tree: Value,
    shared: Value,
}

impl Defaults {
    fn of<T: Configuration>() -> Result<Self, Box<dyn std::error::Error>> {
        let defaults = T::default();
        Ok(Self {
            layer: Layer::over(config::Config::try_from(&defaults)?),
            tree: serde_json::to_value(&defaults)?,
            shared: serde_json::to_value(sections::All::default())?,
        })
    }

    /// Tries one override alone on the defaults, so that one fault never hides another.
    fn admit<T: Configuration>(&self, entry: &mut Override) -> Result<Admission, String> {
        if let Some(target) = self.secret_file_target(&entry.path) {
            entry.read_file(target)?;
        }
        if !may_exist(&self.tree, &entry.path) {
            let elsewhere = may_exist(
                &self.shared,
                entry.path.strip_suffix("_file").unwrap_or(&entry.path),
            );
            return if elsewhere && section_is_missing(&self.tree, &entry.path) {
                Ok(Admission::Elsewhere)
            } else {
                Err(unknown::key(&self.tree, &entry.path))
            };
        }
        let alone: T = self
            .layer
            .clone()
            .set(entry.clone())
            .build()
            .map_err(|error| self.refused(&entry.path, &error))?;
        let tree = serde_json::to_value(&alone).map_err(|error| error.to_string())?;
        let Some(shown) = lookup(&tree, &entry.path) else {
            return Err(unknown::key(&self.tree, &entry.path));
        };
        if matches!(entry.origin, Origin::File(_))
            && shown.as_str().is_some_and(|text| text.contains(REDACTED))
        {
            let (name, path) = (Origin::environment_name(&entry.path), &entry.path);
            return Err(format!(
                "a secret does not belong in this file: set {name}, or {path}_file"
            ));
        }
        Ok(Admission::Take)
    }

    /// What is wrong with a value, and one that would be right: the default.
    fn refused(&self, path: &str, error: &config::ConfigError) -> String {
        let default = match lookup(&self.tree, path) {
            Some(Value::String(text)) if !text.is_empty() && !text.contains(REDACTED) => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            _ => return error.to_string(),
        };
        format!("{error}; its default is `{default}`")
    }

    /// `a.b_file` stands for `a.b` where only the latter is a key.
    fn secret_file_target(&self, path: &str) -> Option<String> {
        let target = path.strip_suffix("_file")?;
        (lookup(&self.tree, path).is_none() && lookup(&self.tree, target).is_some())
            .then(|| target.to_owned())
    }
}

/// A stack of values over the defaults.
#[derive(Clone)]
struct Layer {
    base: config::Config,
    overrides: Vec<Override>,
}

impl Layer {
    fn over(base: config::Config) -> Self {
        Self {
            base,
            overrides: Vec::new(),
        }
    }

    fn set(mut self, entry: Override) -> Self {
        self.overrides.push(entry);
        self
    }

    fn build<T: DeserializeOwned>(&self) -> Result<T, config::ConfigError> {
        let mut builder = config::Config::builder().add_source(self.base.clone());
        for entry in &self.overrides {
            builder = builder.set_override(&entry.path, entry.value.clone())?;
        }
        builder.build()?.try_deserialize()
    }
}

fn lookup<'tree>(tree: &'tree Value, path: &str) -> Option<&'tree Value> {
    path.split('.')
        .try_fold(tree, |node, key| node.as_object()?.get(key))
}

/// False where the tree proves that no such key exists. Below an empty table (a free map) or an absent
/// value anything may follow; deserializing decides there.
fn may_exist(tree: &Value, path: &str) -> bool {
    let mut node = tree;
    for key in path.split('.') {
        match node {
            Value::Object(fields) if fields.is_empty() => return true,
            Value::Null => return true,
            Value::Object(fields) => match fields.get(key) {
                Some(next) => node = next,
                None => return false,
            },
            _ => return false,
        }
    }
    true
}

fn section_is_missing(tree: &Value, path: &str) -> bool {
    path.split('.')
        .next()
        .is_some_and(|section| tree.get(section).is_none())
}

#[cfg(test)]
mod tests;
