//! Sessions of the consumer group: join, work on what is assigned, leave, and start over after a doubt.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_kafka::bounds::Bounds;
use millrace_kafka::group::{Budget, Consumer, Event};
use millrace_kafka::producer::Producer;
use millrace_kafka::{Connection, topics};
use millrace_service::{Causes, Condition, Context, Shutdown};
use millrace_store::Redis;
use millrace_warehouse::Warehouse;
use tokio::task::JoinSet;

use crate::accounts::{self, Accounts};
use crate::config::Configuration;
use crate::credentials::Credentials;
use crate::destinations::{self, Destinations, TableLocks};
use crate::error::Error;
use crate::metrics::{Kind, Metrics};
use crate::partition;
use crate::watch::Watch;
use crate::write::Writer;

/// Between the end of a session and the next.
const SESSION_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at parts that are away while the process starts.
const START_PAUSE: Duration = Duration::from_secs(1);

/// Runs the bulker until it is asked to end.
///
/// # Errors
/// A configuration that the clients refuse. Parts that are away are waited for.
pub async fn run(context: Context<Configuration>) -> anyhow::Result<()> {
    let configuration = Arc::new(context.config.clone());
    let connection = Connection::new(configuration.kafka.brokers.join(","), "millrace-bulker");
    let metrics = context.metrics.register(Metrics::register);
    let kafka = context.readiness.condition("kafka");
    let clickhouse = context.readiness.condition("clickhouse");
    let partitions = context.readiness.condition("partitions");
    partitions.holds();
    let progress = context.readiness.condition("progress");
    progress.holds();
    context.readiness.started();

    let shutdown = context.shutdown.clone();
    let warehouse = warehouse(&configuration)?;
    let known = context.readiness.condition("destinations");
    let destinations = destinations(&configuration, &warehouse, known, &shutdown)?;
    let credentials = Arc::new(Credentials {
        key_file: configuration.secrets.key_file.clone(),
        insert_timeout: configuration.insert.deadline,
        latest_arrival: configuration.insert.latest_arrival,
    });
    let Some(count) = wait_for_parts(
        &configuration,
        &connection,
        &warehouse,
        [&kafka, &clickhouse],
        &shutdown,
    )
    .await
    else {
        return Ok(());
    };
    let accounts = tokio::spawn(accounts::run(
        accounts_of(&context, &connection, &warehouse)?,
        context.readiness.observation("accounts"),
        shutdown.clone(),
    ));
    let log = Bounds::new(&connection, &configuration.topics.transformed);
    while !shutdown.is_requested() {
        let producer = Producer::new(&connection).context("the producer could not be made")?;
        let writer = Writer::new(
            warehouse.clone(),
            producer,
            &configuration,
            metrics.clone(),
            count,
            Arc::clone(&destinations),
            Arc::clone(&credentials),
        )?;
        let budget = Budget::new(configuration.memory.records.as_usize());
        let consumer = Consumer::start_within(
            &connection,
            &configuration.consumer,
            &[&configuration.topics.transformed],
            &budget,
        )
        .context("the consumer could not be made")?;
        let session = Session {
            writer: Arc::new(writer),
            clock: Arc::clone(&context.clock),
            configuration: Arc::clone(&configuration),
            shutdown: shutdown.clone(),
            partitions: partitions.clone(),
            watch: Arc::default(),
            tasks: JoinSet::new(),
        };
        let watch = Arc::clone(&session.watch);
        let after = configuration.stall.after;
        let reason = tokio::select! {
            reason = session.run(consumer) => reason,
            () = watch.run(&log, after, &budget, &progress, &metrics) => "watch",
        };
        metrics.sessions_ended.get_or_create(&Kind { kind: reason }).inc();
        if !shutdown.is_requested() {
            tracing::warn!(reason, "the session ended, starting another");
            tokio::time::sleep(SESSION_PAUSE).await;
        }
    }
    accounts.await.context("the accounts' task panicked")
}

/// What destinations want, kept fresh until the end. Not knowing the newest is no reason to stop; knowing nothing is.
fn destinations(
    configuration: &Configuration,
    warehouse: &Warehouse,
    condition: Condition,
    shutdown: &Shutdown,
) -> anyhow::Result<Arc<Destinations>> {
    let directory = destinations::directory(configuration.postgres.url.expose()).context("postgres")?;
    let section = &configuration.redis;
    let mut redis = millrace_store::redis::Config::new(section.url.expose());
    redis.key_prefix.clone_from(&section.key_prefix);
    let redis = Redis::connect(&redis).context("redis")?;
    let (heard, ended) = (Arc::clone(&directory), shutdown.token());
    let told = move |look: Result<(), millrace_store::Error>| match look {
        Ok(()) => condition.holds(),
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "destinations cannot be read, what is known of them goes on");
            if !heard.is_known() {
                condition.fails(error.to_string());
            }
        }
    };
    let follow = destinations::follow(
        Arc::clone(&directory),
        redis,
        configuration.destinations.poll,
        told,
    );
    tokio::spawn(async move { Box::pin(ended.run_until_cancelled(follow)).await });
    let own = configuration.clickhouse.database.parse()?;
    let shared = millrace_warehouse::layout::shared_database(&own)?;
    Ok(Arc::new(Destinations::new(directory, shared, warehouse.clone())))
}

