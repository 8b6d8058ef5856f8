//! A clone of a table that keeps nothing: what it refuses, the table would refuse, and nothing is written by asking.

use crate::client::Warehouse;
use crate::error::Error;
use crate::name::TableName;

impl Warehouse {
    /// Makes `clone` with the columns, defaults and constraints of `table`, and with an engine that forgets what it is
    /// given. One of that name that is there is replaced. Views of the table are not views of the clone.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// The clone may be there or not.
    pub async fn make_clone(&self, table: &TableName, clone: &TableName) -> Result<(), Error> {
        self.drop_clone(clone).await?;
        let sql = format!(
            "CREATE TABLE {} AS {} ENGINE = Null",
            clone.quoted(),
            table.quoted()
        );
        self.execute(&sql).await
    }

    /// Removes a clone.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    ///
    /// # Cancellation
    /// The clone may be there or not.
    pub async fn drop_clone(&self, clone: &TableName) -> Result<(), Error> {
        self.execute(&format!("DROP TABLE IF EXISTS {} SYNC", clone.quoted()))
            .await
    }
}
