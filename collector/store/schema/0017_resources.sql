-- A record is a resource (docs/adr/0055): landing tables for records of that form, and a view from each into every table that keeps its
-- rows. The landing tables of earlier versions stay, with their views: a writer of such a version inserts into them, in its own format.
--
-- ClickHouse ends the views of an insert in the reverse order of their names. So the views whose rows are few (by_message, by_trace) have
-- names that come first: where the memory does not suffice for the rows of the items, nothing is stored, and the insert can be cut.

-- Keeps nothing, as landing_metrics. Columns are named by the path of their field in landing_metrics.proto; a group is a scope and its
-- metrics. What is the same for all items of a record is computed once a record, as before. What is the same for all points of a metric
-- becomes an array over all metrics of the record, whatever their group, and so do the metrics. So a view joins arrays twice, not three
-- times: each join copies what it joins.
CREATE TABLE IF NOT EXISTS landing_resource_metrics (
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
    schema_url String,
    receipt_route String,
    receipt_received UInt64,
    receipt_accepted Array(Tuple(type Int32, items UInt64)),
    receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    receipt_dead_letters UInt64,
    receipt_parts UInt32,
    receipt_process_id String,
    receipt_sequence UInt64,
    receipt_settled UInt64,
    receipt_failed Array(Tuple(first UInt64, last UInt64)),
    receipt_repaired Array(Tuple(reason String, count UInt64)),
    fingerprint String,
    repeated_items UInt64,
    groups_scope_name Array(String),
    groups_scope_version Array(String),
    groups_scope_attributes Array(Array(Tuple(key String, value Tuple(string_value String)))),
    groups_scope_dropped_attributes_count Array(UInt32),
    groups_schema_url Array(String),
    groups_items_name Array(Array(String)),
    groups_items_description Array(Array(String)),
    groups_items_unit Array(Array(String)),
    groups_items_metadata Array(Array(Array(Tuple(key String, value Tuple(string_value String))))),
    groups_items_gauge Array(Array(Tuple(
        data_points Array(Tuple(
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
        ))
    ))),
    groups_items_sum Array(Array(Tuple(
        data_points Array(Tuple(
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
        )),
        aggregation_temporality Int32,
        is_monotonic Bool
    ))),
    groups_items_histogram Array(Array(Tuple(
        data_points Array(Tuple(
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
        )),
        aggregation_temporality Int32
    ))),
    groups_items_exponential_histogram Array(Array(Tuple(
        data_points Array(Tuple(
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
        )),
        aggregation_temporality Int32
    ))),
    groups_items_summary Array(Array(Tuple(
        data_points Array(Tuple(
            start_time_unix_nano Int64,
            time_unix_nano Int64,
            count UInt64,
            sum Float64,
            quantile_values Array(Tuple(quantile Float64, value Float64)),
            attributes Array(Tuple(key String, value Tuple(string_value String))),
            flags UInt32
        ))
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
    ScopeNames Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_name, groups_items_name)
    ),
    ScopeVersions Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_version, groups_items_name)
    ),
    ScopeMaps Array(Map(LowCardinality(String), String)) MATERIALIZED arrayFlatten(
        arrayMap(
            (scope, items) -> arrayMap(item -> scope, items),
            CAST(
                arrayMap(x -> mapFromArrays(x.key, x.value.string_value), groups_scope_attributes),
                'Array(Map(LowCardinality(String), String))'
            ),
            groups_items_name
        )
    ),
    ScopeDroppedAttrCounts Array(UInt32) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_dropped_attributes_count, groups_items_name)
    ),
    ScopeSchemaUrls Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_schema_url, groups_items_name)
    ),
    MetricNames Array(LowCardinality(String)) MATERIALIZED arrayFlatten(groups_items_name),
    MetricDescriptions Array(String) MATERIALIZED arrayFlatten(groups_items_description),
    MetricUnits Array(String) MATERIALIZED arrayFlatten(groups_items_unit),
    MetricMaps Array(Map(LowCardinality(String), String)) MATERIALIZED arrayFlatten(
        arrayMap(
            metadata -> arrayMap(x -> mapFromArrays(x.key, x.value.string_value), metadata), groups_items_metadata
        )
    ),
    ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_to_gauge TO otel_metrics_gauge AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, MetricMetadata,
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
        resource_dropped_attributes_count, resource_entity_refs, schema_url, ScopeName, ScopeVersion, ScopeAttributes,
        ScopeDroppedAttrCount, ScopeSchemaUrl, MetricName, MetricDescription, MetricUnit, MetricMetadata, data.data_points AS points
    FROM landing_resource_metrics
    ARRAY JOIN
        ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
        ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, MetricNames AS MetricName,
        MetricDescriptions AS MetricDescription, MetricUnits AS MetricUnit, MetricMaps AS MetricMetadata,
        arrayFlatten(groups_items_gauge) AS data
)
ARRAY JOIN points AS point;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_to_sum TO otel_metrics_sum AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, MetricMetadata,
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
        resource_dropped_attributes_count, resource_entity_refs, schema_url, ScopeName, ScopeVersion, ScopeAttributes,
        ScopeDroppedAttrCount, ScopeSchemaUrl, MetricName, MetricDescription, MetricUnit, MetricMetadata,
        data.aggregation_temporality AS temporality, data.is_monotonic AS is_monotonic, data.data_points AS points
    FROM landing_resource_metrics
    ARRAY JOIN
        ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
        ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, MetricNames AS MetricName,
        MetricDescriptions AS MetricDescription, MetricUnits AS MetricUnit, MetricMaps AS MetricMetadata,
        arrayFlatten(groups_items_sum) AS data
)
ARRAY JOIN points AS point;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_to_histogram TO otel_metrics_histogram AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, MetricMetadata,
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
        resource_dropped_attributes_count, resource_entity_refs, schema_url, ScopeName, ScopeVersion, ScopeAttributes,
        ScopeDroppedAttrCount, ScopeSchemaUrl, MetricName, MetricDescription, MetricUnit, MetricMetadata,
        data.aggregation_temporality AS temporality, data.data_points AS points
    FROM landing_resource_metrics
    ARRAY JOIN
        ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
        ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, MetricNames AS MetricName,
        MetricDescriptions AS MetricDescription, MetricUnits AS MetricUnit, MetricMaps AS MetricMetadata,
        arrayFlatten(groups_items_histogram) AS data
)
ARRAY JOIN points AS point;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_to_exponential_histogram TO otel_metrics_exponential_histogram AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, MetricMetadata,
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
        resource_dropped_attributes_count, resource_entity_refs, schema_url, ScopeName, ScopeVersion, ScopeAttributes,
        ScopeDroppedAttrCount, ScopeSchemaUrl, MetricName, MetricDescription, MetricUnit, MetricMetadata,
        data.aggregation_temporality AS temporality, data.data_points AS points
    FROM landing_resource_metrics
    ARRAY JOIN
        ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
        ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, MetricNames AS MetricName,
        MetricDescriptions AS MetricDescription, MetricUnits AS MetricUnit, MetricMaps AS MetricMetadata,
        arrayFlatten(groups_items_exponential_histogram) AS data
)
ARRAY JOIN points AS point;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_to_summary TO otel_metrics_summary AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    MetricName, MetricDescription, MetricUnit, MetricMetadata,
    mapFromArrays(point.attributes.key, point.attributes.value.string_value) AS Attributes,
    fromUnixTimestamp64Nano(point.start_time_unix_nano) AS StartTimeUnix,
    fromUnixTimestamp64Nano(point.time_unix_nano) AS TimeUnix, point.flags AS Flags, point.count AS Count, point.sum AS Sum,
    point.quantile_values.quantile AS `ValueAtQuantiles.Quantile`, point.quantile_values.value AS `ValueAtQuantiles.Value`
