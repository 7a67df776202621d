"""The tables are what Grafana's ClickHouse data source and ClickStack read: the OpenTelemetry exporter's, with more columns."""

from collections.abc import Iterator

import pytest

from collector.store.clickhouse import ClickHouseStore

LC = "LowCardinality(String)"
M = "Map(LowCardinality(String), String)"
TIME = "DateTime64(9)"
DELTA = "CODEC(Delta(8), ZSTD(1))"
T64 = "CODEC(T64, ZSTD(1))"
ZSTD = "CODEC(ZSTD(1))"

LOGS = f"""Timestamp {TIME}, TimestampTime DateTime, TraceId String, SpanId String, TraceFlags UInt8, SeverityText {LC},
SeverityNumber UInt8, ServiceName {LC}, Body String, ResourceSchemaUrl {LC}, ResourceAttributes {M}, ScopeSchemaUrl {LC},
ScopeName String, ScopeVersion {LC}, ScopeAttributes {M}, LogAttributes {M}, EventName String"""
TRACES = f"""Timestamp {TIME}, TraceId String, SpanId String, ParentSpanId String, TraceState String, SpanName {LC},
SpanKind {LC}, ServiceName {LC}, ResourceAttributes {M}, ScopeName String, ScopeVersion String, SpanAttributes {M},
Duration UInt64, StatusCode {LC}, StatusMessage String, Events.Timestamp Array({TIME}), Events.Name Array({LC}),
Events.Attributes Array({M}),
Links.TraceId Array(String), Links.SpanId Array(String), Links.TraceState Array(String), Links.Attributes Array({M})"""
METRIC = f"""ResourceAttributes {M}, ResourceSchemaUrl String, ScopeName String, ScopeVersion String, ScopeAttributes {M},
ScopeDroppedAttrCount UInt32, ScopeSchemaUrl String, ServiceName {LC}, MetricName {LC}, MetricDescription String,
MetricUnit String, Attributes {M}, StartTimeUnix {TIME}, TimeUnix {TIME}, Flags UInt32"""
EXEMPLARS = f"""Exemplars.FilteredAttributes Array({M}), Exemplars.TimeUnix Array({TIME}), Exemplars.Value Array(Float64),
Exemplars.SpanId Array(String), Exemplars.TraceId Array(String)"""
HASHED = {f"otel_metrics_{kind}" for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary")}
COLUMNS = {
    "otel_logs": LOGS,
    "otel_traces": TRACES,
    "otel_traces_trace_id_ts": "TraceId String, Start DateTime, End DateTime",
    "otel_metrics_gauge": f"{METRIC}, {EXEMPLARS}, Value Float64",
    "otel_metrics_sum": f"{METRIC}, {EXEMPLARS}, Value Float64, AggregationTemporality Int32, IsMonotonic Bool",
    "otel_metrics_histogram": f"""{METRIC}, {EXEMPLARS}, Count UInt64, Sum Float64, BucketCounts Array(UInt64),
        ExplicitBounds Array(Float64), Min Float64, Max Float64, AggregationTemporality Int32""",
    "otel_metrics_exponential_histogram": f"""{METRIC}, {EXEMPLARS}, Count UInt64, Sum Float64, Scale Int32, ZeroCount UInt64,
        PositiveOffset Int32, PositiveBucketCounts Array(UInt64), NegativeOffset Int32, NegativeBucketCounts Array(UInt64),
        Min Float64, Max Float64, AggregationTemporality Int32, ZeroThreshold Float64""",
    "otel_metrics_summary": f"""{METRIC}, Count UInt64, Sum Float64, ValueAtQuantiles.Quantile Array(Float64),
        ValueAtQuantiles.Value Array(Float64)""",
}
COLUMNS["otel_metrics_exp_histogram"] = COLUMNS["otel_metrics_exponential_histogram"]
# ClickStack looks for it in the tables that it joins with one of series.
COLUMNS |= {name: f"{made}, SeriesHash UInt64" for name, made in COLUMNS.items() if name in HASHED}

METRIC_KEY = "TenantId, MetricName, toStartOfHour(TimeUnix), ServiceName, SeriesHash, TimeUnix"
KEYS = {
    "otel_logs": ("TenantId, toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp", "toDate(Timestamp)"),
    "otel_traces": ("TenantId, toStartOfFiveMinutes(Timestamp), ServiceName, SpanName, Timestamp", "toDate(Timestamp)"),
    "otel_traces_trace_id_ts": ("TenantId, TraceId, Start", "toDate(Start)"),
    **{
        f"otel_metrics_{kind}": (METRIC_KEY, "toDate(TimeUnix)")
        for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    },
}


OURS = {
    "telemetry_batches": ("TenantId, ReceivedAt, BatchId", "toDate(ReceivedAt)"),
    "telemetry_dead_letters": ("TenantId, ReceivedAt, Id", "toDate(KeptAt)"),
    "telemetry_dead_letter_events": ("TenantId, DeadLetterId, At, Id", "toDate(At)"),
}


def both(*maps: str) -> set[str]:
    return {f"{side}({name}) bloom_filter(0.01)" for name in maps for side in ("mapKeys", "mapValues")}


METRIC_INDEXES = {
    *both("ResourceAttributes", "ScopeAttributes", "Attributes"),
    "TimeUnix minmax",
    "SeriesHash bloom_filter(0.01)",
}
INDEXES = {
    "otel_logs": {
        *both("ResourceAttributes", "ScopeAttributes", "LogAttributes"),
        "TraceId bloom_filter(0.001)",
        "lower(Body) tokenbf_v1(32768, 3, 0)",
        "Timestamp minmax",
    },
    "otel_traces": {
        *both("ResourceAttributes", "SpanAttributes"),
        "TraceId bloom_filter(0.001)",
        "Duration minmax",
        "lower(SpanName) tokenbf_v1(32768, 3, 0)",
        "Timestamp minmax",
    },
    "otel_traces_trace_id_ts": {"TraceId bloom_filter(0.01)"},
    **{table: METRIC_INDEXES for table in KEYS if table.startswith("otel_metrics")},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = ClickHouseStore.embedded(tmp_path_factory.mktemp("store"))
    opened.apply_schema()
    yield opened
    opened.close()


def lines(store: ClickHouseStore, sql: str) -> list[str]:
    return store.query(sql, "TSVRaw").decode().splitlines()


def columns(text: str) -> list[str]:
    """`name type`, split at the commas that are not inside a type."""
    found, depth = [""], 0
    for letter in " ".join(text.split()):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [column.strip() for column in found]


@pytest.mark.parametrize("table", COLUMNS)
def test_columns(store: ClickHouseStore, table: str) -> None:
    """Every column that dashboards expect is there, with its type; and a tenant."""
    found = lines(store, f"SELECT concat(name, ' ', type) FROM system.columns WHERE table = '{table}'")
    assert [column for column in columns(COLUMNS[table]) if column not in found] == []
    assert f"TenantId {LC}" in found


@pytest.mark.parametrize("table", KEYS | OURS)
def test_keys(store: ClickHouseStore, table: str) -> None:
    """Sorted by tenant first, partitioned by day."""
    sql = f"SELECT concat(sorting_key, '|', partition_key) FROM system.tables WHERE name = '{table}'"
    assert lines(store, sql) == ["|".join((KEYS | OURS)[table])]


@pytest.mark.parametrize(
    ("table", "column"),
    [("telemetry_batches", "BatchId"), ("telemetry_dead_letters", "Id"), ("telemetry_dead_letters", "BatchId")],
)
def test_ids_are_looked_up(store: ClickHouseStore, table: str, column: str) -> None:
    """One is found without reading every granule."""
    indexed = lines(store, f"SELECT concat(expr, ' ', type_full) FROM system.data_skipping_indices WHERE table = '{table}'")
    assert f"{column} bloom_filter(0.01)" in indexed


@pytest.mark.parametrize("table", INDEXES)
def test_indexes(store: ClickHouseStore, table: str) -> None:
    """The exporter's indexes, and one to look batches up by."""
    found = lines(store, f"SELECT concat(expr, ' ', type_full) FROM system.data_skipping_indices WHERE table = '{table}'")
    assert set(found) == {*INDEXES[table], "BatchId bloom_filter(0.01)"}


@pytest.mark.parametrize("table", KEYS | OURS)
def test_codecs(store: ClickHouseStore, table: str) -> None:
    """Times of 64 bits as differences, durations without the bits that none has, everything compressed. An alias has none."""
    stored = f"FROM system.columns WHERE table = '{table}' AND default_kind != 'ALIAS'"
    found = lines(store, f"SELECT concat(name, '|', type, '|', compression_codec) {stored}")
    for name, type_, codec in (line.split("|") for line in found):
        assert codec == {"Duration": T64}.get(name, DELTA if type_ == TIME else ZSTD), name


@pytest.mark.parametrize("table", KEYS | OURS)
def test_settings(store: ClickHouseStore, table: str) -> None:
    """Tokens are remembered, whole parts expire, inserts are synced, and merges of telemetry take more parts at once."""
    (engine,) = lines(store, f"SELECT engine_full FROM system.tables WHERE name = '{table}'")
    for setting in ("non_replicated_deduplication_window = 10000", "ttl_only_drop_parts = 1", "fsync_after_insert = 1"):
        assert setting in engine
    assert ("merge_selector_base = 10" in engine) is (table in KEYS)


def test_landing_keeps_nothing(store: ClickHouseStore) -> None:
    found = lines(
        store, "SELECT DISTINCT engine FROM system.tables WHERE name LIKE 'landing%' AND engine != 'MaterializedView'"
    )
    assert found == ["Null"]


def test_a_series_is_identified_by_all_its_parts(store: ClickHouseStore) -> None:
    """Attributes in any order are the same series. Another name, service, scope, attribute or owner of one is another."""
    plain = {
        "MetricName": "'m'",
        "ServiceName": "'s'",
        "ScopeName": "'scope'",
        "ScopeVersion": "'1'",
        "ResourceAttributes": "map('a', '1', 'b', '2')",
        "ScopeAttributes": "map()",
        "Attributes": "map('c', '3', 'd', '')",
    }
    reordered = {"ResourceAttributes": "map('b', '2', 'a', '1')", "Attributes": "map('d', '', 'c', '3')"}
    others = [
        *({name: "'other'"} for name in ("MetricName", "ServiceName", "ScopeName", "ScopeVersion")),
        {"ResourceAttributes": "map('a', '2', 'b', '1')"},
        {"ResourceAttributes": "map('a', '1')", "Attributes": "map('b', '2', 'c', '3', 'd', '')"},
        {"ScopeAttributes": "map('a', '1', 'b', '2')", "ResourceAttributes": "map()"},
        {"Attributes": "map('c', '3')"},
    ]
    for table in (name for name in KEYS if name.startswith("otel_metrics")):
        for number, change in enumerate([{}, reordered, *others]):
            row = {"TimeUnix": "toDateTime64('2026-11-29', 9)", "Flags": str(number), **plain, **change}
            store._command(f"INSERT INTO {table} ({', '.join(row)}) SELECT {', '.join(row.values())}")
        found = lines(store, f"SELECT SeriesHash FROM {table} ORDER BY Flags")
        assert found[0] == found[1], table
        assert len(set(found)) == 1 + len(others), table
