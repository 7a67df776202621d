"""Dashboards read what they need, of a million logs, spans and points of one day and three tenants.

Each table has one part, as after merges. What is counted is the granules that the engine means to read, by its own EXPLAIN.
"""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest
from support import dashboards
from support.processes.clickhouse_server import OPTIONS
from support.reopened_store import store_with_tables

from collector.store.clickhouse import ClickHouseStore
from collector.store.insert import MERGED_INDEXES

ROWS: Final = 1_000_000
DAY: Final = 1_796_083_200  # 2026-12-01, UTC
QUARTER_S: Final = 900
WINDOWS: Final = (DAY, DAY + 10 * 3600 + 180, DAY + 86_400 - QUARTER_S - 1)
SHARE_MAX: Final = 0.05
SERIES_POINTS: Final = 720 * 24 * 60
# Of ten metrics one: a tenth of the rows, and a granule more at each end in each tenant.
METRIC_SHARE_MAX: Final = 0.13
# Without a metric's name: of each metric the hours of the window, here of ten metrics (docs/use/store.md has others).
LIST_SHARE_MAX: Final = 0.16
LIST_OF_TENANT_SHARE_MAX: Final = 0.06

# One part, of one block; of the indexes only those that the statements use, which saves the test's time.
_ONE_PART: Final = (
    "max_threads = 1, max_insert_threads = 1, max_insert_block_size = 1048576, min_insert_block_size_rows = 1048576,"
    " min_insert_block_size_bytes = 0, insert_deduplicate = 0, max_block_size = 65536,"
    " exclude_materialize_skip_indexes_on_insert = 'idx_res_attr_key,idx_res_attr_value,idx_scope_attr_key,"
    "idx_scope_attr_value,idx_log_attr_key,idx_log_attr_value,idx_span_attr_key,idx_span_attr_value,idx_attr_key,idx_attr_value,idx_lower_body,"
    "idx_batch_id'"
)
_TIME: Final = f"fromUnixTimestamp64Nano(toInt64({DAY}) * 1000000000 + number * intDiv(86400000000000, {ROWS}))"
_WHO: Final = (
    "concat('tenant-', toString(intHash32({group}) % 3)) AS TenantId,"
    " concat('service-', toString(intHash32({group} + 7) % 12)) AS ServiceName"
)
_RESOURCE: Final = (
    "map('service.name', ServiceName, 'k8s.pod.name', concat('pod-', toString(number % 5))) AS ResourceAttributes"
)
FILL: Final = (
    f"""INSERT INTO otel_logs (Timestamp, TenantId, ServiceName, ResourceAttributes, SeverityText, Body, TraceId, LogAttributes)
SELECT {_TIME}, {_WHO.format(group="number")}, {_RESOURCE}, if(number % 50 = 0, 'ERROR', 'INFO'),
    concat('answered ', toString(number % 977)), lower(hex(sipHash128(intDiv(number, 7)))),
    map('thread', toString(number % 64)) FROM numbers({ROWS})""",
    f"""INSERT INTO otel_traces (Timestamp, TenantId, ServiceName, ResourceAttributes, SpanName, SpanKind, Duration, StatusCode,
    TraceId, SpanId, ParentSpanId, SpanAttributes)
SELECT {_TIME}, {_WHO.format(group="intDiv(number, 8)").replace("+ 7", "+ number % 3")}, {_RESOURCE},
    concat('GET /op/', toString(intHash32(number) % 30)), if(number % 2, 'Server', 'Client'), number % 9000,
    if(number % 50 = 0, 'Error', 'Unset'), lower(hex(sipHash128(intDiv(number, 8)))), hex(number),
    if(number % 8 = 0, '', hex(number - 1)), map('http.route', '/op') FROM numbers({ROWS})""",
    # 720 series, a point a minute each.
    f"""INSERT INTO otel_metrics_gauge (TimeUnix, TenantId, ServiceName, ResourceAttributes, MetricName, Attributes, Value)
SELECT fromUnixTimestamp64Nano((toInt64({DAY}) + intDiv(number, 720) * 60) * 1000000000 + number % 720),
    concat('tenant-', toString(number % 3)), concat('service-', toString(intDiv(number, 3) % 4)) AS ServiceName, {_RESOURCE},
    concat('metric-', toString(intDiv(number, 12) % 10)), map('cpu', toString(intDiv(number % 720, 120))), number % 100
FROM numbers({SERIES_POINTS})""",
    "INSERT INTO otel_traces_trace_id_ts (TraceId, Start, End, TenantId, SpanCount) SELECT TraceId, min(Timestamp),"
    " max(Timestamp), TenantId, count() FROM otel_traces GROUP BY TraceId, TenantId",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    with closing(store_with_tables(tmp_path_factory.mktemp("store") / "store", OPTIONS)) as opened:
        for statement in FILL:
            head, select = statement.split("SELECT", 1)
            opened._command(f"{head} SETTINGS {_ONE_PART} SELECT{select}")
        yield opened


def granules(store: ClickHouseStore, table: str) -> int:
    return int(store.query(f"SELECT sum(marks) - count() FROM system.parts WHERE active AND table = '{table}'", "TSV"))


def read(store: ClickHouseStore, sql: str) -> list[int]:
    """Return how many granules of a table the statement reads, each time that it reads one."""
    plan = store.query(f"EXPLAIN indexes = 1 {sql}", "TSVRaw").decode()
    return [int(found) for found in re.findall(r"Parts: \d+ \| Granules: (\d+)$", plan, re.MULTILINE)]


@pytest.mark.parametrize("since", WINDOWS, ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    ("table", "ask"),
    [
        *(("otel_logs", ask) for ask in dashboards.LOGS),
        *(("otel_traces", ask) for ask in dashboards.TRACES),
        *(("otel_metrics_gauge", ask) for ask in dashboards.METRICS),
    ],
    ids=lambda value: value.name if isinstance(value, dashboards.Ask) else value,
)
def test_a_quarter_of_an_hour_of_a_day(store: ClickHouseStore, table: str, ask: dashboards.Ask, since: int) -> None:
    """It reads at most a twentieth of the day's granules, over all tenants. (It is 1/96 of the rows.)"""
    found = read(store, ask.within(since, since + QUARTER_S))
    assert min(found) >= 1
    assert max(found) <= SHARE_MAX * granules(store, table), found


@pytest.mark.parametrize("ask", dashboards.METRIC_LISTS, ids=lambda ask: ask.name)
def test_lists_of_all_metrics_read_more(store: ClickHouseStore, ask: dashboards.Ask) -> None:
    """They name no metric, so they read every metric's hours: more than a twentieth. A tenant's are a third of these."""
    every = granules(store, "otel_metrics_gauge")
    shares = []
    for since in WINDOWS:
        sql = ask.within(since, since + QUARTER_S)
        (found,), (of_tenant,) = read(store, sql), read(store, sql.replace("WHERE ", "WHERE TenantId = 'tenant-1' AND "))
        assert 1 <= of_tenant <= LIST_OF_TENANT_SHARE_MAX * every
        shares.append(found / every)
    assert SHARE_MAX < max(shares) <= LIST_SHARE_MAX


@pytest.mark.parametrize(
    "ask", [*dashboards.LOGS, *dashboards.TRACES, *dashboards.METRICS, *dashboards.METRIC_LISTS], ids=lambda ask: ask.name
)
def test_dashboards_find_rows(store: ClickHouseStore, ask: dashboards.Ask) -> None:
    """Each statement runs, and answers with rows: none is fast because it finds nothing."""
    assert store.query(ask.within(DAY + 36_000, DAY + 36_000 + QUARTER_S), "TSV")


def test_no_dashboard_needs_what_is_made_at_merges(store: ClickHouseStore) -> None:
    """A part that was just inserted is read like any other."""
    for ask in (*dashboards.LOGS, *dashboards.TRACES, *dashboards.METRICS):
        plan = store.query(f"EXPLAIN indexes = 1 {ask.within(DAY, DAY + QUARTER_S)}", "TSVRaw").decode()
        used = set(re.findall(r"Name: (\w+)", plan))
        assert used & {"idx_time", *MERGED_INDEXES} == {"idx_time"}, ask.name


def test_a_trace_by_its_id(store: ClickHouseStore) -> None:
    """Grafana asks with the times from the table of trace times, ClickStack with the id alone."""
    trace = store.query("SELECT TraceId FROM otel_traces WHERE SpanId = hex(500000)", "TSV").decode().strip()
    limit = SHARE_MAX * granules(store, "otel_traces")
    times = store.query(f"SELECT min(Start), max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId = '{trace}'", "TSV")
    start, end = times.decode().strip().split("\t")
    by_time = f"SELECT * FROM otel_traces WHERE TraceId = '{trace}' AND Timestamp >= '{start}' AND Timestamp <= '{end}'"
    for sql in (by_time, f"SELECT * FROM otel_traces WHERE TraceId = '{trace}'"):
        (found,) = read(store, sql)
        assert 1 <= found <= limit
        assert len(store.query(sql, "TSV").splitlines()) == 8


def test_logs_of_a_trace(store: ClickHouseStore) -> None:
    """The bloom filter on TraceId leaves a few granules of the day."""
    trace = store.query("SELECT TraceId FROM otel_logs LIMIT 1", "TSV").decode().strip()
    (found,) = read(store, f"SELECT Body FROM otel_logs WHERE TraceId = '{trace}'")
    assert 1 <= found <= SHARE_MAX * granules(store, "otel_logs")


def test_the_series_of_a_metric_over_a_day(store: ClickHouseStore) -> None:
    """It reads its own metric, and of the others what shares a granule with it."""
    ask = dashboards.METRICS[0].within(DAY, DAY + 86_400)
    (found,) = read(store, ask)
    assert found <= METRIC_SHARE_MAX * granules(store, "otel_metrics_gauge")


def test_one_series_over_a_day(store: ClickHouseStore) -> None:
    """By its hash, a third of its metric's granules are read. A chart of all series needs no map."""
    (series,) = store.query("SELECT SeriesHash FROM otel_metrics_gauge WHERE MetricName = 'metric-3' LIMIT 1", "TSV").split()
    of_metric = "FROM otel_metrics_gauge WHERE MetricName = 'metric-3'"
    one = f"SELECT TimeUnix, Value {of_metric} AND SeriesHash = {series.decode()}"
    (found,), (every,) = read(store, one), read(store, f"SELECT TimeUnix, Value {of_metric}")
    assert 1 <= found <= 0.4 * every
    rows = int(store.query(f"SELECT count() FROM ({one})", "TSV"))
    assert rows == int(store.query(f"SELECT countIf(SeriesHash = {series.decode()}) FROM otel_metrics_gauge", "TSV"))

    def bytes_read(key: str) -> int:
        chart = f"SELECT {key} AS series, toStartOfHour(TimeUnix) AS hour, avg(Value) {of_metric} GROUP BY series, hour"
        return int(json.loads(store.query(chart, "JSON"))["statistics"]["bytes_read"])

    assert bytes_read("SeriesHash") < 0.5 * bytes_read("cityHash64(ScopeAttributes, ResourceAttributes, Attributes)")


def test_a_tenant_alone(store: ClickHouseStore) -> None:
    """With a condition on the tenant, which a tenant's key always adds, it is less than a fortieth."""
    window = f"BETWEEN toDateTime64({WINDOWS[1]}, 9) AND toDateTime64({WINDOWS[1] + QUARTER_S}, 9) AND TenantId = 'tenant-1'"
    for table, time, besides in (
        ("otel_logs", "Timestamp", ""),
        ("otel_traces", "Timestamp", ""),
        ("otel_metrics_gauge", "TimeUnix", "AND MetricName = 'metric-3'"),
    ):
        (found,) = read(store, f"SELECT ResourceAttributes FROM {table} WHERE {time} {window} {besides}")
        assert 1 <= found <= SHARE_MAX / 2 * granules(store, table), table