fn accounts_of(
    context: &Context<Configuration>,
    connection: &Connection,
    warehouse: &Warehouse,
) -> anyhow::Result<Arc<Accounts>> {
    let configuration = &context.config;
    Ok(Arc::new(Accounts {
        connection: connection.clone(),
        group: Accounts::group_of(&configuration.consumer),
        topics: configuration.topics.clone(),
        warehouse: warehouse.clone(),
        database: configuration.clickhouse.database.parse()?,
        config: configuration.accounts.clone(),
        deadline: configuration.insert.deadline,
        longest_pause: configuration.insert.longest_pause,
        metrics: context.metrics.register(accounts::Metrics::register),
    }))
}

fn warehouse(configuration: &Configuration) -> anyhow::Result<Warehouse> {
    let section = &configuration.clickhouse;
    let mut config = millrace_warehouse::Config::new(section.url.expose());
    config.lease = configuration
        .insert
        .latest_arrival
        .saturating_sub(millrace_warehouse::line::LEASE_MARGIN);
    config.user = Some(section.user.clone()).filter(|user| !user.is_empty());
    config.password = Some(section.password.expose().clone()).filter(|password| !password.is_empty());
    let locks = TableLocks::new(configuration.postgres.url.expose()).context("postgres")?;
    Ok(config.build().with_turns(Arc::new(locks)))
}

/// Waits until Kafka has the topics and ClickHouse answers; how many partitions the topics have, `None` where the
/// process is asked to end first.
async fn wait_for_parts(
    configuration: &Configuration,
    connection: &Connection,
    warehouse: &Warehouse,
    [kafka, clickhouse]: [&Condition; 2],
    shutdown: &Shutdown,
) -> Option<u32> {
    loop {
        let topics = topics::check(connection, &configuration.topics).await;
        match &topics {
            Ok(_) => kafka.holds(),
            Err(error) => kafka.fails(error.to_string()),
        }
        let answered = warehouse.ping().await;
        match &answered {
            Ok(()) => clickhouse.holds(),
            Err(error) => clickhouse.fails(error.to_string()),
        }
        if let (Ok(partitions), Ok(())) = (topics, answered) {
            return Some(partitions);
        }
        tokio::select! {
            () = shutdown.requested() => return None,
            () = tokio::time::sleep(START_PAUSE) => {}
        }
    }
}

/// One membership of the group with one producer.
struct Session {
    writer: Arc<Writer>,
    clock: Arc<dyn millrace_service::Clock>,
    configuration: Arc<Configuration>,
    shutdown: Shutdown,
    partitions: Condition,
    watch: Arc<Watch>,
    tasks: JoinSet<Result<(), Error>>,
}

impl Session {
    /// Works until something ends the session; says what.
    async fn run(mut self, mut consumer: Consumer) -> &'static str {
        let reason = loop {
            tokio::select! {
                () = self.shutdown.requested() => break "shutdown",
                event = consumer.next() => match event {
                    Some(Event::Assigned(partition)) => self.start(partition),
                    Some(Event::Failed(error)) => {
                        tracing::warn!(kind = error.kind(), error = %Causes(&error), "the consumer cannot go on");
                        break error.kind();
                    }
                    None => break "closed",
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        if let Some(reason) = Self::judge(&error) {
                            break reason;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "a partition's task panicked");
                        break "panic";
                    }
                },
            }
        };
        // Closing revokes every partition; their tasks finish or leave their plan to the next owner.
        consumer.close().await;
        while self.tasks.join_next().await.is_some() {}
        reason
    }

    fn start(&mut self, partition: millrace_kafka::group::Partition) {
        let (writer, clock) = (Arc::clone(&self.writer), Arc::clone(&self.clock));
        let configuration = Arc::clone(&self.configuration);
        let (healthy, watch) = (self.partitions.clone(), Arc::clone(&self.watch));
        self.tasks.spawn(async move {
            partition::run(partition, writer, clock, &configuration, &healthy, &watch).await
        });
    }

    /// What the end of a partition's task means for the session.
    fn judge(error: &Error) -> Option<&'static str> {
        match error {
            Error::Revoked => None,
            error => {
                tracing::warn!(kind = error.kind(), error = %Causes(error), "a partition cannot go on in this session");
                Some(error.kind())
            }
        }
    }
}
