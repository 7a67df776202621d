"""adapters/codec/json_scanner.py: what is read without objects is what a parser makes of it."""

import json
import math
import struct
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from librt.strings import BytesWriter
from support.examples import examples
from support.fakes.receiving import NOW_UNIX_NANO
from support.limits import DEFAULT
from support.references.rfc8259 import BYTES_REFUSED, READ, REFUSED, REPAIRED

from adapters.codec.json_reader import CONTAINERS_MAX, SLICE_BYTES
from adapters.codec.json_scanner import JsonScanner, NonPlain
from adapters.codec.text import REST_BYTES
from adapters.rules import NO_RULES
from collector.ingest.validate import LimitRules

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
CORPUS = [*(text.encode("utf-8", "surrogatepass") for text in (*READ, *REFUSED)), *BYTES_REFUSED, *REPAIRED]
# What may follow a value. Short and long, so that its last bytes are read by words and one by one.
ENDS = [b"]", b",", b" ", b"}" + b"]" * 80]
# White space, strings of each length around a word's, and numbers around the largest that fit.
STRINGS = ["x" * size + end for size in range(20) for end in ("", "\t", '"', "\\", "é", "\x7f", "\u2028", "😀")]
INTEGERS = [
    *(0, 1, 9, 10, 10**17, 10**18 - 1, 10**18, 10**19 - 1, 10**19, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64),
    *(922_337_203_685_477_579_9, 922_337_203_685_477_581_0),
]


def read(text: bytes, read_by: Callable[[JsonScanner], int]) -> int:
    """Where a value ends; 0: it is left to the other reader."""
    try:
        return read_by(JsonScanner(text, NO_RULES))
    except (NonPlain, IndexError):
        return 0


def check_value(text: bytes) -> bool:
    """What is skipped is a value; whether it was."""
    skipped = False
    for end in ENDS:
        at = read(b" " + text + end, lambda scanner: scanner.value_end(scanner.skip_space(0)))
        if at:
            begun = (b" " + text + end)[:at]
            orjson.loads(begun)
            skipped = skipped or begun == b" " + text
    return skipped


@pytest.mark.parametrize("text", CORPUS, ids=ascii)
def test_what_is_skipped_is_json(text: bytes) -> None:
    """All of RFC 8259's valid texts are skipped. Of the others, at most a beginning that is valid is read."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        check_value(text)
    else:
        assert check_value(text.strip())


@examples(100)
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_values_are_read_as_orjson_reads_them(value: object, indent: int | None, ensure_ascii: bool) -> None:
    """Any value is skipped to its end."""
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii).encode()
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:  # a lone surrogate
        check_value(text)
    else:
        assert check_value(text)


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_strings_are_read_as_orjson_reads_them(ensure_ascii: bool) -> None:
    """Their lengths are around a word's, with what ends the fast way at every place."""
    for string in STRINGS:
        text = json.dumps(string, ensure_ascii=ensure_ascii).encode()
        for end in ENDS:
            scanner = JsonScanner(text + end, NO_RULES)
            assert len(text) - 1 == scanner.string_end(1)
            writer = BytesWriter()
            scanner.put_string(writer, 0x0A, 1, len(text) - 1)
            encoded = string.encode()
            assert bytes((0x0A, len(encoded))) + encoded == writer.getvalue()


@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_are_read_as_they_are(sign: str) -> None:
    """All of 64 bits, signed, and none beyond: those are left to the other reader, also those that are odd."""
    for integer in INTEGERS:
        text = f"{sign}{integer}".encode()
        scanner = JsonScanner(text + b",", NO_RULES)
        end = scanner.integer_end(0)
        assert (integer < 2**63) == (end != 0)
        if end:
            assert (len(text), int(text)) == (end, scanner.integer)
    for odd in ("01", "00", "-", "+1", "x", "--1", " 1"):
        assert 0 == read(f"{sign}{odd},".encode(), lambda scanner: scanner.integer_end(0))


@examples(300)
@given(
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str)
    | st.from_regex(r"-?[0-9]{1,4}\.?[0-9]{0,3}(e[+-]?[0-9]{1,2})?", fullmatch=True)
)
def test_doubles_are_read_as_python_reads_them(text: str) -> None:
    """They are equal to the bit. What is no number is left to the other reader."""
    scanner = JsonScanner(text.encode() + b",", NO_RULES)
    end = scanner.double_end(0)
    if end == len(text):
        assert struct.pack("d", float(text)) == struct.pack("d", scanner.double)


@pytest.mark.parametrize("text", ["0.5", "1", "123.456", "1700000000.123", "-2.25", "0.001", "-0", "-0.0"])
def test_plain_doubles_are_read(text: str) -> None:
    """Those that nearly all senders write are not left to the other reader."""
    scanner = JsonScanner(text.encode() + b",", NO_RULES)
    assert len(text) == scanner.double_end(0)
    assert math.copysign(1, float(text)) == math.copysign(1, scanner.double)
    assert float(text) == scanner.double


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_value_of_many_objects_and_arrays_is_not_parsed_in_one_go(opening: str) -> None:
    """It is left to the reader that reads slices; those in a text do not count."""
    closing, body = ("]", "") if opening == "[" else ("}", "1")
    for count, in_text, is_read in ((CONTAINERS_MAX - 1, 0, True), (CONTAINERS_MAX, 0, False), (1, CONTAINERS_MAX, True)):
        text = ("[" + f"{opening}{body}{closing}," * count + '"' + "[{" * in_text + '"]').encode()
        assert is_read == (read(text + b"]", lambda scan: scan.value_end(0, SLICE_BYTES)) == len(text))


@pytest.mark.parametrize(
    "text",
    [b'"' + b"x" * (4 * REST_BYTES) + b'" ', b" " * (4 * REST_BYTES) + b'"" ', b" \n" * (2 * REST_BYTES) + b'"" '],
    ids=["a string", "white space", "lines"],
)
def test_it_rests(text: bytes) -> None:
    """It rests in a long string and in long white space, also at the end."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    scanner = JsonScanner(text, LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause))
    assert len(text) - 2 == scanner.string_end(scanner.skip_space(0) + 1)
    assert rests >= 3
    rests = 0
    JsonScanner(b" " * (4 * REST_BYTES), LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause)).finish(0)
    assert rests >= 3
