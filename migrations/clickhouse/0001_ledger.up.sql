-- The bulker's ledger of last resort, beside the rows themselves. Both tables are never given up: where they
-- cannot be written, the partition waits.

-- One row for each event that is not a plain first forward: what was decided about an attempt, and by which
-- record of the transformed log. Asked for by identity and attempt; for rows that come back from the bulker
-- (stage bulker) by table and sub as well, elsewhere those are empty and 0.
-- The hour is that of received_at, so that a record encoded again lands in the same partition.
CREATE TABLE IF NOT EXISTS outcomes
(
    `_journal` UInt64 CODEC(ZSTD(1)),
    `_partition` UInt32 CODEC(ZSTD(1)),
    `_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `attempt` UInt32 CODEC(ZSTD(1)),
    `target` LowCardinality(String),
    `sub` UInt16 CODEC(ZSTD(1)),
    `log_partition` UInt32 CODEC(ZSTD(1)),
    `log_offset` UInt64 CODEC(Delta, ZSTD(1)),
    `hour` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `workspace` LowCardinality(String),
    `verdict` LowCardinality(String),
    `function` LowCardinality(String),
    `code` LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (_journal, _partition, _seq, attempt, target, sub)
SETTINGS non_replicated_deduplication_window = 10000;

-- Watermarks of journals that no longer fit into the commit metadata. `position` is the H they hold for: a reader
-- takes the highest one not above its own. `hole_starts` and `hole_ends` are ranges of seq below `next`, ends not
-- included, that have not arrived.
CREATE TABLE IF NOT EXISTS journals
(
    `group` LowCardinality(String),
    `log_partition` UInt32 CODEC(ZSTD(1)),
    `journal` UInt64 CODEC(ZSTD(1)),
    `position` UInt64 CODEC(Delta, ZSTD(1)),
    `next` UInt64 CODEC(Delta, ZSTD(1)),
    `hole_starts` Array(UInt64) CODEC(ZSTD(1)),
    `hole_ends` Array(UInt64) CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (group, log_partition, journal, position)
SETTINGS non_replicated_deduplication_window = 10000;
