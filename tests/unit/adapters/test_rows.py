"""The bytes of rows: what a message counts is what a reader of it counts, and messages are cut by them."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.v1.telemetry_pb2 import TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.adapted import batch_of
from support.limits import ALL
from support.records import signal_of
from support.strategies.native import NOW_TEXT
from support.strategies.native import records as native_records
from support.strategies.otlp import NOW, fields_of, messages, oddly_written
from support.strategies.prometheus import requests_v2, write_requests

from adapters.errors import RequestRefused
from adapters.native import request as native
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, Adapted, Header
from adapters.rows import ROW_BYTES, row_bytes
from adapters.rules import MESSAGE_ROW_BYTES_MAX
from collector.ingest.reading import Adapt
from collector.ingest.validate import LimitRules

HEADER = Header("acme", SOURCE_OTLP, NOW, b"0123456789abcdef")
NATIVE_HEADER = Header("acme", SOURCE_NATIVE, NOW, b"0123456789abcdef")


def native_batch(body: bytes, header: Header, rules: Any, message_bytes_max: int) -> Adapted:
    return native.adapt_batch(body, NATIVE_HEADER, rules, message_bytes_max, 10_000)


def adapt(
    adapter: Adapt, body: bytes, *, message_bytes_max: int = 1 << 19, row_bytes_max: int = MESSAGE_ROW_BYTES_MAX
) -> Adapted:
    return adapter(body, HEADER, LimitRules(ALL, NOW, message_row_bytes_max=row_bytes_max), message_bytes_max)


def otlp(descriptor: Any) -> st.SearchStrategy[bytes]:
    return messages(descriptor).flatmap(lambda made: st.one_of(st.just(made.SerializeToString()), oddly_written(made)))


REQUESTS: dict[str, tuple[Adapt, st.SearchStrategy[bytes]]] = {
    "otlp_metrics": (metrics.adapt, otlp(ExportMetricsServiceRequest.DESCRIPTOR)),
    "otlp_logs": (logs.adapt, otlp(ExportLogsServiceRequest.DESCRIPTOR)),
    "otlp_traces": (traces.adapt, otlp(ExportTraceServiceRequest.DESCRIPTOR)),
    "remote_write_v1": (write_v1.adapt, write_requests().map(lambda made: made.SerializeToString())),
    "remote_write_v2": (write_v2.adapt, requests_v2().map(lambda made: made.SerializeToString())),
    "native": (native_batch, st.lists(native_records(), max_size=6).map(orjson.dumps)),
}


def varint_at(data: bytes, position: int) -> tuple[int, int]:
    """The number, and where it ends: a tag or a length may be written in more bytes than it needs."""
    number = shift = 0
    while True:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
        if data[position - 1] < 128:
            return number, position


def numbered(message: bytes) -> list[tuple[int, bytes, bytes]]:
    """Of each field its number, all its bytes, and the bytes after its tag and its length."""
    fields = []
    for field in fields_of(message):
        tag, start = varint_at(field, 0)
        if tag & 7 == 2:
            _, start = varint_at(field, start)
        fields.append((tag >> 3, field, field[start:]))
    return fields


def expected_row_bytes(record: bytes, signal: str) -> int:
    """By the definition: what each row of a TelemetryRecord and of its group repeats, for each of its rows; and its items."""
    fields = numbered(record)
    head = ROW_BYTES + sum(len(field) for number, field, _ in fields if number not in (2, 1007, 1008))
    return sum(expected_group_bytes(body, head, signal) for number, _, body in fields if number == 2)


def expected_group_bytes(group: bytes, head: int, signal: str) -> int:
    fields = numbered(group)
    repeated = head + sum(len(field) for number, field, _ in fields if number != 2)
    total = 0
    for field, body in ((field, body) for number, field, body in fields if number == 2):
        if signal != "metrics":
            total += repeated + len(field)
            continue
        data = [inner for kind, _, inner in numbered(body) if kind in (5, 7, 9, 10, 11)]
        points = [len(point) for inner in data for kind, point, _ in numbered(inner) if kind == 1]
        total += len(points) * repeated + len(field) + (len(points) - 1) * (len(body) - sum(points))
    return total


def items_of(adapted: Adapted) -> list[bytes]:
    """Each row of its messages, in their order: the record's head, the metric's own fields, and the item."""
    rows = []
    for record in batch_of(adapted).records:
        head = TelemetryRecordV1()
        head.CopyFrom(record)
        for name in ("metrics", "log_records", "spans", "batch_part", "item_count"):
            head.ClearField(name)
        prefix = head.SerializeToString()
        rows += [prefix + item.SerializeToString() for item in (*record.log_records, *record.spans)]
        for metric in record.metrics:
            data = getattr(metric, metric.WhichOneof("data") or "gauge")
            points = list(data.data_points)
            del data.data_points[:]
            rows += [prefix + metric.SerializeToString() + point.SerializeToString() for point in points]
    return rows


@pytest.mark.parametrize("way", REQUESTS)
def test_parts_count_the_bytes_of_their_rows(way: str) -> None:
    """What is counted while a message is packed is what its bytes say, by the definition; whatever limit cuts it."""
    adapter, requests = REQUESTS[way]

    @settings(max_examples=40)
    @given(body=requests, row_bytes_max=st.sampled_from([1, 500, 1000, 2000, 5000, MESSAGE_ROW_BYTES_MAX]))
    def check(body: bytes, row_bytes_max: int) -> None:
        try:
            adapted = adapt(adapter, body, row_bytes_max=row_bytes_max)
        except RequestRefused:
            reject()
        whole = adapt(adapter, body)
        for part in adapted.parts:
            expected = [
                expected_row_bytes(record, signal_of(TelemetryRecord.FromString(record)))
                for _, _, record in numbered(part.payload)
            ]
            assert part.row_bytes == row_bytes(part.payload)
            assert part.row_bytes == sum(expected)
            assert part.row_bytes <= row_bytes_max or part.item_count == 1
        assert adapted.row_bytes == sum(part.row_bytes for part in adapted.parts)
        assert items_of(adapted) == items_of(whole)
        assert adapted.accepted == whole.accepted

    check()


@settings(max_examples=20)
@given(
    bodies=st.lists(otlp(ExportMetricsServiceRequest.DESCRIPTOR), max_size=3),
    logs_body=otlp(ExportLogsServiceRequest.DESCRIPTOR),
)
def test_row_bytes_are_additive(bodies: list[bytes], logs_body: bytes) -> None:
    """Those of concatenated messages are the sum of theirs."""
    adapted = [*(adapt(metrics.adapt, body) for body in bodies), adapt(logs.adapt, logs_body)]
    payloads = [part.payload for each in adapted for part in each.parts]
    assert row_bytes(b"".join(payloads)) == sum(map(row_bytes, payloads))


@given(payload=st.binary(max_size=60))
def test_any_bytes_have_row_bytes(payload: bytes) -> None:
    """A log may hold bytes that are no message of ours."""
    assert row_bytes(payload) >= 0


def test_a_receipt_is_a_row() -> None:
    """A record without items is one row: that of its receipt."""
    record = TelemetryRecord(tenant_id="acme", batch_id=b"0123456789abcdef")
    record.receipt.received = 1
    payload = TelemetryBatch(records=[record]).SerializeToString()
    assert row_bytes(payload) == ROW_BYTES + record.ByteSize()


def poison() -> bytes:
    """1,500 small log records under a resource of 250,000 bytes: 275 KB that become 375 MB of rows."""
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    entry.resource.attributes.add(key="big").value.string_value = "x" * 250_000
    scope = entry.scope_logs.add()
    for n in range(1_500):
        scope.log_records.add(time_unix_nano=NOW - n).body.string_value = "r"
    return request.SerializeToString()


def described_otlp() -> bytes:
    """A metric whose description is in each row of its 1,500 points."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m", description="d" * 250_000)
    for n in range(1_500):
        metric.gauge.data_points.add(time_unix_nano=NOW - n, as_double=n)
    return request.SerializeToString()


