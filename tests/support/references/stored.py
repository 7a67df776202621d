"""What a store holds, as the records that were put into it: the inverse of the landing tables and their views.

A record here is flat (support/records.py) and has one item, and doubles are compared by their bits. `items` makes the same of
what is about to be stored. So a store is faithful if `stored(store, tenant) == sorted(items(batch))`.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from google.protobuf.message import Message
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1

_TYPES = ["unspecified", "metric", "log", "trace", "event", "profile", "slo"]
_SOURCES = ["unspecified", "native", "otlp", "prometheus_write_v1", "prometheus_write_v2"]
_SPAN_KINDS = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"]
_STATUS_CODES = ["Unset", "Ok", "Error"]

_COMMON = """ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, TenantId, Type, Source, toUnixTimestamp64Nano(ReceivedAt) AS ReceivedAt,
    toString(BatchId) AS BatchId, BatchPart, ResourceDroppedAttrCount, ResourceEntityRefs"""
_POINT = f"""{_COMMON}, MetricName, MetricDescription, MetricUnit, MetricMetadata, Attributes, Flags,
    toUnixTimestamp64Nano(StartTimeUnix) AS Start, toUnixTimestamp64Nano(TimeUnix) AS Time"""
_EXEMPLARS = """Exemplars.FilteredAttributes, arrayMap(t -> toUnixTimestamp64Nano(t), Exemplars.TimeUnix) AS ExemplarTimes,
    arrayMap(v -> reinterpretAsUInt64(v), Exemplars.Value) AS ExemplarValues, Exemplars.SpanId, Exemplars.TraceId,
    Exemplars.ValueType, Exemplars.IntValue"""
_NUMBER = f"{_POINT}, {_EXEMPLARS}, reinterpretAsUInt64(Value) AS Bits, ValueType, IntValue"
_DISTRIBUTION = f"""{_POINT}, {_EXEMPLARS}, Count, reinterpretAsUInt64(Sum) AS SumBits, reinterpretAsUInt64(Min) AS MinBits,
    reinterpretAsUInt64(Max) AS MaxBits, HasSum, HasMin, HasMax, AggregationTemporality"""

_QUERIES = {
    "gauge": f"SELECT {_NUMBER} FROM otel_metrics_gauge",
    "sum": f"SELECT {_NUMBER}, AggregationTemporality, IsMonotonic FROM otel_metrics_sum",
    "histogram": f"""SELECT {_DISTRIBUTION}, BucketCounts, arrayMap(b -> reinterpretAsUInt64(b), ExplicitBounds) AS Bounds
        FROM otel_metrics_histogram""",
    "exponential_histogram": f"""SELECT {_DISTRIBUTION}, Scale, ZeroCount,
        reinterpretAsUInt64(ZeroThreshold) AS ZeroThresholdBits, PositiveOffset, PositiveBucketCounts,
        NegativeOffset, NegativeBucketCounts FROM otel_metrics_exp_histogram""",
    "summary": f"""SELECT {_POINT}, Count, reinterpretAsUInt64(Sum) AS SumBits,
        arrayMap(q -> reinterpretAsUInt64(q), ValueAtQuantiles.Quantile) AS Quantiles,
        arrayMap(v -> reinterpretAsUInt64(v), ValueAtQuantiles.Value) AS QuantileValues FROM otel_metrics_summary""",
    "log": f"""SELECT {_COMMON}, toUnixTimestamp64Nano(Timestamp) AS Time, TimestampFrom,
        toUnixTimestamp64Nano(ObservedTimestamp) AS Observed,
        TraceId, SpanId, Flags, TraceFlags, SeverityText, SeverityNumber, Body,
        LogAttributes, LogDroppedAttrCount,
        EventName FROM otel_logs""",
    "span": f"""SELECT {_COMMON}, toUnixTimestamp64Nano(Timestamp) AS Start, toUnixTimestamp64Nano(EndTimestamp) AS End,
        TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind, SpanAttributes, Duration, StatusCode, StatusMessage,
        Flags,        SpanDroppedAttrCount, DroppedEventsCount, DroppedLinksCount,
        arrayMap(t -> toUnixTimestamp64Nano(t), Events.Timestamp) AS EventTimes, Events.Name, Events.Attributes,
        Events.DroppedAttrCount, Links.TraceId, Links.SpanId, Links.TraceState, Links.Attributes, Links.DroppedAttrCount,
        Links.Flags FROM otel_traces""",
}


class Queried(Protocol):
    """A store, as far as it is asked."""

    def query(self, sql: str, format_: str) -> bytes: ...


def items(batch: TelemetryBatchV1) -> Iterator[bytes]:
    """Each item of a batch as a record of its own, without what protobuf can say in two ways, serialized."""
    for record in batch.records:
        head = TelemetryRecordV1()
        head.CopyFrom(record)
        for field in ("metrics", "log_records", "spans", "item_count", "fingerprint", "repeated_items"):
            head.ClearField(field)
        for metric in record.metrics:
            kind: Any = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points if kind is not None else ():
                one = _copy(head)
                one.metrics.add().CopyFrom(metric)
                data = getattr(one.metrics[0], kind)
                del data.data_points[:]
                data.data_points.add().CopyFrom(point)
                yield _plain(one)
        for log in record.log_records:
            one = _copy(head)
            one.log_records.add().CopyFrom(log)
            yield _plain(one)
        for span in record.spans:
            one = _copy(head)
            one.spans.add().CopyFrom(span)
            yield _plain(one)


def stored(store: Queried, tenant_id: str) -> list[bytes]:
    """Every item that the store holds of a tenant (of letters, digits, -), as `items` has it, sorted."""
    return stored_where(store, f"TenantId = '{tenant_id}'")


def stored_where(store: Queried, condition: str) -> list[bytes]:
    """The same of every item of which that is true; the condition is on columns that all tables have."""
    found = []
    for kind, sql in _QUERIES.items():
        for line in store.query(f"{sql} WHERE {condition}", "JSONEachRow").splitlines():
            row = json.loads(line)
            record = _head(row)
            if kind == "log":
                _log(record, row)
            elif kind == "span":
                _span(record, row)
            else:
                _metric(record, kind, row)
            found.append(_plain(record))
    return sorted(found)


def _copy(record: TelemetryRecordV1) -> TelemetryRecordV1:
    copy = TelemetryRecordV1()
    copy.CopyFrom(record)
    return copy


def _plain(record: TelemetryRecordV1) -> bytes:
    """Serialized; messages that hold nothing are left out, since a column can't tell them from none."""
    _drop_empty(record)
    return record.SerializeToString(deterministic=True)


