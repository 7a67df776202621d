"""Texts that are not UTF-8, in every field of every message, in protobuf and in JSON: repaired, and nothing else changes."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from support.adapted import batch_of
from support.examples import examples
from support.limits import ALL
from support.references.lenient_protobuf import repaired
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.remote_write import length_delimited
from support.references.twins import NOW, check_otlp, check_v1, check_v2
from support.strategies.full_messages import FullMessages
from support.strategies.prometheus import requests_v2, write_requests
from support.strategies.wire_forms import ODDITIES, Forms

from adapters.codec.json_repair import repaired_json
from adapters.codec.text_repair import repaired_text, repaired_wire
from adapters.errors import Malformed, RequestRefused
from adapters.native import request as native
from adapters.otlp import json as otlp_json
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import Adapted, Header
from adapters.repairs import INTEGER_BEYOND_64_BITS, INVALID_TEXT, NULL_LIST_ENTRY
from adapters.rules import Rules
from collector.ingest.validate import LimitRules

# As long as a mark; and what becomes of it.
MARK_BYTES = 8
INVALID = (
    b"\xff\xfeabcdef",
    b"caf\xe9 abc",
    b"abcdef\xed\xa0",
    b"\xed\xa0\x80abcde",
    b"abcdef\xf0\x9f",
    b"\xc0\x80\xf5\x80\x80\x80ab",
    b"abcdefg\xc3",
)


def header() -> Header:
    return Header("acme", 2, NOW, bytes(16))


class Route(NamedTuple):
    """A way in: an example with a mark in every text, and who reads it."""

    body: Callable[[], bytes]
    adapt: Callable[[bytes, Rules], Adapted]


def full(signal: str) -> Message:
    def value(field: FieldDescriptor, turn: int) -> Any | None:
        if field.name.endswith("time_unix_nano"):
            return NOW - turn
        if field.name in ("trace_id", "span_id", "parent_span_id"):
            return (turn + 1).to_bytes(16 if field.name == "trace_id" else 8, "little")
        return f"mark{next(numbers):04}" if field.type == FieldDescriptor.TYPE_STRING else None

    numbers = iter(range(10_000))
    return FullMessages(value).message(REQUESTS[signal].DESCRIPTOR)


OTLP: dict[str, Any] = {"metrics": metrics, "logs": logs, "traces": traces}


def _otlp(signal: str) -> Route:
    adapt = OTLP[signal].adapt
    return Route(lambda: full(signal).SerializeToString(), lambda body, rules: adapt(body, header(), rules, 1 << 22))


def _otlp_json(signal: str) -> Route:
    adapt, to_wire = OTLP[signal].adapt, getattr(otlp_json, f"{signal}_to_wire")
    return Route(
        lambda: json.dumps(to_json(full(signal))).encode(),
        lambda body, rules: adapt(to_wire(body, rules), header(), rules, 1 << 22),
    )


def native_body() -> bytes:
    times = {"timestamp": "2026-04-10T12:00:00Z"}
    records = [
        {"service_id": "mark0000", "metric_name": "mark0001", "value": 1, "attributes": {"mark0002": "mark0003"}} | times,
        {"service_id": "s", "type": "log", "body": "mark0004", "attributes": {"a": ["mark0005", {"mark0006": "x"}]}} | times,
        {"service_id": "s", "type": "event", "metric_name": "mark0007", "body": "b", "trace_id": "mark0008"} | times,
    ]
    return json.dumps(records).encode()


def write_body() -> bytes:
    request = write_pb2.WriteRequest()
    series = request.timeseries.add()
    for name, value in (("__name__", "mark0000"), ("job", "mark0001"), ("instance", "mark0002"), ("mark0003", "mark0004")):
        series.labels.add(name=name, value=value)
    series.samples.add(value=1, timestamp=NOW // 10**6)
    series.exemplars.add(value=1, timestamp=NOW // 10**6).labels.add(name="mark0005", value="mark0006")
    request.metadata.add(type=1, metric_family_name="mark0007", help="mark0008", unit="mark0009")
    return request.SerializeToString()


def write_v2_body() -> bytes:
    request = write_v2_pb2.Request(symbols=["", "__name__", *(f"mark{n:04}" for n in range(7))])
    series = request.timeseries.add(labels_refs=[1, 2, 3, 4])
    series.samples.add(value=1, timestamp=NOW // 10**6)
    series.exemplars.add(value=1, timestamp=NOW // 10**6, labels_refs=[5, 6])
    series.metadata.help_ref, series.metadata.unit_ref = 7, 8
    return request.SerializeToString()


ROUTES = {
    **{f"otlp-{signal}": _otlp(signal) for signal in OTLP},
    **{f"otlp-{signal}-json": _otlp_json(signal) for signal in OTLP},
    "native": Route(native_body, lambda body, rules: native.adapt_batch(body, header(), rules, 1 << 22, 100)),
    "write-v1": Route(write_body, lambda body, rules: write_v1.adapt(body, header(), rules, 1 << 22)),
    "write-v2": Route(write_v2_body, lambda body, rules: write_v2.adapt(body, header(), rules, 1 << 22)),
}


def marks(body: bytes) -> Iterator[int]:
    at = body.find(b"mark")
    while at >= 0:
        yield at
        at = body.find(b"mark", at + MARK_BYTES)


def adapted(route: Route, body: bytes) -> tuple[Adapted, LimitRules]:
    rules = LimitRules(ALL, NOW)
    return route.adapt(body, rules), rules


@pytest.mark.parametrize("name", ROUTES)
def test_every_text_of_every_route_is_repaired(name: str) -> None:
    """Any bytes in the place of any text: no item is refused, and what is stored is what the repaired text becomes."""
    route = ROUTES[name]
    body = route.body()
    places = list(marks(body))
    assert len(places) >= 7
    count = adapted(route, body)[0].accepted_count()
    lot = random.Random(3)
    for at in places if len(places) < 100 else lot.sample(places, 100):
        invalid = lot.choice(INVALID)
        assert MARK_BYTES == len(invalid)
        found, rules = adapted(route, body[:at] + invalid + body[at + MARK_BYTES :])
        assert (count, 0) == (found.accepted_count(), found.rejected_count())
        assert {INVALID_TEXT: 1} == found.repaired == rules.repaired
        stored = batch_of(found).SerializeToString()
        sound, replacement = b"sound" + b"%03d" % lot.randrange(1000), invalid.decode("utf-8", "replace")
        assert "�" in replacement
        clean = batch_of(adapted(route, body[:at] + sound + body[at + MARK_BYTES :])[0])
        assert replacement.encode() in stored or sound not in clean.SerializeToString()  # what is nowhere stored
    every = b"".join(
        part if n == 0 else INVALID[n % len(INVALID)] + part[MARK_BYTES - 4 :] for n, part in enumerate(body.split(b"mark"))
    )
    found, rules = adapted(route, every)
    assert found.rejected_count() == 0
    assert rules.repaired is not None
    assert rules.repaired[INVALID_TEXT] >= len(places) // 2  # JSON's keys and values are one text each, symbols too


@pytest.mark.parametrize("name", ROUTES)
def test_a_clean_body_has_no_repairs(name: str) -> None:
    assert adapted(ROUTES[name], ROUTES[name].body())[0].repaired is None


@pytest.mark.parametrize("signal", OTLP)
def test_only_the_texts_change(signal: str) -> None:
    """What is stored of a spoilt request, with all fields and in the official order, is what the slow twin makes of it."""
    body = full(signal).SerializeToString()
    lot = random.Random(4)
    for _ in range(15):
        spoilt = bytearray(body)
        for at in lot.sample(list(marks(body)), 20):
            spoilt[at : at + MARK_BYTES] = lot.choice(INVALID)
        assert repaired_wire(bytes(spoilt), REQUESTS[signal], Rules()) == repaired(REQUESTS[signal], bytes(spoilt))
        check_otlp(signal, bytes(spoilt))


@pytest.mark.parametrize("signal", OTLP)
def test_oddly_written_bodies_are_repaired(signal: str) -> None:
    """Fields in pieces, repeated, padded, unknown, in any order: the twin and the adapter agree where texts are spoilt too."""
    lot = random.Random(5)
    message = full(signal)
    for oddities in (*([oddity] for oddity in ODDITIES), ODDITIES):
        spoilt = bytearray(Forms(lot, oddities, 0.1).form(message))
        for at in lot.sample(list(marks(bytes(spoilt))), 10):
            spoilt[at : at + MARK_BYTES] = lot.choice(INVALID)
        check_otlp(signal, bytes(spoilt))


@examples(30)
@given(request=write_requests(), invalid=st.binary(min_size=1, max_size=4))
def test_spoilt_write_requests_are_adapted_as_the_twin_does(request: Message, invalid: bytes) -> None:
    """1.0: a letter of the labels becomes any bytes."""
    for series in request.timeseries:  # type: ignore[attr-defined]
        series.labels.add(name="spoil", value="zqzq"[: len(invalid)])
    check_v1(request.SerializeToString().replace(b"zqzq"[: len(invalid)], invalid))


@examples(30)
@given(request=requests_v2(), invalid=st.binary(min_size=1, max_size=4))
def test_spoilt_requests_of_v2_are_adapted_as_the_twin_does(request: Message, invalid: bytes) -> None:
    """2.0: a symbol becomes any bytes."""
    request.symbols.append("zqzq"[: len(invalid)])  # type: ignore[attr-defined]
    for series in request.timeseries:  # type: ignore[attr-defined]
        series.labels_refs.extend([len(request.symbols) - 1] * 2)  # type: ignore[attr-defined]
    check_v2(request.SerializeToString().replace(b"zqzq"[: len(invalid)], invalid))


@pytest.mark.parametrize("body", [b"\x0a\x7f", b"\xff\xff\xff", b"\x0a\x05\x0a\x03\x0a\x01", b"\x0a\x02\x12\xff"])
def test_malformed_bodies_stay_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match=f"{len(body)} bytes"):
        logs.adapt(body, header(), LimitRules(ALL, NOW), 1 << 20)


@pytest.mark.large
@pytest.mark.parametrize("is_one_text", [True, False], ids=["one large text", "many small texts"])
def test_a_body_that_grows_too_much_is_refused(is_one_text: bool) -> None:
    """This holds in protobuf and in JSON, and the message says why. A smaller body is repaired, though it grows threefold."""

    def wire(size: int) -> bytes:
        texts = [size] if is_one_text else [1024] * (size >> 10)
        return b"".join(length_delimited(1, length_delimited(3, b"\xff" * text)) for text in texts)

    def text(size: int) -> bytes:
        return b'"' + b"\xff" * size + b'"' if is_one_text else b"[" + b'"%b",' % (b"\xff" * 1024) * (size >> 10) + b"0]"

    rules = LimitRules(ALL, NOW)
    ways: list[tuple[Callable[[int], bytes], Callable[[bytes], bytes]]] = [
        (wire, lambda body: repaired_wire(body, REQUESTS["logs"], rules)),
        (text, lambda body: repaired_json(body, rules)),
    ]
    for body, repair in ways:
        with pytest.raises(RequestRefused, match="not UTF-8 and become more than 67108864 bytes"):
            repair(body(23 << 20))
        assert len(repair(body(1 << 20))) > 3 << 20


def _counting(rests: list[None]) -> LimitRules:
    """Return rules that note their rests: compiled ones have no interpreted subclasses."""
    return LimitRules(ALL, NOW, pause=lambda: rests.append(None))


@pytest.mark.large
def test_repairing_rests() -> None:
    """One large text and many small ones, in protobuf and in JSON: at least once for each 256 KiB."""
    large = b"\xff" * (4 << 20)
    rests: list[None] = []
    rules = _counting(rests)
    assert repaired_text(large, rules) == "�".encode() * len(large)
    assert len(rests) >= 16
    request = REQUESTS["logs"]()
    for _ in range(50_000):
        request.resource_logs.add().scope_logs.add().log_records.add(severity_text="zq" * 16)
    body = request.SerializeToString().replace(b"zq", b"\xff\xff")
    rests.clear()
    assert REQUESTS["logs"].FromString(repaired_wire(body, REQUESTS["logs"], rules)) == REQUESTS["logs"].FromString(
        repaired(REQUESTS["logs"], body)
    )
    assert len(rests) >= len(body) >> 18
    text = b"[" + b",".join([b'"\xff\\ud800"'] * 100_000) + b"]"
    rests.clear()
    assert json.loads(repaired_json(text, rules)) == ["��"] * 100_000
    assert len(rests) >= len(text) >> 18


@pytest.mark.parametrize(
    "odd",
    [b"\x7b\x7c", b"\x78\x00", b"\x78\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"],
    ids=["groups", "numbers", "overlong numbers"],
)
def test_fields_that_are_no_texts_have_a_price(odd: bytes) -> None:
    """Nothing counted them before where a group stopped the count: they rest like texts do, and too many are refused."""
    rests: list[None] = []
    rules = _counting(rests)
    text = b"\x0a\x08\x12\x06\x12\x04\x1a\x02\xff\xff"
    body = text + odd * 100_000
    assert len(repaired_wire(body, REQUESTS["logs"], rules)) == len(body) + 4
    assert len(rests) >= 6  # one for 16,384 fields
    rules.request_elements_max = 90_000
    with pytest.raises(RequestRefused, match="more than 90000 elements"):
        repaired_wire(body, REQUESTS["logs"], rules)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (rb"\ud800", "�"),
        (rb"\udc00 \ud800", "� �"),
        (rb"\uD83D\uDE00", "😀"),
        (rb"\ud83d\ud83d\ude00", "�😀"),
        (rb"\\ud800", r"\ud800"),
        (rb"\\\ud800x", "\\�x"),
        (rb"a\ud800\n", "a�\n"),
        (b"\xe9\\ud800", "��"),
    ],
)
def test_lone_surrogates_are_repaired(sent: bytes, text: str) -> None:
    """Escapes in a log's text are repaired, in OTLP and the native API. Whole pairs and escaped backslashes stay."""
    time = '"2026-04-10T12:00:00Z"'
    body = b'[{"service_id":"s","type":"log","timestamp":%b,"body":"%b"}]' % (time.encode(), sent)
    [record] = batch_of(adapted(ROUTES["native"], body)[0]).records
    assert text == record.log_records[0].body.string_value
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"%b"}}]}]}]}' % sent
    [record] = batch_of(adapted(ROUTES["otlp-logs-json"], body)[0]).records
    assert text == record.log_records[0].body.string_value


