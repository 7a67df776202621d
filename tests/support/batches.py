"""TelemetryBatch messages to store: one with every field set, and small ones to count.

All are in the normal form of telemetry.proto, as adapters would have made them, and flat (support/records.py): `encoded` makes
messages of them.
"""

import math
import struct
from typing import Any

from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, TYPE_LOG, TYPE_METRIC, TYPE_TRACE, Type
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1

# 2026-04-10T12:00:00.123456789Z
NOW = 1_775_822_400_123_456_789
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
DOUBLES = [0.0, -0.0, 1.5, -1e300, 5e-324, 0.1, math.inf, -math.inf, math.nan, STALE]
INTEGERS = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]


def batch_id(number: int) -> bytes:
    """A UUID of version 7, in which one can see the number."""
    return bytes.fromhex("0195f3a1") + number.to_bytes(2, "big") + bytes.fromhex("7abc9def") + number.to_bytes(6, "big")


def attributes(target: Any, **values: str) -> None:
    for key, value in values.items():
        target.add(key=key.replace("_", ".")).value.string_value = value


def record(
    batch: TelemetryBatchV1, type_: Type, number: int, *, part: int = 0, tenant_id: str = "tenant-a"
) -> TelemetryRecordV1:
    """A record with all of its header, resource and scope, and no item yet."""
    made = batch.records.add(
        tenant_id=tenant_id,
        source=SOURCE_OTLP,
        type=type_,
        received_time_unix_nano=NOW,
        batch_id=batch_id(number),
        service_id="payment-api",
        resource_schema_url="https://opentelemetry.io/schemas/1.30.0",
        scope_schema_url="https://opentelemetry.io/schemas/1.29.0",
        batch_part=part,
    )
    attributes(made.resource.attributes, service_name="payment-api", empty="", unicode="naïve ☃\t\"quoted\" \\ 'it'")
    made.resource.dropped_attributes_count = 3
    made.resource.entity_refs.add(schema_url="e", type="service", id_keys=["service.name"], description_keys=["host.name", "x"])
    made.resource.entity_refs.add(type="host")
    made.scope.name = "library"
    made.scope.version = "1.2.3"
    made.scope.dropped_attributes_count = 4
    attributes(made.scope.attributes, scope_key="scope value")
    return made


def _exemplars(point: Any) -> None:
    one = point.exemplars.add(time_unix_nano=NOW - 5, as_double=STALE, span_id=b"\x01" * 8, trace_id=b"\xab" * 16)
    attributes(one.filtered_attributes, user="u-1", region="eu")
    point.exemplars.add(time_unix_nano=NOW - 4, as_int=-(2**63))
    point.exemplars.add()


def metrics(number: int, tenant_id: str) -> TelemetryBatchV1:
    """All five kinds; every field; every awkward number."""
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_METRIC, number, tenant_id=tenant_id)
    for name in ("gauge", "sum"):
        metric = one.metrics.add(name=f"{name}.name", description=f"a {name}", unit="By")
        attributes(metric.metadata, origin="test", other="x")
        data: Any = getattr(metric, name)
        if name == "sum":
            data.aggregation_temporality = 2
            data.is_monotonic = True
        for n, double in enumerate(DOUBLES):
            point = data.data_points.add(start_time_unix_nano=NOW - 10**9, time_unix_nano=NOW + n, as_double=double, flags=n)
            attributes(point.attributes, point=str(n), second="s")
        for n, integer in enumerate(INTEGERS):
            point = data.data_points.add(time_unix_nano=NOW + n, as_int=integer)
        data.data_points.add(time_unix_nano=NOW, flags=1)
        _exemplars(data.data_points[0])
        _exemplars(data.data_points[3])
    histogram: Any = one.metrics.add(name="histogram.name", description="a histogram", unit="ms").histogram
    histogram.aggregation_temporality = 1
    point = histogram.data_points.add(
        start_time_unix_nano=NOW - 1, time_unix_nano=NOW, count=2**64 - 1, sum=-0.0, min=math.nan, max=math.inf, flags=2**32 - 1
    )
    point.bucket_counts.extend([0, 1, 2**64 - 1])
    point.explicit_bounds.extend([-0.0, math.inf])
    attributes(point.attributes, le="none")
    _exemplars(point)
    histogram.data_points.add(time_unix_nano=NOW, count=1)
    exponential: Any = one.metrics.add(name="exponential.name").exponential_histogram
    exponential.aggregation_temporality = 2
    point = exponential.data_points.add(
        start_time_unix_nano=NOW - 1, time_unix_nano=NOW, count=9, sum=1.25, scale=-3, zero_count=2, flags=1, min=-1.0, max=0.0
    )
    point.zero_threshold = 1e-9
    point.positive.offset = -7
    point.positive.bucket_counts.extend([1, 0, 2**64 - 1])
    point.negative.offset = 2**31 - 1
    point.negative.bucket_counts.extend([3])
    attributes(point.attributes, key="value")
    _exemplars(point)
    exponential.data_points.add(time_unix_nano=NOW)
    summary = one.metrics.add(name="summary.name", unit="s").summary
    point = summary.data_points.add(start_time_unix_nano=NOW - 1, time_unix_nano=NOW, count=3, sum=math.inf, flags=1)
    point.quantile_values.add(quantile=0.5, value=math.nan)
    point.quantile_values.add(quantile=1.0, value=-0.0)
    attributes(point.attributes, key="value")
    summary.data_points.add(time_unix_nano=NOW)
    one.metrics.add(name="without.points").gauge.SetInParent()
    one.metrics.add(name="without.data")
    one.item_count = 2 * (len(DOUBLES) + len(INTEGERS) + 1) + 6
    bare = batch.records.add(tenant_id=tenant_id, type=TYPE_METRIC, batch_id=batch_id(number), service_id="s", item_count=1)
    bare.metrics.add(name="bare").gauge.data_points.add(time_unix_nano=NOW, as_int=1)
    return batch


