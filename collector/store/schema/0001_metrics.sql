-- Metrics: the landing table that reads the payloads of topic infrasage.metrics, the five tables that dashboards read, and a
-- view from the one into each of the others. Columns after the exporter's own are ours; docs/use/store.md explains them.

-- Keeps nothing: its views flatten what is inserted. Columns are named by the path of their field in landing.proto (the parser
-- takes _ for .) down to the repeated message, which is one tuple: that parses 1.6 times as fast as a column a field. What is
-- the same for all items of a record is computed here, once a record and not once an item.
CREATE TABLE IF NOT EXISTS landing_metrics (
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
    metrics_name Array(String),
    metrics_description Array(String),
    metrics_unit Array(String),
    metrics_metadata Array(Array(Tuple(key String, value Tuple(string_value String)))),
    metrics_gauge_data_points Array(Array(Tuple(
        start_time_unix_nano Int64,
        time_unix_nano Int64,
        as_double Nullable(Float64),
        as_int Nullable(Int64),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        flags UInt32,
        exemplars Array(Tuple(
            time_unix_nano Int64,
            as_double Nullable(Float64),
            as_int Nullable(Int64),
            span_id String,
            trace_id String,
            filtered_attributes Array(Tuple(key String, value Tuple(string_value String)))
        ))
    ))),
    metrics_sum_data_points Array(Array(Tuple(
        start_time_unix_nano Int64,
        time_unix_nano Int64,
        as_double Nullable(Float64),
        as_int Nullable(Int64),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        flags UInt32,
        exemplars Array(Tuple(
            time_unix_nano Int64,
            as_double Nullable(Float64),
            as_int Nullable(Int64),
            span_id String,
            trace_id String,
            filtered_attributes Array(Tuple(key String, value Tuple(string_value String)))
        ))
    ))),
    metrics_sum_aggregation_temporality Array(Int32),
    metrics_sum_is_monotonic Array(Bool),
    metrics_histogram_data_points Array(Array(Tuple(
        start_time_unix_nano Int64,
        time_unix_nano Int64,
        count UInt64,
        sum Nullable(Float64),
        min Nullable(Float64),
        max Nullable(Float64),
        bucket_counts Array(UInt64),
        explicit_bounds Array(Float64),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        flags UInt32,
        exemplars Array(Tuple(
            time_unix_nano Int64,
            as_double Nullable(Float64),
            as_int Nullable(Int64),
            span_id String,
            trace_id String,
            filtered_attributes Array(Tuple(key String, value Tuple(string_value String)))
        ))
    ))),
    metrics_histogram_aggregation_temporality Array(Int32),
    metrics_exponential_histogram_data_points Array(Array(Tuple(
        start_time_unix_nano Int64,
        time_unix_nano Int64,
        count UInt64,
        sum Nullable(Float64),
        min Nullable(Float64),
        max Nullable(Float64),
        scale Int32,
        zero_count UInt64,
        zero_threshold Float64,
        positive Tuple(offset Int32, bucket_counts Array(UInt64)),
        negative Tuple(offset Int32, bucket_counts Array(UInt64)),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        flags UInt32,
        exemplars Array(Tuple(
            time_unix_nano Int64,
            as_double Nullable(Float64),
            as_int Nullable(Int64),
            span_id String,
            trace_id String,
            filtered_attributes Array(Tuple(key String, value Tuple(string_value String)))
        ))
    ))),
    metrics_exponential_histogram_aggregation_temporality Array(Int32),
    metrics_summary_data_points Array(Array(Tuple(
        start_time_unix_nano Int64,
        time_unix_nano Int64,
        count UInt64,
        sum Float64,
        quantile_values Array(Tuple(quantile Float64, value Float64)),
        attributes Array(Tuple(key String, value Tuple(string_value String))),
        flags UInt32
    ))),
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

CREATE TABLE IF NOT EXISTS otel_metrics_gauge (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String,
        ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2),
        IntValue Int64
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
    MetricMetadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2) CODEC(ZSTD(1)),
    IntValue Int64 CODEC(ZSTD(1)),
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_gauge TO otel_metrics_gauge AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl, MetricName,
    description AS MetricDescription, unit AS MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags,
    ifNull(point.as_double, toFloat64(ifNull(point.as_int, 0))) AS Value,
    multiIf(isNotNull(point.as_double), 'double', isNotNull(point.as_int), 'int', 'none') AS ValueType,
    ifNull(point.as_int, 0) AS IntValue,
    arrayMap(x -> mapFromArrays(x.filtered_attributes.key, x.filtered_attributes.value.string_value), point.exemplars)
        AS `Exemplars.FilteredAttributes`,
    arrayMap(x -> fromUnixTimestamp64Nano(x.time_unix_nano), point.exemplars) AS `Exemplars.TimeUnix`,
    arrayMap(x -> ifNull(x.as_double, toFloat64(ifNull(x.as_int, 0))), point.exemplars) AS `Exemplars.Value`,
    arrayMap(x -> lower(hex(x.span_id)), point.exemplars) AS `Exemplars.SpanId`,
    arrayMap(x -> lower(hex(x.trace_id)), point.exemplars) AS `Exemplars.TraceId`,
    arrayMap(x -> multiIf(isNotNull(x.as_double), 'double', isNotNull(x.as_int), 'int', 'none'), point.exemplars)
        AS `Exemplars.ValueType`,
    arrayMap(x -> ifNull(x.as_int, 0), point.exemplars) AS `Exemplars.IntValue`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, resource_schema_url, scope_name, scope_version,
        ScopeAttributes, scope_dropped_attributes_count, scope_schema_url,
        CAST(name, 'LowCardinality(String)') AS MetricName, description, unit,
        CAST(mapFromArrays(metadata.key, metadata.value.string_value), 'Map(LowCardinality(String), String)') AS MetricMetadata,
        points
    FROM landing_metrics
    ARRAY JOIN
        metrics_name AS name, metrics_description AS description, metrics_unit AS unit, metrics_metadata AS metadata,
        metrics_gauge_data_points AS points
)
ARRAY JOIN points AS point;

