-- Who sent which dead letters round again (`millctl dlq replay`): a row for each letter, written before the letter is
-- sent. It may so name one that was not sent because the command died in between, never the other way round.
CREATE TABLE IF NOT EXISTS replays
(
    `replay` LowCardinality(String),
    `by` LowCardinality(String),
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `filter` LowCardinality(String),
    `forced` Bool CODEC(ZSTD(1)),
    `topic` LowCardinality(String),
    `dlq_partition` UInt32 CODEC(ZSTD(1)),
    `dlq_offset` UInt64 CODEC(Delta, ZSTD(1)),
    `id` String CODEC(ZSTD(1)),
    `attempt` UInt32 CODEC(ZSTD(1)),
    `workspace` LowCardinality(String),
    `code` LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, replay, dlq_partition, dlq_offset)
SETTINGS non_replicated_deduplication_window = 10000;
