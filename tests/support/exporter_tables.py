"""The tables of the OpenTelemetry Collector's ClickHouse exporter, from the columns that its documentation lists, with rows.

It has had several forms: attributes as maps or as JSON; the time of logs also as TimestampTime, until 0.151; and times of
traces as an aggregate, in partitions of a week.
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal

Form = Literal["map", "map of 2024", "json"]
FORMS: Final[tuple[Form, ...]] = ("map", "map of 2024", "json")

_LC: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(9) CODEC(Delta(8), ZSTD(1))"
_METRIC: Final = {
    **dict.fromkeys(("ResourceAttributes", "ScopeAttributes", "Attributes"), "ATTRIBUTES"),
    **dict.fromkeys(("ResourceSchemaUrl", "ScopeName", "ScopeVersion", "ScopeSchemaUrl"), "String"),
    **dict.fromkeys(("MetricDescription", "MetricUnit"), "String"),
    "ScopeDroppedAttrCount": "UInt32",
    **dict.fromkeys(("ServiceName", "MetricName"), _LC),
    **dict.fromkeys(("StartTimeUnix", "TimeUnix"), _TIME),
    "Flags": "UInt32",
}
_EXEMPLARS: Final = {
    "Exemplars": "Nested(FilteredAttributes ATTRIBUTES, TimeUnix DateTime64(9), Value Float64, SpanId String, TraceId String)"
}
_ALL: Final = {"Count": "UInt64", "Sum": "Float64"}
_BOUNDS: Final = {**dict.fromkeys(("Min", "Max"), "Float64"), "AggregationTemporality": "Int32"}
_COLUMNS: Final = {
    "otel_logs": {
        "Timestamp": _TIME,
        **dict.fromkeys(("TraceId", "SpanId", "Body", "ScopeName"), "String"),
        "TraceFlags": "UInt8",
        "SeverityNumber": "UInt8",
        **dict.fromkeys(("SeverityText", "ServiceName", "ResourceSchemaUrl", "ScopeSchemaUrl", "ScopeVersion"), _LC),
        **dict.fromkeys(("ResourceAttributes", "ScopeAttributes", "LogAttributes"), "ATTRIBUTES"),
    },
    "otel_traces": {
        "Timestamp": _TIME,
        **dict.fromkeys(("TraceId", "SpanId", "ParentSpanId", "TraceState", "ScopeName", "ScopeVersion"), "String"),
        **dict.fromkeys(("SpanName", "SpanKind", "ServiceName", "StatusCode"), _LC),
        **dict.fromkeys(("ResourceAttributes", "SpanAttributes"), "ATTRIBUTES"),
        "Duration": "UInt64",
        "StatusMessage": "String",
        "Events": f"Nested(Timestamp DateTime64(9), Name {_LC}, Attributes ATTRIBUTES)",
        "Links": "Nested(TraceId String, SpanId String, TraceState String, Attributes ATTRIBUTES)",
    },
    "otel_metrics_gauge": _METRIC | _EXEMPLARS | {"Value": "Float64"},
    "otel_metrics_sum": _METRIC
    | _EXEMPLARS
    | {"Value": "Float64", "AggregationTemporality": "Int32", "IsMonotonic": "Boolean"},
    "otel_metrics_histogram": _METRIC
    | _EXEMPLARS
    | _ALL
    | _BOUNDS
    | {"BucketCounts": "Array(UInt64)", "ExplicitBounds": "Array(Float64)"},
    "otel_metrics_exp_histogram": _METRIC
    | _EXEMPLARS
    | _ALL
    | _BOUNDS
    | {
        **dict.fromkeys(("Scale", "PositiveOffset", "NegativeOffset"), "Int32"),
        "ZeroCount": "UInt64",
        **dict.fromkeys(("PositiveBucketCounts", "NegativeBucketCounts"), "Array(UInt64)"),
    },
    "otel_metrics_summary": _METRIC | _ALL | {"ValueAtQuantiles": "Nested(Quantile Float64, Value Float64)"},
}
TABLES: Final = (*_COLUMNS, "otel_traces_trace_id_ts")


def make(command: Callable[[str], object], database: str, form: Form, table: str = "") -> None:
    """Make the tables and the view, or one of _COLUMNS alone, in a database that may be there."""
    command(f"CREATE DATABASE IF NOT EXISTS {database}")
    for name in _COLUMNS:
        if table in ("", name):
            command(_table(database, form, name))
    if not table:
        for statement in _times(database, form):
            command(statement)


def insert(command: Callable[[str], object], database: str, form: Form, day: str, rows: int, table: str = "") -> None:
    """Insert so many rows of a day into each table, or one, but for the times of traces, which the view makes."""
    for name, columns in _COLUMNS.items():
        if table not in ("", name):
            continue
        time = "TimeUnix" if "TimeUnix" in columns else "Timestamp"
        values = {
            time: f"toDateTime64('{day} 00:00:00', 9, 'UTC') + toIntervalSecond(number)",
            "ServiceName": "concat('service-', toString(number % 3))",
            "ResourceAttributes": """'{"k8s.pod.name":"pod-1"}'""" if form == "json" else "map('k8s.pod.name', 'pod-1')",
        }
        if "TraceId" in columns:
            values["TraceId"] = f"lower(hex(MD5(concat('{day}', toString(number)))))"
        if "Value" in columns:
            values["Value"] = "number / 2"
        if "Duration" in columns:
            values["Duration"] = "1500"
        command(f"INSERT INTO {database}.{name} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM numbers({rows})")


def _table(database: str, form: Form, name: str) -> str:
    columns = _COLUMNS[name]
    made = dict(columns)
    if form == "json":
        made |= {f"{column}Keys": f"Array({_LC})" for column, type_ in columns.items() if type_ == "ATTRIBUTES"}
    time = "TimeUnix" if "TimeUnix" in columns else "Timestamp"
    day = time
    if name == "otel_logs" and form == "map of 2024":
        made["TimestampTime"] = "DateTime DEFAULT toDateTime(Timestamp)"
        day = "TimestampTime"
    text = ", ".join(f"{column} {type_}" for column, type_ in made.items())
    text = text.replace("ATTRIBUTES", "JSON" if form == "json" else f"Map({_LC}, String)")
    return (
        f"CREATE TABLE {database}.{name} ({text}) ENGINE = MergeTree PARTITION BY toDate({day})"
        f" ORDER BY (ServiceName, toDateTime({day}), {time}) SETTINGS ttl_only_drop_parts = 1"
    )


def _times(database: str, form: Form) -> Iterator[str]:
    times = f"{database}.otel_traces_trace_id_ts"
    if form == "map of 2024":
        yield (
            f"CREATE TABLE {times} (TraceId String, Start DateTime, End DateTime) ENGINE = MergeTree"
            " PARTITION BY toDate(Start) ORDER BY (TraceId, Start)"
        )
    else:
        yield (
            f"CREATE TABLE {times} (TraceId String, Start SimpleAggregateFunction(min, DateTime),"
            " End SimpleAggregateFunction(max, DateTime)) ENGINE = AggregatingMergeTree"
            " PARTITION BY toStartOfWeek(Start) ORDER BY TraceId"
        )
    yield (
        f"CREATE MATERIALIZED VIEW {times}_mv TO {times} AS SELECT TraceId, toDateTime(min(Timestamp)) AS Start,"
        f" toDateTime(max(Timestamp)) AS End FROM {database}.otel_traces WHERE TraceId != '' GROUP BY TraceId"
    )
