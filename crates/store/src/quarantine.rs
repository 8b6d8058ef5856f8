//! Functions that are held back because they killed workers.
//!
//! Kills are counted for a chain version, over all rotors, in Postgres; [`Policy`] says when they are enough and for how
//! long the version is held back. Another version of the chain begins anew.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;

use crate::postgres::Fields;
use crate::{ChainId, Entity, Error, Postgres, WorkspaceId};

/// When kills are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many kills within [`Self::window`] hold a version back; of one that was held back before, a single one.
    pub kills: u32,
    /// How long a kill counts, and how long a version that was held back must behave to be as good as new.
    pub window: Duration,
    /// How long a version is held back the first time; twice as long each time after.
    pub first: Duration,
    /// And how long at most.
    pub longest: Duration,
}

/// What is remembered of a chain version. Times are relative to now: no clock is compared with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Kills in the window.
    pub kills: u32,
    /// What is left of the window.
    pub window: Duration,
    /// How often it was held back.
    pub times: u32,
    /// For how long it still is.
    pub held: Duration,
    /// Since it was released; nothing when it never was held or still is.
    pub released: Duration,
}

impl Policy {
    /// What is remembered after `kills` more. Pure.
    pub fn after(&self, before: Record, kills: u32) -> Record {
        let forgiven = before.held.is_zero() && before.released >= self.window;
        let times = if forgiven { 0 } else { before.times };
        let (counted, window) = if before.window.is_zero() {
            (0, self.window)
        } else {
            (before.kills, before.window)
        };
        let counted = counted.saturating_add(kills);
        let enough = if times > 0 { 1 } else { self.kills.max(1) };
        if !before.held.is_zero() || counted < enough {
            return Record {
                kills: counted,
                window,
                times,
                ..before
            };
        }
        let doubled = 2_u32.saturating_pow(times.min(30));
        Record {
            kills: 0,
            window: Duration::ZERO,
            times: times.saturating_add(1),
            held: self.first.saturating_mul(doubled).min(self.longest),
            released: Duration::ZERO,
        }
    }
}

/// Kills by one chain version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kills {
    /// The chain.
    pub chain: String,
    /// Its version.
    pub version: u64,
    /// The function that ran the last time, and its version, where they are known.
    pub function: Option<(String, u32)>,
    /// How the last worker ended: a function error code.
    pub code: String,
    /// How many.
    pub count: u32,
}

/// A chain version that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The chain.
    pub chain: String,
    /// Its version.
    pub version: u64,
    /// The function that ran the last time, and its version, where they are known.
    pub function: Option<(String, u32)>,
    /// How the last worker ended: a function error code.
    pub code: String,
    /// For how long it still is.
    pub left: Duration,
    /// How often it was.
    pub times: u32,
}

/// The repository of what is held back.
#[derive(Clone, Debug)]
pub struct Quarantines {
    postgres: Postgres,
}

/// The columns of [`Held`], as far as they are stored.
const HELD: &str = "q.chain, q.chain_version, q.function, q.function_version, q.code, q.times,
    greatest(0, extract(epoch FROM q.held_until - now()))::float8 AS held";

