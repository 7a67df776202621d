"""adapters/codec/json_reader.py: large JSON read piece by piece is what it is when it is read at once."""

import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from support.examples import examples
from support.fakes.receiving import NOW, NOW_UNIX_NANO
from support.limits import ALL, DEFAULT
from support.references.twins import NOW as TWINS_NOW
from support.references.twins import adapt_otlp

from adapters.codec.json_reader import (
    BEYOND_A_DOUBLE,
    CONTAINERS_MAX,
    SHALLOW_DEPTH_MAX,
    SLICE_BYTES,
    JsonSlices,
    NotJson,
    shallow_json,
)
from adapters.codec.text import REST_BYTES
from adapters.errors import BATCH_TOO_LARGE, INVALID_VALUE, RECORD_TOO_LARGE, Malformed, RequestRefused
from adapters.native import request as native
from adapters.native.request import RECORD_OBJECTS_MAX, adapt_batch
from adapters.otlp.json import logs_to_wire, metrics_to_wire
from adapters.record import Adapted, Header
from adapters.repairs import BYTES_FORM, INTEGER_BEYOND_64_BITS
from adapters.rules import NO_RULES, Rules
from collector.ingest.validate import LimitRules

MESSAGE_BYTES_MAX = 512 << 10
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def pieces(text: bytes) -> Iterator[Any]:
    """The elements of an array, by pieces."""
    slices = JsonSlices(text, Rules())
    slices.expect(0x5B)
    while True:
        piece = slices.next_elements()
        found = orjson.loads(piece)
        assert len(found) == slices.elements
        yield from found
        if slices.peek() == 0x5D:
            slices.position += 1
            slices.end()
            return


@pytest.mark.large
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_deep_text_is_read_once(opening: str) -> None:
    """It is not read once more for each of the objects in each other. The parser refuses the same texts."""
    fits, too_deep = (f"[{opening * deep}1{(']' if opening == '[' else '}') * deep}]".encode() for deep in (1023, 1025))
    assert len(list(pieces(fits))) == 1  # which are too deep for Python to compare
    with pytest.raises(orjson.JSONDecodeError, match="depth"):
        orjson.loads(too_deep)
    slices = JsonSlices(too_deep, Rules())
    with pytest.raises(NotJson) as caught:
        slices.skip_value(SLICE_BYTES)
    assert caught.value.why == "nested too deep"
    body = b'{"resourceLogs":' + opening.encode() * 1_000_000
    with pytest.raises(Malformed, match=r"nested too deep at byte \d{4}$"):
        logs_to_wire(body)


@given(st.lists(VALUES, min_size=1, max_size=20), st.sampled_from([None, 1, "\n\t "]))
def test_pieces_are_the_elements_of_the_array(values: list[Any], indent: Any) -> None:
    """They are the elements, whatever these are, and however they are laid out."""
    text = json.dumps(values, indent=indent).encode()
    assert values == list(pieces(text))


@pytest.mark.parametrize("element", ["{}", '[["]]"],{}]'])
def test_pieces_have_few_containers(element: str) -> None:
    """A parser takes 0.1 s for a megabyte of empty arrays, without a pause. The elements are what they are all the same."""
    own = element.replace('"]]"', "").count("[") + element.count("{")
    count = 3 * CONTAINERS_MAX // own
    text = ("[" + ",".join([element] * count) + "]").encode()
    slices = JsonSlices(text, Rules())
    slices.expect(0x5B)
    found = 0
    while slices.peek() != 0x5D:
        slices.next_elements()
        assert 0 < slices.elements * own <= CONTAINERS_MAX
        found += slices.elements
    assert count == found
    assert [json.loads(element)] * count == list(pieces(text))


