"""The request bodies that the suites send. There are several bodies of each kind.

They differ as the requests of several services do. So a gateway that remembers earlier requests gets the same effect from this
memory as in production.

A resource has 8 attributes. An item has `attributes` of them, 4 by default. All values are strings except the last, which is an
integer, such as a status code.
"""

import functools
import json
import os
import time
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

METHODS: Final = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
REQUESTS: Final[dict[str, type[Message]]] = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
NATIVE_RECORD: Final = "/api/v1/telemetry"
NATIVE_BATCH: Final = "/api/v1/telemetry/batch"

_VARIANTS: Final = 8
# Fewer variants of large requests, since each takes seconds to make.
_LARGE_ITEMS: Final = 20_000
_LARGE_VARIANTS: Final = 2
_POINTS_OF_A_METRIC: Final = 5
_INSTANCES: Final = 20
_STATUS_CODES: Final = (200, 201, 204, 404, 500)


@functools.cache
def otlp(signal: str, items: int, attributes: int = 4) -> tuple[bytes, ...]:
    """Return OTLP requests in protobuf, with `items` items each."""
    now = time.time_ns()
    return tuple(_otlp(signal, items, attributes, variant, now) for variant in range(_variants(items)))


@functools.cache
def otlp_json(signal: str, items: int, attributes: int = 4) -> tuple[bytes, ...]:
    """Return the requests of `otlp` in JSON without white space, as SDKs write it."""
    parse = REQUESTS[signal].FromString
    return tuple(json.dumps(to_json(parse(one)), separators=(",", ":")).encode() for one in otlp(signal, items, attributes))


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as the document of its OTLP/JSON."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.enum_type is not None:
            found[field.json_name] = value
        else:
            found[field.json_name] = [_json(one) for one in value] if field.is_repeated else _json(value)
    return found


def _json(value: Any) -> Any:
    """Return the JSON value of a field."""
    if isinstance(value, Message):
        return to_json(value)
    if isinstance(value, bytes):
        return value.hex()  # of these bodies, only ids are bytes
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@functools.cache
def scrapes(signal: str, items: int, number: int) -> tuple[bytes, ...]:
    """Return `number` requests whose rows are stored. The times of each are a second after those of the request before, so that
    no two rows are equal."""
    began = time.time_ns() - number * 1_000_000_000
    return tuple(_otlp(signal, items, 4, at % _VARIANTS, began + at * 1_000_000_000) for at in range(number))


@functools.cache
def native(items: int) -> tuple[bytes, ...]:
    """Return requests of the JSON API: one record if `items` is 1, else an array. Each record has 4 attributes."""
    return tuple(_native(items, variant) for variant in range(_variants(items)))


def _variants(items: int) -> int:
    return _VARIANTS if items < _LARGE_ITEMS else _LARGE_VARIANTS


def _values(index: int, variant: int, count: int) -> dict[str, str | int]:
    """Return the attributes of an item."""
    named: dict[str, str | int] = {"instance": f"instance-{variant}-{index % _INSTANCES}"} if count > 1 else {}
    named |= {f"attribute.number.{number}": f"value-{number}" for number in range(len(named), count - 1)}
    named["http.response.status_code"] = _STATUS_CODES[index % len(_STATUS_CODES)]
    return named


def _put(owner: Any, values: dict[str, str | int]) -> None:
    for key, value in values.items():
        any_value = owner.attributes.add(key=key).value
        if isinstance(value, int):
            any_value.int_value = value
        else:
            any_value.string_value = value


def _resource(variant: int) -> dict[str, str | int]:
    rest = {f"resource.attribute.{number}": f"value-{number}" for number in range(6)}
    return {"service.name": f"service-{variant}", "process.pid": 4000 + variant, **rest}


def _otlp(signal: str, items: int, attributes: int, variant: int, now: int) -> bytes:
    if signal == "metrics":
        metrics = ExportMetricsServiceRequest()
        entry = metrics.resource_metrics.add()
        scope = entry.scope_metrics.add()
        for start in range(0, items, _POINTS_OF_A_METRIC):
            metric = scope.metrics.add(name=f"metric.{start}", unit="ms")
            for index in range(start, min(start + _POINTS_OF_A_METRIC, items)):
                point = metric.gauge.data_points.add(time_unix_nano=now + index, as_double=index + 0.5)
                _put(point, _values(index, variant, attributes))
        _put(entry.resource, _resource(variant))
        return metrics.SerializeToString()
    if signal == "logs":
        logs = ExportLogsServiceRequest()
        log_entry = logs.resource_logs.add()
        log_scope = log_entry.scope_logs.add()
        for index in range(items):
            record = log_scope.log_records.add(time_unix_nano=now + index, severity_text="INFO")
            record.body.string_value = f"a line of a log, of some length, number {index}"
            _put(record, _values(index, variant, attributes))
        _put(log_entry.resource, _resource(variant))
        return logs.SerializeToString()
    traces = ExportTraceServiceRequest()
    span_entry = traces.resource_spans.add()
    span_scope = span_entry.scope_spans.add()
    for index in range(items):
        began = now + index
        ids = {"trace_id": os.urandom(16), "span_id": os.urandom(8)}
        span = span_scope.spans.add(**ids, name="GET /cart", start_time_unix_nano=began, end_time_unix_nano=began + 1000)
        _put(span, _values(index, variant, attributes))
    _put(span_entry.resource, _resource(variant))
    return traces.SerializeToString()


def _native(items: int, variant: int) -> bytes:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    records = [
        {
            "service_id": f"service-{variant}",
            "type": "metric",
            "metric_name": f"metric.{index}",
            "value": index + 0.5,
            "timestamp": now,
            "attributes": _values(index, variant, 4),
        }
        for index in range(items)
    ]
    return json.dumps(records if items > 1 else records[0]).encode()
