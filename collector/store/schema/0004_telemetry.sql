-- Everything in one place, under the native API's own names: one row a data point, log record and span.

-- value: of a gauge or a sum its number, of a span its duration in nanoseconds; NULL where there is no single one.
-- trace_id: of a data point that of its first exemplar; else what the native API was sent that is no trace id of OTLP's.
CREATE VIEW IF NOT EXISTS telemetry AS
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(MetricName, 'String') AS metric_name,
    if(ValueType = 'none', NULL, Value) AS value, '' AS body,
    if(empty(`Exemplars.TraceId`), Attributes['infrasage.trace_id'], `Exemplars.TraceId`[1]) AS trace_id,
    TimeUnix AS timestamp, Attributes AS attributes
FROM otel_metrics_gauge
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(MetricName, 'String') AS metric_name,
    if(ValueType = 'none', NULL, Value) AS value, '' AS body,
    if(empty(`Exemplars.TraceId`), Attributes['infrasage.trace_id'], `Exemplars.TraceId`[1]) AS trace_id,
    TimeUnix AS timestamp, Attributes AS attributes
FROM otel_metrics_sum
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(MetricName, 'String') AS metric_name,
    CAST(NULL, 'Nullable(Float64)') AS value, '' AS body,
    if(empty(`Exemplars.TraceId`), Attributes['infrasage.trace_id'], `Exemplars.TraceId`[1]) AS trace_id,
    TimeUnix AS timestamp, Attributes AS attributes
FROM otel_metrics_histogram
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(MetricName, 'String') AS metric_name,
    CAST(NULL, 'Nullable(Float64)') AS value, '' AS body,
    if(empty(`Exemplars.TraceId`), Attributes['infrasage.trace_id'], `Exemplars.TraceId`[1]) AS trace_id,
    TimeUnix AS timestamp, Attributes AS attributes
FROM otel_metrics_exponential_histogram
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(MetricName, 'String') AS metric_name,
    CAST(NULL, 'Nullable(Float64)') AS value, '' AS body,
    Attributes['infrasage.trace_id'] AS trace_id,
    TimeUnix AS timestamp, Attributes AS attributes
FROM otel_metrics_summary
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, EventName AS metric_name,
    CAST(NULL, 'Nullable(Float64)') AS value, Body AS body,
    if(TraceId = '', LogAttributes['infrasage.trace_id'], TraceId) AS trace_id,
    Timestamp AS timestamp, LogAttributes AS attributes
FROM otel_logs
UNION ALL
SELECT
    TenantId AS tenant, ServiceName AS service_id, Type AS type, CAST(SpanName, 'String') AS metric_name,
    CAST(Duration, 'Nullable(Float64)') AS value, '' AS body,
    TraceId AS trace_id,
    Timestamp AS timestamp, SpanAttributes AS attributes
FROM otel_traces;