def test_an_element_of_many_containers_is_larger_than_a_slice() -> None:
    """It is larger however short it is, and it is skipped where more of them are taken."""
    element = b"[" + b"[]," * CONTAINERS_MAX + b"[]]"
    slices = JsonSlices(b"[" + element + b",1]", Rules())
    slices.expect(0x5B)
    assert b"" == slices.next_elements()
    assert not slices.skip_value(SLICE_BYTES)
    assert slices.skip_value(SLICE_BYTES, 2 * CONTAINERS_MAX)
    assert len(element) + 1 == slices.position


def padded_logs(records: int, padding: int = 300) -> bytes:
    """More than a slice of OTLP, its members in an unusual order, with unknown ones and white space between."""
    texts = [
        f'{{"timeUnixNano":"{TWINS_NOW}","body":{{"stringValue":"line {n} {"x" * padding} \\"}}]"}},'
        f'"attributes":[{{"key":"n","value":{{"intValue":{n}}}}}], "unknown": {{"a":[1,2]}}}}'
        for n in range(records)
    ]
    return (
        '{ "unknown" : [1, {"a": "]}"}], "resourceLogs" : [ { "scopeLogs":[{"scope":{"name":"s"},"logRecords": [\n'
        + " ,\n".join(texts)
        + ' ] }, {"logRecords":[]}], "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]}}, {} ]}'
    ).encode()


def test_large_otlp_is_what_it_is_at_once() -> None:
    """The same message, whatever the order of its members."""
    text = padded_logs(5_000)
    assert len(text) > 2 * SLICE_BYTES
    found = ExportLogsServiceRequest.FromString(logs_to_wire(text))
    compact = json.loads(text)
    expected = ExportLogsServiceRequest()
    for part in range(0, 5_000, 1_000):
        scope = {"logRecords": compact["resourceLogs"][0]["scopeLogs"][0]["logRecords"][part : part + 1_000]}
        one = json.dumps({"resourceLogs": [{"scopeLogs": [scope]}]}).encode()
        assert len(one) <= SLICE_BYTES
        made = ExportLogsServiceRequest.FromString(logs_to_wire(one))
        expected.MergeFrom(made)
    records = [record for entry in expected.resource_logs for scope in entry.scope_logs for record in scope.log_records]
    assert records == list(found.resource_logs[0].scope_logs[0].log_records)
    assert 2 == len(found.resource_logs)
    assert 2 == len(found.resource_logs[0].scope_logs)
    assert "a" == found.resource_logs[0].resource.attributes[0].value.string_value


def test_a_metric_that_is_larger_than_a_slice_is_read_by_its_points() -> None:
    """All of them, and the fields beside them."""
    points = ",".join(f'{{"timeUnixNano":"{NOW_UNIX_NANO}","asInt":"{n}"}}' for n in range(40_000))
    text = (
        f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","sum":{{"dataPoints":[{points}],'
        '"aggregationTemporality":2,"isMonotonic":true}}]}]}]}'
    ).encode()
    assert len(text) > SLICE_BYTES
    request = ExportMetricsServiceRequest.FromString(metrics_to_wire(text))
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    assert list(range(40_000)) == [point.as_int for point in metric.sum.data_points]
    assert ("m", 2, True) == (metric.name, metric.sum.aggregation_temporality, metric.sum.is_monotonic)


@pytest.mark.large
@pytest.mark.parametrize("seed", range(40))
def test_damaged_texts_are_refused(seed: int) -> None:
    """A byte that is left out or changed: what a parser refuses is refused, and what it takes becomes the same."""
    chance = random.Random(seed)
    text = bytearray(padded_logs(3_000))
    at = chance.randrange(len(text))
    if chance.random() < 0.5:
        del text[at]
    else:
        text[at] = chance.choice(b'{}[],:"\\0a ')
    damaged = bytes(text)
    try:
        orjson.loads(damaged)
    except orjson.JSONDecodeError:
        with pytest.raises(Malformed):
            logs_to_wire(damaged)


