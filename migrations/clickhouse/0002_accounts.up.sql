-- What the services say about themselves, from topics of their own. A row has the identity of the record it came in,
-- like an event row, by which it can be asked for after a doubt.

-- One row for each request that the gateway answered (usage.requests.v1). Without an organization and a key where the
-- request named no key that is known.
CREATE TABLE IF NOT EXISTS usage_events
(
    `request_id` String CODEC(ZSTD(1)),
    `organization_id` LowCardinality(String),
    `api_key_id` LowCardinality(String),
    `endpoint` LowCardinality(String),
    `method` LowCardinality(String),
    `status_code` UInt16 CODEC(ZSTD(1)),
    `response_time_ms` Float64 CODEC(ZSTD(1)),
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `billable` Bool CODEC(ZSTD(1)),
    `_journal` UInt64 CODEC(ZSTD(1)),
    `_partition` UInt32 CODEC(ZSTD(1)),
    `_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `_sub` UInt16 CODEC(ZSTD(1)),
    PROJECTION _identity (SELECT _journal, _partition, _seq, _sub ORDER BY _journal, _partition, _seq, _sub)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (organization_id, toStartOfHour(timestamp), endpoint, request_id)
TTL toDateTime(timestamp) + INTERVAL 13 MONTH DELETE
SETTINGS non_replicated_deduplication_window = 10000, lightweight_mutation_projection_mode = 'rebuild';

-- The same by the hour, kept without end: what is billed. Read it with sum(requests), sum(billable), max(slowest_ms)
-- and quantilesTDigestMerge(0.5, 0.95, 0.99)(response_time_ms), grouped by what is asked for.
CREATE TABLE IF NOT EXISTS usage_hourly
(
    `hour` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `organization_id` LowCardinality(String),
    `api_key_id` LowCardinality(String),
    `endpoint` LowCardinality(String),
    `method` LowCardinality(String),
    `status_code` UInt16 CODEC(ZSTD(1)),
    `requests` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `billable` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `slowest_ms` SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    `response_time_ms` AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (organization_id, hour, endpoint, method, status_code, api_key_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_hourly_view TO usage_hourly AS
SELECT
    toStartOfHour(toDateTime(usage_events.timestamp, 'UTC')) AS hour,
    organization_id, api_key_id, endpoint, method, status_code,
    count() AS requests,
    countIf(usage_events.billable) AS billable,
    max(usage_events.response_time_ms) AS slowest_ms,
    quantilesTDigestState(0.5, 0.95, 0.99)(usage_events.response_time_ms) AS response_time_ms
FROM usage_events
GROUP BY hour, organization_id, api_key_id, endpoint, method, status_code;

-- What functions logged (functions.log.v1), for two weeks. Lines are bounded and sampled before they come here.
CREATE TABLE IF NOT EXISTS function_logs
(
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `workspace` LowCardinality(String),
    `source` LowCardinality(String),
    `destination` LowCardinality(String),
    `chain` LowCardinality(String),
    `chain_version` UInt64 CODEC(ZSTD(1)),
    `function` LowCardinality(String),
    `function_version` Nullable(UInt32) CODEC(ZSTD(1)),
    `id` String CODEC(ZSTD(1)),
    `message_id` String CODEC(ZSTD(1)),
    `attempt` Nullable(UInt32) CODEC(ZSTD(1)),
    `level` LowCardinality(String),
    `message` String CODEC(ZSTD(1)),
    `discarded` UInt64 CODEC(ZSTD(1)),
    `_journal` UInt64 CODEC(ZSTD(1)),
    `_partition` UInt32 CODEC(ZSTD(1)),
    `_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `_sub` UInt16 CODEC(ZSTD(1)),
    PROJECTION _identity (SELECT _journal, _partition, _seq, _sub ORDER BY _journal, _partition, _seq, _sub)
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(timestamp)
ORDER BY (workspace, function, timestamp)
TTL toDateTime(timestamp) + INTERVAL 14 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, lightweight_mutation_projection_mode = 'rebuild',
    ttl_only_drop_parts = 1;