def logs(number: int, tenant_id: str) -> TelemetryBatchV1:
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_LOG, number, tenant_id=tenant_id)
    log_records: Any = one.log_records
    log = log_records.add(
        time_unix_nano=NOW,
        observed_time_unix_nano=NOW + 7,
        severity_number=17,
        severity_text="ERROR",
        dropped_attributes_count=2,
        flags=0xFFFFFF01,
        trace_id=b"\xab" * 16,
        span_id=b"\xcd" * 8,
        event_name="deploy",
    )
    log.body.string_value = "payment failed:\n\tcard declined ☃"
    attributes(log.attributes, code="402", empty="")
    one.log_records.add(observed_time_unix_nano=NOW + 1).body.string_value = "observed"
    one.log_records.add().body.string_value = ""
    one.log_records.add(time_unix_nano=NOW)
    one.item_count = 4
    return batch


def traces(number: int, tenant_id: str) -> TelemetryBatchV1:
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_TRACE, number, tenant_id=tenant_id)
    spans: Any = one.spans
    span = spans.add(
        trace_id=b"\xab" * 16,
        span_id=b"\xcd" * 8,
        parent_span_id=b"\xef" * 8,
        trace_state="a=1,b=2",
        flags=0x301,
        name="GET /pay",
        kind=2,
        start_time_unix_nano=NOW,
        end_time_unix_nano=NOW + 1_234_567,
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
    )
    span.status.code = 2
    span.status.message = "timed out"
    attributes(span.attributes, http_route="/pay", http_status="504")
    event = span.events.add(time_unix_nano=NOW + 1, name="exception", dropped_attributes_count=9)
    attributes(event.attributes, exception_type="TimeoutError")
    span.events.add(name="second")
    link = span.links.add(trace_id=b"\x11" * 16, span_id=b"\x22" * 8, trace_state="c=3", dropped_attributes_count=8, flags=257)
    attributes(link.attributes, why="retry")
    span.links.add(trace_id=b"\x12" * 16, span_id=b"\x23" * 8)
    for kind in (0, 1, 3, 4, 5, 9):
        spans.add(
            trace_id=b"\xab" * 16,
            span_id=bytes([kind + 1]) * 8,
            kind=kind,
            start_time_unix_nano=NOW + 10**9,
            end_time_unix_nano=NOW,
        )
    one.item_count = 7
    return batch


def gauge(number: int, points: int, *, part: int = 0) -> TelemetryBatchV1:
    """One record of one gauge with so many points."""
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_METRIC, number, part=part)
    data = one.metrics.add(name="cpu").gauge
    for n in range(points):
        data.data_points.add(time_unix_nano=NOW + n, as_double=n)
    one.item_count = points
    return batch
