"""The memory that an insert needs, by the bytes of its rows: what the settings' defaults rest on."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.limits import DEFAULT
from support.reopened_store import store_with_tables
from support.strategies.otlp import NOW

from adapters.otlp import logs, metrics, traces
from adapters.record import SOURCE_OTLP, Header, Part
from adapters.rules import MESSAGE_ROW_BYTES_MAX
from collector.config.store import INSERT_MEMORY_FACTOR
from collector.ingest.produce import TOPICS
from collector.ingest.reading import Adapt
from collector.ingest.validate import LimitRules
from collector.store.options import RequestedTables, StoreOptions

# Of the resource or the scope. Items of a few bytes under it: as many rows as row bytes allow.
SIZES = ((1_000, False), (250_000, False), (1_000, True))


def some_logs(size: int, items: int, *, of_scope: bool) -> bytes:
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    scope = entry.scope_logs.add()
    (scope.scope if of_scope else entry.resource).attributes.add(key="big").value.string_value = "x" * size
    for n in range(items):
        scope.log_records.add(time_unix_nano=NOW - n).body.string_value = "r"
    return request.SerializeToString()


def some_points(size: int, items: int, *, of_scope: bool) -> bytes:
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    scope = entry.scope_metrics.add()
    (scope.scope if of_scope else entry.resource).attributes.add(key="big").value.string_value = "x" * size
    for n in range(items):
        scope.metrics.add(name=f"m{n % 50}").gauge.data_points.add(time_unix_nano=NOW - n, as_double=n)
    return request.SerializeToString()


def some_spans(size: int, items: int, *, of_scope: bool) -> bytes:
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    scope = entry.scope_spans.add()
    (scope.scope if of_scope else entry.resource).attributes.add(key="big").value.string_value = "x" * size
    for n in range(items):
        ids = (n + 1).to_bytes(8, "big")
        scope.spans.add(trace_id=ids * 2, span_id=ids, start_time_unix_nano=NOW - n, name="n")
    return request.SerializeToString()


WAYS: tuple[tuple[Adapt, Callable[..., bytes]], ...] = (
    (logs.adapt, some_logs),
    (metrics.adapt, some_points),
    (traces.adapt, some_spans),
)


def first_message(adapt: Adapt, body: bytes) -> Part:
    """The first of several, so a full one."""
    header = Header("acme", SOURCE_OTLP, NOW, os.urandom(16))
    rules = LimitRules(DEFAULT, NOW)
    parts = adapt(body, header, rules, 64 << 20).parts
    assert len(parts) > 1
    return parts[0]


def test_an_insert_needs_at_most_eight_times_its_row_bytes(tmp_path: Path) -> None:
    """The bound holds for each signal, for few large rows and for many small ones."""
    options = StoreOptions(RequestedTables(fsync=False), insert_memory_bytes_max=INSERT_MEMORY_FACTOR * MESSAGE_ROW_BYTES_MAX)
    with closing(store_with_tables(tmp_path / "store", options)) as store:
        for adapt, make in WAYS:
            for size, of_scope in SIZES:
                part = first_message(adapt, make(size, MESSAGE_ROW_BYTES_MAX // (size + 250) + 2, of_scope=of_scope))
                assert part.row_bytes > MESSAGE_ROW_BYTES_MAX - size - 1_000
                store.insert(TOPICS[part.signal], [part.payload], os.urandom(8).hex())