@pytest.mark.large
@pytest.mark.parametrize("end", [b"", b"]", b"}", b",", b"{}", b"\x00"])
def test_what_follows_is_refused(end: bytes) -> None:
    """Only white space may follow."""
    text = padded_logs(3_000)
    logs_to_wire(text + b" \n")
    if end:
        with pytest.raises(Malformed):
            logs_to_wire(text + end)
    with pytest.raises(Malformed):
        logs_to_wire(text[:-1])


def record(padding: int, **members: Any) -> bytes:
    values = {"service_id": "s", "metric_name": "m", "value": 1, "timestamp": NOW, "attributes": {"k": "x" * padding}}
    return json.dumps(values | members).encode()


def adapted(body: bytes, items_max: int = 10_000) -> Adapted:
    header = Header("acme", 1, NOW_UNIX_NANO, bytes(16))
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO, dead_letter_items_max=100, dead_letter_bytes_max=1 << 20)
    return adapt_batch(body, header, rules, MESSAGE_BYTES_MAX, items_max)


def test_a_large_batch_is_read_by_pieces() -> None:
    """Each record keeps its index, also a bad one's, and what is kept of that is its own text."""
    records = [record(1_000) for _ in range(3_000)]
    records[2_500] = record(10, value="none")
    assert len(b",".join(records)) > SLICE_BYTES
    out = adapted(b"[" + b" , ".join(records) + b"]\n")
    assert 2_999 == out.accepted_count()
    assert [(2_500, records[2_500])] == [(one.index, one.payload) for one in out.rejections]


@pytest.mark.parametrize("count", [RECORD_OBJECTS_MAX, RECORD_OBJECTS_MAX + 1])
def test_a_record_of_too_many_objects_is_rejected_alone(count: int) -> None:
    """It is not parsed: the parser would take long for its empty arrays. What is in its texts does not count."""
    arrays = "[" + ",".join(["[]"] * (count - 9)) + "]"
    text = ":" * RECORD_OBJECTS_MAX
    dense = f'{{"service_id":"s","type":"log","body":"{text}","timestamp":"{NOW}","attributes":{{"a":{arrays}}}}}'
    good = f'{{"service_id":"s","type":"log","body":"","timestamp":"{NOW}"}}'
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    header = Header("t", 1, NOW_UNIX_NANO, bytes(16))
    expected = (
        []
        if count <= RECORD_OBJECTS_MAX
        else [f"a record holds at most {RECORD_OBJECTS_MAX} objects, arrays and members; got more: send fewer"]
    )
    alone = native.adapt(dense.encode(), header, rules, MESSAGE_BYTES_MAX)
    assert expected == [one.message for one in alone.rejections if "objects" in one.message]
    batch = adapt_batch(f"[{good},{dense},{good}]".encode(), header, rules, MESSAGE_BYTES_MAX, 10)
    assert 1 == len(batch.rejections)
    assert 1 == batch.rejections[0].index
    assert expected == [one.message for one in batch.rejections if "objects" in one.message]


@pytest.mark.large
def test_a_record_that_is_too_large_to_read_is_rejected_alone() -> None:
    """Its neighbours are kept."""
    large = record(0, attributes={f"k{n}": n for n in range(400_000)})
    assert len(large) > 8 * MESSAGE_BYTES_MAX
    out = adapted(b"[" + record(1) + b"," + large + b"," + record(1) + b"]")
    assert 2 == out.accepted_count()
    assert [(1, RECORD_TOO_LARGE)] == [(one.index, one.reason) for one in out.rejections]
    header = Header("acme", 1, NOW_UNIX_NANO, bytes(16))
    alone = native.adapt(large, header, LimitRules(DEFAULT, NOW_UNIX_NANO), MESSAGE_BYTES_MAX)
    assert [RECORD_TOO_LARGE] == [one.reason for one in alone.rejections]


def test_a_batch_of_too_many_is_refused_as_soon_as_it_is() -> None:
    """The refusal has the limit."""
    with pytest.raises(RequestRefused) as caught:
        adapted(b"[" + b",".join([record(1_000)] * 3_000) + b"]", items_max=2_999)
    assert BATCH_TOO_LARGE == caught.value.reason
    assert 3_000 == adapted(b"[" + b",".join([record(1_000)] * 3_000) + b"]", items_max=3_000).accepted_count()