FROM (
    SELECT
        TenantId, Type, Source, ReceivedAt, BatchId, batch_part, ServiceName, ResourceAttributes,
        resource_dropped_attributes_count, resource_entity_refs, schema_url, ScopeName, ScopeVersion, ScopeAttributes,
        ScopeDroppedAttrCount, ScopeSchemaUrl, MetricName, MetricDescription, MetricUnit, MetricMetadata, data.data_points AS points
    FROM landing_resource_metrics
    ARRAY JOIN
        ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
        ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, MetricNames AS MetricName,
        MetricDescriptions AS MetricDescription, MetricUnits AS MetricUnit, MetricMaps AS MetricMetadata,
        arrayFlatten(groups_items_summary) AS data
)
ARRAY JOIN points AS point;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_metrics_by_message TO telemetry_batches AS
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
FROM landing_resource_metrics
WHERE receipt_received != 0 OR notEmpty(fingerprint);

-- As landing_resource_metrics, with arrays over all log records of the record. groups_items.flags is there for the number of log records
-- of each group.
CREATE TABLE IF NOT EXISTS landing_resource_logs (
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
    schema_url String,
    receipt_route String,
    receipt_received UInt64,
    receipt_accepted Array(Tuple(type Int32, items UInt64)),
    receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    receipt_dead_letters UInt64,
    receipt_parts UInt32,
    receipt_process_id String,
    receipt_sequence UInt64,
    receipt_settled UInt64,
    receipt_failed Array(Tuple(first UInt64, last UInt64)),
    receipt_repaired Array(Tuple(reason String, count UInt64)),
    fingerprint String,
    repeated_items UInt64,
    groups_scope_name Array(String),
    groups_scope_version Array(String),
    groups_scope_attributes Array(Array(Tuple(key String, value Tuple(string_value String)))),
    groups_scope_dropped_attributes_count Array(UInt32),
    groups_schema_url Array(String),
    groups_items Array(Array(Tuple(
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
    ScopeNames Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_name, groups_items.flags)
    ),
    ScopeVersions Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_version, groups_items.flags)
    ),
    ScopeMaps Array(Map(LowCardinality(String), String)) MATERIALIZED arrayFlatten(
        arrayMap(
            (scope, items) -> arrayMap(item -> scope, items),
            CAST(
                arrayMap(x -> mapFromArrays(x.key, x.value.string_value), groups_scope_attributes),
                'Array(Map(LowCardinality(String), String))'
            ),
            groups_items.flags
        )
    ),
    ScopeDroppedAttrCounts Array(UInt32) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_dropped_attributes_count, groups_items.flags)
    ),
    ScopeSchemaUrls Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_schema_url, groups_items.flags)
    ),
    ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_logs_to_logs TO otel_logs AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
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
FROM landing_resource_logs
ARRAY JOIN
    ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
    ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, arrayFlatten(groups_items) AS log;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_logs_by_message TO telemetry_batches AS
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
FROM landing_resource_logs
WHERE receipt_received != 0 OR notEmpty(fingerprint);

