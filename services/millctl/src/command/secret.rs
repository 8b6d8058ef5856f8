//! `millctl secret …`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use millrace_event::redact::SHORTEST;
use millrace_store::secrets::MAX_VALUE_BYTES;
use millrace_store::{Destinations, Keyring, Secrets, Workspaces};
use serde_json::{Value, json};

use crate::cli::Secret;
use crate::output::Answer;
use crate::parts::Parts;

/// Exit status when some secrets were not sealed anew.
const EXIT_INCOMPLETE: u8 = 2;

pub(super) async fn run(command: Secret, parts: &Parts) -> Result<Answer> {
    match command {
        Secret::InitKey { file } => {
            let file = key_file(file, parts)?;
            if parts.is_dry_run() {
                Keyring::could_create(&file)?;
                let line = format!("{} holds a new key", file.display());
                return Answer::new(json!({ "file": file }), line);
            }
            let id = Keyring::create(&file)?;
            let line = format!(
                "{} holds key {id}. Keep a copy of it elsewhere: without it no secret opens",
                file.display()
            );
            Answer::new(json!({ "file": file, "key": id }), line)
        }
        Secret::RotateKey { file } => {
            let file = key_file(file, parts)?;
            if parts.is_dry_run() {
                let before = Keyring::read(&file)?;
                let line = format!(
                    "a new key in {} seals from now on; {} sealed before",
                    file.display(),
                    before.current()
                );
                return Answer::new(json!({ "file": file, "before": before.current() }), line);
            }
            let id = Keyring::rotate(&file)?;
            let line = format!(
                "key {id} seals from now on. Give {} to every rotor and bulker, then `millctl secret reseal`",
                file.display()
            );
            Answer::new(json!({ "file": file, "key": id }), line)
        }
        Secret::Reseal => reseal(parts).await,
        Secret::Set {
            workspace,
            file,
            name,
        } => {
            let keys = Keyring::read(&key_file(None, parts)?)?;
            let postgres = parts.postgres()?;
            let workspace = Workspaces::new(postgres.clone()).find(&workspace).await?.id;
            let value = value(file.as_deref())?;
            Secrets::new(postgres)
                .set(&keys, &workspace, &name, &value)
                .await?;
            parts.tell_configured().await;
            let mut line = format!("{name} is set; functions read it as ctx.env.{name}");
            if value.len() < SHORTEST {
                line.push_str(&format!(
                    ". It has fewer than {SHORTEST} bytes: it is not taken out of logs and messages"
                ));
            }
            Answer::new(json!({ "name": name, "key": keys.current() }), line)
        }
        Secret::List { workspace } => {
            let postgres = parts.postgres()?;
            let workspace = Workspaces::new(postgres.clone()).find(&workspace).await?.id;
            let listed = Secrets::new(postgres).list(&workspace).await?;
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|one| vec![one.name.clone(), one.key_id.clone(), one.set_at.to_string()])
                .collect();
            let objects: Vec<Value> = listed
                .iter()
                .map(|one| json!({ "name": one.name, "key": one.key_id, "set_at": one.set_at }))
                .collect();
            Answer::table(json!({ "secrets": objects }), &["NAME", "KEY", "SET"], &rows)
        }
        Secret::Unset { workspace, name } => {
            let postgres = parts.postgres()?;
            let workspace = Workspaces::new(postgres.clone()).find(&workspace).await?.id;
            Secrets::new(postgres).unset(&workspace, &name).await?;
            parts.tell_configured().await;
            Answer::new(
                json!({ "name": name, "unset": true }),
                format!("{name} is forgotten"),
            )
        }
    }
}

async fn reseal(parts: &Parts) -> Result<Answer> {
    let keys = Keyring::read(&key_file(None, parts)?)?;
    let mut resealed = Secrets::new(parts.postgres()?).reseal(&keys).await?;
    let addresses = Destinations::new(parts.postgres()?).reseal(&keys).await?;
    resealed.moved += addresses.moved;
    resealed.kept += addresses.kept;
    resealed.failed.extend(addresses.failed);
    parts.tell_configured().await;
    let (moved, kept, current) = (resealed.moved, resealed.kept, keys.current());
    let mut lines = vec![format!("{moved} sealed under key {current}, {kept} were before")];
    let failed = resealed.failed.iter();
    lines.extend(failed.map(|(workspace, error)| format!("left as it is in {workspace}: {error}")));
    let failed: Vec<Value> = resealed
        .failed
        .iter()
        .map(|(workspace, error)| json!({ "workspace": workspace.as_str(), "error": error.to_string() }))
        .collect();
    let exit = if failed.is_empty() { 0 } else { EXIT_INCOMPLETE };
    let object = json!({ "key": current, "moved": moved, "kept": kept, "failed": failed });
    Ok(Answer::lines(object, lines)?.with_exit(exit))
}

pub(super) fn key_file(named: Option<PathBuf>, parts: &Parts) -> Result<PathBuf> {
    let configured = || parts.key_file().map(Path::to_owned);
    named.or_else(configured).context(
        "no key file is named: set MILLRACE__SECRETS__KEY_FILE to where it is, or to where `millctl secret init-key` is to make it",
    )
}

/// The value, without one line end that editors and `echo` put behind it.
pub(super) fn value(file: Option<&Path>) -> Result<String> {
    let most = MAX_VALUE_BYTES as u64 + 3;
    let mut bytes = Vec::new();
    match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(most).read_to_end(&mut bytes))
            .with_context(|| format!("{} cannot be read", path.display()))?,
        None => std::io::stdin()
            .take(most)
            .read_to_end(&mut bytes)
            .context("standard input cannot be read")?,
    };
    let Ok(text) = String::from_utf8(bytes) else {
        bail!("a secret is text in UTF-8");
    };
    let value = text.strip_suffix('\n').unwrap_or(&text);
    Ok(value.strip_suffix('\r').unwrap_or(value).to_owned())
}