def log_json(attributes: str) -> bytes:
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"attributes":{attributes}}}]}}]}}]}}'.encode()


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1e21", "1" + "0" * 21),
        ("1e+21", "1" + "0" * 21),  # as JavaScript writes it
        ("-1E+23", "-1" + "0" * 23),
        ("1e23", "1" + "0" * 23),  # and not the digits of the double that is nearest to it
        ("1.2345678901234568e+21", "1234567890123456800000"),
        ("1.7976931348623157e+308", "17976931348623157" + "0" * 292),
        ('"1.5e+30"', "15" + "0" * 29),
        ("18446744073709551616", "18446744073709551616"),
        ("18446744073709551617", "18446744073709551617"),
        ('"-9223372036854775809"', "-9223372036854775809"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ('"' + "9" * 300 + '"', "9" * 300),
    ],
)
def test_an_attribute_beyond_64_bits_is_its_decimal_text(number: str, text: str, padding: int) -> None:
    """Every digit of it, in a list too; in small bodies and in those that are read piece by piece."""
    value = f'{{"intValue":{number}}}'
    attributes = f'[{{"key":"a","value":{value}}},{{"key":"b","value":{{"arrayValue":{{"values":[{value}]}}}}}}]'
    found, _ = adapted(ROUTES["otlp-logs-json"], log_json(attributes) + b" " * padding)
    [record] = batch_of(found).records
    assert {"a": text, "b": f'["{text}"]'} == {a.key: a.value.string_value for a in record.log_records[0].attributes}
    assert {INTEGER_BEYOND_64_BITS: 2} == found.repaired


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("number", ["1.5", "1.5e-3", '"1.5"', "1e400", '""', '"1e"', "true", "-1e+999"])
def test_an_attributes_integer_that_is_none_is_rejected(number: str, padding: int) -> None:
    body = log_json(f'[{{"key":"a","value":{{"intValue":{number}}}}},{{"key":"b","value":{{"intValue":1e+21}}}}]')
    found, _ = adapted(ROUTES["otlp-logs-json"], body + b" " * padding)
    assert (0, 1) == (found.accepted_count(), found.rejected_count())


