"""adapters/otlp/json_bytes: ids and bytes in the forms that encoders of other mappings write."""

import base64
import json
from typing import Any

import pytest
from support.adapted import batch_of
from support.references.otlp import REQUESTS
from support.references.twins import NOW, adapt_otlp

from adapters.errors import INVALID_RECORD
from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire
from adapters.otlp.json_notes import Notes
from adapters.otlp.json_scan import scanned
from adapters.repairs import BYTES_FORM, ID_DROPPED
from adapters.rules import Rules

TO_WIRE = {"metrics": metrics_to_wire, "logs": logs_to_wire, "traces": traces_to_wire}
TRACE_ID = bytes(range(240, 256))
SPAN_ID = bytes(range(248, 256))

FORMS: dict[str, Any] = {
    "base64": lambda content: base64.b64encode(content).decode(),
    "base64url": lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
    "array": list,
    "object": lambda content: {str(n): byte for n, byte in enumerate(content)},
    "buffer": lambda content: {"type": "Buffer", "data": list(content)},
    "buffer in base64": lambda content: {"type": "Buffer", "data": base64.b64encode(content).decode()},
    "bufferjson": lambda content: {"type": "Buffer", "data": f"base64:{base64.b64encode(content).decode()}"},
}
EACH_FORM = pytest.mark.parametrize("form", FORMS)
# Small bodies are parsed at once where they are not plain, large ones slice by slice.
EACH_SIZE = pytest.mark.parametrize("padding", [0, 1 << 20], ids=["small", "large"])


def item_of(signal: str, ids: dict[str, Any]) -> dict[str, Any]:
    """One with ids wherever it may have some; of a metric, a point."""
    own = {"traceId": ids["trace"], "spanId": ids["span"]}
    if signal == "logs":
        return {"timeUnixNano": str(NOW), **own}
    if signal == "traces":
        return {"startTimeUnixNano": str(NOW), "parentSpanId": ids["span"], "links": [own], **own}
    return {"timeUnixNano": str(NOW), "asDouble": 1, "exemplars": [own]}


def body_of(signal: str, items: list[Any], padding: int = 0) -> bytes:
    resource, scope, member = {
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
        "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
        "traces": ("resourceSpans", "scopeSpans", "spans"),
    }[signal]
    inner: list[Any] = items if signal != "metrics" else [{"name": "m", "gauge": {"dataPoints": items}}]
    return json.dumps({"unknown": "u" * padding, resource: [{scope: [{member: inner}]}]}).encode()


def items_in(signal: str, adapted: Any) -> list[Any]:
    [record] = batch_of(adapted).records
    if signal == "metrics":
        return list(record.metrics[0].gauge.data_points)
    return list(record.log_records if signal == "logs" else record.spans)


def all_ids(signal: str, item: Any) -> set[tuple[str, bytes]]:
    """Each id of an item."""
    places = {"logs": lambda: [item], "traces": lambda: [item, *item.links], "metrics": lambda: list(item.exemplars)}[signal]()
    found = {(name, getattr(place, name)) for place in places for name in ("trace_id", "span_id")}
    return found | ({("parent", item.parent_span_id)} if signal == "traces" else set())


@EACH_SIZE
@EACH_FORM
@pytest.mark.parametrize("signal", TO_WIRE)
def test_ids_are_read_in_each_form(signal: str, form: str, padding: int) -> None:
    """Ids of spans, parents, links, log records and exemplars are read, and each is counted as a repair."""
    ids = {"trace": FORMS[form](TRACE_ID), "span": FORMS[form](SPAN_ID)}
    rules = Rules()
    good = item_of(signal, {"trace": TRACE_ID.hex(), "span": SPAN_ID.hex()})
    wire = TO_WIRE[signal](body_of(signal, [item_of(signal, ids), good], padding), rules)
    adapted = adapt_otlp(signal, wire)
    assert (2, []) == (adapted.accepted_count(), adapted.rejections)
    expected = {("trace_id", TRACE_ID), ("span_id", SPAN_ID)}
    if signal == "traces":
        expected.add(("parent", SPAN_ID))
    assert [expected, expected] == [all_ids(signal, item) for item in items_in(signal, adapted)]
    assert {BYTES_FORM: 5 if signal == "traces" else 2} == rules.repaired


@EACH_FORM
def test_forms_are_read_in_one_pass(form: str) -> None:
    """A sender of such ids is read as fast as others are."""
    ids = {"trace": FORMS[form](TRACE_ID), "span": FORMS[form](SPAN_ID)}
    notes = Notes(Rules(), is_exact=False)
    body = body_of("traces", [item_of("traces", ids)])
    assert traces_to_wire(body) == scanned(body, REQUESTS["traces"].DESCRIPTOR, Rules(), notes)
    assert 5 == notes.forms


@EACH_SIZE
@EACH_FORM
@pytest.mark.parametrize("content", [b"", b"\x00", bytes(range(200, 256))])
def test_bytes_are_read_in_each_form(content: bytes, form: str, padding: int) -> None:
    """An attribute's; in either alphabet they are base64, as it should be."""
    value = {"bytesValue": FORMS[form](content)}
    item = item_of("logs", {"trace": "", "span": ""}) | {"attributes": [{"key": "a", "value": value}]}
    rules = Rules()
    adapted = adapt_otlp("logs", logs_to_wire(body_of("logs", [item], padding), rules))
    [stored] = items_in("logs", adapted)[0].attributes
    assert base64.b64encode(content).decode() == stored.value.string_value
    assert (None if form.startswith("base64") else {BYTES_FORM: 1}) == rules.repaired


