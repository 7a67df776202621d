"""JSON as RFC 8259 has it, text by text (tests/support/references/rfc8259.py): what has to be read, and what has to be refused.

The native API refuses a text that is no JSON as `invalid_json`; whatever else it says of a document, it has read it. OTLP's
JSON must be an object. Where the RFC leaves it to the parser (section 9), the choice is in ours.
"""

import json
from collections.abc import Callable
from functools import partial

import pytest
from support.limits import DEFAULT
from support.references.rfc8259 import BYTES_REFUSED, READ, REFUSED, REPAIRED

from adapters.errors import INVALID_JSON, RequestRefused
from adapters.native import request as native
from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire
from adapters.record import SOURCE_NATIVE, Header
from collector.ingest.validate import LimitRules

NOW = 1_775_822_400_000_000_000

NAMED = ["NaN", "Infinity", "-Infinity"]


def is_read(text: bytes) -> bool:
    """Whether the native API takes it for JSON, on both of its routes."""
    header, rules = Header("acme", SOURCE_NATIVE, NOW, bytes(16)), LimitRules(DEFAULT, NOW)
    routes: list[Callable[[], object]] = [
        partial(native.adapt, text, header, rules, 1 << 20),
        partial(native.adapt_batch, text, header, rules, 1 << 20, 10),
    ]
    verdicts = set()
    for adapt in routes:
        try:
            adapt()
        except RequestRefused as refused:
            verdicts.add(refused.reason != INVALID_JSON)
        else:
            verdicts.add(True)
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize("text", READ, ids=ascii)
def test_what_is_json_is_read(text: str) -> None:
    json.loads(text)
    assert is_read(text.encode())


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_what_is_not_json_is_refused(text: str) -> None:
    """The native API refuses it, and so does OTLP if an object holds it."""
    assert not is_read(text.encode("utf-8", "surrogatepass"))
    for to_wire in (metrics_to_wire, logs_to_wire, traces_to_wire):
        with pytest.raises(RequestRefused):
            to_wire(b'{"unknown":' + text.encode("utf-8", "surrogatepass") + b"}")


def test_a_byte_order_mark_is_ignored_at_the_start_only() -> None:
    """Section 8.1 allows a parser to ignore it. Within a text it is no white space."""
    marked = "\ufeff{}".encode()
    assert is_read(marked)
    assert not is_read(b"{" + marked + b"}")
    for to_wire in (metrics_to_wire, logs_to_wire, traces_to_wire):
        assert to_wire(marked) == b""
        with pytest.raises(RequestRefused):
            to_wire(b'{"unknown":' + marked + b"}")


@pytest.mark.parametrize("data", BYTES_REFUSED, ids=repr)
def test_what_is_not_utf_8_is_refused(data: bytes) -> None:
    assert not is_read(data)


@pytest.mark.parametrize("data", REPAIRED, ids=repr)
def test_what_is_json_but_for_its_texts_is_read(data: bytes) -> None:
    """The native API reads it, and so does OTLP if an object holds it."""
    assert is_read(data)
    for to_wire in (metrics_to_wire, logs_to_wire, traces_to_wire):
        assert to_wire(b'{"unknown":' + data + b"}") == b""


@pytest.mark.parametrize("token", NAMED)
def test_the_three_tokens_are_read_to_be_refused_by_name(token: str) -> None:
    """The API's words are: value must be a finite float64; got NaN."""
    record = f'{{"service_id": "s", "metric_name": "m", "value": {token}, "timestamp": "2026-04-10T12:00:00Z"}}'
    adapted = native.adapt(record.encode(), Header("acme", SOURCE_NATIVE, NOW, bytes(16)), LimitRules(DEFAULT, NOW), 1 << 20)
    [rejection] = adapted.rejections
    assert rejection.message == f"value must be a finite float64; got {token}"
