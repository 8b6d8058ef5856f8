//! The address of a PostgreSQL destination: read from where nobody looks over the shoulder, tried for its form, sealed.

use std::path::Path;

use anyhow::{Context, Result};
use millrace_postgres_destination::Config;
use millrace_store::destinations::seal_url;
use millrace_store::{Keyring, WorkspaceId};
use serde_json::Value;

use crate::cli::Address;
use crate::command::secret;
use crate::parts::Parts;

/// The setting that holds it.
pub(super) const SETTING: &str = "url";

/// The address sealed for the destination of that name, where one is given.
pub(super) fn seal(
    address: &Address,
    workspace: &WorkspaceId,
    name: &str,
    parts: &Parts,
) -> Result<Option<Value>> {
    let url = match (&address.url_file, &address.url_env) {
        (Some(file), _) => secret::value(Some(file.as_path()).filter(|file| *file != Path::new("-")))?,
        (None, Some(variable)) => variable_named(variable)?,
        (None, None) => return Ok(None),
    };
    // What is none, or asks for what is not offered, is said here and not by the bulker.
    Config::new(name, "millctl", url.as_str()).build()?;
    let keys = Keyring::read(&secret::key_file(None, parts)?)?;
    let sealed = seal_url(&keys, workspace, name, &url)?;
    Ok(Some(Value::String(sealed.into())))
}

#[expect(
    clippy::disallowed_methods,
    reason = "which variable it is, the command line says"
)]
fn variable_named(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("the variable {name} is not set"))
}
