"""JSON as RFC 8259 has it, text by text, in the manner of JSONTestSuite: what has to be read, and what has to be refused.

The native API refuses a text that is no JSON as `invalid_json`; whatever else it says of a document, it has read it. OTLP's
JSON must be an object. Where the RFC leaves it to the parser (section 9), the choice is in ours.
"""

import json
from collections.abc import Callable
from functools import partial

import pytest
from support.limits import DEFAULT

from adapters import native
from adapters.errors import INVALID_JSON, RequestRefused
from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire
from adapters.record import SOURCE_NATIVE, Header
from collector.ingest.validate import LimitRules

NOW = 1_775_822_400_000_000_000

READ = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "123456789012345678901234567890",
    "1.5",
    "-0.5",
    "0e1",
    "0e+1",
    "1E22",
    "1e-2",
    "1E+2",
    "123e45",
    "123.456e78",
    "-123123123123123123123123123123",
    "0.000000000000000000000000000000000000000001",
    '""',
    '"a"',
    '" "',
    '"\\""',
    '"\\\\"',
    '"\\/"',
    '"\\b\\f\\n\\r\\t"',
    '"\\u0060"',
    '"\\u0000"',
    '"\\uD834\\uDd1e"',
    '"\\u012a"',
    '"\\ud83d\\ude39\\ud83d\\udc8d"',
    '"a/*b*/c/*d//e"',
    '"\u20ac"',
    '"\x7f"',
    '"\U0010ffff"',
    '"\u2028"',
    '"\u2029"',
    '"\ufeff"',
    '"new\\u000Aline"',
    '"\\uFFFE"',
    '"\\u200B"',
    '"asd "',
    "[]",
    "[ ]",
    "[\n]",
    "[\t1\r\n, 2 ]",
    "[[]]",
    '[null, 1, "1", {}]',
    "[1,null,null,null,2]",
    '["a"]',
    "[2] ",
    " [1]",
    "[[]   ]",
    "{}",
    "{ }",
    '{"":0}',
    '{"a":[]}',
    '{"a":"b"}',
    '{"a":"b","a":"c"}',
    '{"a":"b","a":"b"}',
    '{"foo\\u0000bar": 42}',
    '{"a":\n{"b" :\t1}}',
    '{"min": -1.0e+28, "max": 1.0e+28}',
    '{"title":"\u041f"}',
    '{"x":[{"id": "x"}], "id": "y"}',
    " \t\r\n1\t\r\n ",
    "1e308",
    "-1e-400",
]

REFUSED = [
    "",
    " ",
    "\n",
    "nul",
    "tru",
    "fals",
    "True",
    "NULL",
    "nulll",
    "undefined",
    "a",
    "'a'",
    "`a`",
    "<null>",
    "<.>",
    "*",
    "+1",
    "++1",
    "01",
    "-01",
    "012",
    "-",
    "--1",
    "1.",
    "-2.",
    ".1",
    "-.1",
    "0.e1",
    "1.e1",
    "1e",
    "1e+",
    "1E-",
    "1ee2",
    "1eE2",
    "0e",
    "1_000",
    "1 000",
    "0x1",
    "0x42",
    "1+2",
    "- 1",
    "0.1.2",
    "1.2a",
    "9.e+",
    "0.3e",
    "2.e3",
    "\uff11",
    "1e1.5",
    "inf",
    "nan",
    "-nan",
    "Inf",
    '"',
    '"a',
    'a"',
    '"\\"',
    '"\\a"',
    '"\\x00"',
    '"\\u"',
    '"\\u1"',
    '"\\u12"',
    '"\\u123"',
    '"\\u123g"',
    '"\\uD834\\u"',
    '"\\uD800\\uD8',
    '"\\U0041"',
    '"\\\t"',
    '"\\ "',
    '"\n"',
    '"\t"',
    '"\r"',
    '"\x00"',
    '"\x1f"',
    "'\"'",
    '"a" "b"',
    '"\\\u00e9"',
    "\\u0061",
    '"a"b',
    "[",
    "]",
    "[1",
    "[1,",
    "[,",
    "[,1]",
    "[1,]",
    "[1,,2]",
    "[1,,]",
    "[1 2]",
    "[1\n2]",
    '["a" 1]',
    '["a",]',
    '["": 1]',
    "[1:2]",
    '["a',
    "[a]",
    "[1]]",
    "[[1]",
    "[}",
    "[1}",
    "[*]",
    "[- 1]",
    "[-]",
    "[nul]",
    "[1,\n1\n,1",
    "[1] x",
    "[1][2]",
    "[1],",
    "[\x0c]",
    "[\u00a0]",
    "[\u2060]",
    '[""',
    "[//]",
    "{",
    "}",
    "{a",
    "{a:1}",
    "{'a':1}",
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,',
    '{"a":1,}',
    '{"a" 1}',
    '{"a",1}',
    '{"a":1 "b":2}',
    '{"a"::1}',
    "{1:1}",
    "{:1}",
    "{null:null}",
    '{"a":1,,"b":2}',
    '{,"a":1}',
    '{"a":1}}',
    '{"a":1}#',
    '{"a":1}/**/',
    '{"a":1}//',
    '/**/{"a":1}',
    '{"a":/*c*/1}',
    "{]",
    "{[",
    '{"a": tru}',
    '{"a":"a',
    '{"a":"b",,}',
    '{"a" "b"}',
    "{{}}",
    "{}{}",
    "{}x",
    "{\u00a0}",
    "\ufeff{}",
    '{"x", null}',
    '{"a":1;"b":2}',
    '{"a"=1}',
]
BYTES_REFUSED = [
    b"\xff",
    b"\xfe\xff\0[\0]",
    b"[\0\0\0]\0\0\0",
    b"[1]\x00",
]
# JSON but for their texts, which are repaired (adapters/codec/text_repair.py).
REPAIRED = [
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b'"\xe2\x82"',
    b'"\xf4\x90\x80\x80"',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
]
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
    """By the native API, and by OTLP's where an object holds it."""
    assert not is_read(text.encode("utf-8", "surrogatepass"))
    for to_wire in (metrics_to_wire, logs_to_wire, traces_to_wire):
        with pytest.raises(RequestRefused):
            to_wire(b'{"unknown":' + text.encode("utf-8", "surrogatepass") + b"}")


@pytest.mark.parametrize("data", BYTES_REFUSED, ids=repr)
def test_what_is_not_utf_8_is_refused(data: bytes) -> None:
    assert not is_read(data)


@pytest.mark.parametrize("data", REPAIRED, ids=repr)
def test_what_is_json_but_for_its_texts_is_read(data: bytes) -> None:
    """By the native API, and by OTLP's where an object holds it."""
    assert is_read(data)
    for to_wire in (metrics_to_wire, logs_to_wire, traces_to_wire):
        assert to_wire(b'{"unknown":' + data + b"}") == b""


@pytest.mark.parametrize("token", NAMED)
def test_the_three_tokens_are_read_to_be_refused_by_name(token: str) -> None:
    """As the API says: value must be a finite float64; got NaN."""
    record = f'{{"service_id": "s", "metric_name": "m", "value": {token}, "timestamp": "2026-04-10T12:00:00Z"}}'
    adapted = native.adapt(record.encode(), Header("acme", SOURCE_NATIVE, NOW, bytes(16)), LimitRules(DEFAULT, NOW), 1 << 20)
    [rejection] = adapted.rejections
    assert rejection.message == f"value must be a finite float64; got {token}"
