-- Receipts: what became of each request. They stand in records without items, on the topic of the request's last message, and
-- so come in by all three landing tables.

ALTER TABLE landing_metrics ADD COLUMN IF NOT EXISTS receipt_route String,
    ADD COLUMN IF NOT EXISTS receipt_received UInt64,
    ADD COLUMN IF NOT EXISTS receipt_accepted Array(Tuple(type Int32, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_dead_letters UInt64,
    ADD COLUMN IF NOT EXISTS receipt_parts UInt32,
    ADD COLUMN IF NOT EXISTS receipt_process_id String,
    ADD COLUMN IF NOT EXISTS receipt_sequence UInt64,
    ADD COLUMN IF NOT EXISTS receipt_settled UInt64,
    ADD COLUMN IF NOT EXISTS receipt_failed Array(Tuple(first UInt64, last UInt64));

ALTER TABLE landing_logs ADD COLUMN IF NOT EXISTS receipt_route String,
    ADD COLUMN IF NOT EXISTS receipt_received UInt64,
    ADD COLUMN IF NOT EXISTS receipt_accepted Array(Tuple(type Int32, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_dead_letters UInt64,
    ADD COLUMN IF NOT EXISTS receipt_parts UInt32,
    ADD COLUMN IF NOT EXISTS receipt_process_id String,
    ADD COLUMN IF NOT EXISTS receipt_sequence UInt64,
    ADD COLUMN IF NOT EXISTS receipt_settled UInt64,
    ADD COLUMN IF NOT EXISTS receipt_failed Array(Tuple(first UInt64, last UInt64));

ALTER TABLE landing_traces ADD COLUMN IF NOT EXISTS receipt_route String,
    ADD COLUMN IF NOT EXISTS receipt_received UInt64,
    ADD COLUMN IF NOT EXISTS receipt_accepted Array(Tuple(type Int32, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    ADD COLUMN IF NOT EXISTS receipt_dead_letters UInt64,
    ADD COLUMN IF NOT EXISTS receipt_parts UInt32,
    ADD COLUMN IF NOT EXISTS receipt_process_id String,
    ADD COLUMN IF NOT EXISTS receipt_sequence UInt64,
    ADD COLUMN IF NOT EXISTS receipt_settled UInt64,
    ADD COLUMN IF NOT EXISTS receipt_failed Array(Tuple(first UInt64, last UInt64));

-- A row a request. BatchPart: 0; of a replay, a number of the range of dead letters that it came in.
CREATE TABLE IF NOT EXISTS telemetry_batches (
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    BatchId UUID CODEC(ZSTD(1)),
    BatchPart UInt32 CODEC(ZSTD(1)),
    ReceivedAt DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Source LowCardinality(String) CODEC(ZSTD(1)),
    Route LowCardinality(String) CODEC(ZSTD(1)),
    Received UInt64 CODEC(ZSTD(1)),
    Accepted Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)),
    Rejected Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)),
    DeadLetters UInt64 CODEC(ZSTD(1)),
    Parts UInt32 CODEC(ZSTD(1)),
    Topic LowCardinality(String) CODEC(ZSTD(1)),
    ProcessId UUID CODEC(ZSTD(1)),
    Sequence UInt64 CODEC(ZSTD(1)),
    Settled UInt64 CODEC(ZSTD(1)),
    Failed Array(Tuple(First UInt64, Last UInt64)) CODEC(ZSTD(1)),
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_process_id ProcessId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(ReceivedAt)
ORDER BY (TenantId, ReceivedAt, BatchId)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_batches TO telemetry_batches AS
SELECT
    TenantId, BatchId, batch_part AS BatchPart, ReceivedAt, Source, receipt_route AS Route, receipt_received AS Received,
    mapFromArrays(
        arrayMap(n -> transform(
            n.type, [0, 1, 2, 3, 4, 5, 6], ['unspecified', 'metric', 'log', 'trace', 'event', 'profile', 'slo'],
            toString(n.type)
        ), receipt_accepted),
        receipt_accepted.items
    ) AS Accepted,
    -- sumMap: a reason stands once for each type.
    mapFromArrays(
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 1),
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 2)
    ) AS Rejected,
    receipt_dead_letters AS DeadLetters, receipt_parts AS Parts, 'infrasage.metrics' AS Topic,
    toUUID(UUIDNumToString(toFixedString(receipt_process_id, 16))) AS ProcessId, receipt_sequence AS Sequence,
    receipt_settled AS Settled, receipt_failed AS Failed
FROM landing_metrics
WHERE receipt_received != 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_logs_to_batches TO telemetry_batches AS
SELECT
    TenantId, BatchId, batch_part AS BatchPart, ReceivedAt, Source, receipt_route AS Route, receipt_received AS Received,
    mapFromArrays(
        arrayMap(n -> transform(
            n.type, [0, 1, 2, 3, 4, 5, 6], ['unspecified', 'metric', 'log', 'trace', 'event', 'profile', 'slo'],
            toString(n.type)
        ), receipt_accepted),
        receipt_accepted.items
    ) AS Accepted,
    -- sumMap: a reason stands once for each type.
    mapFromArrays(
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 1),
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 2)
    ) AS Rejected,
    receipt_dead_letters AS DeadLetters, receipt_parts AS Parts, 'infrasage.logs' AS Topic,
    toUUID(UUIDNumToString(toFixedString(receipt_process_id, 16))) AS ProcessId, receipt_sequence AS Sequence,
    receipt_settled AS Settled, receipt_failed AS Failed
FROM landing_logs
WHERE receipt_received != 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_traces_to_batches TO telemetry_batches AS
SELECT
    TenantId, BatchId, batch_part AS BatchPart, ReceivedAt, Source, receipt_route AS Route, receipt_received AS Received,
    mapFromArrays(
        arrayMap(n -> transform(
            n.type, [0, 1, 2, 3, 4, 5, 6], ['unspecified', 'metric', 'log', 'trace', 'event', 'profile', 'slo'],
            toString(n.type)
        ), receipt_accepted),
        receipt_accepted.items
    ) AS Accepted,
    -- sumMap: a reason stands once for each type.
    mapFromArrays(
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 1),
        tupleElement(arrayReduce('sumMap', [receipt_rejected.reason], [receipt_rejected.items]), 2)
    ) AS Rejected,
    receipt_dead_letters AS DeadLetters, receipt_parts AS Parts, 'infrasage.traces' AS Topic,
    toUUID(UUIDNumToString(toFixedString(receipt_process_id, 16))) AS ProcessId, receipt_sequence AS Sequence,
    receipt_settled AS Settled, receipt_failed AS Failed
FROM landing_traces
WHERE receipt_received != 0;