CREATE TABLE IF NOT EXISTS otel_metrics_sum (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String,
        ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2),
        IntValue Int64
    ) CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
    IsMonotonic Bool CODEC(ZSTD(1)),
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
    MetricMetadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2) CODEC(ZSTD(1)),
    IntValue Int64 CODEC(ZSTD(1)),
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_sum TO otel_metrics_sum AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl, MetricName,
    description AS MetricDescription, unit AS MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags,
    ifNull(point.as_double, toFloat64(ifNull(point.as_int, 0))) AS Value,
    multiIf(isNotNull(point.as_double), 'double', isNotNull(point.as_int), 'int', 'none') AS ValueType,
    ifNull(point.as_int, 0) AS IntValue, temporality AS AggregationTemporality, is_monotonic AS IsMonotonic,
    arrayMap(x -> mapFromArrays(x.filtered_attributes.key, x.filtered_attributes.value.string_value), point.exemplars)
        AS `Exemplars.FilteredAttributes`,
    arrayMap(x -> fromUnixTimestamp64Nano(x.time_unix_nano), point.exemplars) AS `Exemplars.TimeUnix`,
    arrayMap(x -> ifNull(x.as_double, toFloat64(ifNull(x.as_int, 0))), point.exemplars) AS `Exemplars.Value`,
    arrayMap(x -> lower(hex(x.span_id)), point.exemplars) AS `Exemplars.SpanId`,
    arrayMap(x -> lower(hex(x.trace_id)), point.exemplars) AS `Exemplars.TraceId`,
    arrayMap(x -> multiIf(isNotNull(x.as_double), 'double', isNotNull(x.as_int), 'int', 'none'), point.exemplars)
        AS `Exemplars.ValueType`,
    arrayMap(x -> ifNull(x.as_int, 0), point.exemplars) AS `Exemplars.IntValue`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, resource_schema_url, scope_name, scope_version,
        ScopeAttributes, scope_dropped_attributes_count, scope_schema_url,
        CAST(name, 'LowCardinality(String)') AS MetricName, description, unit,
        CAST(mapFromArrays(metadata.key, metadata.value.string_value), 'Map(LowCardinality(String), String)') AS MetricMetadata,
        temporality, is_monotonic, points
    FROM landing_metrics
    ARRAY JOIN
        metrics_name AS name, metrics_description AS description, metrics_unit AS unit, metrics_metadata AS metadata,
        metrics_sum_aggregation_temporality AS temporality, metrics_sum_is_monotonic AS is_monotonic,
        metrics_sum_data_points AS points
)
ARRAY JOIN points AS point;

