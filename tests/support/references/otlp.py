"""The slow twin of adapters/otlp: plain protobuf code that defines what is right.

It says, item by item, for which reasons it may be refused (none: it must be accepted), and the records of those that are not.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from google.protobuf.message import Message
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from adapters import errors
from collector.ingest.validate import Limits

REQUESTS: dict[str, Any] = {
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "logs": logs_service_pb2.ExportLogsServiceRequest,
    "traces": trace_service_pb2.ExportTraceServiceRequest,
}
FIELDS = {"metrics": "metrics", "logs": "log_records", "traces": "spans"}
TYPES: dict[str, Any] = {"metrics": 1, "logs": 2, "traces": 3}


def plain_value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None | "string_value_strindex":
            return None
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return text_of(value)
        case "array_value":
            return [plain_value(entry) for entry in value.array_value.values]
        case "kvlist_value":
            pairs: dict[str, Any] = {}
            for entry in value.kvlist_value.values:
                pairs.pop(entry.key, None)
                pairs[entry.key] = plain_value(entry.value)
            return pairs
        case name:
            return getattr(value, name)


def text_of(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case None | "string_value_strindex":
            return ""
        case "string_value":
            return value.string_value
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "double_value":
            number = value.double_value
            if math.isnan(number):
                return "NaN"
            return repr(number).replace("inf", "Infinity")
        case "array_value" | "kvlist_value":
            return json.dumps(plain_value(value), ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(plain_value(value))


def beginning_of(value: AnyValue, bytes_max: int) -> str:
    """What is stored of a value that is no text and so long that not all of its text is made."""
    text = text_of(value).encode() if value.HasField("bytes_value") else json_beginning(value, bytes_max)
    return text[:bytes_max].decode(errors="ignore")


def json_beginning(value: AnyValue, room: int) -> bytes:
    """A value as JSON, read no further than `room` bytes need: a key that comes again behind that replaces nothing."""
    match value.WhichOneof("value"):
        case "array_value":
            array = b"["
            for index, entry in enumerate(value.array_value.values):
                if len(array) <= room:
                    array += b"," if index else b""
                    array += json_beginning(entry, room - len(array))
            return array + b"]"
        case "kvlist_value":
            members: dict[str, bytes] = {}
            read = 1
            for pair in value.kvlist_value.values:
                if read <= room:
                    # What it replaces takes no room.
                    replaced = members.pop(pair.key, None)
                    room += 0 if replaced is None else len(replaced) + 1
                    read += 1 if read > 1 else 0
                    member = json_text(pair.key, room - read) + b":"
                    member += json_beginning(pair.value, room - read - len(member))
                    members[pair.key] = member
                    read += len(member)
            return b"{" + b",".join(members.values()) + b"}"
        case "string_value":
            return json_text(value.string_value, room)
        case "bytes_value":
            return b'"' + base64.b64encode(value.bytes_value[: max(room, 0) + 1]) + b'"'
        case _:
            return json.dumps(plain_value(value), ensure_ascii=False).encode()


def json_text(text: str, room: int) -> bytes:
    return json.dumps(text.encode()[: max(room, 0) + 5].decode(errors="ignore"), ensure_ascii=False).encode()


def value_bytes(value: AnyValue) -> int:
    """The size the rule is about: a string's, or that of the value as it was sent."""
    return len(value.string_value.encode()) if value.HasField("string_value") else value.ByteSize()


def truncated(key: str, text: str, bytes_max: int) -> list[tuple[str, str]]:
    """What is stored of a value that is too long, with the attribute that says so."""
    raw = text.encode()
    if len(raw) <= bytes_max:
        return [(key, text)]
    return [(key, raw[:bytes_max].decode(errors="ignore")), (f"infrasage.truncated.{key}", str(len(raw)))]