@EACH_SIZE
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("traceId", list(TRACE_ID)[1:], "Span.traceId must be hex, or 16 numbers from 0 to 255; got [241,"),
        ("spanId", list(SPAN_ID)[1:], "Span.spanId must be hex, or 8 numbers from 0 to 255; got [249,"),
        ("spanId", {"type": "Buffer", "data": "*"}, "Span.spanId must be hex, or 8 numbers from 0 to 255; got {"),
        ("spanId", 5, "Span.spanId must be hex; got 5"),
        ("body", {"bytesValue": [-1]}, "AnyValue.bytesValue must be base64, or numbers from 0 to 255; got [-1]"),
        ("body", {"bytesValue": {"a": 1}}, "AnyValue.bytesValue must be base64, or numbers from 0 to 255; got {"),
    ],
)
def test_what_is_none_of_the_forms_rejects_its_item_alone(name: str, value: Any, message: str, padding: int) -> None:
    """The words name what it must be."""
    signal = "logs" if name == "body" else "traces"
    good = item_of(signal, {"trace": TRACE_ID.hex(), "span": SPAN_ID.hex()})
    adapted = adapt_otlp(signal, TO_WIRE[signal](body_of(signal, [good, good | {name: value}, good], padding)))
    [rejection] = adapted.rejections
    assert (1, INVALID_RECORD, 2) == (rejection.index, rejection.reason, adapted.accepted_count())
    assert rejection.message.startswith(message)


NO_IDS: dict[str, Any] = {
    "a number": 5,
    "a large number": 10**40,
    "a truth": True,
    "too few numbers": list(TRACE_ID)[1:],
    "a number that is no byte": [*list(SPAN_ID)[1:], 256],
    "a number that is not whole": [*list(SPAN_ID)[1:], 1.5],
    "a truth among numbers": [*list(SPAN_ID)[1:], True],
    "a list of nulls": [None] * 16,
    "numbers from 1": {str(n + 1): 1 for n in range(8)},
    "an object": {"high": 1, "low": [2]},
    "a buffer of another length": {"type": "Buffer", "data": "AAEC"},
    "a buffer of no base64": {"type": "Buffer", "data": "*"},
    "a text": "xyz",
    "a long text": "1" * 200,
}
# Larger than what is parsed at once.
LARGE_NO_IDS: dict[str, Any] = {
    "a text": "x" * (1 << 20),
    "numbers": [1] * (1 << 19),
    "an object": {"a": "x" * (1 << 20)},
}


@pytest.mark.parametrize("kind", NO_IDS)
@pytest.mark.parametrize("signal", TO_WIRE)
def test_what_is_no_id_is_left_out(signal: str, kind: str) -> None:
    """A log record, a parent, a link and an exemplar are tried: the item is kept, whatever the id is."""
    check_no_id(signal, NO_IDS[kind], 0)


@pytest.mark.parametrize("signal", TO_WIRE)
def test_what_is_no_id_is_left_out_of_a_large_body(signal: str) -> None:
    """The reader of large bodies leaves it out, too."""
    check_no_id(signal, 5, 1 << 20)


@pytest.mark.large
@pytest.mark.parametrize("kind", LARGE_NO_IDS)
def test_however_large_it_is_what_is_no_id_is_left_out(kind: str) -> None:
    """A small one is."""
    check_no_id("logs", LARGE_NO_IDS[kind], 0)


def check_no_id(signal: str, value: Any, padding: int) -> None:
    good = item_of(signal, {"trace": TRACE_ID.hex(), "span": SPAN_ID.hex()})
    odd = item_of(signal, {"trace": value, "span": value})
    if signal == "traces":  # without an id of its own a span is rejected
        odd |= {"traceId": TRACE_ID.hex(), "spanId": SPAN_ID.hex()}
    rules = Rules()
    adapted = adapt_otlp(signal, TO_WIRE[signal](body_of(signal, [good, odd, good], padding), rules))
    assert (3, []) == (adapted.accepted_count(), adapted.rejections)
    assert 0 < len(all_ids(signal, items_in(signal, adapted)[0]))
    left = {(name, content) for name, content in all_ids(signal, items_in(signal, adapted)[1]) if content}
    assert left == ({("trace_id", TRACE_ID), ("span_id", SPAN_ID)} if signal == "traces" else set())
    told = dict(rules.repaired or {}) | dict(adapted.repaired or {})
    assert {ID_DROPPED: 3 if signal == "traces" else 2} == told


@pytest.mark.parametrize("text", [TRACE_ID.hex()[:22], TRACE_ID.hex()[:24], base64.b64encode(SPAN_ID).decode(), "x" * 24, "*"])
def test_a_part_of_an_id_is_not_taken_for_base64(text: str) -> None:
    """All hex digits, or of another length: a log record is kept without it."""
    rules = Rules()
    item = item_of("logs", {"trace": text, "span": ""})
    wire = logs_to_wire(body_of("logs", [item]), rules)
    adapted = adapt_otlp("logs", wire)
    assert 1 == adapted.accepted_count()
    assert b"" == items_in("logs", adapted)[0].trace_id
    told = dict(rules.repaired or {}) | dict(adapted.repaired or {})
    assert {ID_DROPPED: 1} == told
