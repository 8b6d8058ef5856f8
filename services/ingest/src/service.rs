//! Puts the parts together, and takes them apart in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use millrace_kafka::Connection;
use millrace_kafka::edge::Producer;
use millrace_service::{Causes, Condition, Context};
use millrace_store::keys::Cache;
use millrace_store::{Dedup, Fields, Keys as KeyStore, Limiter, Postgres, Redis, notice};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::http::{Handler, Server};
use crate::journal::ship::{self, Shipper};
use crate::journal::{Accept, Health, Journal, Topic};
use crate::metrics::Metrics;
use crate::pipeline::{Acceptance, Groups, KafkaFirst, Keys, Pipeline, RateLimits, Types, settle};
use crate::usage::usage;

/// How long the start waits for Kafka to say how many partitions there are.
const PARTITIONS_WAIT: Duration = Duration::from_secs(3);
/// How long the start waits for Redis: events that come before it is connected are not deduplicated.
const REDIS_WAIT: Duration = Duration::from_secs(2);
/// Between two questions that were not answered.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at the journal for metrics and readiness.
const WATCH: Duration = Duration::from_millis(500);
/// Of the time until the deadline, kept for closing the journal.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs the gateway until it is asked to end and has drained.
///
/// # Errors
/// When the journal or the port cannot be opened, or the journal cannot be closed.
///
/// # Cancellation
/// As if the process had been killed: what was answered is in the journal.
pub async fn serve(context: Context<Config>) -> anyhow::Result<()> {
    let Context {
        config,
        shutdown,
        readiness,
        metrics: registry,
        admin,
        clock,
        ..
    } = context;
    let metrics = registry.register(Metrics::register);
    let conditions = Conditions {
        journal: readiness.condition("journal"),
        keys: readiness.condition("keys"),
        kafka: readiness.observation("kafka"),
        redis: readiness.observation("redis"),
    };
    readiness.started();

    let (journal_config, journal_clock) = (config.journal.clone(), Arc::clone(&clock));
    let opened = spawn_blocking(move || Journal::open(&journal_config, journal_clock)).await?;
    let cannot = || format!("journal.dir {} cannot be used", config.journal.dir.display());
    let (journal, recovered) = opened.with_context(cannot)?;
    let journal = Arc::new(journal);
    let depth = journal.depth();
    tracing::info!(
        records = depth.records,
        bytes = depth.bytes,
        segments = depth.segments,
        "the journal is open"
    );

    let postgres = Postgres::new(&millrace_store::postgres::Config::new(
        config.postgres.url.expose(),
    ))
    .context("postgres.url cannot be used")?;
    let mut redis_config = millrace_store::redis::Config::new(config.redis.url.expose());
    redis_config.key_prefix.clone_from(&config.redis.key_prefix);
    redis_config.call_timeout = config.dedup.timeout;
    let redis = Redis::connect(&redis_config).context("redis.url cannot be used")?;
    let dedup = Dedup::new(redis.clone(), journal.id(Topic::Ingest), config.dedup.store())?;
    let keys = Arc::new(Keys::new(
        KeyStore::new(postgres.clone()),
        Cache::new(redis.clone()),
        config.keys.clone(),
        Arc::clone(&clock),
        config.journal.dir.join("keys.json"),
        conditions.keys.clone(),
        metrics.clone(),
    ));
    let types = Arc::new(Types::new(
        Fields::new(postgres.clone()),
        &config.fields,
        Arc::clone(&clock),
        metrics.clone(),
    ));
    let kafka = Connection::new(config.kafka.brokers.join(","), "millrace-ingest");
    let producer = Arc::new(Producer::new(kafka.clone(), config.ship.request_timeout));
    // With connections of its own: its failures must not disturb the events'.
    let (usage, reporter) = usage(
        &config.usage,
        Producer::new(kafka, config.ship.request_timeout),
        config.topics.usage.clone(),
        &metrics,
    );

    // Work that ends with the process; what must end in order is awaited below.
    let background = TaskTracker::new();
    let end = CancellationToken::new();
    let partitions = Arc::new(AtomicU32::new(
        journal.partitions().unwrap_or(config.ship.partitions),
    ));
    let asking = ask_partitions(
        Arc::clone(&producer),
        config.topics.ingest.clone(),
        Arc::clone(&journal),
        Arc::clone(&partitions),
        conditions.kafka.clone(),
    );
    let mut asking = background.spawn(end.clone().run_until_cancelled_owned(asking));
    let known = journal.partitions().is_some();
    let partitions_asked =
        async { known || tokio::time::timeout(PARTITIONS_WAIT, &mut asking).await.is_ok() };
    let (asked, connected) = tokio::join!(partitions_asked, redis.wait_connected(REDIS_WAIT));
    if !asked {
        let assumed = config.ship.partitions;
        tracing::warn!(
            assumed,
            "kafka was never reached from here, its number of partitions is assumed"
        );
    }
    if let Err(error) = connected {
        tracing::warn!(error = %Causes(&error), "redis is away, events are taken without the memory of message ids");
    }

    let reader = journal.reader();
    reader.hold_recovered(true);
    let settling = {
        let settling = settle(dedup.clone(), reader.clone(), recovered, config.dedup.pending);
        // A repeat of what an earlier process kept is answered 200 once it is settled.
        let kafka_first = config.journal.accept == Accept::Kafka;
        let journal = Arc::clone(&journal);
        async move {
            if kafka_first {
                journal.recovered_acknowledged().await;
            }
            settling.await;
        }
    };
    background.spawn(end.clone().run_until_cancelled_owned(settling));
    background.spawn(
        end.clone()
            .run_until_cancelled_owned(Arc::clone(&keys).keep_snapshot()),
    );
    let hearing = {
        let (keys, types) = (Arc::clone(&keys), Arc::clone(&types));
        notice::listen(redis.clone(), move |notice| {
            keys.hear(&notice);
            types.hear(&notice);
        })
    };
    background.spawn(end.clone().run_until_cancelled_owned(hearing));
    let watch = watch(
        Arc::clone(&journal),
        Arc::clone(&keys),
        postgres.clone(),
        redis.clone(),
        conditions.clone(),
        metrics.clone(),
    );
    background.spawn(end.clone().run_until_cancelled_owned(watch));

    let shipper = Shipper {
        reader,
        producer,
        topics: config.topics.clone(),
        config: ship::Config {
            // An answer that waits for Kafka must not wait for company: what comes meanwhile is the next batch.
            linger: match config.journal.accept {
                Accept::Journal => config.ship.linger,
                Accept::Kafka => Duration::ZERO,
            },
            ..config.ship.clone()
        },
        observer: Arc::new(Watched {
            metrics: metrics.clone(),
            kafka: conditions.kafka.clone(),
        }),
    };
    let (drained, stop) = (CancellationToken::new(), CancellationToken::new());
    let shipping = tokio::spawn(shipper.run(drained.clone(), stop.clone()));

    let rates = Arc::new(RateLimits::new(
        Limiter::new(redis.clone()),
        &config.guests,
        Arc::clone(&clock),
        metrics.clone(),
    ));
    let acceptance = Acceptance {
        journal: Arc::clone(&journal),
        dedup,
        types: Arc::clone(&types),
        rates: Arc::clone(&rates),
        wait: config.dedup.wait,
        kafka: (config.journal.accept == Accept::Kafka).then_some(KafkaFirst {
            timeout: config.journal.accept_timeout,
            backlog: config.journal.accept_backlog,
        }),
        metrics: metrics.clone(),
    };
    let tasks = TaskTracker::new();
    let pipeline = Pipeline {
        limits: config.events.clone(),
        clocks: config.time.clone(),
        rates,
        types,
        keys: Arc::clone(&keys),
        groups: Groups::new(Arc::new(acceptance), tasks.clone()),
        partitions,
        metrics: metrics.clone(),
    };
    let usage_end = CancellationToken::new();
    let reporting = tokio::spawn(reporter.run(usage_end.clone()));
    let closing = CancellationToken::new();
    let handler = Handler::new(
        pipeline,
        admin,
        usage,
        &config.http,
        clock,
        metrics,
        closing.clone(),
    )?;
    let server = Server::bind(&config.http).await;
    let server = server.context("http.listen cannot be used")?;
    tracing::info!(address = %server.address()?, "events are taken");
    let mut serving = tokio::spawn(server.serve(handler, shutdown.token(), closing.clone()));
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        ended = &mut serving => {
            ended?;
            anyhow::bail!("the public port is not served any more");
        }
    }

    // From here on the deadline runs. First no request is open, then nothing is left to ship, then the
    // journal is closed; whichever is cut short, what was answered is on disk.
    let left = shutdown.deadline().saturating_sub(CLOSING);
    let (half, deadline) = {
        let now = tokio::time::Instant::now();
        (now + left / 2, now + left)
    };
    // A client that is slow with its request has half of it; the other half is for what was taken.
    if tokio::time::timeout_at(half, &mut serving).await.is_err() {
        closing.cancel();
        if tokio::time::timeout_at(deadline, &mut serving).await.is_err() {
            tracing::warn!("connections were still open at the deadline");
        }
    }
    tasks.close();
    if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
        tracing::warn!("message ids were not all marked at the deadline");
    }
    usage_end.cancel();
    drained.cancel();
    let mut shipping = shipping;
    if tokio::time::timeout_at(deadline, &mut shipping).await.is_err() {
        stop.cancel();
        shipping.await?;
        let left = journal.depth().records;
        tracing::warn!(left, "not everything was shipped, the next start goes on");
    }
    if tokio::time::timeout_at(deadline, reporting).await.is_err() {
        tracing::warn!("usage events were not all sent at the deadline");
    }
    end.cancel();
    background.close();
    background.wait().await;
    keys.store_snapshot().await;
    journal
        .close()
        .await
        .context("the journal was not closed in order")?;
    redis.close().await;
    postgres.close();
    Ok(())
}

