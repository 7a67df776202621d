"""adapters/native/scan: a record that is read in one pass becomes what the reader over objects makes of it."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.limits import DEFAULT, LOW, LOW_TRUNCATED
from support.references.json_readers import check_native
from support.references.rfc8259 import BYTES_REFUSED, READ, REFUSED, REPAIRED
from support.references.twins import BATCH_ID, MESSAGE_BYTES_MAX, NOW
from support.strategies.json_forms import TEXT_ODDITIES, JsonForms
from support.strategies.native import NOW_TEXT
from support.strategies.native import records as native_records

from adapters.codec.json_reader import SLICE_BYTES
from adapters.codec.text import REST_BYTES
from adapters.native.request import adapt_batch
from adapters.record import SOURCE_NATIVE, Header
from collector.ingest.validate import LimitRules

METRIC: dict[str, Any] = {"service_id": "s", "metric_name": "m", "value": 1.5, "timestamp": NOW_TEXT, "attributes": {"k": "v"}}
LOG: dict[str, Any] = {
    "service_id": "s",
    "type": "log",
    "body": "b\n\té",
    "timestamp": NOW_TEXT,
    "attributes": {"level": "warn"},
}
EVENT: dict[str, Any] = LOG | {"type": "event", "attributes": {"event.name": "n", "severity": ""}}
RANKED: dict[str, Any] = LOG | {"attributes": {"level": "info", "severity_text": "ERROR", "severity": 1}}
DAMAGE = [b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"9" * 20, b".", b"e", b"-", b" ", b"\xff", b"null", b"t"]


def text_of(records: list[Any]) -> bytes:
    return json.dumps(records, ensure_ascii=False).encode()


@examples(200)
@given(st.lists(native_records(), max_size=4), st.data())
def test_both_readers_agree(records: list[Any], data: st.DataObject) -> None:
    """They agree whatever the records are, in whatever form, and where a few of their bytes are damaged."""
    lot = random.Random(data.draw(st.integers(0, 2**32)))
    forms = JsonForms(lot, data.draw(st.lists(st.sampled_from(TEXT_ODDITIES), unique=True)), 0.1)
    limits = data.draw(st.sampled_from([DEFAULT, LOW, LOW_TRUNCATED]))
    batch = forms.text(records).encode("utf-8", "surrogatepass")
    check_native(batch, limits, is_batch=True)
    for record in records:
        check_native(forms.text(record).encode("utf-8", "surrogatepass"), limits, is_batch=False)
    damaged = bytearray(batch)
    for _ in range(lot.randint(1, 3)):
        at = lot.randrange(len(damaged) + 1)
        damaged[at : at + lot.choice([0, 1, 1, 3])] = lot.choice(DAMAGE)
    check_native(bytes(damaged), limits, is_batch=True)


@pytest.mark.parametrize(
    ("change", "parsed"),
    [
        ({}, 0),
        ({"value": 7, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, 0),
        ({"value": -0.0, "trace_id": "0" * 32}, 0),
        ({"value": -0.0, "trace_id": "0"}, 0),
        ({"value": 0.1 + 0.2, "trace_id": ""}, 0),
        ({"type": "trace", "service_id": "é", "metric_name": "ü"}, 0),
        ({"type": None, "attributes": None, "body": None, "later": {"a": [1]}}, 0),
        ({"attributes": {"a": "é\n", "b": 1, "c": -1.5, "d": True, "e": None, "f": -9, "g": 0, "i": "x" * 300}}, 0),
        ({"attributes": {f"key.{number}": number for number in range(60)}}, 0),
        ({"attributes": {}}, 0),
        ({"value": 2**70}, 0),
        ({"trace_id": "no hex"}, 1),
        ({"body": "of a metric"}, 1),
        ({"attributes": {"nested": {"a": [1, "b", None]}}}, 1),
        ({"attributes": {"": "empty"}}, 1),
        ({"service_id": 1}, 1),
    ],
)
def test_records_that_are_plain_or_not(change: dict[str, Any], parsed: int) -> None:
    """Only what is not plain is parsed, and nothing beside it. A log's type may come before or behind its attributes."""
    records = [METRIC | change, METRIC, LOG, EVENT, dict(reversed(LOG.items())), RANKED]
    for separators in ((",", ":"), (", ", ": ")):
        for indent in (None, 1):
            body = json.dumps(records, separators=separators, indent=indent).encode()
            # An event whose name is one of its attributes is parsed.
            assert parsed + 1 == check_native(body, DEFAULT, is_batch=True)
    assert parsed == check_native(json.dumps(METRIC | change).encode(), DEFAULT, is_batch=False)
    assert 0 == check_native(json.dumps(LOG).encode(), DEFAULT, is_batch=False)


def test_a_key_or_member_twice_counts_as_parsers_have_it() -> None:
    """The last wins, at the place of the first; also among many keys of one hash."""
    twice = b'{"service_id":"s","metric_name":"m","value":1,"value":2,"timestamp":"%b","attributes":{"a":1,"b":2,"a":3}}' % (
        NOW_TEXT.encode()
    )
    assert 1 == check_native(b"[" + twice + b"," + text_of([METRIC])[1:], DEFAULT, is_batch=True)
    many = METRIC | {"attributes": {f"{number:08}{number:08}": number for number in range(120)}}
    assert check_native(text_of([many] * 3), DEFAULT, is_batch=True) is not None


@pytest.mark.parametrize(
    "text", [*(text.encode("utf-8", "surrogatepass") for text in (*READ, *REFUSED)), *BYTES_REFUSED, *REPAIRED]
)
def test_the_texts_of_rfc_8259(text: bytes) -> None:
    """Each is tried as a member, as an attribute, as a record, and as the whole body."""
    record = b'{"service_id":"s","metric_name":"m","value":1,"timestamp":"2026-04-10T12:00:00Z","attributes":{"a":1}}'
    for place in (
        record.replace(b'"s"', b"%s"),
        record.replace(b'"m"', b"%s"),
        record.replace(b":1,", b":%s,"),
        record.replace(b":1}", b":%s}"),
        record.replace(b'{"a":1}', b"%s"),
        record.replace(b'"a"', b"%s"),
        b"%s",
    ):
        check_native(place % text, DEFAULT, is_batch=False)
        check_native(b"[" + place % text + b"," + record + b"]", DEFAULT, is_batch=True)
        check_native(place % text, DEFAULT, is_batch=True)


def test_large_batches_are_read_in_one_pass() -> None:
    """There is a rest for each few hundred kilobytes."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    body = text_of([METRIC | {"attributes": {"k": "x" * 4_000}} for _ in range(SLICE_BYTES // 4_000 + 10)])
    assert len(body) > SLICE_BYTES
    assert 0 == check_native(body, DEFAULT, is_batch=True)
    rules = LimitRules(DEFAULT, NOW, pause=pause)
    adapt_batch(body, Header("acme", SOURCE_NATIVE, NOW, BATCH_ID), rules, MESSAGE_BYTES_MAX, 1_000)
    assert rests >= len(body) // REST_BYTES
