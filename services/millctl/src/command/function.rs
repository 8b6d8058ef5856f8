//! `millctl function …`

use std::path::Path;

use anyhow::{Context, Result, bail};
use millrace_store::functions::{InForce, Language, Listed, MAX_CODE_BYTES, Promoted};
use millrace_store::{Functions, Workspaces};
use serde_json::{Value, json};

use crate::cli::Function;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Function, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (functions, workspaces) = (Functions::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Function::Put {
            workspace,
            name,
            promote,
            route,
            language,
            file,
        } => {
            let language = match language {
                Some(language) => language,
                None => language_of(&file)?,
            };
            let code = read(&file)?;
            let workspace = workspaces.find(&workspace).await?.id;
            let put = functions.put(&workspace, &name, language, &code).await?;
            let object = json!({
                "function": put.function, "version": put.version, "created": put.created, "promoted": promote,
            });
            let is = if put.created { "is put" } else { "was put before" };
            let mut line = format!("{name}@{} ({}) {is}", put.version, put.function);
            if promote {
                let id = put.function.as_str();
                functions
                    .promote(&workspace, &route.into(), id, Some(put.version))
                    .await?;
                line.push_str(" and in force");
            } else {
                line.push_str("; `millctl function promote` puts it in force");
            }
            Answer::new(object, line)
        }
        Function::Promote {
            workspace,
            name,
            version,
            route,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            in_force(
                &name,
                &functions
                    .promote(&workspace, &route.into(), &name, version)
                    .await?,
            )
        }
        Function::Rollback {
            workspace,
            name,
            route,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            in_force(
                &name,
                &functions.rollback(&workspace, &route.into(), &name).await?,
            )
        }
        Function::List { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let listed = functions.list(&workspace).await?;
            let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
            let objects: Vec<Value> = listed.iter().map(object).collect();
            Answer::table(
                json!({ "functions": objects }),
                &["NAME", "ID", "NEWEST", "PUT", "IN FORCE"],
                &rows,
            )
        }
    }
}

fn in_force(name: &str, now: &InForce) -> Result<Answer> {
    let object = json!({ "function": now.function, "version": now.version, "chain": now.chain });
    Answer::new(object, format!("{name}@{} is in force", now.version))
}

fn row(listed: &Listed) -> Vec<String> {
    let place = |p: &Promoted| {
        format!(
            "@{} {} → {} at {}",
            p.version, p.source, p.destination, p.position
        )
    };
    let places: Vec<String> = listed.promoted.iter().map(place).collect();
    vec![
        listed.name.clone(),
        listed.id.to_string(),
        listed.newest.to_string(),
        listed.put_at.to_string(),
        places.join(", "),
    ]
}

fn object(listed: &Listed) -> Value {
    let promoted: Vec<Value> = listed
        .promoted
        .iter()
        .map(|p| json!({ "source": p.source, "destination": p.destination, "position": p.position, "version": p.version }))
        .collect();
    json!({
        "function": listed.id, "name": listed.name, "newest": listed.newest, "put_at": listed.put_at,
        "promoted": promoted,
    })
}

fn language_of(file: &Path) -> Result<Language> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("js" | "mjs") => Ok(Language::JavaScript),
        Some("ts" | "mts") => Ok(Language::TypeScript),
        _ => bail!(
            "{} does not say whether it is JavaScript or TypeScript: add --language js or ts",
            file.display()
        ),
    }
}

/// The whole file, unless it is larger than any function may be.
fn read(file: &Path) -> Result<String> {
    let size = std::fs::metadata(file)
        .with_context(|| format!("{} cannot be read", file.display()))?
        .len();
    if size > MAX_CODE_BYTES as u64 {
        bail!(
            "{} has {size} bytes; a function has {MAX_CODE_BYTES} at most",
            file.display()
        );
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read as text", file.display()))
}
