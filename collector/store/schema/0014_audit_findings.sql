-- What scheduled audits found that does not add up: a row each time that the state of a finding changes, the newest of which counts.
-- State: open, confirmed (an operator has seen it), explained (a later audit of the same time added up).
CREATE TABLE IF NOT EXISTS telemetry_audit_findings (
    WindowStart DateTime64(9) CODEC(ZSTD(1)),
    WindowEnd DateTime64(9) CODEC(ZSTD(1)),
    Difference UInt64 CODEC(ZSTD(1)),
    State LowCardinality(String) CODEC(ZSTD(1)),
    Actor String CODEC(ZSTD(1)),
    At DateTime64(9) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (WindowStart, WindowEnd)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;
