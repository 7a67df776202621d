"""An adapter beside its slow twin in plain protobuf: of any bytes, both refuse them, or they agree on every item and record,
in a form that the engine reads.

Plain assertions, without pytest: the fuzzer, which has none, calls the same.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from support.adapted import batch_of, reasons
from support.limits import LOW, LOW_BUT_VALUES
from support.records import encoded, unpadded
from support.references.lenient_protobuf import repaired
from support.references.otlp import REQUESTS
from support.references.otlp import reference as otlp_reference
from support.references.prometheus import reference, reference_v2
from support.references.readable import refused_form

from adapters.errors import INVALID_PROTOBUF, UNSUPPORTED_MEDIA_TYPE, Malformed, RequestRefused
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_OTLP, SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2, Adapted, Header
from collector.ingest.validate import LimitRules, Limits

NOW: Final = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
BATCH_ID: Final = b"0123456789abcdef"
HEADER: Final[dict[str, Any]] = {"tenant_id": "acme", "received_time_unix_nano": NOW, "batch_id": BATCH_ID}
MESSAGE_BYTES_MAX: Final = 1 << 20
_OTLP: Final = {"metrics": metrics.adapt, "logs": logs.adapt, "traces": traces.adapt}


def adapt_otlp(signal: str, body: bytes, message_bytes_max: int = MESSAGE_BYTES_MAX, *, limits: Limits = LOW) -> Adapted:
    return _OTLP[signal](body, Header("acme", SOURCE_OTLP, NOW, BATCH_ID), LimitRules(limits, NOW), message_bytes_max)


def adapt_v1(body: bytes, message_bytes_max: int = MESSAGE_BYTES_MAX) -> Adapted:
    header = Header("acme", SOURCE_PROMETHEUS_WRITE_V1, NOW, BATCH_ID)
    return write_v1.adapt(body, header, LimitRules(LOW, NOW), message_bytes_max)


def adapt_v2(body: bytes, message_bytes_max: int = MESSAGE_BYTES_MAX) -> Adapted:
    header = Header("acme", SOURCE_PROMETHEUS_WRITE_V2, NOW, BATCH_ID)
    return write_v2.adapt(body, header, LimitRules(LOW, NOW), message_bytes_max)


def check_otlp(signal: str, body: bytes, limits: Limits | None = None) -> None:
    """`limits`: None: those of _limits_of."""
    try:
        text = repaired(REQUESTS[signal], body)
        if limits is None:
            limits = _limits_of(signal, body)
        if _is_refused_as_mistyped(REQUESTS[signal].FromString(text), lambda: adapt_otlp(signal, body)):
            return
        verdicts, expected = otlp_reference(signal, text, limits, NOW, HEADER | {"source": SOURCE_OTLP})
    except DecodeError:
        assert _refusal(lambda: adapt_otlp(signal, body)) is not None
        return
    adapted = adapt_otlp(signal, body, limits=limits)
    actual = batch_of(adapted)
    refused = {rejection.index: rejection.reason for rejection in adapted.rejections}
    assert {index for index, reasons_ in enumerate(verdicts) if reasons_} == set(refused)
    assert all(reason in verdicts[index] for index, reason in refused.items())
    for record in actual.records:
        record.DiscardUnknownFields()
    assert list(map(_text, expected.records)) == list(map(_text, actual.records))
    assert adapted.accepted_count() + adapted.rejected_count() == len(verdicts)
    assert adapted.accepted_count() == sum(part.item_count for part in adapted.parts)
    assert [""] * len(adapted.parts) == [refused_form(part.payload) for part in adapted.parts]


def _limits_of(signal: str, body: bytes) -> Limits:
    """Return the limits that both must agree on. Raises DecodeError.

    The size of a value counts as it is sent, with padding and unknown fields. A parsed message does not have it, so the twin
    can only judge it in a body that is as short as protobuf's encoder makes it.
    """
    request = REQUESTS[signal].FromString(repaired(REQUESTS[signal], body))
    request.DiscardUnknownFields()
    return LOW if request.ByteSize() == len(body) else LOW_BUT_VALUES


def check_v1(body: bytes) -> None:
    try:
        request = write_pb2.WriteRequest.FromString(repaired(write_pb2.WriteRequest, body))
    except DecodeError:
        refused = _refusal(lambda: adapt_v1(body))
        assert refused is not None
        assert refused.reason == INVALID_PROTOBUF
        assert f"cannot decode WriteRequest: {len(body)} bytes" in refused.message
        return
    if _is_refused_as_mistyped(request, lambda: adapt_v1(body)):
        return
    _agree_if_read(reference(request, LOW, NOW, HEADER), request, lambda: adapt_v1(body))


def check_v2(body: bytes) -> None:
    try:
        request = write_v2_pb2.Request.FromString(repaired(write_v2_pb2.Request, body))
    except DecodeError:
        request = None
    if request is not None and _is_refused_as_mistyped(request, lambda: adapt_v2(body)):
        return
    if request is None or (request.symbols and request.symbols[0]):
        refused = _refusal(lambda: adapt_v2(body))
        assert refused is not None
        assert refused.reason == INVALID_PROTOBUF
        return
    _agree_if_read(reference_v2(request, LOW, NOW, HEADER), request, lambda: adapt_v2(body))


def _is_refused_as_mistyped(message: Any, adapt: Callable[[], Adapted]) -> bool:
    """An adapter refuses such a message if it had to ask protobuf's parser."""
    if not _is_mistyped(message):
        return False
    refused = _refusal(adapt)
    return refused is not None and "has wire type" in refused.message


