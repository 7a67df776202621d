-- Fingerprints: which message this is, the same in each repetition of its request. A message that has one ends with a record
-- without items, which becomes a row here: of the last message of a request it is its receipt. A message that is a repetition is
-- not stored; its row counts the items that were left out.

ALTER TABLE landing_metrics ADD COLUMN IF NOT EXISTS fingerprint String,
    ADD COLUMN IF NOT EXISTS repeated_items UInt64;

ALTER TABLE landing_logs ADD COLUMN IF NOT EXISTS fingerprint String,
    ADD COLUMN IF NOT EXISTS repeated_items UInt64;

ALTER TABLE landing_traces ADD COLUMN IF NOT EXISTS fingerprint String,
    ADD COLUMN IF NOT EXISTS repeated_items UInt64;

-- Fingerprint: zero where repetitions are not recognized. Received: 0 in a row that is no receipt.
ALTER TABLE telemetry_batches ADD COLUMN IF NOT EXISTS Fingerprint UUID CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS RepeatedItems UInt64 CODEC(ZSTD(1));

ALTER TABLE landing_metrics_to_receipts MODIFY QUERY
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
    receipt_settled AS Settled, receipt_failed AS Failed,
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired,
    toUUID(UUIDNumToString(toFixedString(fingerprint, 16))) AS Fingerprint, repeated_items AS RepeatedItems
FROM landing_metrics
WHERE receipt_received != 0 OR notEmpty(fingerprint);

ALTER TABLE landing_logs_to_receipts MODIFY QUERY
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
    receipt_settled AS Settled, receipt_failed AS Failed,
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired,
    toUUID(UUIDNumToString(toFixedString(fingerprint, 16))) AS Fingerprint, repeated_items AS RepeatedItems
FROM landing_logs
WHERE receipt_received != 0 OR notEmpty(fingerprint);

ALTER TABLE landing_traces_to_receipts MODIFY QUERY
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
    receipt_settled AS Settled, receipt_failed AS Failed,
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired,
    toUUID(UUIDNumToString(toFixedString(fingerprint, 16))) AS Fingerprint, repeated_items AS RepeatedItems
FROM landing_traces
WHERE receipt_received != 0 OR notEmpty(fingerprint);
