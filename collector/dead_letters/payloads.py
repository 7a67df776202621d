"""Show payloads of dead letters in a form that people read and edit: JSON, whatever format they came in. And convert it back.

If JSON cannot express a payload (NaN in the native API), it is shown as the text that was sent. A record that the store
refused is shown with its items decoded, in today's form, whatever version kept it.

Invariants:
1. A payload that is shown and returned without a change is the same item (test_what_is_shown_can_be_given_back,
   test_a_refused_record_is_shown_with_its_items).
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from google.protobuf.json_format import MessageToDict, Parse, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from infrasage.prometheus.v1 import write_pb2 as write_v1_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire
from adapters.record_upgrade import current
from collector.records.items import ITEM_MESSAGES

NATIVE_JSON: Final = "native_json"
# The body of a request, or its beginning.
REQUEST: Final = "request"
# A record that the store refused.
TELEMETRY_BATCH: Final = "telemetry_batch"

# By the values of the column PayloadForm.
_MESSAGES: Final[Mapping[str, type[Message]]] = {
    "otlp_metrics": ExportMetricsServiceRequest,
    "otlp_logs": ExportLogsServiceRequest,
    "otlp_traces": ExportTraceServiceRequest,
    "prometheus_write_v1": write_v1_pb2.WriteRequest,
    "prometheus_write_v2": write_v2_pb2.Request,
}
_OTLP_TO_WIRE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "otlp_metrics": metrics_to_wire,
    "otlp_logs": logs_to_wire,
    "otlp_traces": traces_to_wire,
}
# OTLP/JSON has these in hexadecimal, unlike protobuf's JSON.
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


class Shown(NamedTuple):
    """A payload as it is shown. `encoding` is json (`payload` is the document), text, or base64. `decoded` is the content of a
    message, as JSON; None if it can't be decoded."""

    encoding: str
    payload: Any
    decoded: Any


def shown(form: str, payload: bytes, topic: str = "") -> Shown:
    """Return any payload, of any form, as it is shown. `topic` is that of a record that the store refused."""
    if form in (NATIVE_JSON, REQUEST):
        try:
            return Shown("json", _strict(payload), None)
        except (ValueError, RecursionError):
            try:
                return Shown("text", payload.decode(), None)
            except UnicodeDecodeError:
                pass
    return Shown("base64", base64.b64encode(payload).decode(), _decoded(form, payload, topic))


def edited_payload(form: str, text: bytes, topic: str = "") -> bytes:
    """Return the payload for a text in the form of `shown` (its `payload` or `decoded`). Raises ValueError."""
    if form == NATIVE_JSON:
        return text.strip()
    if form in _OTLP_TO_WIRE:
        return _OTLP_TO_WIRE[form](text)
    if form == TELEMETRY_BATCH:
        return _batch_of(text, topic)
    if form not in _MESSAGES:
        raise ValueError(f"a payload of form {form} cannot be edited")
    try:
        return Parse(text, _MESSAGES[form]()).SerializeToString()
    except ParseError as error:
        raise ValueError(str(error)) from error


def _decoded(form: str, payload: bytes, topic: str) -> Any:
    try:
        if form == TELEMETRY_BATCH:
            return _shown_batch(payload, topic)
        if form not in _MESSAGES:
            return None
        document = _document(_MESSAGES[form].FromString(payload))
    except (DecodeError, RecursionError):
        return None
    return _with_hex_ids(document) if form in _OTLP_TO_WIRE else document


def _document(message: Message) -> Any:
    return MessageToDict(message, use_integers_for_enums=True)


def _shown_batch(payload: bytes, topic: str) -> Any:
    """Return a batch as JSON, with its items decoded if the topic is one of telemetry. Raises DecodeError."""
    document = _document(TelemetryBatch.FromString(current(payload)))
    kind = ITEM_MESSAGES.get(topic)
    if kind is None:
        return document
    for group in _groups(document):
        group["items"] = [_document(kind.FromString(base64.b64decode(item))) for item in group.get("items", ())]
    return document


def _batch_of(text: bytes, topic: str) -> bytes:
    """Return the batch for a text in the form of `_shown_batch`. Raises ValueError."""
    try:
        document = json.loads(text)
        kind = ITEM_MESSAGES.get(topic)
        if kind is not None:
            for group in _groups(document):
                group["items"] = [_encoded(ParseDict(item, kind())) for item in group.get("items", ())]
        return ParseDict(document, TelemetryBatch()).SerializeToString()
    except (ParseError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not a record in the form in which records are shown: {error}") from error


def _encoded(item: Message) -> str:
    """Return an item as JSON has bytes: in base64."""
    return base64.b64encode(item.SerializeToString()).decode()


def _groups(document: Any) -> list[dict[str, Any]]:
    """Return the groups of all records. Raises AttributeError, TypeError if it is no document of a TelemetryBatch."""
    return [group for record in document.get("records", ()) for group in record.get("groups", ())]


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inner).hex() if key in _IDS and isinstance(inner, str) else _with_hex_ids(inner)
            for key, inner in value.items()
        }
    return [_with_hex_ids(inner) for inner in value] if isinstance(value, list) else value


def _strict(text: bytes) -> Any:
    """Parse JSON of RFC 8259. Raises ValueError, also for numbers that a float64 can't hold."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number