@pytest.mark.parametrize("padding", [0, 2 << 20])
def test_a_time_as_a_double_is_read_beside_an_attribute_beyond_64_bits(padding: int) -> None:
    """The body's numbers with an exponent are read as texts then, which may be longer than an integer."""
    time = f"{float(NOW):.16e}"
    body = log_json('[{"key":"a","value":{"intValue":1e+21}}]')
    body = body.replace(b'{"attributes"', b'{"timeUnixNano":%b,"attributes"' % time.encode())
    found, _ = adapted(ROUTES["otlp-logs-json"], body + b" " * padding)
    [record] = batch_of(found).records
    assert int(float(time)) == record.log_records[0].time_unix_nano


@pytest.mark.parametrize("padding", [0, 2 << 20])
def test_nulls_in_lists_are_left_out(padding: int) -> None:
    """This holds for lists of attributes, records, resources and numbers."""
    body = (
        b'{"resourceMetrics":[null,{"scopeMetrics":[null,{"metrics":[null,{"name":"m","histogram":{"aggregationTemporality":2,'
        b'"dataPoints":[null,{"timeUnixNano":"%d","count":"1","bucketCounts":[null,"1"],"attributes":[null]}]}}]}]}]}%b'
        % (NOW, b" " * padding)
    )
    found, _ = adapted(ROUTES["otlp-metrics-json"], body)
    assert (1, 0) == (found.accepted_count(), found.rejected_count())
    assert {NULL_LIST_ENTRY: 6} == found.repaired


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("field", ["asInt", "timeUnixNano", "startTimeUnixNano", "flags"])
def test_a_points_integer_beyond_64_bits_rejects_that_point_alone(field: str, padding: int) -> None:
    """The message names it, and the payload is rejected again."""
    good = f'{{"timeUnixNano":"{NOW}","asInt":"1"}}'
    bad = {"timeUnixNano": str(NOW), "asInt": "1"} | {field: "18446744073709551616"}
    points = f"[{good},{json.dumps(bad)},{good}]"
    text = f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":{points}}}}}]}}]}}]}}'
    rules = LimitRules(ALL, NOW, dead_letter_items_max=10, dead_letter_bytes_max=1 << 20)
    found = ROUTES["otlp-metrics-json"].adapt(text.encode() + b" " * padding, rules)
    [rejection] = found.rejections
    assert (2, 1) == (found.accepted_count(), rejection.index)
    assert f"NumberDataPoint.{field} must be an integer" in rejection.message
    again = metrics.adapt(rejection.payload, header(), LimitRules(ALL, NOW), 1 << 20)
    assert (0, [(rejection.reason, rejection.message)]) == (
        again.accepted_count(),
        [(rejected.reason, rejected.message) for rejected in again.rejections],
    )
