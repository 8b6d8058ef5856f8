//! `millctl generate`: the shop of `docs/analytics.md` at any size, in a workspace's table.
//!
//! Rows have the identity of a journal of their own, made of the seed and the first day, and each block its token. So
//! the same command repeated, also after it was ended in the middle, adds nothing twice as long as the table remembers
//! its tokens (10,000 inserts).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_event::{Identity, JournalId, Timestamp};
use millrace_ledger::Token;
use millrace_store::{Destinations, Workspaces};
use millrace_warehouse::sample::Shop;
use millrace_warehouse::{Insert, Layout, Limits, Outcome, Row, RowId, Schema, TableName, Warehouse};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::cli::Generate;
use crate::output::{Answer, Bar};
use crate::parts::Parts;

/// Rows that are made, held and inserted together.
const BATCH: usize = 50_000;
const DAY_MS: i64 = 86_400_000;
/// How long one insert may take, how often it is tried, and the pause between.
const DEADLINE: Duration = Duration::from_secs(60);
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// An event on its way.
struct Made {
    at: Timestamp,
    message_id: String,
    event: Box<RawValue>,
}

struct Mill {
    warehouse: Warehouse,
    table: TableName,
    schema: Arc<Schema>,
    source: String,
    workspace: String,
    layout: Layout,
    journal: JournalId,
    now: Timestamp,
    made: u64,
}

pub(super) async fn run(arguments: &Generate, parts: &Parts) -> Result<Answer> {
    let workspaces = Workspaces::new(parts.postgres()?);
    let workspace = workspaces.find(&arguments.workspace).await?;
    let destination = Destinations::new(parts.postgres()?)
        .find(&workspace.id, "default")
        .await?;
    let source = workspaces.source(&workspace.id, "default").await?;
    let Some(settings) = destination.settings.clickhouse() else {
        bail!("the destination `default` is no table in ClickHouse");
    };
    let layout = Layout::from(settings);
    let (_, table) = super::destination::tables(&destination, parts)?;
    let now = parts.now();
    let days = i64::from(arguments.days);
    let from = arguments
        .from
        .map_or(now.as_millis() - days * DAY_MS, Timestamp::as_millis);
    let shop = Shop {
        from: from - from.rem_euclid(DAY_MS),
        days,
        seed: arguments.seed,
    };
    if parts.is_dry_run() {
        return answer(&table, &shop, None, arguments);
    }
    let warehouse = parts.warehouse();
    super::destination::ensure(&destination, parts).await?;
    let schema = warehouse.create_table(&table, &layout).await?;
    let incarnation = format!("{} {} {days}", arguments.seed, shop.from);
    let mut mill = Mill {
        warehouse,
        table: table.clone(),
        schema: Arc::new(schema),
        layout,
        source: source.id.as_str().to_owned(),
        workspace: workspace.id.as_str().to_owned(),
        journal: JournalId::of_topic("millctl generate", &incarnation),
        now,
        made: 0,
    };
    let bar = Bar::new("events");
    bar.expect(arguments.events);
    let mut waiting = Vec::new();
    for person in 0..u32::MAX {
        for (at, event) in shop.journey(person) {
            let number = mill.made + u64::try_from(waiting.len()).unwrap_or(0);
            waiting.push(Made {
                at,
                message_id: format!("shop-{}-{number}", arguments.seed),
                event: to_raw_value(&event)?,
            });
        }
        let made = mill.made + u64::try_from(waiting.len()).unwrap_or(0);
        if waiting.len() >= BATCH || made >= arguments.events {
            bar.step(u64::try_from(waiting.len()).unwrap_or(0));
            mill.write(&std::mem::take(&mut waiting)).await?;
        }
        if made >= arguments.events {
            break;
        }
    }
    answer(&table, &shop, Some(mill.made), arguments)
}

fn answer(table: &TableName, shop: &Shop, made: Option<u64>, arguments: &Generate) -> Result<Answer> {
    let from = Timestamp::clamped_from_millis(shop.from);
    let line = match made {
        Some(made) => format!("{made} events are in {table}, from {from} on"),
        None => format!(
            "at least {} events would go into {table}, from {from} on",
            arguments.events
        ),
    };
    let object = json!({
        "table": table.to_string(), "events": made, "from": from, "days": shop.days, "seed": shop.seed,
    });
    Answer::new(object, line)
}

impl Mill {
    async fn write(&mut self, made: &[Made]) -> Result<()> {
        let rows: Vec<_> = (self.made..)
            .zip(made)
            .map(|(seq, made)| Row {
                id: RowId {
                    identity: Identity {
                        journal: self.journal,
                        partition: 0,
                        seq,
                    },
                    sub: 0,
                },
                received_at: made.at,
                sent_at: None,
                source: &self.source,
                workspace: &self.workspace,
                message_id: &made.message_id,
                event: &made.event,
            })
            .collect();
        let schema = Arc::clone(&self.schema);
        let encoded = self
            .warehouse
            .encode_as(
                &self.table,
                &self.layout,
                schema,
                Limits::default(),
                self.now,
                &rows,
            )
            .await?;
        if let Some((_, error)) = encoded.refused.first() {
            bail!(
                "table {} has no room for the shop's events: {error}; choose an empty workspace",
                self.table
            );
        }
        self.schema = encoded.schema;
        for block in &encoded.blocks {
            let ids = block.rows().iter().map(|row| (row.identity, row.sub));
            let token = Token::of(&self.table.to_string(), &block.month().to_string(), 0, ids).to_string();
            self.insert(block, &token).await?;
        }
        self.made += u64::try_from(made.len()).unwrap_or(0);
        Ok(())
    }

    async fn insert(&self, block: &millrace_warehouse::Block, token: &str) -> Result<()> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let query_id = format!("millctl-generate-{token}-{}", uuid::Uuid::new_v4().simple());
            let insert = Insert {
                table: &self.table,
                block,
                token,
                query_id: &query_id,
                deadline: DEADLINE,
            };
            match self.warehouse.insert(insert).await {
                Outcome::Applied => return Ok(()),
                Outcome::Definite(error) | Outcome::Ambiguous(error) => last = Some(error),
            }
        }
        let so_far = self.made;
        match last {
            Some(error) => Err(error).with_context(|| {
                format!(
                    "a block was not taken after {so_far} events; repeat the command, it adds nothing twice"
                )
            }),
            None => bail!("a block was not taken after {so_far} events"),
        }
    }
}
