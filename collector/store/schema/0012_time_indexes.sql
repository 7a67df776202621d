-- What dashboards filter by: the time of logs and of spans, and the names of spans. All of it changes metadata only: parts that are
-- there get the indexes when they are merged, and until then are read as before.

ALTER TABLE otel_logs ADD INDEX IF NOT EXISTS idx_time Timestamp TYPE minmax GRANULARITY 1;

ALTER TABLE otel_traces ADD INDEX IF NOT EXISTS idx_time Timestamp TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS idx_lower_span_name lower(SpanName) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8;

ALTER TABLE otel_traces MODIFY COLUMN IF EXISTS Duration UInt64 CODEC(T64, ZSTD(1));

-- TimestampTime becomes an ALIAS, so that a condition on it is one on Timestamp. An ALIAS may not have a codec, and a codec can be
-- removed only where there is one: so it is given first, which lets these three be run again.
ALTER TABLE otel_logs MODIFY COLUMN IF EXISTS TimestampTime DateTime DEFAULT toDateTime(Timestamp) CODEC(ZSTD(1));

ALTER TABLE otel_logs MODIFY COLUMN IF EXISTS TimestampTime REMOVE CODEC;

ALTER TABLE otel_logs MODIFY COLUMN IF EXISTS TimestampTime DateTime ALIAS toDateTime(Timestamp);