def _unknown(message: Any) -> Iterable[Any]:
    return cast("Iterable[Any]", UnknownFieldSet(message))


def _is_mistyped(message: Any) -> bool:
    """Whether it, or a message in it, has a field that is unknown for its wire type alone."""
    known = message.DESCRIPTOR.fields_by_number
    if any(field.field_number in known for field in _unknown(message)):
        return True
    values = [(field, value) for field, value in message.ListFields() if field.message_type is not None]
    return any(_is_mistyped(inner) for field, value in values for inner in (value if field.is_repeated else [value]))


def _agree_if_read(expected: Any, request: Any, adapt: Callable[[], Adapted]) -> None:
    """A request without items may be refused for the unknown fields that it or a series of it has, where they are plainly
    written."""
    try:
        adapted = adapt()
    except RequestRefused as unread:
        assert unread.reason in (INVALID_PROTOBUF, UNSUPPORTED_MEDIA_TYPE)  # noqa: PT017  # the fuzzer has no pytest
        assert not expected.rejections
        assert not expected.batch.records
        assert any(len(UnknownFieldSet(message)) for message in (request, *request.timeseries))
    else:
        _agree(expected, adapted)


def _agree(expected: Any, adapted: Adapted) -> None:
    """Of remote write, to the byte."""
    assert expected.rejections == reasons(adapted)
    assert expected.batch.SerializeToString() == batch_of(adapted).SerializeToString()
    assert len(encoded(expected.batch)) == sum(len(unpadded(part.payload)) for part in adapted.parts)
    assert expected.written == (adapted.samples, adapted.histograms, adapted.exemplars)
    assert adapted.accepted_count() == sum(part.item_count for part in adapted.parts)
    assert adapted.rejected_count() == len(expected.rejections)
    assert [""] * len(adapted.parts) == [refused_form(part.payload) for part in adapted.parts]


def _refusal(adapt: Any) -> Malformed | None:
    try:
        adapt()
    except Malformed as refused:
        return refused
    return None


def _text(record: TelemetryRecordV1) -> bytes:
    """Comparable to the bit: NaN included."""
    return record.SerializeToString(deterministic=True)