CREATE TABLE IF NOT EXISTS otel_metrics_histogram (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    BucketCounts Array(UInt64) CODEC(ZSTD(1)),
    ExplicitBounds Array(Float64) CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String,
        ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2),
        IntValue Int64
    ) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
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
    MetricMetadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    HasSum Bool CODEC(ZSTD(1)),
    HasMin Bool CODEC(ZSTD(1)),
    HasMax Bool CODEC(ZSTD(1)),
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_histogram TO otel_metrics_histogram AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl, MetricName,
    description AS MetricDescription, unit AS MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags, point.count AS Count,
    ifNull(point.sum, 0) AS Sum, ifNull(point.min, 0) AS Min, ifNull(point.max, 0) AS Max, isNotNull(point.sum) AS HasSum,
    isNotNull(point.min) AS HasMin, isNotNull(point.max) AS HasMax, point.bucket_counts AS BucketCounts,
    point.explicit_bounds AS ExplicitBounds, temporality AS AggregationTemporality,
    arrayMap(x -> mapFromArrays(x.filtered_attributes.key, x.filtered_attributes.value.string_value), point.exemplars)
        AS `Exemplars.FilteredAttributes`,
    arrayMap(x -> fromUnixTimestamp64Nano(x.time_unix_nano), point.exemplars) AS `Exemplars.TimeUnix`,
    arrayMap(x -> ifNull(x.as_double, toFloat64(ifNull(x.as_int, 0))), point.exemplars) AS `Exemplars.Value`,
    arrayMap(x -> lower(hex(x.span_id)), point.exemplars) AS `Exemplars.SpanId`,
    arrayMap(x -> lower(hex(x.trace_id)), point.exemplars) AS `Exemplars.TraceId`,
    arrayMap(x -> multiIf(isNotNull(x.as_double), 'double', isNotNull(x.as_int), 'int', 'none'), point.exemplars)
        AS `Exemplars.ValueType`,
    arrayMap(x -> ifNull(x.as_int, 0), point.exemplars) AS `Exemplars.IntValue`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, resource_schema_url, scope_name, scope_version,
        ScopeAttributes, scope_dropped_attributes_count, scope_schema_url,
        CAST(name, 'LowCardinality(String)') AS MetricName, description, unit,
        CAST(mapFromArrays(metadata.key, metadata.value.string_value), 'Map(LowCardinality(String), String)') AS MetricMetadata,
        temporality, points
    FROM landing_metrics
    ARRAY JOIN
        metrics_name AS name, metrics_description AS description, metrics_unit AS unit, metrics_metadata AS metadata,
        metrics_histogram_aggregation_temporality AS temporality, metrics_histogram_data_points AS points
)
ARRAY JOIN points AS point;

CREATE TABLE IF NOT EXISTS otel_metrics_exponential_histogram (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    Scale Int32 CODEC(ZSTD(1)),
    ZeroCount UInt64 CODEC(ZSTD(1)),
    PositiveOffset Int32 CODEC(ZSTD(1)),
    PositiveBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    NegativeOffset Int32 CODEC(ZSTD(1)),
    NegativeBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String,
        ValueType Enum8('none' = 0, 'double' = 1, 'int' = 2),
        IntValue Int64
    ) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
    ZeroThreshold Float64 CODEC(ZSTD(1)),
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
    MetricMetadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    HasSum Bool CODEC(ZSTD(1)),
    HasMin Bool CODEC(ZSTD(1)),
    HasMax Bool CODEC(ZSTD(1)),
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

