//! `millctl function …`

mod trial;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_store::functions::{InForce, Language, Listed, MAX_CODE_BYTES, Promoted};
use millrace_store::quarantine::Held;
use millrace_store::{FunctionDebug, Functions, Quarantines, Workspaces};
use serde_json::{Value, json};

use crate::cli::Function;
use crate::output::Answer;
use crate::parts::Parts;

pub(super) async fn run(command: Function, parts: &Parts) -> Result<Answer> {
    let postgres = parts.postgres()?;
    let (functions, workspaces) = (Functions::new(postgres.clone()), Workspaces::new(postgres));
    match command {
        Function::Test {
            file,
            events,
            context,
            language,
            rotor,
        } => {
            let language = language.map_or_else(|| language_of(&file), Ok)?;
            let trial = trial::Trial {
                code: read(&file)?,
                file,
                language,
                events,
                context,
            };
            trial.run(&parts.rotor(rotor.rotor.as_deref())?).await
        }
        Function::Put {
            workspace,
            name,
            promote,
            route,
            language,
            rotor,
            file,
        } => {
            let language = language.map_or_else(|| language_of(&file), Ok)?;
            let code = read(&file)?;
            let workspace = workspaces.find(&workspace).await?.id;
            let rotor = parts.rotor(rotor.rotor.as_deref())?;
            trial::compiles(&rotor, &file.display().to_string(), &code, language).await?;
            let (put, now) = if promote {
                let route = route.into();
                let put = functions.put_in_force(&workspace, &route, &name, language, &code);
                let (put, now) = put.await?;
                parts.tell_configured().await;
                (put, Some(now))
            } else {
                (functions.put(&workspace, &name, language, &code).await?, None)
            };
            // The id of a function that was only tried is none.
            let is_new = put.created && put.version == 1;
            let function = (!parts.is_dry_run() || !is_new).then_some(&put.function);
            let mut object = json!({
                "function": function, "version": put.version, "created": put.created, "promoted": promote,
                "language": language.as_str(), "bytes": code.len(),
            });
            let id = function.map(|id| format!(" ({id})")).unwrap_or_default();
            let is = if put.created { "is put" } else { "was put before" };
            let mut line = format!("{name}@{}{id} {is}", put.version);
            match now {
                Some(now) => {
                    object["position"] = json!(now.position);
                    object["before"] = json!(now.before);
                    line.push_str(&format!(" and in force{}", place(&now)));
                }
                None => line.push_str("; `millctl function promote` puts it in force"),
            }
            Answer::new(object, line)
        }
        Function::Promote {
            workspace,
            name,
            version,
            route,
            rotor,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            // What compiled when it was put may not with the engine of today.
            let stored = functions.stored(Some(&workspace), &name, version).await?;
            let rotor = parts.rotor(rotor.rotor.as_deref())?;
            let called = format!("{name}@{}", stored.version);
            trial::compiles(&rotor, &called, &stored.code, stored.language).await?;
            let promoted = functions
                .promote(&workspace, &route.into(), &name, Some(stored.version))
                .await?;
            parts.tell_configured().await;
            in_force(&name, &promoted)
        }
        Function::Rollback {
            workspace,
            name,
            route,
        } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let back = functions.rollback(&workspace, &route.into(), &name).await?;
            parts.tell_configured().await;
            in_force(&name, &back)
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
        Function::Quarantine { workspace } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let held = Quarantines::new(parts.postgres()?).of(&workspace).await?;
            let function = |held: &Held| {
                held.function
                    .as_ref()
                    .map(|(id, version)| format!("{id}@{version}"))
            };
            let rows: Vec<Vec<String>> = held
                .iter()
                .map(|held| {
                    vec![
                        held.chain.clone(),
                        held.version.to_string(),
                        function(held).unwrap_or_default(),
                        held.code.clone(),
                        held.times.to_string(),
                        format!("{} s", held.left.as_secs()),
                    ]
                })
                .collect();
            let objects: Vec<Value> = held
                .iter()
                .map(|held| {
                    json!({
                        "chain": held.chain, "chain_version": held.version, "function": function(held),
                        "code": held.code, "times": held.times, "seconds_left": held.left.as_secs(),
                    })
                })
                .collect();
            Answer::table(
                json!({ "quarantined": objects }),
                &["CHAIN", "VERSION", "FUNCTION", "LAST KILL", "TIMES", "LEFT"],
                &rows,
            )
        }
        Function::Release { workspace, chain } => {
            let workspace = workspaces.find(&workspace).await?.id;
            Quarantines::new(parts.postgres()?)
                .release(&workspace, &chain)
                .await?;
            Answer::new(json!({ "released": chain }), format!("{chain} runs again"))
        }
        Function::Debug { workspace, minutes } => {
            let workspace = workspaces.find(&workspace).await?.id;
            let switches = FunctionDebug::new(parts.postgres()?);
            let object = json!({ "workspace": workspace, "minutes": minutes });
            if minutes == 0 {
                switches.off(&workspace).await?;
                return Answer::new(
                    object,
                    format!("debug lines of {workspace} are not kept any more"),
                );
            }
            switches
                .on(&workspace, Duration::from_secs(u64::from(minutes) * 60))
                .await?;
            Answer::new(
                object,
                format!("debug lines of {workspace} are kept for {minutes} minutes"),
            )
        }
    }
}

fn in_force(name: &str, now: &InForce) -> Result<Answer> {
    let object = json!({
        "function": now.function, "version": now.version, "chain": now.chain, "position": now.position,
        "before": now.before,
    });
    Answer::new(
        object,
        format!("{name}@{} is in force{}", now.version, place(now)),
    )
}

/// Where a version stands, and instead of what.
fn place(now: &InForce) -> String {
    let position = now.position;
    match now.before {
        Some(before) if before == now.version => format!(" at place {position}, as it was"),
        Some(before) => format!(" at place {position}, where @{before} was"),
        None => format!(" at place {position}, the end of its chain"),
    }
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