def last_of_each_key(entries: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Of attributes, each maybe with one that says how long its value was: where that goes, it goes alone."""
    kept: list[tuple[str, str]] = []
    taken: set[str] = set()
    for entry in reversed(entries):
        if entry[0][0] in taken:
            continue
        kept += [pair for pair in reversed(entry) if pair[0] not in taken]
        taken |= {key for key, _ in entry}
    return kept[::-1]


def shortened(name: str, bytes_max: int) -> str:
    """What is stored of a key or a name that is too long."""
    raw = name.encode()
    return f"{raw[: bytes_max - 17].decode(errors='ignore')}~{hashlib.sha256(raw).hexdigest()[:16]}"


def normalize(message: Message, limits: Limits) -> set[int]:
    """Bring a message's attributes into the normal form, in place; the reasons why it can't be taken."""
    reasons: set[int] = set()
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.name == "KeyValue":
            dropped = len(value) - limits.attributes_max
            if dropped > 0:
                del value[limits.attributes_max :]
                if "dropped_attributes_count" in message.DESCRIPTOR.fields_by_name:
                    told: Any = message
                    told.dropped_attributes_count = min(told.dropped_attributes_count + dropped, 2**32 - 1)
            entries: list[list[tuple[str, str]]] = []
            for pair in value:
                key = pair.key
                if len(key.encode()) > limits.attribute_key_bytes_max:
                    if limits.truncates_values:
                        key = shortened(key, limits.attribute_key_bytes_max)
                    else:
                        reasons.add(errors.ATTRIBUTE_KEY_TOO_LONG)
                size, text = value_bytes(pair.value), text_of(pair.value)
                stored = [(key, text)]
                if limits.truncates_values:
                    if size > 4 * limits.attribute_value_bytes_max and not pair.value.HasField("string_value"):
                        beginning = beginning_of(pair.value, limits.attribute_value_bytes_max)
                        stored = [(key, beginning), (f"infrasage.truncated.{key}", str(size))]
                    elif size > limits.attribute_value_bytes_max or len(pair.key.encode()) > limits.attribute_key_bytes_max:
                        stored = truncated(key, text, limits.attribute_value_bytes_max)
                elif size > limits.attribute_value_bytes_max:
                    reasons.add(errors.ATTRIBUTE_VALUE_TOO_LONG)
                entries.append(stored)
            del value[:]
            for key, text in last_of_each_key(entries):
                value.add(key=key).value.string_value = text
        elif field.message_type.name == "AnyValue":
            text = text_of(value)
            value.Clear()
            value.string_value = text
        elif field.message_type.name == "Exemplar":
            sound = [entry for entry in value if not normalize(entry, limits)]
            del value[:]
            value.extend(sound)
        elif field.is_repeated:
            for entry in value:
                reasons |= normalize(entry, limits)
        else:
            reasons |= normalize(value, limits)
    for name in ("name", "event_name"):
        if (
            message.DESCRIPTOR.name in ("Metric", "Span", "Event", "InstrumentationScope", "LogRecord")
            and len(getattr(message, name, "").encode()) > limits.name_bytes_max
        ):
            if limits.truncates_values and message.DESCRIPTOR.name != "Metric":
                setattr(message, name, shortened(getattr(message, name), limits.name_bytes_max))
            else:
                reasons.add(errors.NAME_TOO_LONG)
    return reasons


def drop_ids(message: Any) -> None:
    """Ids that are none, of parents, links and exemplars: at any depth."""
    for name, length in (("trace_id", 16), ("span_id", 8), ("parent_span_id", 8)):
        is_own = message.DESCRIPTOR.name in ("Span", "LogRecord") and name != "parent_span_id"
        if name in message.DESCRIPTOR.fields_by_name and not is_own and not is_id(getattr(message, name), length):
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in value if field.is_repeated else (value,):
                drop_ids(entry)


def time_reasons(time: int, limits: Limits, now: int) -> set[int]:
    if time == 0:
        return {errors.MISSING_TIMESTAMP}
    if time < now - limits.past_max_s * 10**9:
        return {errors.TIMESTAMP_TOO_OLD}
    return {errors.TIMESTAMP_IN_FUTURE} if time > now + limits.future_max_s * 10**9 else set()


def own_time_reasons(time: int, limits: Limits, now: int) -> set[int]:
    """Of a time beside which another, newer one counts."""
    oldest = now - max(limits.past_max_s, limits.own_time_past_max_s) * 10**9
    return {errors.TIMESTAMP_TOO_OLD} if time < oldest else set()


def is_id(value: bytes, length: int) -> bool:
    return len(value) == length and any(value)


def span_reasons(span: Any, limits: Limits, now: int) -> set[int]:
    reasons = normalize(span, limits)
    drop_ids(span)
    if not is_id(span.trace_id, 16):
        reasons.add(errors.INVALID_TRACE_ID)
    if not is_id(span.span_id, 8):
        reasons.add(errors.INVALID_SPAN_ID)
    reasons |= time_reasons(span.start_time_unix_nano, limits, now) - {errors.TIMESTAMP_TOO_OLD}
    if span.start_time_unix_nano:
        reasons |= time_reasons(max(span.end_time_unix_nano, span.start_time_unix_nano), limits, now)
        reasons |= own_time_reasons(span.start_time_unix_nano, limits, now)
    return reasons


def log_reasons(log: Any, limits: Limits, now: int) -> set[int]:
    reasons = normalize(log, limits)
    if not is_id(log.trace_id, 16):
        log.ClearField("trace_id")
    if not is_id(log.span_id, 8):
        log.ClearField("span_id")
    time = log.time_unix_nano or log.observed_time_unix_nano
    against = time_reasons(time, limits, now) if time else set()
    if against == {errors.TIMESTAMP_TOO_OLD} and log.observed_time_unix_nano:
        against = time_reasons(log.observed_time_unix_nano, limits, now) or own_time_reasons(time, limits, now)
    return reasons | against


def without_infinity(point: Any) -> None:
    """A last bound that is infinity is left out, where the counts say that it is one too many, with a count of 0 behind it."""
    counts, bounds = list(point.bucket_counts), list(point.explicit_bounds)
    if (
        bounds
        and bounds[-1] == math.inf
        and (len(counts) == len(bounds) or (len(counts) == len(bounds) + 1 and counts[-1] == 0))
    ):
        point.explicit_bounds[:] = bounds[:-1]
        point.bucket_counts[:] = counts[: len(bounds)]


def explicit_fits(point: Any) -> bool:
    """Whether the counts of a HistogramDataPoint fit its bounds, as metrics.proto demands; what they add up to is not asked."""
    counts, bounds = list(point.bucket_counts), list(point.explicit_bounds)
    if point.flags & 1 or not (counts or bounds):
        return True
    ascending = all(low < high for low, high in pairwise(bounds)) and not any(map(math.isnan, bounds))
    return len(counts) == len(bounds) + 1 and ascending


def reference(
    signal: str, body: bytes, limits: Limits, now: int, header: dict[str, Any]
) -> tuple[list[set[int]], TelemetryBatchV1]:
    """For each item the reasons against it, and the records of the others. Raises DecodeError."""
    request = REQUESTS[signal].FromString(body)
    request.DiscardUnknownFields()
    verdicts: list[set[int]] = []
    batch = TelemetryBatchV1()
    for resource_entry in getattr(request, f"resource_{'spans' if signal == 'traces' else signal}"):
        common = normalize(resource_entry.resource, limits)
        named = [pair.value.string_value for pair in resource_entry.resource.attributes if pair.key == "service.name"]
        service = named[0] if named and named[0] and not common else "unknown_service"
        if len(service.encode()) > limits.name_bytes_max:
            if limits.truncates_values:
                service = shortened(service, limits.name_bytes_max)
            else:
                common.add(errors.NAME_TOO_LONG)
        for scope_entry in getattr(resource_entry, f"scope_{'spans' if signal == 'traces' else signal}"):
            group = common | normalize(scope_entry.scope, limits)
            record = TelemetryRecordV1(type=TYPES[signal], service_id=service, **header)
            if resource_entry.HasField("resource"):
                record.resource.CopyFrom(resource_entry.resource)
            record.resource_schema_url = resource_entry.schema_url
            if scope_entry.HasField("scope"):
                record.scope.CopyFrom(scope_entry.scope)
            record.scope_schema_url = scope_entry.schema_url
            for reasons, item in _items(signal, scope_entry, limits, now):
                count = len(reasons)
                verdicts += [each | group for each in reasons]
                kept = count - sum(1 for each in reasons if each | group)
                if kept:
                    record.item_count += kept
                    getattr(record, FIELDS[signal]).add().CopyFrom(item)
            if record.item_count:
                batch.records.append(record)
    return verdicts, batch


def _items(signal: str, scope_entry: Any, limits: Limits, now: int) -> Iterable[tuple[list[set[int]], Any]]:
    """Each field of a record (a metric, a log record, a span) with the verdict on each of its items; bad points cut out."""
    if signal == "logs":
        for log in scope_entry.log_records:
            yield [log_reasons(log, limits, now)], log
    elif signal == "traces":
        for span in scope_entry.spans:
            yield [span_reasons(span, limits, now)], span
    else:
        for metric in scope_entry.metrics:
            kind = metric.WhichOneof("data")
            if kind is None:
                continue
            data = getattr(metric, kind)
            points = list(data.data_points)
            del data.data_points[:]
            common = normalize(metric, limits)
            has_temporality = kind in ("sum", "histogram", "exponential_histogram")
            if has_temporality and data.aggregation_temporality == 0 and limits.assumes_cumulative:
                data.aggregation_temporality = 2
            if has_temporality and data.aggregation_temporality not in (1, 2):
                common.add(errors.UNSPECIFIED_TEMPORALITY)
            verdicts = []
            for point in points:
                drop_ids(point)
                if kind == "histogram":
                    without_infinity(point)
                reasons = common | normalize(point, limits) | time_reasons(point.time_unix_nano, limits, now)
                reasons |= {errors.INVALID_HISTOGRAM} if kind == "histogram" and not explicit_fits(point) else set()
                verdicts.append(reasons)
                if not reasons:
                    data.data_points.append(point)
            yield verdicts, metric


def single_items(batch: TelemetryBatchV1) -> list[bytes]:
    """Every item with all that is around it, so that batches can be compared however they were cut."""
    items: list[bytes] = []
    for record in batch.records:
        head = TelemetryRecordV1()
        head.CopyFrom(record)
        for field in ("metrics", "log_records", "spans", "batch_part", "item_count"):
            head.ClearField(field)
        prefix = head.SerializeToString(deterministic=True)
        items += [prefix + entry.SerializeToString(deterministic=True) for entry in (*record.log_records, *record.spans)]
        for metric in record.metrics:
            data = getattr(metric, str(metric.WhichOneof("data")))
            points = [point.SerializeToString(deterministic=True) for point in data.data_points]
            del data.data_points[:]
            outside = metric.SerializeToString(deterministic=True)
            items += [prefix + outside + point for point in points]
    return items
