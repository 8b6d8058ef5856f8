//! The steps of which changes to functions are made, each inside of its caller's transaction.

use deadpool_postgres::Transaction;

use super::{InForce, Language, MAX_CODE_BYTES, Put, Route};
use crate::postgres::Fields;
use crate::workspaces::{destination, source};
use crate::{ChainId, Entity, Error, FunctionId, Name, WorkspaceId};

/// Takes the configuration's lock before any other: two promotions never wait for each other in a circle.
pub(super) async fn lock(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction
        .execute("SELECT version FROM config_version FOR UPDATE", &[])
        .await?;
    Ok(())
}

pub(super) async fn function(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    id_or_name: &str,
    locking: &'static str,
) -> Result<FunctionId, Error> {
    let query = format!(
        "SELECT id FROM functions WHERE workspace = $1 AND $2 IN (id, name)
         ORDER BY id = $2 DESC LIMIT 1 {locking}"
    );
    let row = transaction
        .query_opt(&query, &[&workspace.as_str(), &id_or_name])
        .await?;
    row.ok_or_else(|| Error::not_found(Entity::Function, id_or_name))?
        .parsed("id")
}

/// The chain between two parts of a workspace, made when there is none: the parts decide that it may exist.
/// The caller holds the configuration's lock. Looking first keeps the configuration's version still when
/// nothing is made.
pub(super) async fn chain(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    route: &Route,
) -> Result<ChainId, Error> {
    let source = source(transaction, workspace, &route.source).await?.id;
    let destination = destination(transaction, workspace, &route.destination).await?.id;
    let ends = (source.as_str(), destination.as_str());
    let query = "SELECT id FROM chains WHERE source = $1 AND destination = $2";
    if let Some(row) = transaction.query_opt(query, &[&ends.0, &ends.1]).await? {
        return row.parsed("id");
    }
    let new = ChainId::mint()?;
    let insert = "INSERT INTO chains (id, workspace, source, destination) VALUES ($1, $2, $3, $4)";
    transaction
        .execute(insert, &[&new.as_str(), &workspace.as_str(), &ends.0, &ends.1])
        .await?;
    Ok(new)
}

/// The version asked for, if it exists; without one the newest.
pub(super) async fn existing(
    transaction: &Transaction<'_>,
    function: &FunctionId,
    version: Option<u32>,
) -> Result<u32, Error> {
    let query = "SELECT version FROM function_versions
        WHERE function = $1 AND version = coalesce($2, version) ORDER BY version DESC LIMIT 1";
    // What does not fit the column does not exist either.
    let wanted = version.map(|version| i32::try_from(version).unwrap_or(0));
    let row = transaction
        .query_opt(query, &[&function.as_str(), &wanted])
        .await?;
    let asked = || {
        version.map_or_else(
            || format!("{function}"),
            |version| format!("{function}@{version}"),
        )
    };
    row.ok_or_else(|| Error::not_found(Entity::FunctionVersion, asked()))?
        .version("version")
}

/// Puts a version in force in a chain, unless it is. The caller holds the configuration's lock.
pub(super) async fn enforce(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    chain: ChainId,
    function: FunctionId,
    version: u32,
) -> Result<InForce, Error> {
    let query =
        "SELECT p.id, p.version, c.position FROM chain_functions c JOIN promotions p ON p.id = c.promotion
        WHERE c.chain = $1 AND c.function = $2";
    let ids = (workspace.as_str(), chain.as_str(), function.as_str());
    let now = transaction.query_opt(query, &[&ids.1, &ids.2]).await?;
    let (mut previous, mut before, mut position) = (None::<i64>, None, None);
    if let Some(row) = &now {
        previous = Some(row.field("id")?);
        before = Some(row.version("version")?);
        position = Some(row.version("position")?);
    }
    if before != Some(version) {
        let insert = "INSERT INTO promotions (chain, function, version, previous)
            SELECT $1, function, version, $4 FROM function_versions WHERE function = $2 AND version::bigint = $3
            RETURNING id";
        let row = transaction
            .query_one(insert, &[&ids.1, &ids.2, &i64::from(version), &previous])
            .await?;
        let promotion: i64 = row.field("id")?;
        if previous.is_some() {
            let update = "UPDATE chain_functions SET promotion = $3 WHERE chain = $1 AND function = $2";
            transaction.execute(update, &[&ids.1, &ids.2, &promotion]).await?;
        } else {
            let append = "INSERT INTO chain_functions (workspace, chain, position, function, promotion)
                SELECT $1, $2, coalesce(max(position) + 1, 0), $3, $4 FROM chain_functions WHERE chain = $2
                RETURNING position";
            let row = transaction
                .query_one(append, &[&ids.0, &ids.1, &ids.2, &promotion])
                .await?;
            position = Some(row.version("position")?);
        }
    }
    Ok(InForce {
        position: position.unwrap_or_default(),
        chain,
        function,
        version,
        before,
    })
}

/// Whether code has a size that is kept.
pub(super) fn judge(code: &str) -> Result<(), Error> {
    let reason = if code.trim().is_empty() || code.len() > MAX_CODE_BYTES {
        "has 1 byte to 1 MiB and is not only spaces"
    } else if code.contains('\0') {
        "holds a zero byte"
    } else {
        return Ok(());
    };
    Err(Error::Invalid { what: "code", reason })
}

/// Adds a version of the function of that name, unless it is the newest. Two that put at once wait for each other, so that
/// the numbers of versions are dense.
pub(super) async fn add(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    name: &Name,
    language: Language,
    code: &str,
) -> Result<Put, Error> {
    let insert = "INSERT INTO functions (id, workspace, name) VALUES ($1, $2, $3)
        ON CONFLICT (workspace, name) DO NOTHING";
    let new = FunctionId::mint()?;
    transaction
        .execute(insert, &[&new.as_str(), &workspace.as_str(), &name.as_str()])
        .await?;
    let function = function(transaction, workspace, name.as_str(), "FOR UPDATE").await?;
    let newest = "SELECT version, language, code FROM function_versions
        WHERE function = $1 ORDER BY version DESC LIMIT 1";
    let newest = transaction.query_opt(newest, &[&function.as_str()]).await?;
    let mut version = 1_i32;
    if let Some(row) = newest {
        let (language_before, code_before): (Language, &str) = (row.parsed("language")?, row.field("code")?);
        if (language_before, code_before) == (language, code) {
            return Ok(Put {
                function,
                version: row.version("version")?,
                created: false,
            });
        }
        version = row.field::<i32>("version")?.saturating_add(1);
    }
    let insert = "INSERT INTO function_versions (function, version, language, code)
        VALUES ($1, $2, $3, $4) RETURNING version";
    let row = transaction
        .query_one(insert, &[&function.as_str(), &version, &language.as_str(), &code])
        .await?;
    Ok(Put {
        function,
        version: row.version("version")?,
        created: true,
    })
}
