-- The view of trace times reads the payloads themselves, and not the rows that another view has written. So each table that
-- keeps rows has one view between it and a landing table, and rows that are missing can be written to one table alone.
-- Created before the other is dropped: a writer that inserts between the two writes some rows of trace times twice, which
-- changes neither Start nor End.
CREATE MATERIALIZED VIEW IF NOT EXISTS landing_traces_to_trace_times TO otel_traces_trace_id_ts AS
SELECT
    lower(hex(trace_id)) AS TraceId, toDateTime(fromUnixTimestamp64Nano(min(start_time))) AS Start,
    toDateTime(fromUnixTimestamp64Nano(max(start_time))) AS End, TenantId, BatchId, batch_part AS BatchPart,
    count() AS SpanCount
FROM landing_traces
ARRAY JOIN spans.trace_id AS trace_id, spans.start_time_unix_nano AS start_time
WHERE trace_id != ''
GROUP BY trace_id, TenantId, BatchId, batch_part;

DROP VIEW IF EXISTS otel_traces_trace_id_ts_mv;

-- After MODIFY QUERY (0007) a view has other deduplication tokens until ClickHouse is started again: an insert before and its
-- repetition after would be stored twice. A new name gives it those that it keeps.
RENAME TABLE IF EXISTS landing_metrics_to_batches TO landing_metrics_to_receipts;

RENAME TABLE IF EXISTS landing_logs_to_batches TO landing_logs_to_receipts;

RENAME TABLE IF EXISTS landing_traces_to_batches TO landing_traces_to_receipts;

RENAME TABLE IF EXISTS landing_dead_letters_to_letters TO landing_dead_letters_to_entries;