-- The exporter's name for it; ClickStack has the other.
CREATE VIEW IF NOT EXISTS otel_metrics_exp_histogram AS SELECT * FROM otel_metrics_exponential_histogram;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_exponential_histogram TO otel_metrics_exponential_histogram AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl, MetricName,
    description AS MetricDescription, unit AS MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags, point.count AS Count,
    ifNull(point.sum, 0) AS Sum, ifNull(point.min, 0) AS Min, ifNull(point.max, 0) AS Max, isNotNull(point.sum) AS HasSum,
    isNotNull(point.min) AS HasMin, isNotNull(point.max) AS HasMax, point.scale AS Scale, point.zero_count AS ZeroCount,
    point.zero_threshold AS ZeroThreshold, point.positive.offset AS PositiveOffset,
    point.positive.bucket_counts AS PositiveBucketCounts, point.negative.offset AS NegativeOffset,
    point.negative.bucket_counts AS NegativeBucketCounts, temporality AS AggregationTemporality,
    arrayMap(x -> mapFromArrays(x.filtered_attributes.key, x.filtered_attributes.value.string_value), point.exemplars)
        AS `Exemplars.FilteredAttributes`,
    arrayMap(x -> fromUnixTimestamp64Nano(x.time_unix_nano), point.exemplars) AS `Exemplars.TimeUnix`,
    arrayMap(x -> ifNull(x.as_double, toFloat64(ifNull(x.as_int, 0))), point.exemplars) AS `Exemplars.Value`,
    arrayMap(x -> lower(hex(x.span_id)), point.exemplars) AS `Exemplars.SpanId`,
    arrayMap(x -> lower(hex(x.trace_id)), point.exemplars) AS `Exemplars.TraceId`,
    arrayMap(x -> multiIf(isNotNull(x.as_double), 'double', isNotNull(x.as_int), 'int', 'none'), point.exemplars)
        AS `Exemplars.ValueType`,
    arrayMap(x -> ifNull(x.as_int, 0), point.exemplars) AS `Exemplars.IntValue`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, resource_schema_url, scope_name, scope_version,
        ScopeAttributes, scope_dropped_attributes_count, scope_schema_url,
        CAST(name, 'LowCardinality(String)') AS MetricName, description, unit,
        CAST(mapFromArrays(metadata.key, metadata.value.string_value), 'Map(LowCardinality(String), String)') AS MetricMetadata,
        temporality, points
    FROM landing_metrics
    ARRAY JOIN
        metrics_name AS name, metrics_description AS description, metrics_unit AS unit, metrics_metadata AS metadata,
        metrics_exponential_histogram_aggregation_temporality AS temporality,
        metrics_exponential_histogram_data_points AS points
)
ARRAY JOIN points AS point;

CREATE TABLE IF NOT EXISTS otel_metrics_summary (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    ValueAtQuantiles Nested (
        Quantile Float64,
        Value Float64
    ) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
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
    MetricMetadata Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_time TimeUnix TYPE minmax GRANULARITY 1,
    INDEX idx_batch_id BatchId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_metrics_to_summary TO otel_metrics_summary AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    resource_schema_url AS ResourceSchemaUrl, scope_name AS ScopeName, scope_version AS ScopeVersion, ScopeAttributes,
    scope_dropped_attributes_count AS ScopeDroppedAttrCount, scope_schema_url AS ScopeSchemaUrl, MetricName,
    description AS MetricDescription, unit AS MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags, point.count AS Count, point.sum AS Sum,
    point.quantile_values.quantile AS `ValueAtQuantiles.Quantile`, point.quantile_values.value AS `ValueAtQuantiles.Value`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, resource_schema_url, scope_name, scope_version,
        ScopeAttributes, scope_dropped_attributes_count, scope_schema_url,
        CAST(name, 'LowCardinality(String)') AS MetricName, description, unit,
        CAST(mapFromArrays(metadata.key, metadata.value.string_value), 'Map(LowCardinality(String), String)') AS MetricMetadata,
        points
    FROM landing_metrics
    ARRAY JOIN
        metrics_name AS name, metrics_description AS description, metrics_unit AS unit, metrics_metadata AS metadata,
        metrics_summary_data_points AS points
)
ARRAY JOIN points AS point;
