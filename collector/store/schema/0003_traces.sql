-- Traces: the landing table of topic infrasage.traces, the table of spans that dashboards read, the view from one into the
-- other, and the table that tells when a trace was, fed by a view over the spans.

-- Keeps nothing, as landing_metrics.
CREATE TABLE IF NOT EXISTS landing_traces (
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
    spans Array(Tuple(
        trace_id String,
        span_id String,
        trace_state String,
        parent_span_id String,
        flags UInt32,
        name String,
        kind Int32,
        start_time_unix_nano Int64,
        end_time_unix_nano Int64,
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        dropped_attributes_count UInt32,
        events Array(Tuple(
            time_unix_nano Int64,
            name String,
            attributes Array(Tuple(key String, value Tuple(string_value String))),
            dropped_attributes_count UInt32
        )),
        dropped_events_count UInt32,
        links Array(Tuple(
            trace_id String,
            span_id String,
            trace_state String,
            attributes Array(Tuple(key String, value Tuple(string_value String))),
            dropped_attributes_count UInt32,
            flags UInt32
        )),
        dropped_links_count UInt32,
        status Tuple(message String, code Int32)
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

CREATE TABLE IF NOT EXISTS otel_traces (
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)),
    TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)),
    SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 CODEC(ZSTD(1)),
    StatusCode LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    Events Nested (
        Timestamp DateTime64(9),
        Name LowCardinality(String),
        Attributes Map(LowCardinality(String), String),
        DroppedAttrCount UInt32
    ) CODEC(ZSTD(1)),
    Links Nested (
        TraceId String,
        SpanId String,
        TraceState String,
        Attributes Map(LowCardinality(String), String),
        DroppedAttrCount UInt32,
        Flags UInt32
    ) CODEC(ZSTD(1)),
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
    ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    SpanDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    DroppedEventsCount UInt32 CODEC(ZSTD(1)),
    DroppedLinksCount UInt32 CODEC(ZSTD(1)),
    EndTimestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_duration Duration TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_traces_to_traces TO otel_traces AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl,
    fromUnixTimestamp64Nano(span.start_time_unix_nano) AS Timestamp,
    fromUnixTimestamp64Nano(span.end_time_unix_nano) AS EndTimestamp,
    if(span.end_time_unix_nano > span.start_time_unix_nano,
        toUInt64(span.end_time_unix_nano - span.start_time_unix_nano), 0) AS Duration,
    lower(hex(span.trace_id)) AS TraceId, lower(hex(span.span_id)) AS SpanId,
    lower(hex(span.parent_span_id)) AS ParentSpanId, span.trace_state AS TraceState, span.flags AS Flags,
    span.name AS SpanName,
    transform(span.kind, [0, 1, 2, 3, 4, 5], ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'],
        toString(span.kind)) AS SpanKind,
    transform(span.status.code, [0, 1, 2], ['Unset', 'Ok', 'Error'], toString(span.status.code)) AS StatusCode,
    span.status.message AS StatusMessage,
    mapFromArrays(span.attributes.key, span.attributes.value.string_value) AS SpanAttributes,
    span.dropped_attributes_count AS SpanDroppedAttrCount, span.dropped_events_count AS DroppedEventsCount,
    span.dropped_links_count AS DroppedLinksCount,
    arrayMap(e -> fromUnixTimestamp64Nano(e.time_unix_nano), span.events) AS `Events.Timestamp`,
    span.events.name AS `Events.Name`,
    arrayMap(e -> mapFromArrays(e.attributes.key, e.attributes.value.string_value), span.events) AS `Events.Attributes`,
    span.events.dropped_attributes_count AS `Events.DroppedAttrCount`,
    arrayMap(l -> lower(hex(l.trace_id)), span.links) AS `Links.TraceId`,
    arrayMap(l -> lower(hex(l.span_id)), span.links) AS `Links.SpanId`, span.links.trace_state AS `Links.TraceState`,
    arrayMap(l -> mapFromArrays(l.attributes.key, l.attributes.value.string_value), span.links) AS `Links.Attributes`,
    span.links.dropped_attributes_count AS `Links.DroppedAttrCount`, span.links.flags AS `Links.Flags`
FROM landing_traces
ARRAY JOIN spans AS span;

-- A row a trace, batch and message; SpanCount lets a message's rows be counted here too.
CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts (
    TraceId String CODEC(ZSTD(1)),
    Start DateTime CODEC(ZSTD(1)),
    End DateTime CODEC(ZSTD(1)),
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    BatchId UUID CODEC(ZSTD(1)),
    BatchPart UInt32 CODEC(ZSTD(1)),
    SpanCount UInt64 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TenantId, TraceId, Start)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_traces_trace_id_ts_mv TO otel_traces_trace_id_ts AS
SELECT
    TraceId, toDateTime(min(Timestamp)) AS Start, toDateTime(max(Timestamp)) AS End, TenantId, BatchId, BatchPart,
    count() AS SpanCount
FROM otel_traces
WHERE TraceId != ''
GROUP BY TraceId, TenantId, BatchId, BatchPart;
