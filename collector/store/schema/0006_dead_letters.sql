-- Dead letters: the landing table of topic infrasage.dead_letters, the entries, what became of them, and a view of both.

-- Keeps nothing, as landing_metrics. A row is an entry or an event; the columns of the other are empty.
CREATE TABLE IF NOT EXISTS landing_dead_letters (
    letter_id String,
    letter_tenant_id String,
    letter_received_time_unix_nano Int64,
    letter_kept_time_unix_nano Int64,
    letter_source Int32,
    letter_type Int32,
    letter_route String,
    letter_reason String,
    letter_message String,
    letter_service_id String,
    letter_batch_id String,
    letter_item_index UInt32,
    letter_record_index UInt32,
    letter_item_count UInt32,
    letter_payload String,
    letter_payload_form Int32,
    letter_payload_size_bytes UInt64,
    letter_topic String,
    letter_partition Int32,
    letter_offset Int64,
    letter_error String,
    event_id String,
    event_dead_letter_id String,
    event_tenant_id String,
    event_action Int32,
    event_time_unix_nano Int64,
    event_actor String,
    event_note String,
    event_reason String,
    event_message String,
    event_batch_id String
)
ENGINE = Null;

-- An entry that was kept twice has one key, and FINAL shows it once. KeptAt is not in the key: found twice, it is found at
-- two times. Where a message could not be read, ReceivedAt is 1970: nobody knows.
CREATE TABLE IF NOT EXISTS telemetry_dead_letters (
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    Id UUID CODEC(ZSTD(1)),
    ReceivedAt DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    KeptAt DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Source LowCardinality(String) CODEC(ZSTD(1)),
    Type LowCardinality(String) CODEC(ZSTD(1)),
    Route LowCardinality(String) CODEC(ZSTD(1)),
    Reason LowCardinality(String) CODEC(ZSTD(1)),
    Message String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    BatchId UUID CODEC(ZSTD(1)),
    ItemIndex UInt32 CODEC(ZSTD(1)),
    RecordIndex UInt32 CODEC(ZSTD(1)),
    ItemCount UInt32 CODEC(ZSTD(1)),
    Payload String CODEC(ZSTD(1)),
    PayloadForm LowCardinality(String) CODEC(ZSTD(1)),
    PayloadSizeBytes UInt64 CODEC(ZSTD(1)),
    Topic LowCardinality(String) CODEC(ZSTD(1)),
    Partition Int32 CODEC(ZSTD(1)),
    Offset Int64 CODEC(ZSTD(1)),
    Error String CODEC(ZSTD(1)),
    INDEX idx_id Id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(KeptAt)
ORDER BY (TenantId, ReceivedAt, Id)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_dead_letters_to_letters TO telemetry_dead_letters AS
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
        letter_payload_form, [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [
            'none', 'native_json', 'otlp_metrics', 'otlp_logs', 'otlp_traces', 'prometheus_write_v1', 'prometheus_write_v2',
            'telemetry_batch', 'unreadable'
        ],
        toString(letter_payload_form)
    ) AS PayloadForm,
    letter_payload_size_bytes AS PayloadSizeBytes, letter_topic AS Topic, letter_partition AS Partition,
    letter_offset AS Offset, letter_error AS Error
FROM landing_dead_letters
WHERE letter_id != '';

CREATE TABLE IF NOT EXISTS telemetry_dead_letter_events (
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    DeadLetterId UUID CODEC(ZSTD(1)),
    Id UUID CODEC(ZSTD(1)),
    At DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Action LowCardinality(String) CODEC(ZSTD(1)),
    Actor String CODEC(ZSTD(1)),
    Note String CODEC(ZSTD(1)),
    Reason LowCardinality(String) CODEC(ZSTD(1)),
    Message String CODEC(ZSTD(1)),
    BatchId UUID CODEC(ZSTD(1)),
    INDEX idx_id Id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(At)
ORDER BY (TenantId, DeadLetterId, At, Id)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_dead_letters_to_events TO telemetry_dead_letter_events AS
SELECT
    event_tenant_id AS TenantId, toUUID(UUIDNumToString(toFixedString(event_dead_letter_id, 16))) AS DeadLetterId,
    toUUID(UUIDNumToString(toFixedString(event_id, 16))) AS Id, fromUnixTimestamp64Nano(event_time_unix_nano) AS At,
    transform(
        event_action, [0, 1, 2, 3], ['unspecified', 'replayed', 'rejected_again', 'discarded'], toString(event_action)
    ) AS Action,
    event_actor AS Actor, event_note AS Note, event_reason AS Reason, event_message AS Message,
    toUUID(UUIDNumToString(toFixedString(event_batch_id, 16))) AS BatchId
FROM landing_dead_letters
WHERE event_id != '';

-- Every entry once, with its state: open, rejected_again (open still), replayed or discarded. Once replayed it stays so,
-- whatever else was tried, in whatever order: its record is stored. LastAt, LastActor and so on are of its last event.
CREATE VIEW IF NOT EXISTS dead_letters AS
SELECT
    letters.TenantId AS TenantId, letters.Id AS Id, letters.ReceivedAt AS ReceivedAt, letters.KeptAt AS KeptAt,
    letters.Source AS Source, letters.Type AS Type, letters.Route AS Route, letters.Reason AS Reason,
    letters.Message AS Message, letters.ServiceName AS ServiceName, letters.BatchId AS BatchId,
    letters.ItemIndex AS ItemIndex, letters.RecordIndex AS RecordIndex, letters.ItemCount AS ItemCount,
    letters.Payload AS Payload, letters.PayloadForm AS PayloadForm, letters.PayloadSizeBytes AS PayloadSizeBytes,
    letters.Topic AS Topic, letters.Partition AS Partition, letters.Offset AS Offset, letters.Error AS Error,
    multiIf(
        events.Replays != 0, 'replayed', events.Discards != 0, 'discarded', events.Rejections != 0, 'rejected_again', 'open'
    ) AS State,
    State IN ('open', 'rejected_again') AS IsOpen,
    events.Attempts AS Attempts, events.LastAt AS LastAt, events.LastActor AS LastActor, events.LastNote AS LastNote,
    events.LastReason AS LastReason, events.LastMessage AS LastMessage, events.ReplayBatchId AS ReplayBatchId
FROM telemetry_dead_letters AS letters FINAL
LEFT JOIN (
    SELECT
        TenantId, DeadLetterId, countIf(Action = 'replayed') AS Replays, countIf(Action = 'discarded') AS Discards,
        countIf(Action = 'rejected_again') AS Rejections, uniqExact(Id) AS Attempts, max(At) AS LastAt,
        argMax(Actor, At) AS LastActor, argMax(Note, At) AS LastNote, argMax(Reason, At) AS LastReason,
        argMax(Message, At) AS LastMessage, anyIf(BatchId, Action = 'replayed') AS ReplayBatchId
    FROM telemetry_dead_letter_events
    GROUP BY TenantId, DeadLetterId
) AS events ON events.TenantId = letters.TenantId AND events.DeadLetterId = letters.Id;
