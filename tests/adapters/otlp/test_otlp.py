"""adapters/otlp against its twin in plain protobuf: whatever comes, the same items are refused and the same records made."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from infrasage.v1 import telemetry_pb2
from support.limits import LOW
from support.otlp_reference import REQUESTS, reference
from support.otlp_strategies import NOW, messages, oddly_written

from adapters.errors import Malformed
from adapters.otlp import logs, metrics, traces
from adapters.record import SOURCE_OTLP, Adapted, Header
from collector.validate import LimitRules

ADAPT = {"metrics": metrics.adapt, "logs": logs.adapt, "traces": traces.adapt}
SIGNALS = sorted(ADAPT)
LIMITS = LOW
HEADER: dict[str, Any] = {"tenant_id": "acme", "source": 2, "received_time_unix_nano": NOW, "batch_id": b"0123456789abcdef"}


def adapt(signal: str, body: bytes, message_bytes_max: int = 1 << 20) -> Adapted:
    header = Header("acme", SOURCE_OTLP, NOW, b"0123456789abcdef")
    return ADAPT[signal](body, header, LimitRules(LIMITS, NOW), message_bytes_max)


def batch_of(adapted: Adapted) -> telemetry_pb2.TelemetryBatch:
    return telemetry_pb2.TelemetryBatch.FromString(b"".join(part.payload for part in adapted.parts))


def check(signal: str, body: bytes) -> None:
    """Both the adapter and its twin refuse the body, or they agree on every item."""
    try:
        verdicts, expected = reference(signal, body, LIMITS, NOW, HEADER)
    except DecodeError:
        with pytest.raises(Malformed):
            adapt(signal, body)
        return
    adapted = adapt(signal, body)
    actual = batch_of(adapted)
    refused = {rejection.index: rejection.reason for rejection in adapted.rejections}
    assert {index for index, reasons in enumerate(verdicts) if reasons} == set(refused)
    assert all(reason in verdicts[index] for index, reason in refused.items())
    for record in actual.records:
        record.DiscardUnknownFields()
    assert list(map(text, expected.records)) == list(map(text, actual.records))
    assert adapted.accepted_count() + adapted.rejected_count() == len(verdicts)
    assert adapted.accepted_count() == sum(part.item_count for part in adapted.parts)


def text(record: telemetry_pb2.TelemetryRecord) -> bytes:
    """Comparable to the bit: NaN included."""
    return record.SerializeToString(deterministic=True)


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_request_is_adapted_as_the_twin_does(signal: str, data: st.DataObject) -> None:
    """A request written by the official encoder gives the twin's records and verdicts."""
    check(signal, data.draw(messages(REQUESTS[signal].DESCRIPTOR)).SerializeToString())


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=60)
@given(data=st.data())
def test_an_oddly_written_request_is_adapted_as_the_twin_does(signal: str, data: st.DataObject) -> None:
    """Fields out of order, repeated, split, unpacked or unknown mean what protobuf says they mean."""
    check(signal, data.draw(oddly_written(data.draw(messages(REQUESTS[signal].DESCRIPTOR)))))


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=50)
@given(data=st.data())
def test_damaged_bytes_get_protobufs_own_verdict(signal: str, data: st.DataObject) -> None:
    """A byte changed somewhere is refused, or read, exactly as protobuf's parser does."""
    body = bytearray(data.draw(messages(REQUESTS[signal].DESCRIPTOR)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(signal, bytes(body))


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=30)
@given(body=st.binary(max_size=200))
def test_random_bytes_get_protobufs_own_verdict(signal: str, body: bytes) -> None:
    check(signal, body)