def described_v1() -> bytes:
    """The same, by remote write."""
    request = write_pb2.WriteRequest()
    request.metadata.add(type=2, metric_family_name="m", help="d" * 250_000)
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="m")
    for n in range(1_500):
        series.samples.add(value=n, timestamp=NOW // 1_000_000 - n)
    return request.SerializeToString()


def named_native() -> bytes:
    """Points of one long name, of one service with a long name."""
    record = {"service_id": "s" * 200_000, "metric_name": "m" * 50_000, "value": 1, "timestamp": NOW_TEXT}
    return orjson.dumps([record]).replace(b"[", b"[" + (orjson.dumps(record) + b",") * 40)


@pytest.mark.parametrize(
    ("adapter", "make", "items"),
    [
        (logs.adapt, poison, 1_500),
        (metrics.adapt, described_otlp, 1_500),
        (write_v1.adapt, described_v1, 1_500),
        (native_batch, named_native, 41),
    ],
)
def test_messages_are_cut_by_the_bytes_of_their_rows(adapter: Adapt, make: Callable[[], bytes], items: int) -> None:
    """However few bytes a request has, no message exceeds the limit, none is smaller than half of it but the last, no item is
    lost."""
    limit = MESSAGE_ROW_BYTES_MAX if items == 1_500 else 1 << 20
    adapted = adapt(adapter, make(), row_bytes_max=limit)
    assert adapted.accepted_count() == items
    assert sum(part.item_count for part in adapted.parts) == items
    sizes = [part.row_bytes for part in adapted.parts]
    assert max(sizes) <= limit
    assert min(sizes[:-1]) > limit // 2
    assert sizes == [row_bytes(part.payload) for part in adapted.parts]