-- As landing_resource_logs.
CREATE TABLE IF NOT EXISTS landing_resource_spans (
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
    schema_url String,
    receipt_route String,
    receipt_received UInt64,
    receipt_accepted Array(Tuple(type Int32, items UInt64)),
    receipt_rejected Array(Tuple(type Int32, reason String, items UInt64)),
    receipt_dead_letters UInt64,
    receipt_parts UInt32,
    receipt_process_id String,
    receipt_sequence UInt64,
    receipt_settled UInt64,
    receipt_failed Array(Tuple(first UInt64, last UInt64)),
    receipt_repaired Array(Tuple(reason String, count UInt64)),
    fingerprint String,
    repeated_items UInt64,
    groups_scope_name Array(String),
    groups_scope_version Array(String),
    groups_scope_attributes Array(Array(Tuple(key String, value Tuple(string_value String)))),
    groups_scope_dropped_attributes_count Array(UInt32),
    groups_schema_url Array(String),
    groups_items Array(Array(Tuple(
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
    ScopeNames Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_name, groups_items.flags)
    ),
    ScopeVersions Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_version, groups_items.flags)
    ),
    ScopeMaps Array(Map(LowCardinality(String), String)) MATERIALIZED arrayFlatten(
        arrayMap(
            (scope, items) -> arrayMap(item -> scope, items),
            CAST(
                arrayMap(x -> mapFromArrays(x.key, x.value.string_value), groups_scope_attributes),
                'Array(Map(LowCardinality(String), String))'
            ),
            groups_items.flags
        )
    ),
    ScopeDroppedAttrCounts Array(UInt32) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_scope_dropped_attributes_count, groups_items.flags)
    ),
    ScopeSchemaUrls Array(String) MATERIALIZED arrayFlatten(
        arrayMap((scope, items) -> arrayMap(item -> scope, items), groups_schema_url, groups_items.flags)
    ),
    ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_spans_to_spans TO otel_traces AS
SELECT
    TenantId, Type, Source, ReceivedAt, BatchId, batch_part AS BatchPart, ServiceName, ResourceAttributes,
    resource_dropped_attributes_count AS ResourceDroppedAttrCount, resource_entity_refs AS ResourceEntityRefs,
    schema_url AS ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
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
FROM landing_resource_spans
ARRAY JOIN
    ScopeNames AS ScopeName, ScopeVersions AS ScopeVersion, ScopeMaps AS ScopeAttributes,
    ScopeDroppedAttrCounts AS ScopeDroppedAttrCount, ScopeSchemaUrls AS ScopeSchemaUrl, arrayFlatten(groups_items) AS span;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_spans_by_trace TO otel_traces_trace_id_ts AS
SELECT
    lower(hex(trace_id)) AS TraceId, toDateTime(fromUnixTimestamp64Nano(min(start_time))) AS Start,
    toDateTime(fromUnixTimestamp64Nano(max(start_time))) AS End, TenantId, BatchId, batch_part AS BatchPart,
    count() AS SpanCount
FROM landing_resource_spans
ARRAY JOIN
    arrayFlatten(groups_items.trace_id) AS trace_id, arrayFlatten(groups_items.start_time_unix_nano) AS start_time
WHERE trace_id != ''
GROUP BY trace_id, TenantId, BatchId, batch_part;

CREATE MATERIALIZED VIEW IF NOT EXISTS landing_resource_spans_by_message TO telemetry_batches AS
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
FROM landing_resource_spans
WHERE receipt_received != 0 OR notEmpty(fingerprint);
