-- What was repaired of a request, on its receipt; and dead letters of requests that were refused as a whole.

ALTER TABLE landing_metrics ADD COLUMN IF NOT EXISTS receipt_repaired Array(Tuple(reason String, count UInt64));

ALTER TABLE landing_logs ADD COLUMN IF NOT EXISTS receipt_repaired Array(Tuple(reason String, count UInt64));

ALTER TABLE landing_traces ADD COLUMN IF NOT EXISTS receipt_repaired Array(Tuple(reason String, count UInt64));

ALTER TABLE telemetry_batches ADD COLUMN IF NOT EXISTS Repaired Map(LowCardinality(String), UInt64) CODEC(ZSTD(1));

ALTER TABLE landing_metrics_to_batches MODIFY QUERY
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
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired
FROM landing_metrics
WHERE receipt_received != 0;

ALTER TABLE landing_logs_to_batches MODIFY QUERY
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
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired
FROM landing_logs
WHERE receipt_received != 0;

ALTER TABLE landing_traces_to_batches MODIFY QUERY
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
    mapFromArrays(receipt_repaired.reason, receipt_repaired.count) AS Repaired
FROM landing_traces
WHERE receipt_received != 0;

-- Payload form 9: a request's body.
ALTER TABLE landing_dead_letters_to_letters MODIFY QUERY
SELECT
    letter_tenant_id AS TenantId, toUUID(UUIDNumToString(toFixedString(letter_id, 16))) AS Id,
    fromUnixTimestamp64Nano(letter_received_time_unix_nano) AS ReceivedAt,
    fromUnixTimestamp64Nano(letter_kept_time_unix_nano) AS KeptAt,
    transform(
        letter_source, [0, 1, 2, 3, 4], ['unspecified', 'native', 'otlp', 'prometheus_write_v1', 'prometheus_write_v2'],
        toString(letter_source)
    ) AS Source,
    transform(
        letter_type, [0, 1, 2, 3, 4, 5, 6], ['unspecified', 'metric', 'log', 'trace', 'event', 'profile', 'slo'],
        toString(letter_type)
    ) AS Type,
    letter_route AS Route, letter_reason AS Reason, letter_message AS Message, letter_service_id AS ServiceName,
    toUUID(UUIDNumToString(toFixedString(letter_batch_id, 16))) AS BatchId, letter_item_index AS ItemIndex,
    letter_record_index AS RecordIndex, letter_item_count AS ItemCount, letter_payload AS Payload,
    transform(
        letter_payload_form, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [
            'none', 'native_json', 'otlp_metrics', 'otlp_logs', 'otlp_traces', 'prometheus_write_v1', 'prometheus_write_v2',
            'telemetry_batch', 'unreadable', 'request'
        ],
        toString(letter_payload_form)
    ) AS PayloadForm,
    letter_payload_size_bytes AS PayloadSizeBytes, letter_topic AS Topic, letter_partition AS Partition,
    letter_offset AS Offset, letter_error AS Error
FROM landing_dead_letters
WHERE letter_id != '';