impl Quarantines {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Counts kills and holds the version back where they are too many; gives what it is held back by, if it is.
    /// Kills of a version that the chain has left behind count for nothing, and so do those of a chain that is gone.
    ///
    /// # Errors
    /// When Postgres does not answer.
    ///
    /// # Cancellation
    /// They are counted or they are not.
    pub async fn count(&self, kills: &Kills, policy: &Policy) -> Result<Option<Held>, Error> {
        let version = i64::try_from(kills.version).unwrap_or(i64::MAX);
        let function = kills.function.as_ref().map(|(id, _)| id.as_str());
        let function_version = kills
            .function
            .as_ref()
            .and_then(|(_, version)| i32::try_from(*version).ok());
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                // The row is there before it is locked: two rotors that count at once take turns.
                let insert = "INSERT INTO quarantines (chain, chain_version, code, kills, window_ends, times)
                    SELECT id, $2, $3, 0, now(), 0 FROM chains WHERE id = $1
                    ON CONFLICT (chain) DO NOTHING";
                let chain = kills.chain.as_str();
                transaction
                    .execute(insert, &[&chain, &version, &kills.code.as_str()])
                    .await?;
                let select = "SELECT chain_version, kills, times,
                        greatest(0, extract(epoch FROM window_ends - now()))::float8 AS window_left,
                        greatest(0, extract(epoch FROM held_until - now()))::float8 AS held,
                        greatest(0, extract(epoch FROM now() - held_until))::float8 AS released
                    FROM quarantines WHERE chain = $1 FOR UPDATE";
                let Some(row) = transaction.query_opt(select, &[&chain]).await? else {
                    return Ok(None);
                };
                let known: i64 = row.field("chain_version")?;
                if known > version {
                    return Ok(None);
                }
                let before = if known == version {
                    record(&row)?
                } else {
                    Record::default()
                };
                let after = policy.after(before, kills.count);
                let update =
                    "UPDATE quarantines SET chain_version = $2, function = $3, function_version = $4,
                        code = $5, kills = $6, times = $7, killed_at = now(),
                        window_ends = now() + $8::float8 * interval '1 second',
                        held_until = CASE WHEN $9::float8 > 0 THEN now() + $9::float8 * interval '1 second'
                            WHEN $2 = chain_version THEN held_until END
                    WHERE chain = $1";
                let (counted, times) = (capped(after.kills), capped(after.times));
                let (window, held) = (after.window.as_secs_f64(), after.held.as_secs_f64());
                transaction
                    .execute(
                        update,
                        &[
                            &chain,
                            &version,
                            &function,
                            &function_version,
                            &kills.code.as_str(),
                            &counted,
                            &times,
                            &window,
                            &held,
                        ],
                    )
                    .await?;
                transaction.commit().await?;
                Ok((!after.held.is_zero()).then(|| Held {
                    chain: kills.chain.clone(),
                    version: kills.version,
                    function: kills.function.clone(),
                    code: kills.code.clone(),
                    left: after.held,
                    times: after.times,
                }))
            })
            .await
    }

    /// Everything that is held back now, by chain.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn held(&self) -> Result<HashMap<String, Held>, Error> {
        let query = format!("SELECT {HELD} FROM quarantines q WHERE q.held_until > now()");
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(&query).await?;
                let rows = client.query(&statement, &[]).await?;
                rows.iter()
                    .map(|row| held(row).map(|held| (held.chain.clone(), held)))
                    .collect()
            })
            .await
    }

    /// What of a workspace is held back now.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn of(&self, workspace: &WorkspaceId) -> Result<Vec<Held>, Error> {
        let query = format!(
            "SELECT {HELD} FROM quarantines q JOIN chains c ON c.id = q.chain AND c.version = q.chain_version
             WHERE c.workspace = $1 AND q.held_until > now() ORDER BY q.chain"
        );
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client.query(&query, &[&workspace.as_str()]).await?;
                rows.iter().map(held).collect()
            })
            .await
    }

    /// Lets a chain run again at once, and forgets its kills.
    ///
    /// # Errors
    /// When nothing of that chain is remembered in the workspace, or Postgres does not answer.
    pub async fn release(&self, workspace: &WorkspaceId, chain: &ChainId) -> Result<(), Error> {
        let query = "DELETE FROM quarantines q USING chains c
            WHERE q.chain = $2 AND c.id = q.chain AND c.workspace = $1";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let gone = transaction
                    .execute(query, &[&workspace.as_str(), &chain.as_str()])
                    .await?;
                self.postgres.keep(transaction).await?;
                match gone {
                    0 => Err(Error::not_found(Entity::Quarantine, chain)),
                    _ => Ok(()),
                }
            })
            .await
    }
}

fn capped(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `None` stands for a time that never was.
fn seconds(row: &Row, name: &'static str) -> Result<Duration, Error> {
    let seconds: Option<f64> = row.field(name)?;
    Ok(Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default())
}

fn record(row: &Row) -> Result<Record, Error> {
    Ok(Record {
        kills: row.version("kills")?,
        window: seconds(row, "window_left")?,
        times: row.version("times")?,
        held: seconds(row, "held")?,
        released: seconds(row, "released")?,
    })
}

fn held(row: &Row) -> Result<Held, Error> {
    let function: Option<String> = row.field("function")?;
    let function_version: Option<i32> = row.field("function_version")?;
    let version = function_version.and_then(|version| u32::try_from(version).ok());
    Ok(Held {
        chain: row.field("chain")?,
        version: u64::try_from(row.field::<i64>("chain_version")?).unwrap_or_default(),
        function: function.zip(version),
        code: row.field("code")?,
        left: seconds(row, "held")?,
        times: row.version("times")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        kills: 3,
        window: Duration::from_secs(600),
        first: Duration::from_secs(60),
        longest: Duration::from_secs(300),
    };

    /// As time goes by.
    fn later(record: Record, by: Duration) -> Record {
        Record {
            window: record.window.saturating_sub(by),
            held: record.held.saturating_sub(by),
            released: if record.times > 0 {
                record.released + by.saturating_sub(record.held)
            } else {
                Duration::ZERO
            },
            ..record
        }
    }

    #[test]
    fn enough_kills_within_the_window_hold_a_version_back_and_scattered_ones_do_not() {
        let mut record = Record::default();
        for _ in 0..2 {
            record = POLICY.after(record, 1);
            assert_eq!(record.held, Duration::ZERO);
        }
        assert_eq!(POLICY.after(record, 1).held, POLICY.first);
        let forgotten = later(record, POLICY.window);
        assert_eq!(POLICY.after(forgotten, 1).held, Duration::ZERO);
        assert_eq!(
            POLICY.after(Record::default(), 3).held,
            POLICY.first,
            "all at once"
        );
    }

    #[test]
    fn whoever_was_held_back_is_so_again_at_the_first_kill_and_twice_as_long_up_to_the_longest() {
        let mut record = POLICY.after(Record::default(), 3);
        for expected in [120, 240, 300, 300] {
            record = later(record, record.held + Duration::from_secs(1));
            assert_eq!(record.held, Duration::ZERO);
            record = POLICY.after(record, 1);
            assert_eq!(record.held, Duration::from_secs(expected));
        }
        // Kills by events that were under way do not make it longer.
        assert_eq!(POLICY.after(record, 5).held, record.held);
        let behaved = later(record, record.held + POLICY.window);
        assert_eq!(POLICY.after(behaved, 1).held, Duration::ZERO, "as good as new");
    }
}
