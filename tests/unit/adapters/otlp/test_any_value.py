"""The text of an AnyValue by example, and what a large one does to others. tests/fidelity compares it with the reference."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from support.limits import DEFAULT
from support.references.otlp import plain_value
from support.references.remote_write import length_delimited

from adapters.codec.wire import Cursor
from adapters.otlp.any_value import beginning_of, double_text, text_of
from adapters.rules import NO_RULES
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
    """There is a rest for each 256 KiB at least, also of what is replaced. Arrays around it copy nothing."""
    rests: list[None] = []
    rules = LimitRules(DEFAULT, time.time_ns(), pause=lambda: rests.append(None))
    value = VALUES[name]
    text = text_of(Cursor(value), 0, len(value), rules)
    assert JSON_BYTES[name] == len(text)
    json.loads(text)
    assert len(rests) >= max(1, max(len(text), 3 * len(value)) >> 18)


def test_a_text_is_written_in_slices_as_in_one() -> None:
    """Slices may end anywhere between characters, and not within the escape of one."""
    text = '\1"é\u20ac\\😀' * 30_000
    value = length_delimited(5, length_delimited(1, length_delimited(1, text.encode())))
    rules = LimitRules(DEFAULT, time.time_ns())
    whole = text_of(Cursor(value), 0, len(value), rules)
    assert [text] == json.loads(whole)
    assert json.dumps([text], ensure_ascii=False).encode() == whole
    beginning = beginning_of(Cursor(value), 0, len(value), 200_000, rules)
    assert 200_000 - 4 < len(beginning) <= 200_000
    assert whole.startswith(beginning)


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def array(*values: AnyValue) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=values))


def members(*pairs: tuple[str, AnyValue]) -> AnyValue:
    return AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=value) for key, value in pairs]))


def written(value: AnyValue) -> bytes:
    body = value.SerializeToString()
    return text_of(Cursor(body), 0, len(body), NO_RULES)


def beginning(value: AnyValue, bytes_max: int) -> bytes:
    body = value.SerializeToString()
    return beginning_of(Cursor(body), 0, len(body), bytes_max, NO_RULES)


@pytest.mark.parametrize("place", range(12))
def test_each_character_is_escaped_wherever_it_is(place: int) -> None:
    """Eight bytes are read at once, so the place counts; also in a key."""
    for number in [*range(0x100), 0x2028, 0x1F600]:
        sent = "é" + "a" * place + chr(number) + "b" * (11 - place) + chr(number)
        value = members((sent, text(sent)))
        assert json.dumps({sent: sent}, ensure_ascii=False, separators=(",", ":")).encode() == written(value)


def test_of_members_with_the_same_key_the_last_is_kept_in_its_place() -> None:
    one, two, three = (AnyValue(int_value=number) for number in (1, 2, 3))
    assert written(members(("a", one), ("b", two), ("a", three))) == b'{"b":2,"a":3}'
    assert written(members(("a", one), ("a", two), ("a", three))) == b'{"a":3}'
    inner = members(("a", one), ("b", array(members(("c", one), ("c", two)), one)), ("a", three))
    assert written(array(one, inner, two)) == b'[1,{"b":[{"c":2},1],"a":3},2]'


def test_a_member_that_is_replaced_takes_nothing_from_the_beginning() -> None:
    """A beginning has all the bytes that it may have, and they are those of the whole text."""
    value = members(("a", text("x" * 10)), ("b", AnyValue(int_value=1)), ("a", text("é" * 30)))
    whole = written(value)
    assert len(whole) > 50
    for bytes_max in range(40, 50):
        assert whole[:bytes_max].decode(errors="ignore").encode() == beginning(value, bytes_max)


# Many of these keys are equal. Others differ only in bytes that a hash of the length and of both ends leaves out.
KEYS = st.sampled_from(["", "a", "b", "é", '"', "key.of.http.a", "key.of.rpc_.a", "k" * 127, "k" * 128]) | st.text(max_size=3)
SCALARS = (
    st.builds(AnyValue)
    | st.booleans().map(lambda value: AnyValue(bool_value=value))
    | st.integers(-(2**63), 2**63 - 1).map(lambda value: AnyValue(int_value=value))
    | st.floats().map(lambda value: AnyValue(double_value=value))
    | st.text(max_size=140).map(text)
    | st.binary(max_size=9).map(lambda value: AnyValue(bytes_value=value))
)
ANY_VALUES = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(values, max_size=5).map(lambda entries: array(*entries))
        | st.lists(st.tuples(KEYS, values), max_size=40).map(lambda pairs: members(*pairs))
    ),
    max_leaves=40,
)


@given(ANY_VALUES)
def test_any_value(value: AnyValue) -> None:
    expected = json.dumps([plain_value(value)], ensure_ascii=False, separators=(",", ":"))
    assert expected.encode() == written(array(value))


@pytest.mark.parametrize("count", [2, 9, 40, 400])
def test_a_repeated_key_is_found_among_any_number(count: int) -> None:
    keys = [f"the.key.{number}.of.many" for number in range(count)]
    one = AnyValue(int_value=1)
    pairs = [(key, one) for key in keys]
    assert dict.fromkeys(keys, 1) == json.loads(written(members(*pairs)))
    for repeated in (0, count // 2, count - 1):
        kept = [*keys[:repeated], *keys[repeated + 1 :], keys[repeated]]
        assert kept == list(json.loads(written(members(*pairs, (keys[repeated], one)))))


def test_nested_objects_with_repeated_keys_are_written_once() -> None:
    """If each level were written twice, 60 levels would never end."""
    first, last = (
        length_delimited(1, length_delimited(1, b"a") + length_delimited(2, b"\x18" + number)) for number in (b"\2", b"\3")
    )
    value = b"\x18\1"
    for _ in range(_NESTED):
        nested = length_delimited(1, length_delimited(1, b"b") + length_delimited(2, value))
        value = length_delimited(6, first + nested + last)
    text = text_of(Cursor(value), 0, len(value), NO_RULES)
    assert text == b'{"b":' * _NESTED + b"1" + b',"a":3}' * _NESTED


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_doubles(value: float, expected: str) -> None:
    assert expected == double_text(value)
    quoted = expected if expected[-1].isdigit() else f'"{expected}"'
    assert f"[{quoted}]".encode() == written(array(AnyValue(double_value=value)))
