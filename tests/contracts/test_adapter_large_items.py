"""What is too large is kept: an item has a message of its own, values and lists are cut, and a beginning stays of the rest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adapted import batch_of
from support.examples import examples
from support.limits import DEFAULT, LOW_TRUNCATED
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.remote_write import write_request, write_request_v2
from support.references.twins import NOW, check_otlp
from support.strategies.otlp import messages, oddly_written

from adapters.errors import RECORD_TOO_LARGE
from adapters.native import request as native
from adapters.otlp import json as otlp_json
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import Adapted, Header
from adapters.repairs import ATTRIBUTES_DROPPED, VALUE_TRUNCATED
from collector.ingest.validate import LimitRules, Limits

MESSAGE_BYTES_MAX = 512 << 10
ITEM_BYTES_MAX = 4 << 20
CUT_BYTES = 64 << 10
LIMITS = Limits(
    past_max_s=DEFAULT.past_max_s,
    future_max_s=600,
    attributes_max=1024,
    attribute_key_bytes_max=1024,
    attribute_value_bytes_max=64 << 20,
    name_bytes_max=64 << 20,
    item_bytes_max=ITEM_BYTES_MAX,
    attribute_value_too_long="truncate",
)
CUTTING = Limits(
    past_max_s=DEFAULT.past_max_s,
    future_max_s=600,
    attributes_max=1024,
    attribute_key_bytes_max=1024,
    attribute_value_bytes_max=256 << 10,
    name_bytes_max=1024,
    item_bytes_max=ITEM_BYTES_MAX,
    attribute_value_too_long="truncate",
)
OTLP: dict[str, Any] = {"metrics": metrics, "logs": logs, "traces": traces}


def rules_of(limits: Limits) -> LimitRules:
    rules = LimitRules(limits, NOW, dead_letter_items_max=100, dead_letter_bytes_max=16 << 20)
    rules.item_bytes_max = limits.item_bytes_max
    rules.dead_letter_cut_bytes = CUT_BYTES
    return rules


def otlp(signal: str, text: str, *, attributes: int = 1, value: str = "") -> bytes:
    """Three items, the second of which has the text, and the third attributes with that value."""
    request = REQUESTS[signal]()
    if signal == "metrics":
        data = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points
        items = [data.add(time_unix_nano=NOW, as_double=1) for _ in range(3)]
        items[1].exemplars.add(time_unix_nano=NOW).filtered_attributes.add(key="text").value.string_value = text
    elif signal == "logs":
        records = request.resource_logs.add().scope_logs.add().log_records
        items = [records.add(time_unix_nano=NOW) for _ in range(3)]
        items[1].body.string_value = text
    else:
        spans = request.resource_spans.add().scope_spans.add().spans
        items = [spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=NOW) for _ in range(3)]
        items[1].events.add(name="e").attributes.add(key="prompt").value.string_value = text
    for n in range(attributes):
        items[2].attributes.add(key=f"k{n}").value.string_value = value
    body: bytes = request.SerializeToString()
    return body


def adapt(route: str, text: str, limits: Limits, *, attributes: int = 1, value: str = "") -> Adapted:
    header, rules = Header("acme", 2, NOW, bytes(16)), rules_of(limits)
    if route == "native":
        base = {"service_id": "s", "type": "log", "body": "b", "timestamp": "2026-04-10T12:00:00Z"}
        many = {"attributes": {f"k{n}": value for n in range(attributes)}}
        body = json.dumps([base, base | {"body": text}, base | many]).encode()
        return native.adapt_batch(body, header, rules, MESSAGE_BYTES_MAX, 10)
    if route.startswith("write"):
        series = [({"__name__": "m", "n": f"{n}", "text": text if n == 1 else "x"}, [(1.0, NOW // 10**6)]) for n in range(3)]
        if route == "write-v1":
            return write_v1.adapt(write_request(series), header, rules, MESSAGE_BYTES_MAX)
        return write_v2.adapt(write_request_v2(series), header, rules, MESSAGE_BYTES_MAX)
    signal, _, form = route.partition("-")
    body = otlp(signal, text, attributes=attributes, value=value)
    if form:
        document = json.dumps(to_json(REQUESTS[signal].FromString(body))).encode()
        body = getattr(otlp_json, f"{signal}_to_wire")(document, rules)
    return OTLP[signal].adapt(body, header, rules, MESSAGE_BYTES_MAX)  # type: ignore[no-any-return]


ROUTES = (*OTLP, *(f"{signal}-json" for signal in OTLP), "native", "write-v1", "write-v2")
EACH_ROUTE = pytest.mark.parametrize("route", ROUTES)
EACH_JSON_AND_OTLP = pytest.mark.parametrize("route", ROUTES[:-2])


@EACH_ROUTE
def test_a_large_item_has_a_message_of_its_own(route: str) -> None:
    """An item of a megabyte is stored whole, between its neighbours; only its message exceeds the usual size."""
    text = "x" * (1 << 20)
    found = adapt(route, text, LIMITS)
    assert (3, 0) == (found.accepted_count(), found.rejected_count())
    large = [part for part in found.parts if len(part.payload) > MESSAGE_BYTES_MAX]
    assert [1] == [part.item_count for part in large]
    assert text.encode() in large[0].payload
    assert 3 == sum(record.item_count for record in batch_of(found).records)


@EACH_ROUTE
def test_of_what_no_message_can_hold_the_beginning_is_kept(route: str) -> None:
    """64 KiB, and how long it was; its neighbours are stored."""
    text = "x" * (ITEM_BYTES_MAX + 1)
    found = adapt(route, text, LIMITS)
    [rejection] = found.rejections
    assert (2, RECORD_TOO_LARGE, CUT_BYTES) == (found.accepted_count(), rejection.reason, len(rejection.payload))
    assert rejection.payload_bytes > ITEM_BYTES_MAX
    assert CUT_BYTES == found.dead_letter_bytes


@EACH_JSON_AND_OTLP
def test_long_values_are_cut_and_say_so(route: str) -> None:
    """A value of 300 KB keeps 256 KiB, whole characters, and its length is an attribute; one at the limit stays as it is."""
    value = "x" * ((256 << 10) - 1) + "é" * 20_000
    found = adapt(route, "", CUTTING, attributes=3, value=value)
    assert (3, {VALUE_TRUNCATED: 3}) == (found.accepted_count(), found.repaired)
    stored = batch_of(found).SerializeToString()
    assert b"x" * ((256 << 10) - 1) + "é".encode() not in stored
    for n in range(3):
        assert f"infrasage.truncated.k{n}".encode() in stored
    assert str(len(value.encode())).encode() in stored
    exact = adapt(route, "", CUTTING, value="x" * (256 << 10))
    assert (3, None) == (exact.accepted_count(), exact.repaired)


@EACH_JSON_AND_OTLP
def test_too_many_attributes_are_cut_and_counted(route: str) -> None:
    """The first 1,024 stay."""
    found = adapt(route, "", CUTTING, attributes=1030, value="v")
    assert (3, {ATTRIBUTES_DROPPED: 6}) == (found.accepted_count(), found.repaired)
    record = batch_of(found).records[-1]
    item: Any = (*record.log_records, *record.spans, *(p for m in record.metrics for p in m.gauge.data_points))[-1]
    assert [f"k{n}" for n in range(1024)] == [each.key for each in item.attributes]
    assert 6 == getattr(item, "dropped_attributes_count", 6)


@pytest.mark.parametrize("signal", sorted(OTLP))
@examples(60)
@given(data=st.data())
def test_what_is_cut_is_what_the_twin_cuts(signal: str, data: st.DataObject) -> None:
    """Any request, in the official order and oddly written: lists of more than three, values of more than twenty bytes."""
    request = data.draw(messages(REQUESTS[signal].DESCRIPTOR))
    check_otlp(signal, request.SerializeToString(), LOW_TRUNCATED)
    body = data.draw(oddly_written(request))
    # The size of a value counts as it is sent, which a parsed message does not say.
    plain = REQUESTS[signal].FromString(body)
    plain.DiscardUnknownFields()
    if plain.ByteSize() == len(body):
        check_otlp(signal, body, LOW_TRUNCATED)
