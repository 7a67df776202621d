-- Logs: the landing table of topic infrasage.logs, the table that dashboards read, and the view from one into the other.

-- Keeps nothing, as landing_metrics.
CREATE TABLE IF NOT EXISTS landing_logs (
    tenant_id String,
    source Int32,
    type Int32,
    received_time_unix_nano Int64,
    batch_id String,
    batch_part UInt32,
    service_id String,
    resource_attributes Array(Tuple(key String, value Tuple(string_value String))),
    resource_dropped_attributes_count UInt32,
    resource_entity_refs Array(Tuple(schema_url String, type String, id_keys Array(String), description_keys Array(String))),
    resource_schema_url String,
    scope_name String,
    scope_version String,
    scope_attributes Array(Tuple(key String, value Tuple(string_value String))),
    scope_dropped_attributes_count UInt32,
    scope_schema_url String,
    log_records Array(Tuple(
        time_unix_nano Int64,
        observed_time_unix_nano Int64,
        severity_number Int32,
        severity_text String,
        body Tuple(string_value String),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        dropped_attributes_count UInt32,
        flags UInt32,
        trace_id String,
        span_id String,
        event_name String
    )),
    TenantId LowCardinality(String) MATERIALIZED tenant_id,
    Type LowCardinality(String) MATERIALIZED transform(
        type, [0, 1, 2, 3, 4, 5, 6], ['unspecified', 'metric', 'log', 'trace', 'event', 'profile', 'slo'], toString(type)
    ),
    Source LowCardinality(String) MATERIALIZED transform(
        source, [0, 1, 2, 3, 4], ['unspecified', 'native', 'otlp', 'prometheus_write_v1', 'prometheus_write_v2'],
        toString(source)
    ),
    ReceivedAt DateTime64(9) MATERIALIZED fromUnixTimestamp64Nano(received_time_unix_nano),
    BatchId UUID MATERIALIZED toUUID(UUIDNumToString(toFixedString(batch_id, 16))),
    ServiceName LowCardinality(String) MATERIALIZED service_id,
    ResourceAttributes Map(LowCardinality(String), String) MATERIALIZED
        mapFromArrays(resource_attributes.key, resource_attributes.value.string_value),
    ScopeAttributes Map(LowCardinality(String), String) MATERIALIZED
        mapFromArrays(scope_attributes.key, scope_attributes.value.string_value)
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel_logs (
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimestampTime DateTime DEFAULT toDateTime(Timestamp) CODEC(ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    TraceFlags UInt8 CODEC(ZSTD(1)),
    SeverityText LowCardinality(String) CODEC(ZSTD(1)),
    SeverityNumber UInt8 CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    Body String CODEC(ZSTD(1)),
    ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    EventName String CODEC(ZSTD(1)),
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    Type LowCardinality(String) CODEC(ZSTD(1)),
    Source LowCardinality(String) CODEC(ZSTD(1)),
    ReceivedAt DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    BatchId UUID CODEC(ZSTD(1)),
    BatchPart UInt32 CODEC(ZSTD(1)),
    ResourceDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ResourceEntityRefs Array(
        Tuple(SchemaUrl String, Type String, IdKeys Array(String), DescriptionKeys Array(String))
    ) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    LogDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ObservedTimestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimestampFrom Enum8('time' = 0, 'observed' = 1, 'received' = 2) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_log_attr_key mapKeys(LogAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_log_attr_value mapValues(LogAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_lower_body lower(Body) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_logs_to_logs TO otel_logs AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl,
    fromUnixTimestamp64Nano(multiIf(
        log.time_unix_nano != 0, log.time_unix_nano,
        log.observed_time_unix_nano != 0, log.observed_time_unix_nano,
        received_time_unix_nano
    )) AS Timestamp,
    multiIf(log.time_unix_nano != 0, 'time', log.observed_time_unix_nano != 0, 'observed', 'received') AS TimestampFrom,
    fromUnixTimestamp64Nano(log.observed_time_unix_nano) AS ObservedTimestamp, lower(hex(log.trace_id)) AS TraceId,
    lower(hex(log.span_id)) AS SpanId, bitAnd(log.flags, 255) AS TraceFlags, log.flags AS Flags,
    log.severity_text AS SeverityText, if(log.severity_number BETWEEN 0 AND 255, log.severity_number, 0) AS SeverityNumber,
    log.body.string_value AS Body, mapFromArrays(log.attributes.key, log.attributes.value.string_value) AS LogAttributes,
    log.dropped_attributes_count AS LogDroppedAttrCount, log.event_name AS EventName
FROM landing_logs
ARRAY JOIN log_records AS log;
