CREATE DATABASE IF NOT EXISTS `ws_demo` ON CLUSTER `main`;

CREATE TABLE IF NOT EXISTS `ws_demo`.`events` ON CLUSTER `main`
(
    `message_id` String CODEC(ZSTD(1)),
    `type` LowCardinality(String),
    `event` LowCardinality(String),
    `anonymous_id` String CODEC(ZSTD(1)),
    `user_id` String CODEC(ZSTD(1)),
    `group_id` String CODEC(ZSTD(1)),
    `previous_id` String CODEC(ZSTD(1)),
    `name` String CODEC(ZSTD(1)),
    `category` String CODEC(ZSTD(1)),
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `original_timestamp` Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    `sent_at` Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    `received_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `source` LowCardinality(String),
    `extra` String CODEC(ZSTD(1)),
    `_journal` UInt64 CODEC(ZSTD(1)),
    `_partition` UInt32 CODEC(ZSTD(1)),
    `_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `_sub` UInt16 CODEC(ZSTD(1)),
    PROJECTION _identity (SELECT _journal, _partition, _seq, _sub ORDER BY _journal, _partition, _seq, _sub)
)
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (type, event, toStartOfHour(timestamp), cityHash64(anonymous_id), message_id)
TTL toDateTime(received_at) + INTERVAL 30 DAY DELETE
SETTINGS replicated_deduplication_window = 10000, lightweight_mutation_projection_mode = 'rebuild';

CREATE TABLE IF NOT EXISTS `ws_demo`.`events_per_minute` ON CLUSTER `main`
(
    `minute` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `type` LowCardinality(String),
    `event` LowCardinality(String),
    `source` LowCardinality(String),
    `events` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `people` AggregateFunction(uniq, String),
    `latest` SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(ZSTD(1))
)
ENGINE = ReplicatedAggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (type, event, source, minute)
TTL minute + INTERVAL 30 DAY DELETE
SETTINGS replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS `ws_demo`.`events_per_minute_view` ON CLUSTER `main` TO `ws_demo`.`events_per_minute` AS
SELECT toStartOfMinute(toDateTime(received_at, 'UTC')) AS minute, type, event, source, count() AS events, uniqState(anonymous_id) AS people, max(received_at) AS latest
FROM `ws_demo`.`events` GROUP BY minute, type, event, source;
