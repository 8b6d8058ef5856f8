//! What a workspace sees of a table that it shares with others: a view of its rows under the name that its own table
//! would have, and, where the server lets this user say so, a row policy for people who may read the table itself.
//!
//! One insert for many small workspaces is cheaper than one for each by the number of workspaces. The names of columns
//! are the same for all of them; what is in the columns is not.

use crate::client::Warehouse;
use crate::counts;
use crate::error::{Code, CodeClass, Error, UnfitReason};
use crate::layout::WORKSPACE;
use crate::name::TableName;

/// The role that may read what one workspace has in shared tables, unquoted.
pub fn role_of(workspace: &str) -> String {
    format!("millrace_{workspace}")
}

/// The statement that makes the view of a workspace's rows in a shared table, with the columns that this has now.
///
/// The comment is how views are found again when columns are added.
pub fn create_view(table: &TableName, view: &TableName, workspace: &str) -> String {
    format!(
        "CREATE OR REPLACE VIEW {} AS SELECT * EXCEPT (`{WORKSPACE}`) FROM {} WHERE `{WORKSPACE}` = {} COMMENT {}",
        view.quoted(),
        table.quoted(),
        text(workspace),
        text(&format!("{}{workspace}", mark(table)))
    )
}

/// The statements that let a role read a workspace's rows and no others: the table's owner, who writes it, goes on to
/// see everything, and that comes first.
///
/// Whoever reads by the role needs it granted; a user with a right to the table and no role is held back only where the
/// server is configured with `users_without_row_policies_can_read_rows` off.
pub fn policies(table: &TableName, view: &TableName, workspace: &str) -> Vec<String> {
    let (role, on) = (format!("`{}`", role_of(workspace)), table.quoted());
    vec![
        format!("CREATE ROW POLICY IF NOT EXISTS millrace_owner ON {on} USING 1 TO CURRENT_USER"),
        format!("CREATE ROLE IF NOT EXISTS {role}"),
        format!(
            "CREATE ROW POLICY IF NOT EXISTS {role} ON {on} USING `{WORKSPACE}` = {} TO {role}",
            text(workspace)
        ),
        format!("GRANT SELECT ON {on} TO {role}"),
        format!("GRANT SELECT ON {} TO {role}", view.quoted()),
    ]
}

fn mark(table: &TableName) -> String {
    format!("rows in {table} of workspace ")
}

/// Text as SQL has it.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ViewRow {
    database: String,
    name: String,
    comment: String,
}

impl Warehouse {
    /// Makes what a workspace sees of a shared table, live counts included, under the name `view`.
    ///
    /// # Errors
    /// The server does not answer, or the name is a table's.
    ///
    /// # Cancellation
    /// Some of it may be made; calling again is safe.
    pub async fn create_share(
        &self,
        table: &TableName,
        view: &TableName,
        workspace: &str,
    ) -> Result<(), Error> {
        let database = view.database().quoted();
        self.execute(&format!("CREATE DATABASE IF NOT EXISTS {database}"))
            .await?;
        let pairs = [
            (Some(table.clone()), Some(view.clone())),
            (
                TableName::new(table.database().clone(), &counts::name_of(table)).ok(),
                TableName::new(view.database().clone(), &counts::name_of(view)).ok(),
            ),
        ];
        for (table, view) in pairs {
            let (Some(table), Some(view)) = (table, view) else {
                continue;
            };
            self.check_is_view(&view).await?;
            match self.execute(&create_view(&table, &view, workspace)).await {
                // Counts are made where the server allows them; without them there is nothing to see.
                Err(error) if error.code() == Some(Code(60)) => continue,
                other => other?,
            }
            self.create_policies(&table, &view, workspace).await?;
        }
        Ok(())
    }

    /// Shows the columns that a shared table has got to those who see it.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// Some of the views may lack the columns until the next call.
    pub async fn refresh_shares(&self, table: &TableName) -> Result<(), Error> {
        let mark = mark(table);
        let query = self
            .client()
            .query("SELECT database, name, comment FROM system.tables WHERE engine = 'View' AND startsWith(comment, ?)")
            .bind(&mark);
        let views: Vec<ViewRow> = self.bounded(query.fetch_all()).await?;
        for view in views {
            let workspace = view.comment.strip_prefix(&mark).unwrap_or_default();
            if let Ok(name) = format!("{}.{}", view.database, view.name).parse() {
                self.execute(&create_view(table, &name, workspace)).await?;
            }
        }
        Ok(())
    }

    async fn check_is_view(&self, view: &TableName) -> Result<(), Error> {
        let query = self
            .client()
            .query("SELECT engine FROM system.tables WHERE database = ? AND name = ?")
            .bind(view.database().as_str())
            .bind(view.table());
        let found: Option<String> = self.bounded(query.fetch_optional()).await?;
        match found.filter(|engine| engine != "View") {
            None => Ok(()),
            Some(engine) => Err(Error::UnfitTable {
                table: view.clone(),
                reason: UnfitReason::NotAView(engine),
            }),
        }
    }

    async fn create_policies(
        &self,
        table: &TableName,
        view: &TableName,
        workspace: &str,
    ) -> Result<(), Error> {
        let statements = policies(table, view, workspace);
        for statement in &statements {
            match self.execute(statement).await {
                Ok(()) => {}
                Err(error) if cannot_be_said(&error) => {
                    tracing::warn!(
                        %table,
                        workspace,
                        error = %error,
                        statements = statements.join("; "),
                        "this user may not make row policies: whoever may read the table itself sees every workspace's rows"
                    );
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The user may not, or the server has nowhere to keep it: ACCESS_STORAGE_READONLY, ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND.
fn cannot_be_said(error: &Error) -> bool {
    let code = error.code();
    code.is_some_and(|code| code.class() == CodeClass::Access || matches!(code.0, 495 | 514))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_shows_one_workspace_and_policies_begin_with_the_owner() {
        let (table, view): (TableName, TableName) = (
            "millrace_shared.events".parse().expect("a name"),
            "ws_demo.events".parse().expect("a name"),
        );
        assert_eq!(
            create_view(&table, &view, "ws_1"),
            "CREATE OR REPLACE VIEW `ws_demo`.`events` AS SELECT * EXCEPT (`_workspace`) FROM \
             `millrace_shared`.`events` WHERE `_workspace` = 'ws_1' COMMENT 'rows in millrace_shared.events of workspace ws_1'"
        );
        let policies = policies(&table, &view, "ws_1");
        assert_eq!(
            policies.first().map(String::as_str),
            Some(
                "CREATE ROW POLICY IF NOT EXISTS millrace_owner ON `millrace_shared`.`events` USING 1 TO CURRENT_USER"
            )
        );
        assert!(
            policies.contains(
                &"CREATE ROW POLICY IF NOT EXISTS `millrace_ws_1` ON `millrace_shared`.`events` USING `_workspace` = \
                  'ws_1' TO `millrace_ws_1`"
                    .to_owned()
            )
        );
    }

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(text(r"a'b\"), r"'a\'b\\'");
    }
}