def test_it_rests() -> None:
    """While it looks where values end, too."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    text = b"[" + b",".join([b'"' + b"x" * 1_000 + b'"'] * 10_000) + b"]"
    slices = JsonSlices(text, LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause))
    assert slices.skip_value(len(text))
    assert rests >= len(text) // (300 << 10)


@pytest.mark.parametrize("text", [b"", b"[", b"]", b"[1,]", b"[,1]", b"[1 2]", b"[1", b'["a]', b"[1}"])
def test_arrays_that_are_none(text: bytes) -> None:
    """Each is found out, by the pieces or by the parser of a piece."""
    with pytest.raises((NotJson, orjson.JSONDecodeError)):
        list(pieces(text))


def string_pieces(slices: JsonSlices) -> list[bytes]:
    """Of the string that is next; each has been parsed."""
    found: list[bytes] = []
    slices.open_string()
    while slices.is_in_string:
        found.append(slices.next_text())
        orjson.loads(found[-1])
    return found


# Each is one character, however JSON writes it.
CHARACTERS = ["a", "\\\\", '\\"', "\\n", "\\u00e9", "\\\\u00e9", "\\ud83d\\ude00", "\\uD83D\\uDE00", "é", "😀", "\\\\ud83d"]


@given(st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=12), st.integers(0, 12))
@settings(max_examples=10, deadline=None)
def test_pieces_are_the_string(characters: list[str], padding: int) -> None:
    """No character, escape or pair of surrogates is cut, wherever the string is."""
    run = "".join(characters).encode()
    text = b'"' + b"x" * padding + run * (2 * REST_BYTES // len(run) + 1) + b'"'
    slices = JsonSlices(text + b" ,", Rules())
    found = string_pieces(slices)
    assert len(found) >= 2
    assert max(map(len, found)) < REST_BYTES + 20
    assert orjson.loads(text) == "".join(map(orjson.loads, found))
    assert len(text) == slices.position


@pytest.mark.parametrize("end", [b"", b"\\", b"\\u", b"\\u12", b"\\ud83d\\u", b"\xc3"])
def test_a_string_without_an_end_is_none(end: bytes) -> None:
    """It is refused wherever the text ends in it."""
    slices = JsonSlices(b'"' + b"x" * REST_BYTES + end, Rules())
    with pytest.raises((NotJson, orjson.JSONDecodeError)):
        string_pieces(slices)


def one_log(members: str) -> bytes:
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}'.encode()


LONG = 3 * SLICE_BYTES // 10
NUMBERS = ",".join(f'"{n}"' for n in range(LONG))
# Values larger than a slice, of members that hold no messages.
LARGE_VALUES = {
    "a text": ("logs", one_log('"body":{"stringValue":"' + "line \\u00e9\\ud83d\\ude00\\n" * LONG + '"}')),
    "base64": ("logs", one_log('"body":{"bytesValue":"' + "QUJD" * LONG + 'QQ=="}')),
    "base64 of the other alphabet": ("logs", one_log('"body":{"bytesValue":"' + "-_-_" * LONG + 'QQ"}')),
    "counts": (
        "metrics",
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":['
        + NUMBERS.encode()
        + b"]}]}}]}]}]}",
    ),
    "texts": ("logs", b'{"resourceLogs":[{"resource":{"entityRefs":[{"idKeys":[' + NUMBERS.encode() + b"]}]}}]}"),
    "an unknown text": ("logs", b'{"x":"' + "é\\t".encode() * LONG + b'","resourceLogs":[{}]}'),
    "an unknown array": ("logs", b'{"x":[' + b'{"a":[1,"]"]},' * LONG + b'{}],"resourceLogs":[{}]}'),
    "an unknown object": (
        "logs",
        b'{"x":{' + b"".join(b'"%d":[],' % n for n in range(LONG)) + b'"b":{"c":[]}},"resourceLogs":[{}]}',
    ),
    "an unknown array of white space": ("logs", b'{"x":[' + b" " * (2 * SLICE_BYTES) + b'],"resourceLogs":[{}]}'),
    "an unknown object of white space": ("logs", b'{"x":{' + b" " * (2 * SLICE_BYTES) + b'},"resourceLogs":[{}]}'),
    "counts of white space": (
        "metrics",
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":['
        + b" " * (2 * SLICE_BYTES)
        + b"]}]}}]}]}]}",
    ),
}


@pytest.mark.parametrize("name", LARGE_VALUES)
def test_a_large_value_is_what_it_is_at_once(name: str) -> None:
    """A text, a list of numbers or texts, and what is unknown, with a rest for each few hundred kilobytes."""
    signal, text = LARGE_VALUES[name]
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    rules = LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause)
    message = ExportLogsServiceRequest if signal == "logs" else ExportMetricsServiceRequest
    found = (logs_to_wire if signal == "logs" else metrics_to_wire)(text, rules)
    assert json_format.Parse(text, message(), ignore_unknown_fields=True) == message.FromString(found)
    assert rests >= len(text) // REST_BYTES


@pytest.mark.large
@pytest.mark.parametrize(
    "members",
    [
        '"body":{"stringValue":"' + "line" * LONG + '\x00"}',
        '"x":0' + "1" * (2 * SLICE_BYTES),
        '"x":' + "1" * (2 * SLICE_BYTES) + ".",
        '"x":' + "1" * (2 * SLICE_BYTES) + "e+",
        '"x":' + "1" * (2 * SLICE_BYTES) + "-1",
        '"timeUnixNano":-' + "x" * (2 * SLICE_BYTES),
        '"x":["' + "x" * (2 * SLICE_BYTES) + '\\x"]',
        '"x":["' + "x" * (2 * SLICE_BYTES) + '",]',
        '"body":[' + "0," * (4 * LONG) + "01]",
    ],
    ids=lambda value: value[:24],
)
def test_large_values_that_are_refused(members: str) -> None:
    """Values that are not JSON are not taken."""
    with pytest.raises(Malformed):
        logs_to_wire(one_log(members))


@pytest.mark.large
@pytest.mark.parametrize(
    "members",
    [
        '"body":{"bytesValue":"' + "QUJD" * LONG + "Q===" + "QUJD" * LONG + '"}',
        '"body":{"bytesValue":"' + "QUJD" * LONG + '!"}',
        '"body":{"stringValue":[' + "0," * (4 * LONG) + "0]}",
        '"body":[' + "0," * (4 * LONG) + "0]",
        '"timeUnixNano":"' + "1" * (2 * SLICE_BYTES) + '"',
        '"timeUnixNano":' + "1" * (2 * SLICE_BYTES),
        '"timeUnixNano":-0.' + "1" * (2 * SLICE_BYTES) + "e-5",
        '"body":{"intValue":' + "1" * (2 * SLICE_BYTES) + ".5}",
        '"body":{"intValue":"0' + "1" * (2 * SLICE_BYTES) + '"}',
        '"body":{"intValue":"1' + "x" * (2 * SLICE_BYTES) + '"}',
        '"body":{"bytesValue":[' + "1," * SLICE_BYTES + "256]}",
        '"body":{"bytesValue":[300,' + "1," * SLICE_BYTES + "1]}",
        '"body":{"bytesValue":{"type":"Buffer","data":"!' + "x" * (2 * SLICE_BYTES) + '"}}',
        '"attributes":{"a":"' + "x" * (2 * SLICE_BYTES) + '"}',
        '"attributes":["' + "x" * (2 * SLICE_BYTES) + '"]',
        '"body":' + '{"arrayValue":{"values":[' * 50 + '{"stringValue":"' + "x" * SLICE_BYTES + '"}' + "]}}" * 50,
    ],
    ids=lambda value: value[:24],
)
def test_a_large_value_that_does_not_fit_rejects_its_item_alone(members: str) -> None:
    """The log records before and behind it are taken."""
    good = f'{{"timeUnixNano":"{TWINS_NOW}","body":{{"stringValue":"a"}}}}'
    body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{good},{{{members}}},{good}]}}]}}]}}'
    adapted = adapted_logs(body.encode())
    assert ([1], 2) == ([rejection.index for rejection in adapted.rejections], adapted.accepted_count())


@pytest.mark.large
def test_a_large_element_that_is_no_item_is_rejected_alone() -> None:
    """A text among log records, or among scopes."""
    text = '"' + "x" * (2 * SLICE_BYTES) + '"'
    good = f'{{"timeUnixNano":"{TWINS_NOW}","body":{{"stringValue":"a"}}}}'
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{good},{text},{good}]}},{text}]}}]}}'
    adapted = adapted_logs(body.encode(), rules)
    assert ([1, 3], 2) == ([rejection.index for rejection in adapted.rejections], adapted.accepted_count())
    assert rules.repaired is None


COUNTS = f'"timeUnixNano":"{TWINS_NOW}","count":"1","explicitBounds":[1],"bucketCounts"'


@pytest.mark.large
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_number_that_does_not_fit_a_large_list_rejects_its_point_alone(place: str) -> None:
    """It is rejected wherever it is in the list."""
    numbers = ",".join(['"0"'] * (SLICE_BYTES // 3))
    numbers = f"-1,{numbers}" if place == "first" else f"{numbers},-1"
    good = f'{{{COUNTS}:[0,"1"]}}'
    points = f"{good},{{{COUNTS}:[{numbers}]}},{good}"
    metric = f'{{"name":"m","histogram":{{"aggregationTemporality":2,"dataPoints":[{points}]}}}}'
    wire = metrics_to_wire(f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}'.encode())
    adapted = adapt_otlp("metrics", wire, limits=DEFAULT)
    assert [(1, INVALID_VALUE)] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    assert 2 == adapted.accepted_count()


def numbers_of(content: bytes) -> str:
    return f"[{','.join(map(str, content))}]"


def object_of(content: bytes) -> str:
    return "{" + ",".join(f'"{n}":{byte}' for n, byte in enumerate(content)) + "}"


# A value by its content: of megabytes it becomes what it becomes of a few bytes.
REPAIRED_VALUES: dict[str, Callable[[bytes], str]] = {
    "an integer's text": lambda content: f'{{"intValue":"1{"7" * len(content)}"}}',
    "an integer": lambda content: f'{{"intValue":-1{"7" * len(content)}}}',
    "numbers": lambda content: f'{{"bytesValue":{numbers_of(content)}}}',
    "an object of numbers": lambda content: f'{{"bytesValue":{object_of(content)}}}',
    "a buffer": lambda content: f'{{"bytesValue":{{"type":"Buffer","data":{numbers_of(content)}}}}}',
    "a buffer the other way": lambda content: f'{{"bytesValue":{{"data":{numbers_of(content)},"type":"Buffer"}}}}',
    "base64 of a buffer": lambda content: f'{{"bytesValue":{{"type":"Buffer","data":"{b64encode(content).decode()}"}}}}',
    "bufferjson": lambda content: f'{{"bytesValue":{{"type":"Buffer","data":"base64:{b64encode(content).decode()}"}}}}',
}


@pytest.mark.large
@pytest.mark.parametrize("name", REPAIRED_VALUES)
def test_a_large_value_is_repaired_as_a_small_one_is(name: str) -> None:
    """It is repaired to the text that its content has, and counted alike."""
    repaired = []
    large = SLICE_BYTES + 40
    if "numbers" in name or name.startswith("a buffer"):
        large = SLICE_BYTES // (8 if "object" in name else 3)
    for size in (40, large):
        content = bytes(n % 256 for n in range(size))
        text = REPAIRED_VALUES[name](content)
        rests: list[None] = []

        def pause(seen: list[None] = rests) -> None:
            seen.append(None)

        rules = LimitRules(ALL, NOW_UNIX_NANO, pause=pause)
        wire = logs_to_wire(one_log(f'"timeUnixNano":"{TWINS_NOW}","body":{text}'), rules)
        repaired.append(rules.repaired)
        body = ExportLogsServiceRequest.FromString(wire).resource_logs[0].scope_logs[0].log_records[0].body
        if "intValue" in text:
            assert text.partition(":")[2].strip('}"') == body.string_value
        else:
            assert content == body.bytes_value
        assert len(rests) >= len(text) // REST_BYTES
    assert repaired[0] == repaired[1] == {INTEGER_BEYOND_64_BITS if "integer" in name else BYTES_FORM: 1}


@pytest.mark.parametrize(
    "members",
    [
        '"x":' + "[" * 200 + '"' + "x" * (2 * SLICE_BYTES) + '"' + "]" * 200,
        '"x":{"a":' + "[1e999," * 1_100 + '"' + "x" * (2 * SLICE_BYTES) + '"' + "]" * 1_100 + ',"b":null}',
    ],
    ids=lambda value: value[:24],
)
def test_a_large_value_that_is_not_read_is_ignored(members: str) -> None:
    """It is ignored however deep it is, and whatever its numbers are."""
    good = f'"timeUnixNano":"{TWINS_NOW}","body":{{"stringValue":"a"}}'
    assert 1 == adapted_logs(one_log(f"{members},{good}")).accepted_count()


def adapted_logs(body: bytes, rules: Rules = NO_RULES) -> Adapted:
    return adapt_otlp("logs", logs_to_wire(body, rules), 4 << 20)


def is_json(text: bytes) -> bool:
    """As the parser says, but for numbers beyond a double."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return BEYOND_A_DOUBLE in error.msg
    return True


