"""What Grafana's ClickHouse plugin and ClickStack ask the tables, written from the columns and conditions that they use.

The statements have the shape of the plugin's three OpenTelemetry dashboards and of its query builder, and of ClickStack's
search, histogram, trace and metric views.
"""

from typing import Final, NamedTuple


class Ask(NamedTuple):
    """One statement, with `{from}` and `{to}` for its window in seconds since 1970. `name`: of the view that sends it."""

    name: str
    sql: str

    def within(self, since: int, until: int) -> str:
        """Return the statement for a window."""
        return self.sql.replace("{from}", str(since)).replace("{to}", str(until))


_WINDOW: Final = "Timestamp >= toDateTime64({from}, 9) AND Timestamp <= toDateTime64({to}, 9)"
_MILLIS: Final = "Timestamp >= fromUnixTimestamp64Milli({from} * 1000) AND Timestamp <= fromUnixTimestamp64Milli({to} * 1000)"
_BUCKETS: Final = (
    "toStartOfFiveMinutes(Timestamp) >= toStartOfFiveMinutes(fromUnixTimestamp64Milli({from} * 1000))"
    " AND toStartOfFiveMinutes(Timestamp) <= toStartOfFiveMinutes(fromUnixTimestamp64Milli({to} * 1000))"
)
_POINTS: Final = "TimeUnix >= fromUnixTimestamp64Milli({from} * 1000) AND TimeUnix <= fromUnixTimestamp64Milli({to} * 1000)"
_ERRORS: Final = "StatusCode IN ('Error', 'STATUS_CODE_ERROR')"
_PER_MINUTE: Final = "toStartOfInterval(Timestamp, INTERVAL 60 second) AS time"


def _plugin(name: str, sql: str) -> Ask:
    return Ask(f"grafana: {name}", sql)


def _clickstack(name: str, sql: str) -> Ask:
    return Ask(f"clickstack: {name}", sql)


