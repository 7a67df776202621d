"""The text of an AnyValue: tests/fidelity compares it with the reference; here is what a large one does to others."""

import json
import time

import pytest
from support.limits import DEFAULT
from support.references.remote_write import length_delimited

from adapters.codec.wire import Cursor
from adapters.otlp.any_value import beginning_of, text_of
from collector.ingest.validate import LimitRules

_NESTED = 60
_CONTROLS = 300_000


def _nested(value: bytes) -> bytes:
    """A value in so many arrays in each other."""
    for _ in range(_NESTED):
        value = length_delimited(5, length_delimited(1, value))
    return value


VALUES = {
    "array": length_delimited(5, b"\x0a\0" * 100_000),
    "list of one key": length_delimited(6, b"\x0a\0" * 100_000),
    "list of many keys": length_delimited(
        6, b"".join(length_delimited(1, length_delimited(1, b"%x" % number)) for number in range(50_000))
    ),
    "control characters": length_delimited(5, length_delimited(1, length_delimited(1, b"\1" * _CONTROLS))),
    "nested control characters": _nested(length_delimited(1, b"\1" * _CONTROLS)),
}
JSON_BYTES = {
    "array": 500_001,
    "list of one key": 9,
    "list of many keys": 595_633,
    "control characters": 6 * _CONTROLS + 4,
    "nested control characters": 6 * _CONTROLS + 2 + 2 * _NESTED,
}


@pytest.mark.parametrize("name", VALUES)
def test_the_json_of_a_large_value_rests(name: str) -> None:
    """At least once for each 256 KiB, also of what is replaced; and for each array around it, which copies all of it."""
    rests: list[None] = []
    rules = LimitRules(DEFAULT, time.time_ns(), pause=lambda: rests.append(None))
    value = VALUES[name]
    text = text_of(Cursor(value), 0, len(value), rules)
    assert JSON_BYTES[name] == len(text)
    json.loads(text)
    levels = _NESTED if name.startswith("nested") else 1
    assert len(rests) >= max(levels, max(len(text), 3 * len(value)) >> 18)


def test_a_text_is_written_in_slices_as_in_one() -> None:
    """Wherever they end: between characters, and not within the escape of one."""
    text = '\1"é\u20ac\\😀' * 30_000
    value = length_delimited(5, length_delimited(1, length_delimited(1, text.encode())))
    rules = LimitRules(DEFAULT, time.time_ns())
    whole = text_of(Cursor(value), 0, len(value), rules)
    assert [text] == json.loads(whole)
    assert json.dumps([text], ensure_ascii=False).encode() == whole
    beginning = beginning_of(Cursor(value), 0, len(value), 200_000, rules)
    assert 200_000 - 4 < len(beginning) <= 200_000
    assert whole.startswith(beginning)