#[derive(Clone)]
struct Conditions {
    journal: Condition,
    keys: Condition,
    kafka: Condition,
    redis: Condition,
}

/// What the shipper says, counted and shown.
#[derive(Debug)]
struct Watched {
    metrics: Metrics,
    kafka: Condition,
}

impl ship::Observer for Watched {
    fn shipped(&self, records: u64) {
        self.kafka.holds();
        self.metrics.shipped.inc_by(records);
    }

    fn failed(&self, reason: &str) {
        self.kafka.fails(reason);
        self.metrics.produce_failures.inc();
    }

    fn set_aside(&self) {
        self.metrics.set_aside.inc();
    }
}

/// Asks until Kafka says how many partitions there are, and remembers it.
async fn ask_partitions(
    producer: Arc<Producer>,
    topic: String,
    journal: Arc<Journal>,
    partitions: Arc<AtomicU32>,
    kafka: Condition,
) {
    loop {
        match producer.partitions(&topic).await {
            Ok(count) => {
                kafka.holds();
                let before = partitions.swap(count, Ordering::Relaxed);
                // Before the first answer nothing but the assumption is contradicted.
                let relied_on = journal.partitions().is_some() || journal.depth().records > 0;
                if relied_on && count < before {
                    tracing::error!(
                        before,
                        count,
                        "fewer partitions than were taken for granted, what is in the journal for the others waits until the topics grow"
                    );
                } else if relied_on && count > before {
                    tracing::warn!(
                        before,
                        count,
                        "there are more partitions now, order per key breaks here once"
                    );
                }
                let remembered = spawn_blocking(move || journal.remember_partitions(count)).await;
                if !matches!(remembered, Ok(Ok(()))) {
                    tracing::warn!(count, "the number of partitions could not be written down");
                }
                return;
            }
            Err(error) => {
                kafka.fails(Causes(&error).to_string());
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Keeps readiness and gauges true.
async fn watch(
    journal: Arc<Journal>,
    keys: Arc<Keys>,
    postgres: Postgres,
    redis: Redis,
    conditions: Conditions,
    metrics: Metrics,
) {
    let mut tick = tokio::time::interval(WATCH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    loop {
        tick.tick().await;
        let depth = journal.depth();
        metrics.journal_bytes.set(gauge(depth.bytes));
        metrics.journal_records.set(gauge(depth.records));
        metrics.journal_syncs.set(gauge(journal.syncs()));
        match journal.health() {
            Health::Sound => conditions.journal.holds(),
            Health::Failed => conditions
                .journal
                .fails("a sync failed, the process must be started anew"),
        }
        // Known keys are served without Postgres; without either no request can be judged.
        if keys.knows_any() {
            conditions.keys.holds();
        } else {
            match postgres.ping().await {
                Ok(()) => conditions.keys.holds(),
                Err(error) => conditions.keys.fails(Causes(&error).to_string()),
            }
        }
        if redis.is_connected() {
            conditions.redis.holds();
        } else {
            conditions.redis.fails("not connected");
        }
    }
}
