"""Payloads as people see them, and back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_pb2 import Group, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces, remote_write, remote_write_v2
from support.records import encoded, flat
from support.references.otlp import REQUESTS
from support.strategies.otlp import messages
from support.strategies.prometheus import requests_v2, write_requests

from adapters.errors import RequestRefused
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.dead_letters.payloads import Shown, edited_payload, shown


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b' {"a": [1, 2.5, "x"]} ', Shown("json", {"a": [1, 2.5, "x"]}, None)),
        (b'{"value": NaN}', Shown("text", '{"value": NaN}', None)),
        (b'{"value": 1e999}', Shown("text", '{"value": 1e999}', None)),
        (b"[" * 100_000, Shown("text", "[" * 100_000, None)),
        (b"\xff", Shown("base64", "/w==", None)),
    ],
)
def test_native_json_is_shown_as_it_was(payload: bytes, expected: Shown) -> None:
    """JSON is shown as JSON, other text as text, and the rest as bytes."""
    assert expected == shown("native_json", payload)


def test_an_otlp_id_is_hexadecimal() -> None:
    """OTLP/JSON has it so, and so it can be found elsewhere."""
    request = REQUESTS["traces"].FromString(otlp_traces())
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = b"t" * 16
    decoded = shown("otlp_traces", request.SerializeToString()).decoded
    assert (b"t" * 16).hex() == decoded["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]


@pytest.mark.parametrize(
    ("form", "kind", "payload"),
    [
        ("otlp_logs", REQUESTS["logs"], otlp_logs()),
        ("otlp_metrics", REQUESTS["metrics"], otlp_metrics()),
        ("otlp_traces", REQUESTS["traces"], otlp_traces()),
        ("prometheus_write_v1", write_pb2.WriteRequest, remote_write()),
        ("prometheus_write_v2", write_v2_pb2.Request, remote_write_v2()),
    ],
)
def test_what_is_shown_can_be_given_back(form: str, kind: Any, payload: bytes) -> None:
    """Every form that adapters keep: not changed, it is the same message."""
    text = json.dumps(shown(form, payload).decoded).encode()
    assert kind.FromString(payload) == kind.FromString(edited_payload(form, text))


@pytest.mark.parametrize(
    ("topic", "batch", "name"),
    [
        (METRICS_TOPIC, batches.metrics(1, "acme"), "gauge.name"),
        (LOGS_TOPIC, batches.logs(1, "acme"), "payment failed"),
        (TRACES_TOPIC, batches.traces(1, "acme"), "GET /pay"),
    ],
)
@pytest.mark.parametrize("form", [encoded, TelemetryBatchV1.SerializeToString], ids=["today", "version 1"])
def test_a_refused_record_is_shown_with_its_items(
    topic: str, batch: TelemetryBatchV1, name: str, form: Callable[[TelemetryBatchV1], bytes]
) -> None:
    """It is in today's form, whatever version kept it. If it is not changed, it is the same record."""
    decoded = shown("telemetry_batch", form(batch), topic).decoded
    text = json.dumps(decoded)
    assert name in json.dumps(decoded["records"][0]["groups"][0]["items"][0])
    assert str(batch) == str(flat(edited_payload("telemetry_batch", text.encode(), topic))), "NaN is not equal to itself"
    of_no_topic = json.dumps(shown("telemetry_batch", form(batch), "").decoded)
    assert name not in of_no_topic
    assert str(batch) == str(flat(edited_payload("telemetry_batch", of_no_topic.encode(), "")))


def test_a_record_whose_items_can_not_be_read_is_shown_as_bytes() -> None:
    payload = TelemetryBatch(records=[TelemetryRecord(groups=[Group(items=[b"\xff"])])]).SerializeToString()
    assert shown("telemetry_batch", payload, LOGS_TOPIC).decoded is None


@pytest.mark.parametrize(
    "text", ["[]", "1", '{"records": 1}', '{"records": [1]}', '{"records": [{"groups": [{"items": [1]}]}]}']
)
def test_a_document_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it is not a record in the form in which records are shown: "):
        edited_payload("telemetry_batch", text.encode(), LOGS_TOPIC)


@settings(max_examples=40, deadline=None)
@given(request=st.one_of(write_requests(), requests_v2(), *(messages(kind.DESCRIPTOR) for kind in REQUESTS.values())))
def test_any_message_can_be_shown(request: Any) -> None:
    """The result is JSON."""
    forms = {
        **{kind: f"otlp_{signal}" for signal, kind in REQUESTS.items()},
        write_pb2.WriteRequest: "prometheus_write_v1",
        write_v2_pb2.Request: "prometheus_write_v2",
    }
    view = shown(forms[type(request)], request.SerializeToString())
    assert view.decoded is not None
    json.dumps(view.decoded, allow_nan=False)


@pytest.mark.parametrize("form", ["unreadable", "none", "telemetry_batch", "otlp_logs", "prometheus_write_v1"])
def test_what_is_no_payload_is_refused(form: str) -> None:
    with pytest.raises((ValueError, RequestRefused)):
        edited_payload(form, b'{"x": ]')


def test_bytes_that_are_no_message_are_shown_as_bytes() -> None:
    assert Shown("base64", "/w==", None) == shown("otlp_logs", b"\xff")