@given(VALUES, st.data())
@examples(300)
def test_a_checked_value_is_json(value: Any, data: st.DataObject) -> None:
    """The parser and the check agree on a text with a byte taken out, put in, or changed."""
    text = json.dumps(value).encode()
    at = data.draw(st.integers(0, len(text)))
    piece = data.draw(
        st.sampled_from([b"", b",", b"]", b"}", b"[", b"{", b":", b'"', b"0", b"-", b".", b"e", b"\\", b" ", b"\x00"])
    )
    text = text[:at] + piece + text[at + data.draw(st.integers(0, 1)) :]
    slices = JsonSlices(text, Rules())
    try:
        slices.check_value()
        slices.end()
    except NotJson:
        assert not is_json(text)
    else:
        assert is_json(text)


@pytest.mark.parametrize("padding", [b"", b'"%s",' % (b"x" * (2 * REST_BYTES))], ids=["small", "large"])
@pytest.mark.parametrize(
    ("deep", "emptied"),
    [
        (b"[[1]]", b"[[]]"),
        (b"[[]]", b"[[]]"),
        (b'["]", {"a": [1e999]}, null]', b'["]", {}, null]'),
        (b'{"a": {"b": [[[0]], "}"]}, "c": [1, 2]}', b'{"a": {}, "c": []}'),
        (b'["a", 1]', b'["a", 1]'),
        (b"[[01]]", b"[[01]]"),
    ],
)
def test_what_is_nested_too_deep_is_emptied(deep: bytes, emptied: bytes, padding: bytes) -> None:
    """Nothing else changes, and what is not JSON stays as it is."""
    outside = SHALLOW_DEPTH_MAX - 1
    text, expected = (b"[" * outside + padding + inside + b"]" * outside for inside in (deep, emptied))
    shallow = shallow_json(text, Rules())
    assert expected == shallow
    assert (deep == emptied) == (shallow is text)
    assert shallow_json(shallow, Rules()) is shallow
