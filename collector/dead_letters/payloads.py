"""Show payloads of dead letters in a form that people read and edit: JSON, whatever they came in. And convert it back.

Where JSON cannot express something (NaN in the native API), it is shown as the text that was sent.

Invariants:
1. A payload that is shown and given back without a change is the same item (test_what_is_shown_can_be_given_back).
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from google.protobuf.message import DecodeError, Message
from infrasage.prometheus.v1 import write_pb2 as write_v1_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire

NATIVE_JSON: Final = "native_json"
# The body of a request, or its beginning.
REQUEST: Final = "request"

# As the column PayloadForm has them.
_MESSAGES: Final[Mapping[str, type[Message]]] = {
    "otlp_metrics": ExportMetricsServiceRequest,
    "otlp_logs": ExportLogsServiceRequest,
    "otlp_traces": ExportTraceServiceRequest,
    "prometheus_write_v1": write_v1_pb2.WriteRequest,
    "prometheus_write_v2": write_v2_pb2.Request,
    "telemetry_batch": TelemetryBatch,
}
_OTLP_TO_WIRE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "otlp_metrics": metrics_to_wire,
    "otlp_logs": logs_to_wire,
    "otlp_traces": traces_to_wire,
}
# OTLP/JSON has these in hexadecimal, whatever protobuf's JSON does.
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


class Shown(NamedTuple):
    """`encoding`: json (`payload` is the document), text, or base64. `decoded`: what a message says, as JSON; else None."""

    encoding: str
    payload: Any
    decoded: Any


def shown(form: str, payload: bytes) -> Shown:
    """Any payload, of any form."""
    if form in (NATIVE_JSON, REQUEST):
        try:
            return Shown("json", _strict(payload), None)
        except (ValueError, RecursionError):
            try:
                return Shown("text", payload.decode(), None)
            except UnicodeDecodeError:
                pass
    return Shown("base64", base64.b64encode(payload).decode(), _decoded(form, payload))


def mended(form: str, text: bytes) -> bytes:
    """Return the payload for a text in the form of `shown` (its `payload` or `decoded`). Raises ValueError."""
    if form == NATIVE_JSON:
        return text.strip()
    if form in _OTLP_TO_WIRE:
        return _OTLP_TO_WIRE[form](text)
    if form not in _MESSAGES:
        raise ValueError(f"a payload of form {form} can't be mended")
    try:
        return Parse(text, _MESSAGES[form]()).SerializeToString()
    except ParseError as error:
        raise ValueError(str(error)) from error


def _decoded(form: str, payload: bytes) -> Any:
    if form not in _MESSAGES:
        return None
    try:
        document = MessageToDict(_MESSAGES[form].FromString(payload), use_integers_for_enums=True)
    except (DecodeError, RecursionError):
        return None
    return _with_hex_ids(document) if form in _OTLP_TO_WIRE else document


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inner).hex() if key in _IDS and isinstance(inner, str) else _with_hex_ids(inner)
            for key, inner in value.items()
        }
    return [_with_hex_ids(inner) for inner in value] if isinstance(value, list) else value


def _strict(text: bytes) -> Any:
    """Raises ValueError where it is no JSON of RFC 8259, or has numbers that a float64 can't hold."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number