def _drop_empty(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.is_repeated:
            for element in value:
                _drop_empty(element)
            continue
        _drop_empty(value)
        kind_of_metric = field.containing_oneof is not None and field.containing_oneof.name == "data"
        empty_text = (
            field.message_type.name == "AnyValue" and value.WhichOneof("value") == "string_value" and not value.string_value
        )
        if empty_text or (not value.ByteSize() and not kind_of_metric):
            message.ClearField(field.name)


def _double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def _set_attributes(target: Any, attributes: dict[str, str]) -> None:
    for key, value in attributes.items():
        target.add(key=key).value.string_value = value


def _unsigned(nanoseconds: int) -> int:
    return nanoseconds & 0xFFFFFFFFFFFFFFFF


def _head(row: dict[str, Any]) -> TelemetryRecordV1:
    made: Any = TelemetryRecordV1  # enumerations are given as numbers
    record: TelemetryRecordV1 = made(
        tenant_id=row["TenantId"],
        source=_SOURCES.index(row["Source"]),
        type=_TYPES.index(row["Type"]),
        received_time_unix_nano=_unsigned(row["ReceivedAt"]),
        batch_id=bytes.fromhex(row["BatchId"].replace("-", "")),
        service_id=row["ServiceName"],
        resource_schema_url=row["ResourceSchemaUrl"],
        scope_schema_url=row["ScopeSchemaUrl"],
        batch_part=row["BatchPart"],
    )
    _set_attributes(record.resource.attributes, row["ResourceAttributes"])
    record.resource.dropped_attributes_count = row["ResourceDroppedAttrCount"]
    for entity in row["ResourceEntityRefs"]:
        record.resource.entity_refs.add(
            schema_url=entity["SchemaUrl"],
            type=entity["Type"],
            id_keys=entity["IdKeys"],
            description_keys=entity["DescriptionKeys"],
        )
    record.scope.name = row["ScopeName"]
    record.scope.version = row["ScopeVersion"]
    record.scope.dropped_attributes_count = row["ScopeDroppedAttrCount"]
    _set_attributes(record.scope.attributes, row["ScopeAttributes"])
    return record


def _set_value(target: Any, kind: str, bits: int, integer: int) -> None:
    if kind == "double":
        target.as_double = _double(bits)
    elif kind == "int":
        target.as_int = integer
        assert _double(bits) == float(integer)


def _metric(record: TelemetryRecordV1, kind: str, row: dict[str, Any]) -> None:
    metric = record.metrics.add(name=row["MetricName"], description=row["MetricDescription"], unit=row["MetricUnit"])
    _set_attributes(metric.metadata, row["MetricMetadata"])
    data: Any = getattr(metric, kind)
    if "AggregationTemporality" in row:
        data.aggregation_temporality = row["AggregationTemporality"]
    if kind == "sum":
        data.is_monotonic = row["IsMonotonic"]
    point = data.data_points.add(
        start_time_unix_nano=_unsigned(row["Start"]), time_unix_nano=_unsigned(row["Time"]), flags=row["Flags"]
    )
    _set_attributes(point.attributes, row["Attributes"])
    if kind in ("gauge", "sum"):
        _set_value(point, row["ValueType"], row["Bits"], row["IntValue"])
    else:
        point.count = row["Count"]
    for name in ("Sum", "Min", "Max"):
        if row.get(f"Has{name}", kind == "summary" and name == "Sum"):
            setattr(point, name.lower(), _double(row[f"{name}Bits"]))
    if kind == "histogram":
        point.bucket_counts.extend(row["BucketCounts"])
        point.explicit_bounds.extend(_double(bits) for bits in row["Bounds"])
    elif kind == "exponential_histogram":
        point.scale = row["Scale"]
        point.zero_count = row["ZeroCount"]
        point.zero_threshold = _double(row["ZeroThresholdBits"])
        point.positive.offset = row["PositiveOffset"]
        point.positive.bucket_counts.extend(row["PositiveBucketCounts"])
        point.negative.offset = row["NegativeOffset"]
        point.negative.bucket_counts.extend(row["NegativeBucketCounts"])
    elif kind == "summary":
        for quantile, value in zip(row["Quantiles"], row["QuantileValues"], strict=True):
            point.quantile_values.add(quantile=_double(quantile), value=_double(value))
    if kind != "summary":
        _exemplars(point, row)


def _exemplars(point: Any, row: dict[str, Any]) -> None:
    for attributes, time, bits, span_id, trace_id, value_type, integer in zip(
        row["Exemplars.FilteredAttributes"],
        row["ExemplarTimes"],
        row["ExemplarValues"],
        row["Exemplars.SpanId"],
        row["Exemplars.TraceId"],
        row["Exemplars.ValueType"],
        row["Exemplars.IntValue"],
        strict=True,
    ):
        exemplar = point.exemplars.add(
            time_unix_nano=_unsigned(time), span_id=bytes.fromhex(span_id), trace_id=bytes.fromhex(trace_id)
        )
        _set_attributes(exemplar.filtered_attributes, attributes)
        _set_value(exemplar, value_type, bits, integer)


def _log(record: TelemetryRecordV1, row: dict[str, Any]) -> None:
    log = record.log_records.add(
        time_unix_nano=_unsigned(row["Time"]) if row["TimestampFrom"] == "time" else 0,
        observed_time_unix_nano=_unsigned(row["Observed"]),
        severity_number=row["SeverityNumber"],
        severity_text=row["SeverityText"],
        dropped_attributes_count=row["LogDroppedAttrCount"],
        flags=row["Flags"],
        trace_id=bytes.fromhex(row["TraceId"]),
        span_id=bytes.fromhex(row["SpanId"]),
        event_name=row["EventName"],
    )
    log.body.string_value = row["Body"]
    _set_attributes(log.attributes, row["LogAttributes"])
    assert row["TraceFlags"] == row["Flags"] & 255
    assert row["TimestampFrom"] != "observed" or row["Time"] == row["Observed"]
    assert row["TimestampFrom"] != "received" or row["Time"] == row["ReceivedAt"]


def _named(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else int(name)


def _span(record: TelemetryRecordV1, row: dict[str, Any]) -> None:
    span: Any = record.spans.add(
        trace_id=bytes.fromhex(row["TraceId"]),
        span_id=bytes.fromhex(row["SpanId"]),
        parent_span_id=bytes.fromhex(row["ParentSpanId"]),
        trace_state=row["TraceState"],
        flags=row["Flags"],
        name=row["SpanName"],
        kind=_named(row["SpanKind"], _SPAN_KINDS),
        start_time_unix_nano=_unsigned(row["Start"]),
        end_time_unix_nano=_unsigned(row["End"]),
        dropped_attributes_count=row["SpanDroppedAttrCount"],
        dropped_events_count=row["DroppedEventsCount"],
        dropped_links_count=row["DroppedLinksCount"],
    )
    assert row["Duration"] == max(row["End"] - row["Start"], 0)
    _set_attributes(span.attributes, row["SpanAttributes"])
    span.status.code = _named(row["StatusCode"], _STATUS_CODES)
    span.status.message = row["StatusMessage"]
    for time, name, attributes, dropped in _rows(
        row, "EventTimes", "Events.Name", "Events.Attributes", "Events.DroppedAttrCount"
    ):
        event = span.events.add(time_unix_nano=_unsigned(time), name=name, dropped_attributes_count=dropped)
        _set_attributes(event.attributes, attributes)
    links = ("TraceId", "SpanId", "TraceState", "Attributes", "DroppedAttrCount", "Flags")
    for trace_id, span_id, state, attributes, dropped, flags in _rows(row, *(f"Links.{name}" for name in links)):
        link = span.links.add(
            trace_id=bytes.fromhex(trace_id),
            span_id=bytes.fromhex(span_id),
            trace_state=state,
            dropped_attributes_count=dropped,
            flags=flags,
        )
        _set_attributes(link.attributes, attributes)


def _rows(row: dict[str, Any], *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(row[name] for name in names), strict=True)
