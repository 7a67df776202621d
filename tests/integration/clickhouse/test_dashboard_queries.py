"""What ClickStack and Grafana ask beyond what test_granules.py counts granules of: each statement finds the right rows.

Written from the columns that they require and select. Rows are few, so that each answer is known.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest
from support import batches
from support.records import encoded
from support.reopened_store import store_with_tables

from collector.broker.contract import TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables, StoreOptions

_POINT: Final = "TimeUnix ServiceName MetricName Attributes ResourceAttributes"
# A source is taken for one of its kind if its table has these.
REQUIRED: Final = {
    "otel_logs": "Timestamp Body SeverityText TraceId SpanId ServiceName LogAttributes ResourceAttributes",
    "otel_traces": "Timestamp SpanName Duration SpanKind TraceId SpanId ParentSpanId ServiceName SpanAttributes"
    " ResourceAttributes StatusCode StatusMessage Events.Timestamp Links.TraceId",
    "hyperdx_sessions": "ResourceAttributes LogAttributes TimestampTime Body",
    "otel_metrics_gauge": f"{_POINT} Value SeriesHash",
    "otel_metrics_sum": f"{_POINT} Value SeriesHash",
    "otel_metrics_histogram": f"{_POINT} Count Sum BucketCounts ExplicitBounds SeriesHash",
    "otel_metrics_summary": f"{_POINT} Count Sum ValueAtQuantiles.Quantile ValueAtQuantiles.Value Flags SeriesHash",
    "otel_metrics_exponential_histogram": f"{_POINT} Count Sum Scale ZeroCount PositiveOffset PositiveBucketCounts"
    " NegativeOffset NegativeBucketCounts Flags SeriesHash",
}
_START: Final = "toDateTime64('2026-11-29 10:00:00', 9)"
_SERIES: Final = "cityHash64(ScopeAttributes, ResourceAttributes, Attributes)"
_BUCKET: Final = "toStartOfInterval(toDateTime(TimeUnix), INTERVAL 5 minute)"
# Two pods, a point a minute for ten minutes. Counters grow by 1 and by 3; the second is reset at minute 6.
_POINTS: Final = (
    f"SELECT {_START} + toIntervalMinute(intDiv(number, 2)) AS TimeUnix, 'acme' AS TenantId, 'm' AS MetricName, 's' AS"
    " ServiceName, map('pod', toString(number % 2)) AS ResourceAttributes, 2 AS AggregationTemporality"
)
FILL: Final = (
    f"INSERT INTO otel_metrics_sum (TimeUnix, TenantId, MetricName, ServiceName, ResourceAttributes, AggregationTemporality,"
    f" Value, IsMonotonic) {_POINTS}, if(number % 2, if(number < 12, 100, 0) + number * 3 / 2, number / 2) AS Value, true"
    " FROM numbers(20)",
    f"INSERT INTO otel_metrics_histogram (TimeUnix, TenantId, MetricName, ServiceName, ResourceAttributes,"
    f" AggregationTemporality, Count, Sum, BucketCounts, ExplicitBounds) {_POINTS}, 4 * (intDiv(number, 2) + 1) AS n, n * 10,"
    " [n / 2, n / 4, n / 4], [10., 100.] FROM numbers(20)",
    f"INSERT INTO otel_logs (Timestamp, TenantId, ServiceName, SeverityText, Body, LogAttributes, ResourceAttributes) SELECT"
    f" {_START} + number, 'acme', concat('s', toString(number % 3)), if(number % 5, 'INFO', 'ERROR'), concat('line ',"
    " toString(number)), map('thread', toString(number % 2), concat('key-', toString(number % 4)), 'x'), map('pod', 'one')"
    " FROM numbers(100)",
)
WINDOW: Final = f"TimeUnix >= {_START} AND TimeUnix <= {_START} + toIntervalHour(1) AND MetricName = 'm'"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    wanted = RequestedTables(fsync=False, rollups=True, sessions=True)
    with closing(store_with_tables(tmp_path_factory.mktemp("store") / "store", StoreOptions(wanted))) as opened:
        for statement in FILL:
            opened._command(statement)
        opened.insert(TRACES_TOPIC, [encoded(batches.traces(1, "acme"))], "traces")
        yield opened


def rows(store: ClickHouseStore, sql: str) -> list[list[str]]:
    return [line.split("\t") for line in store.query(sql, "TSVRaw").decode().splitlines()]


@pytest.mark.parametrize("table", REQUIRED)
def test_columns_by_which_a_source_is_known(store: ClickHouseStore, table: str) -> None:
    """The columns are those that DESCRIBE answers, which is what ClickStack reads."""
    assert set(REQUIRED[table].split()) <= {row[0] for row in rows(store, f"DESCRIBE TABLE {table}")}


@pytest.mark.parametrize("series", [_SERIES, "SeriesHash"])
def test_the_increase_of_a_counter(store: ClickHouseStore, series: str) -> None:
    """The differences between points of a series, where a reset counts as nothing. By maps and by the hash it is the same."""
    source = (
        f"SELECT *, {series} AS AttributesHash, IF(AggregationTemporality = 1, Value, greatest(Value -"
        " lagInFrame(toNullable(Value), 1, NULL) OVER (PARTITION BY AttributesHash ORDER BY TimeUnix), 0))"
        " AS Rate FROM otel_metrics_sum WHERE"
        f" {WINDOW}"
    )
    bucketed = (
        f"SELECT {_BUCKET} AS bucket, AttributesHash, sum(Source.Rate) AS Rate, any(ResourceAttributes) AS ResourceAttributes"
        " FROM Source GROUP BY AttributesHash, bucket"
    )
    found = rows(
        store,
        f"WITH Source AS ({source}), Bucketed AS ({bucketed}) SELECT bucket, ResourceAttributes['pod'], sum(Rate) FROM Bucketed"
        " GROUP BY ALL ORDER BY ALL",
    )
    assert [row[1:] for row in found] == [["0", "4"], ["1", "12"], ["0", "5"], ["1", "12"]]


def test_a_histogram(store: ClickHouseStore) -> None:
    """The counts of its buckets over all series, from the differences between points, and how many there were in all."""
    source = (
        f"SELECT TimeUnix, {_SERIES} AS attr_hash, cityHash64(ExplicitBounds) AS bounds_hash, ExplicitBounds,"
        " CAST(BucketCounts, 'Array(Int64)') AS counts, lagInFrame(toNullable(counts[1]), 1, NULL) OVER (PARTITION BY"
        " attr_hash, bounds_hash ORDER BY TimeUnix) AS first_before, toInt64(Count) AS current_count,"
        " lagInFrame(toNullable(current_count), 1, NULL) OVER (PARTITION BY attr_hash, bounds_hash,"
        " AggregationTemporality ORDER BY TimeUnix) AS prev_count FROM"
        f" otel_metrics_histogram WHERE {WINDOW}"
    )
    found = rows(
        store,
        f"WITH source AS ({source}) SELECT sum(current_count - prev_count), sum(counts[1] - first_before), any(ExplicitBounds)"
        " FROM source",
    )
    assert found == [["72", "36", "[10,100]"]]


def test_a_trace_as_a_tree(store: ClickHouseStore) -> None:
    """ClickStack's waterfall: spans in their order, with their events; Grafana's view of a trace: tags as keys and values."""
    trace = "ab" * 16
    spans = rows(
        store,
        "SELECT Timestamp, SpanId, ParentSpanId, SpanName, ServiceName, Duration / 1e6, StatusCode, SpanKind, SpanAttributes,"
        " arrayMap((name, at, attributes) -> (name, at, attributes), Events.Name, Events.Timestamp, Events.Attributes) AS"
        f" SpanEvents FROM otel_traces WHERE TraceId = '{trace}' ORDER BY Timestamp LIMIT 50000",
    )
    assert len(spans) == 7
    assert [spans[0][column] for column in (1, 2, 3, 6, 7)] == ["cd" * 8, "ef" * 8, "GET /pay", "Error", "Server"]
    assert "TimeoutError" in spans[0][-1]
    grafana = rows(
        store,
        f"WITH '{trace}' AS trace_id, (SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId = trace_id) AS trace_start,"
        " (SELECT max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId = trace_id) AS trace_end SELECT TraceId AS traceID,"
        " SpanId AS spanID, ParentSpanId AS parentSpanID, ServiceName AS serviceName, SpanName AS operationName, Timestamp AS"
        " startTime, multiply(Duration, 0.000001) AS duration, arrayMap(key -> map('key', key, 'value', SpanAttributes[key]),"
        " mapKeys(SpanAttributes)) AS tags, arrayMap(key -> map('key', key, 'value', ResourceAttributes[key]),"
        " mapKeys(ResourceAttributes)) AS serviceTags, if(StatusCode IN ('Error', 'STATUS_CODE_ERROR'), 2, 0) AS statusCode"
        " FROM otel_traces WHERE traceID = trace_id AND startTime >= trace_start AND startTime <= trace_end ORDER BY startTime"
        " LIMIT 1000",
    )
    assert grafana[0][1] == "cd" * 8
    assert "{'key':'http.status','value':'504'}" in grafana[0][7]
    assert len(grafana) == 7


def test_logs_around_a_record(store: ClickHouseStore) -> None:
    """Ten before and ten after it, of its service; and the error patterns, levels and keys of the window beside them."""
    window = f"Timestamp >= {_START} AND Timestamp <= {_START} + 100"
    before = f"SELECT Body FROM otel_logs WHERE Timestamp < {_START} + 50 AND Timestamp >= {_START} AND ServiceName = 's2'"
    assert rows(store, f"{before} ORDER BY Timestamp DESC LIMIT 10")[0] == ["line 47"]
    after = f"SELECT Body FROM otel_logs WHERE {window} AND Timestamp > {_START} + 50 AND ResourceAttributes['pod'] = 'one'"
    assert len(rows(store, f"{after} ORDER BY Timestamp LIMIT 10")) == 10
    levels = f"SELECT SeverityText, count() FROM otel_logs WHERE {window} GROUP BY SeverityText ORDER BY 1"
    assert rows(store, levels) == [["ERROR", "20"], ["INFO", "80"]]
    keys = f"SELECT arrayJoin(groupUniqArrayArray(mapKeys(LogAttributes))) AS key FROM otel_logs WHERE {window} ORDER BY key"
    assert [row[0] for row in rows(store, keys)] == ["key-0", "key-1", "key-2", "key-3", "thread"]
    values = "SELECT Value, sum(count) FROM otel_logs_kv_rollup_15m WHERE ColumnIdentifier = 'LogAttributes' AND Key = 'thread'"
    assert rows(store, f"{values} GROUP BY Value ORDER BY Value") == [["0", "50"], ["1", "50"]]


def test_queries_of_the_engines_own_tables(store: ClickHouseStore) -> None:
    """The tables, their keys and indexes, by which statements are shaped; and the types of a statement's columns."""
    tables = rows(
        store, "SELECT name, engine, partition_key, sorting_key, primary_key FROM system.tables WHERE name = 'otel_logs'"
    )
    assert tables[0][3] == "TenantId, toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp"
    indexes = "SELECT name, type, expr, granularity FROM system.data_skipping_indices WHERE table = 'otel_traces'"
    assert ["idx_duration", "minmax", "Duration", "1"] in rows(store, indexes)
    described = rows(store, "DESCRIBE (SELECT Timestamp, Body, LogAttributes FROM otel_logs LIMIT 1)")
    assert [row[:2] for row in described] == [
        ["Timestamp", "DateTime64(9)"],
        ["Body", "String"],
        ["LogAttributes", "Map(LowCardinality(String), String)"],
    ]