LOGS: Final = (
    _plugin(
        "query builder, schema 1.2.9",
        "SELECT Timestamp, Body, SeverityText FROM otel_logs WHERE TimestampTime >= toDateTime({from}) AND"
        " TimestampTime <= toDateTime({to}) ORDER BY (TimestampTime, Timestamp) DESC LIMIT 1000",
    ),
    _plugin(
        "query builder, schema 1.3.0",
        f"SELECT Timestamp, Body, SeverityText FROM otel_logs WHERE {_WINDOW} ORDER BY Timestamp DESC LIMIT 1000",
    ),
    _plugin(
        "query builder, dates",
        "SELECT Timestamp, Body FROM otel_logs WHERE Timestamp >= toDateTime({from}) AND Timestamp <= toDateTime({to})"
        " ORDER BY Timestamp DESC LIMIT 1000",
    ),
    _plugin(
        "volume by level",
        f"SELECT {_PER_MINUTE}, SeverityText AS metric, count() AS count FROM otel_logs WHERE {_WINDOW}"
        " GROUP BY time, metric ORDER BY time",
    ),
    _plugin(
        "services",
        f"SELECT ServiceName AS Service, count() AS Count FROM otel_logs WHERE {_WINDOW} GROUP BY Service"
        " ORDER BY Count DESC LIMIT 15",
    ),
    _plugin(
        "search in a service",
        f"SELECT Timestamp, Body, SeverityText, TraceId, ResourceAttributes['k8s.pod.name'] FROM otel_logs WHERE {_WINDOW}"
        " AND ServiceName = 'service-3' AND positionCaseInsensitive(Body, 'answered') > 0 ORDER BY Timestamp DESC LIMIT 200",
    ),
    _plugin(
        "top errors",
        f"SELECT SeverityText, ServiceName, Body, count() AS Count FROM otel_logs WHERE {_WINDOW} AND SeverityText IN"
        " ('ERROR', 'WARN', 'FATAL') GROUP BY SeverityText, ServiceName, Body ORDER BY Count DESC LIMIT 20",
    ),
    _plugin("levels", f"SELECT DISTINCT SeverityText FROM otel_logs WHERE {_WINDOW} ORDER BY SeverityText"),
    _clickstack(
        "search",
        f"SELECT Timestamp, ServiceName, SeverityText, Body FROM otel_logs WHERE ({_MILLIS}) AND ({_BUCKETS})"
        " ORDER BY (toStartOfFiveMinutes(Timestamp), Timestamp) DESC LIMIT 200",
    ),
    _clickstack(
        "search, time alone",
        f"SELECT Timestamp, ServiceName, SeverityText, Body FROM otel_logs WHERE ({_MILLIS}) ORDER BY Timestamp DESC LIMIT 200",
    ),
    _clickstack(
        "histogram",
        f"SELECT count(), SeverityText, toStartOfInterval(toDateTime(Timestamp), INTERVAL 30 second) AS bucket FROM otel_logs"
        f" WHERE ({_MILLIS}) GROUP BY SeverityText, bucket ORDER BY bucket",
    ),
    _clickstack(
        "top attributes",
        "SELECT arrayJoin(mapKeys(LogAttributes)) AS key, uniq(LogAttributes[key]) AS values FROM otel_logs"
        f" WHERE ({_MILLIS}) GROUP BY key ORDER BY values DESC LIMIT 20",
    ),
)
TRACES: Final = (
    _plugin("services", f"SELECT DISTINCT ServiceName FROM otel_traces WHERE {_WINDOW} ORDER BY ServiceName"),
    _plugin(
        "operations",
        f"SELECT DISTINCT SpanName FROM otel_traces WHERE {_WINDOW} AND ServiceName = 'service-3' ORDER BY SpanName",
    ),
    _plugin(
        "request rate",
        f"SELECT {_PER_MINUTE}, count() / 60 AS rps FROM otel_traces WHERE {_WINDOW} AND ServiceName = 'service-3'"
        " AND SpanKind = 'Server' GROUP BY time ORDER BY time",
    ),
    _plugin(
        "percentiles of an operation",
        f"SELECT {_PER_MINUTE}, quantile(0.99)(Duration) AS p99 FROM otel_traces WHERE {_WINDOW} AND"
        " ServiceName = 'service-3' AND SpanName IN ('GET /op/4', 'GET /op/3') GROUP BY time ORDER BY time",
    ),
    _plugin(
        "errors",
        f"SELECT SpanName, SpanKind, StatusMessage, count() AS Count, max(Timestamp) FROM otel_traces WHERE {_WINDOW}"
        f" AND ServiceName = 'service-3' AND {_ERRORS} GROUP BY SpanName, SpanKind, StatusMessage ORDER BY Count DESC LIMIT 20",
    ),
    _plugin(
        "service map, nodes",
        f"SELECT ServiceName AS id, avg(Duration), countIf({_ERRORS}) / count() FROM otel_traces WHERE {_WINDOW}"
        " GROUP BY ServiceName ORDER BY count() DESC LIMIT 30",
    ),
    _plugin(
        "service map, edges",
        "SELECT parent.ServiceName AS source, child.ServiceName AS target, count() FROM otel_traces AS child INNER JOIN"
        " otel_traces AS parent ON child.ParentSpanId = parent.SpanId AND child.TraceId = parent.TraceId WHERE "
        + " AND ".join(_WINDOW.replace("Timestamp", f"{side}.Timestamp") for side in ("child", "parent"))
        + " AND source != target GROUP BY source, target ORDER BY count() DESC LIMIT 50",
    ),
    _plugin(
        "search for traces",
        "SELECT TraceId, any(ServiceName), min(Timestamp) AS Time, max(Duration) AS longest, count() FROM otel_traces"
        f" WHERE {_WINDOW} AND StatusCode IN ('Error', 'Unset') GROUP BY TraceId HAVING longest >= 1000 ORDER BY Time DESC"
        " LIMIT 200",
    ),
    _plugin(
        "search for operations",
        f"SELECT SpanName, count() FROM otel_traces WHERE {_WINDOW} AND positionCaseInsensitive(SpanName, 'op') > 0"
        " GROUP BY SpanName LIMIT 15",
    ),
    _clickstack(
        "search",
        f"SELECT Timestamp, ServiceName, StatusCode, round(Duration / 1e6), SpanName FROM otel_traces WHERE ({_MILLIS})"
        " ORDER BY Timestamp DESC LIMIT 200",
    ),
    _clickstack(
        "histogram",
        "SELECT count(), StatusCode, toStartOfInterval(toDateTime(Timestamp), INTERVAL 30 second) AS bucket FROM otel_traces"
        f" WHERE ({_MILLIS}) GROUP BY StatusCode, bucket ORDER BY bucket",
    ),
    _clickstack(
        "top attributes",
        "SELECT arrayJoin(mapKeys(SpanAttributes)) AS key, uniq(SpanAttributes[key]) AS values FROM otel_traces"
        f" WHERE ({_MILLIS}) GROUP BY key ORDER BY values DESC LIMIT 20",
    ),
)
_SERIES: Final = "cityHash64(mapConcat(ScopeAttributes, ResourceAttributes, Attributes))"
_BUCKET: Final = "toStartOfInterval(toDateTime(TimeUnix), INTERVAL 30 second)"
METRICS: Final = (
    _clickstack(
        "gauge",
        f"WITH source AS (SELECT *, {_SERIES} AS series FROM otel_metrics_gauge WHERE ({_POINTS}) AND MetricName = 'metric-3'),"
        f" bucketed AS (SELECT {_BUCKET} AS bucket, series, argMax(Value, TimeUnix) AS last FROM source"
        " GROUP BY bucket, series)"
        " SELECT bucket, avg(last) FROM bucketed GROUP BY bucket ORDER BY bucket",
    ),
    _clickstack(
        "gauge by an attribute",
        f"SELECT {_BUCKET} AS bucket, ResourceAttributes['k8s.pod.name'] AS pod, avg(Value) FROM otel_metrics_gauge"
        f" WHERE ({_POINTS}) AND MetricName IN ('metric-3', 'metric.three') GROUP BY bucket, pod ORDER BY bucket",
    ),
    _clickstack(
        "gauge of a service",
        f"SELECT {_BUCKET} AS bucket, avg(Value) FROM otel_metrics_gauge WHERE ({_POINTS}) AND MetricName = 'metric-3'"
        " AND ServiceName = 'service-2' GROUP BY bucket ORDER BY bucket",
    ),
)

# Lists to choose from, of no one metric: the table is sorted by metric first.
METRIC_LISTS: Final = (
    _clickstack(
        "filters of the Kubernetes page",
        "WITH sampled AS (SELECT ResourceAttributes['k8s.pod.name'] AS pod, ResourceAttributes['k8s.node.name'] AS node"
        f" FROM otel_metrics_gauge WHERE ({_POINTS}) LIMIT 3000000)"
        " SELECT groupUniqArray(10000)(pod), groupUniqArray(10000)(node) FROM sampled",
    ),
    _clickstack("names of metrics", f"SELECT groupUniqArray(3000)(MetricName) FROM otel_metrics_gauge WHERE {_POINTS}"),
)
