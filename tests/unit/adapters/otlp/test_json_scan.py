"""adapters/otlp/json_scan: what is read in one pass becomes what the reader over objects makes of it."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import NOW_UNIX_NANO
from support.limits import DEFAULT
from support.references.json_readers import check_readers
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.rfc8259 import BYTES_REFUSED, READ, REFUSED, REPAIRED
from support.strategies.full_messages import FullMessages
from support.strategies.json_forms import MESSAGE_ODDITIES, TEXT_ODDITIES, JsonForms
from support.strategies.otlp import messages

from adapters.codec.json_reader import SLICE_BYTES
from adapters.codec.text import REST_BYTES
from adapters.otlp.json_fields import ENUM_NAMES, SNAKE_CASE
from adapters.otlp.json_large import converted
from adapters.otlp.json_notes import Notes
from adapters.otlp.json_scan import scanned
from collector.ingest.validate import LimitRules

SIGNALS = sorted(REQUESTS)
FORMS = SNAKE_CASE | ENUM_NAMES
# Forms of one document that are not left to the other reader.
PLAIN_ODDITIES = [oddity for oddity in (*TEXT_ODDITIES, *MESSAGE_ODDITIES) if oddity != "key_twice"]


def full(signal: str) -> Any:
    """A request in which each field is set."""
    descriptor: Any = REQUESTS[signal].DESCRIPTOR
    return FullMessages(lambda _field, _turn: None).message(descriptor)


def logs(record: str) -> bytes:
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}'.encode()


COUNTS = [
    *("0", "7", "-1", "00", "1.0", "1e2", "null", "true", '""'),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "99999999999999999999"),
]


@pytest.mark.parametrize("field", ["histogram", "exponentialHistogram"])
@examples(200)
@given(counts=st.lists(st.sampled_from(COUNTS), max_size=6), quoted=st.integers(0, 63), spaces=st.integers(0, 63))
def test_lists_of_integers(field: str, counts: list[str], quoted: int, spaces: int) -> None:
    """Both readers agree on each, in whatever form and order."""
    texts = [f'"{count}"' if quoted >> n & 1 and '"' not in count else count for n, count in enumerate(counts)]
    listed = ",".join(f" {text} " if spaces >> n & 1 else text for n, text in enumerate(texts))
    buckets = f'"bucketCounts":[{listed}]'
    point = buckets if field == "histogram" else f'"positive":{{"offset":1,{buckets}}}'
    metric = f'{{"name":"m","{field}":{{"dataPoints":[{{"timeUnixNano":"{NOW_UNIX_NANO}",{point}}}]}}}}'
    check_readers("metrics", f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}'.encode(), 0)


@pytest.mark.parametrize("signal", SIGNALS)
@examples(60)
@given(data=st.data())
def test_both_readers_agree(signal: str, data: st.DataObject) -> None:
    """They agree whatever the request is, in whatever form, and where a few of its bytes are damaged."""
    request = data.draw(messages(REQUESTS[signal].DESCRIPTOR))
    lot = random.Random(data.draw(st.integers(0, 2**32)))
    oddities = data.draw(st.lists(st.sampled_from([*TEXT_ODDITIES, *MESSAGE_ODDITIES]), unique=True))
    body = JsonForms(lot, oddities, 0.1).message(request)
    check_readers(signal, body, data.draw(st.sampled_from([0, SNAKE_CASE, ENUM_NAMES, FORMS])))
    damaged = bytearray(body)
    for _ in range(lot.randint(1, 3)):
        at = lot.randrange(len(damaged) + 1)
        damaged[at : at + lot.choice([0, 1, 1, 3])] = lot.choice(
            [
                b"",
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b'"',
                b"\\",
                b"0",
                b"9" * 20,
                b".",
                b"e",
                b"-",
                b" ",
                b"\xff",
                b"null",
                b"t",
                b"\0",
            ]
        )
    check_readers(signal, bytes(damaged), FORMS)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_every_field_is_read_in_one_pass(signal: str, indent: int | None) -> None:
    """The request has all of them, laid out in any way, also with names in snake_case."""
    document = to_json(full(signal))
    for separators in ((",", ":"), (", ", ": ")):
        assert check_readers(signal, json.dumps(document, indent=indent, separators=separators).encode())
    assert check_readers(signal, json.dumps(snake_case(document)).encode(), FORMS)


def snake_case(value: Any) -> Any:
    """A document with its names as in the .proto files."""
    if isinstance(value, dict):
        return {
            "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name): snake_case(entry)
            for name, entry in value.items()
        }
    return [snake_case(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("oddity", PLAIN_ODDITIES)
def test_each_form_is_read_in_one_pass(signal: str, oddity: str) -> None:
    """A name that comes twice is excepted: only the other reader knows which one counts."""
    assert check_readers(signal, JsonForms(random.Random(1), [oddity], 1.0).message(full(signal)))
    twice = JsonForms(random.Random(1), ["key_twice"], 1.0).message(full(signal))
    assert not check_readers(signal, twice)


@pytest.mark.parametrize(
    "record",
    [
        '{"body":{"stringValue":"a\\n\\tb\\u00e9\\ud83d\\ude00 é😀"}}',
        '{"severityNumber":"SEVERITY_NUMBER_INFO"}',
        '{"timeUnixNano":1775822400000000000,"observedTimeUnixNano":"18446744073709551615"}',
        '{"attributes":[{"key":"é","value":{"stringValue":"\\""}},{"key":"n","value":{"intValue":-5}}]}',
        '{"attributes":[{"key":"k","value":{"arrayValue":{"values":[{"boolValue":true},{"doubleValue":-0.0},null]}}}]}',
        '{"attributes":[{"key":"k","value":{}},{"key":"k"},{"value":null}]}',
        '{"attributes":[{"key":"k","value":{"stringValue":"a","intValue":"1"}}]}',
        '{"flags":4294967295,"traceId":"","spanId":"xyz","unknown":{"deep":[{}]}}',
        '{"tr\\u0061ceId":"00"}',
        '{"body":{"bytesValue":"AAEC-_"}}',
        '{"body":{"doubleValue":"NaN"},"attributes":null}',
        '{"attributes":[{"key":"' + "k" * 300 + '","value":{"stringValue":"' + "v" * 300 + '"}}]}',
    ],
)
def test_what_senders_write_is_read_in_one_pass(record: str) -> None:
    """Escapes, other alphabets, names of enums, all kinds of values."""
    for body in (logs(record), logs(record + "," + record + ' , {"severityText":"' + "x" * 100 + '"}')):
        assert check_readers("logs", body, FORMS)


@pytest.mark.parametrize(
    "text", [*(text.encode("utf-8", "surrogatepass") for text in (*READ, *REFUSED)), *BYTES_REFUSED, *REPAIRED]
)
def test_the_texts_of_rfc_8259(text: bytes) -> None:
    """Each is tried as an unknown value, a text, a number, an id, a list, a message, and as the whole body."""
    for place in (
        b'{"unknown":%s}',
        b'{"resourceLogs":%s}',
        b'{"resourceLogs":[%s]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":%s}}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":%s}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":%s}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":%s}]}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"k","value":{"doubleValue":%s}}]}]}]}]}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"k","value":{"intValue":%s}}]}]}]}]}',
        b"%s",
    ):
        check_readers("logs", place % text)
        check_readers("logs", place % text + b" " * 80)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 40, 105, 106, 107, 115, 119, 120, 121, 122, 123, 124, 127, 128, 300])
@pytest.mark.parametrize("value", ['"intValue":%s', '"intValue":"%s"', '"stringValue":"%s"'])
def test_attributes_of_every_size(size: int, value: str) -> None:
    """Around what is written at once, with the numbers around those that fit."""
    for number in (0, "-0", 1, -1, 127, 128, 2**62, 2**63 - 1, -(2**63) + 1, -(2**63)):
        attribute = f'{{"key":"{"k" * size}","value":{{{value % number}}}}}'
        for place in ('{"attributes":[%s]}', '{"body":{"kvlistValue":{"values":[%s]}}}'):
            assert check_readers("logs", logs(",".join([place % attribute] * 2)))
    for odd in ("", "01", "1.5", 2**63, "x", "1 ", "--1", "1}}"):
        check_readers("logs", logs('{"attributes":[{"key":"k","value":{%s}}]}' % (value % odd) + " " * 80))


@pytest.mark.parametrize("key_bytes", [0, 1, 40, 110, 111, 112, 113, 114, 117, 118, 119, 120, 121])
@pytest.mark.parametrize(
    "value",
    [
        *('"boolValue":true', '"boolValue":false', '"boolValue":truf', '"boolValue":fals', '"boolValue":"true"'),
        *('"boolValue":true ', '"boolValue": false', '"boolValue":true,"x":1', '"boolValue":null', '"boolValue":1'),
        *('"doubleValue":1', '"doubleValue":-0.0', '"doubleValue":1.5e3', '"doubleValue":0.1', '"doubleValue":"NaN"'),
        *(
            '"doubleValue":12345678901234567890.5',
            '"doubleValue":2.5 ',
            '"doubleValue":"2.5"',
            '"doubleValue":2.',
            '"doubleValue":',
        ),
        *(
            '"doublfValue":1.5',
            '"boolValuf":true',
            '"doubleValue":-',
            '"doubleValue":2.',
            '"doubleValue":',
            '"doubleValue":01',
            '"doubleValue":1.5]',
        ),
    ],
)
def test_numbers_and_booleans_of_attributes(key_bytes: int, value: str) -> None:
    """They are read at once if they are plain and short, and mean the same in any case."""
    attribute = f'{{"key":"{"k" * key_bytes}","value":{{{value}}}}}'
    check_readers("logs", logs(f'{{"attributes":[{attribute},{attribute}],"traceId":"","body":{{"stringValue":"text"}}}}'), 0)
    check_readers("logs", logs(f'{{"attributes":[{attribute}]}}'), 0)


@pytest.mark.parametrize("levels", [5, 20, 22, 40, 200])
def test_nested_values(levels: int) -> None:
    """Those that nest deep are left to the other reader."""
    value = '{"arrayValue":{"values":[' * levels + '{"boolValue":true}' + "]}}" * levels
    assert (levels <= 22) == check_readers("logs", logs('{"body":' + value + "}"))


def test_unknown_fields_are_noted_once_a_message() -> None:
    """The first few, in words; of one message each once."""
    names = ",".join(f'"later{number}":[{number}]' for number in range(9))
    assert check_readers("logs", f'{{{names},"resourceLogs":[{{{names}}}]}}'.encode())
    assert not check_readers("logs", b'{"later":1,"later":2}')


def test_large_bodies_are_read_in_one_pass() -> None:
    """There is a rest for each few hundred kilobytes."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    record = '{"timeUnixNano":"%d","body":{"stringValue":"line \\"%s\\""}, "attributes":[{"key":"n","value":{"intValue":1}}]}'
    records = ",".join(record % (NOW_UNIX_NANO, "x" * 400) for _ in range(3 * SLICE_BYTES // 500))
    body = logs(records + ',{"body":{"stringValue":"' + "y" * SLICE_BYTES + '"}}')
    assert check_readers("logs", body)
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause)
    descriptor: Any = REQUESTS["logs"].DESCRIPTOR
    assert scanned(body, descriptor, rules, Notes(rules, is_exact=False)) is not None
    assert rests >= len(body) // (REST_BYTES + 1_000)


@pytest.mark.parametrize(
    ("signal", "item"),
    [("logs", '{"severityNumber":[1]}'), ("traces", '{"traceId":"zz"}')],
)
def test_values_that_do_not_fit_rest(signal: str, item: str) -> None:
    """Each costs more than its bytes."""
    rests: list[None] = []
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO, pause=lambda: rests.append(None))
    outer, scopes, items = (signal.capitalize(), "scope" + signal.capitalize(), "logRecords")
    if signal == "traces":
        outer, scopes, items = ("Spans", "scopeSpans", "spans")
    body = f'{{"resource{outer}":[{{"{scopes}":[{{"{items}":[{",".join([item] * 20_000)}]}}]}}]}}'.encode()
    descriptor: Any = REQUESTS[signal].DESCRIPTOR
    converted(body, descriptor, rules, Notes(rules, is_exact=False))
    assert len(rests) >= 10
