"""A message on a topic is an export request of OTLP, and hardly larger than the body that it came in."""

from typing import Any

import pytest
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from librt.strings import BytesWriter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.limits import ALL
from support.records import unpadded
from support.references.twins import adapt_otlp
from support.strategies.otlp import NOW

from adapters.record import LOGS, Part


def _named(target: Any, count: int, size: int) -> None:
    for number in range(count):
        target.add(key=f"attribute.{number}").value.string_value = "v" * size


def logs(resources: int, scopes: int, items: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for _ in range(resources):
        entry = request.resource_logs.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        _named(entry.resource.attributes, 20, 100)
        for scope in range(scopes):
            group = entry.scope_logs.add(schema_url="s")
            group.scope.name = f"com.example.Logger{scope}"
            for item in range(items):
                log = group.log_records.add(time_unix_nano=NOW - item, severity_text="INFO")
                log.body.string_value = "a line"
                _named(log.attributes, 2, 5)
    return request


def metrics(resources: int, scopes: int, items: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    for _ in range(resources):
        entry = request.resource_metrics.add()
        _named(entry.resource.attributes, 20, 100)
        for scope in range(scopes):
            group = entry.scope_metrics.add()
            group.scope.name = f"meter{scope}"
            metric = group.metrics.add(name="m", unit="s")
            for item in range(items):
                _named(metric.gauge.data_points.add(time_unix_nano=NOW - item, as_double=item).attributes, 2, 5)
    return request


def traces(resources: int, scopes: int, items: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(resources):
        entry = request.resource_spans.add()
        _named(entry.resource.attributes, 20, 100)
        for scope in range(scopes):
            group = entry.scope_spans.add()
            group.scope.name = f"tracer{scope}"
            for item in range(items):
                span = group.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="GET /", start_time_unix_nano=NOW - item)
                _named(span.attributes, 2, 5)
    return request


SIGNALS: dict[str, Any] = {"logs": logs, "metrics": metrics, "traces": traces}


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_message_is_an_export_request(signal: str) -> None:
    """Whose unknown fields are our header. What is normal as it was sent is what was sent."""
    request = SIGNALS[signal](3, 4, 5)
    (part,) = adapt_otlp(signal, request.SerializeToString(), limits=ALL).parts
    found = type(request).FromString(part.payload)
    assert request != found
    found.DiscardUnknownFields()
    assert request == found


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    ("resources", "scopes", "items"), [(1, 300, 2), (1, 2_000, 1), (50, 1, 12), (1, 1, 5_000), (300, 1, 1)]
)
def test_messages_are_hardly_larger_than_their_body(signal: str, resources: int, scopes: int, items: int) -> None:
    """At most 1.2 times the body, and 1 KiB for each message; a resource is not copied into the records of its scopes."""
    body = SIGNALS[signal](resources, scopes, items).SerializeToString()
    adapted = adapt_otlp(signal, body, 1 << 19, limits=ALL)
    assert adapted.accepted_count() == resources * scopes * items
    assert sum(len(part.payload) for part in adapted.parts) <= 1.2 * len(body) + 1024 * len(adapted.parts)


@pytest.mark.parametrize("has_writer", [True, False])
def test_a_record_more_is_behind_those_of_a_part(has_writer: bool) -> None:
    writer = BytesWriter()
    writer.write(b"message")
    part = Part.written(LOGS, writer, 3, 100) if has_writer else Part(LOGS, b"message", 3, 100)
    assert part.payload_bytes == 7
    longer = part.with_record(b", receipt", 20, b"fingerprint")
    assert (longer.signal, longer.payload, longer.item_count, longer.row_bytes) == (LOGS, b"message, receipt", 3, 120)
    assert (longer.payload_bytes, longer.fingerprint) == (16, b"fingerprint")


def test_a_written_part_is_read_as_often_as_wanted() -> None:
    writer = BytesWriter()
    writer.write(b"message")
    part = Part.written(LOGS, writer, 1, 1)
    assert (part.payload, part.payload, part.payload_bytes) == (b"message", b"message", 7)
    assert part.with_record(b"!", 1, b"").payload == b"message!"


@pytest.mark.parametrize("items", [1, 100, 600])
def test_lengths_are_padded_to_one_size(items: int) -> None:
    """They are written last, in a place of that size. Protobuf's own parser reads them."""
    message_bytes_max = 1 << 20
    (part,) = adapt_otlp("logs", logs(2, 3, items).SerializeToString(), message_bytes_max, limits=ALL).parts
    records = TelemetryBatch.FromString(part.payload).records
    assert [[items] * 3] * 2 == [[len(group.items) for group in record.groups] for record in records]
    assert 0 <= part.payload_bytes - len(unpadded(part.payload)) < 4 * 2 * (1 + 3)
