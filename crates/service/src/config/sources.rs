//! Where values come from: one TOML file and the environment.

use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Source, Value, ValueKind};

use super::{Faults, unknown};

pub(super) const PREFIX: &str = "MILLRACE";
pub(super) const SEPARATOR: &str = "__";

/// The sources of one process, lowest first: file, environment.
#[derive(Clone, Debug)]
pub struct Sources {
    file: Option<PathBuf>,
    /// Absent: that of the process.
    environment: Option<config::Map<String, String>>,
}

impl Sources {
    /// `file` and the environment of this process.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: None,
        }
    }

    /// Takes `environment` instead of that of the process.
    #[must_use]
    pub fn with_environment<K: Into<String>, V: Into<String>>(
        mut self,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment = Some(
            environment
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        );
        self
    }

    /// Every value given, in the order in which later ones win. What cannot be read becomes a fault.
    pub(super) fn overrides(&self, faults: &mut Faults) -> Vec<Override> {
        let mut found = Vec::new();
        if let Some(path) = &self.file {
            let file = File::from(path.as_path()).format(FileFormat::Toml).required(true);
            match file.collect() {
                Ok(values) => leaves(String::new(), values, &Origin::File(path.clone()), &mut found),
                Err(error) => faults.push(
                    "--config".to_owned(),
                    Origin::File(path.clone()),
                    error.to_string(),
                ),
            }
        }
        for name in self.variables() {
            if let Some(meant) = unknown::variable(&name) {
                faults.add(name, format!("no setting begins so, is {meant} meant?"));
            }
        }
        let environment = Environment::with_prefix(PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .ignore_empty(true)
            .source(self.environment.clone());
        match environment.collect() {
            Ok(values) => {
                let first = found.len();
                leaves(
                    String::new(),
                    values,
                    &Origin::Environment(String::new()),
                    &mut found,
                );
                for entry in found.iter_mut().skip(first) {
                    entry.origin = Origin::Environment(Origin::environment_name(&entry.path));
                }
            }
            Err(error) => faults.add("environment", error.to_string()),
        }
        found
    }

    /// The names of all variables, as far as they are text.
    fn variables(&self) -> Vec<String> {
        match &self.environment {
            Some(environment) => environment.keys().cloned().collect(),
            None => std::env::vars_os()
                .filter_map(|(name, _)| name.into_string().ok())
                .collect(),
        }
    }
}

/// Where a value was given.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Environment(String),
}

impl Origin {
    pub(super) fn environment_name(path: &str) -> String {
        let mut name = PREFIX.to_owned();
        for key in path.split('.') {
            name.push_str(SEPARATOR);
            name.push_str(&key.to_ascii_uppercase());
        }
        name
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// One value at one key.
#[derive(Clone, Debug)]
pub(super) struct Override {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Override {
    /// Replaces a value at `<target>_file` by the content of the file it names, at `target`.
    pub(super) fn read_file(&mut self, target: String) -> Result<(), String> {
        let path = self
            .value
            .clone()
            .into_string()
            .map_err(|error| error.to_string())?;
        let content =
            std::fs::read_to_string(Path::new(&path)).map_err(|error| format!("{path}: {error}"))?;
        self.value = Value::from(content.trim_end_matches(['\r', '\n']));
        self.path = target;
        self.origin = Origin::Environment(path);
        Ok(())
    }
}

fn leaves(prefix: String, values: config::Map<String, Value>, origin: &Origin, found: &mut Vec<Override>) {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (key, value) in values {
        let path = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        match value.kind {
            ValueKind::Table(table) => leaves(path, table, origin, found),
            _ => found.push(Override {
                path,
                value,
                origin: origin.clone(),
            }),
        }
    }
}
