//! `ctx.env`: the secrets of a workspace, opened where a picture of the configuration is made.
//!
//! Secrets that cannot be opened hold nobody up but the functions that read them: these ask for another try and say
//! why, until they can be opened or the last try is over.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use millrace_event::frame::Text;
use millrace_store::Keyring;
use millrace_store::WorkspaceId;
use millrace_store::chains::Snapshot;
use serde_json::value::{RawValue, to_raw_value};

/// Set in the version of a chain whose environment could not be opened: once it can be, it is another version.
const UNOPENED: u64 = 1 << 63;

/// What one workspace's functions read.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// A JSON object of strings.
    pub(crate) values: Text,
    /// Why there is none.
    pub(crate) fault: Option<String>,
}

impl Environment {
    /// The version of a chain with this environment.
    pub(crate) fn version(&self, chain: u64) -> u64 {
        if self.fault.is_some() {
            chain | UNOPENED
        } else {
            chain
        }
    }
}

/// The environments of workspaces that have secrets.
pub(crate) type Opened = HashMap<WorkspaceId, Environment>;

/// Opens secrets with the keys of a file.
#[derive(Debug, Default)]
pub struct Environments {
    key_file: Option<PathBuf>,
    /// What was said about each workspace, so that it is said once.
    said: Mutex<HashMap<WorkspaceId, String>>,
}

impl Environments {
    /// With the keys of this file.
    pub fn new(key_file: Option<PathBuf>) -> Self {
        Self {
            key_file,
            said: Mutex::default(),
        }
    }

    /// The environments of all workspaces with secrets.
    pub(crate) fn open(&self, snapshot: &Snapshot) -> Opened {
        let workspaces: Vec<_> = snapshot.iter().map(|chain| &chain.workspace).collect();
        let mut opened = HashMap::new();
        let mut keys = None;
        for workspace in workspaces {
            if snapshot.secrets(workspace).is_empty() || opened.contains_key(workspace) {
                continue;
            }
            let keys = keys.get_or_insert_with(|| self.keys());
            let environment = keys
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|keys| values(keys, snapshot, workspace));
            let environment = environment.unwrap_or_else(|fault| {
                self.say(workspace, &fault);
                Environment {
                    values: none(),
                    fault: Some(format!("the secrets of the workspace cannot be opened: {fault}")),
                }
            });
            opened.insert(workspace.clone(), environment);
        }
        opened
    }

    fn say(&self, workspace: &WorkspaceId, fault: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(workspace.clone(), fault.to_owned()).as_deref() != Some(fault) {
            tracing::error!(%workspace, fault, "secrets cannot be opened: functions that read ctx.env ask for another try");
        }
    }

    /// Reads the file anew each time: keys change before what is sealed under them does.
    fn keys(&self) -> Result<Keyring, String> {
        let Some(path) = &self.key_file else {
            return Err("secrets.key_file is not set".into());
        };
        Keyring::read(path).map_err(|error| millrace_service::Causes(&error).to_string())
    }
}

fn values(keys: &Keyring, snapshot: &Snapshot, workspace: &WorkspaceId) -> Result<Environment, String> {
    let mut values = serde_json::Map::new();
    for sealed in snapshot.secrets(workspace) {
        let value = keys.open(workspace, sealed).map_err(|error| error.to_string())?;
        values.insert(sealed.name.clone(), value.into());
    }
    let values = to_raw_value(&values).map_err(|error| error.to_string())?;
    Ok(Environment {
        values: Text(values),
        fault: None,
    })
}

/// The environment of a workspace without secrets.
pub(crate) fn empty() -> Environment {
    Environment {
        values: none(),
        fault: None,
    }
}

fn none() -> Text {
    #[expect(clippy::expect_used, reason = "the text is a constant")]
    let empty = RawValue::from_string("{}".to_owned()).expect("an object");
    Text(empty)
}
