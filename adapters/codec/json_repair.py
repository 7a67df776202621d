"""Repair JSON strings that are not UTF-8 or have half of a surrogate pair: U+FFFD takes the place of each invalid part.

A body comes here only after its adapter has met such a string, so a clean body costs nothing.

Invariants:
1. Nothing but strings changes, and the parser reads the result (tests/unit/adapters/codec/test_text_repair.py,
   test_lone_surrogates_are_repaired).
2. A repair rests at least once for each 256 KiB, and between two copies of a long string (test_text_repair.py,
   test_repairing_rests).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.json_characters import ASCII_END, BACKSLASH, QUOTE, SMALL_U
from adapters.codec.text import contains, end_of_string, write_slices
from adapters.codec.text_repair import REPAIR_BYTES, SLICE_BYTES, grows_too_much, repaired_bytes_max_of, repaired_text
from adapters.codec.wire import is_utf8
from adapters.repairs import INVALID_TEXT
from adapters.rules import Rules

_ESCAPE_BYTES: Final = 6
_REPLACEMENT_ESCAPE: Final = b"\\ufffd"


def repaired_json(body: bytes, rules: Rules) -> bytes:
    """Return a JSON text with its strings repaired, and count the repairs in `rules`. Return `body` itself if all are valid."""
    if not _may_hold_surrogates(body, rules) and is_utf8(body, 0, len(body), rules):
        return body
    writer = BytesWriter()
    size: i64 = len(body)
    repaired_bytes_max: i64 = repaired_bytes_max_of(size)
    keep: i64 = 0
    position: i64 = 0
    count: i64 = 0
    while position < size:
        stop: i64 = min(size, position + SLICE_BYTES)
        while position < stop and body[position] != QUOTE:
            position += 1
        if position == stop:
            rules.rest()
            continue
        start: i64 = position + 1
        end: i64 = _end_of_plain_string(body, start, rules)
        rules.read(end - position)
        if end < size and body[end] == QUOTE:
            position = end + 1
            continue
        end = end_of_string(body, start, size, rules)
        position = end
        text = body[start:end]
        is_large = end - start > SLICE_BYTES
        is_text = is_utf8(body, start, end, rules)
        if not is_text:
            text = repaired_text(text, rules, repaired_bytes_max)
            rules.read(REPAIR_BYTES)
        if _may_hold_surrogates(text, rules):
            whole = _without_lone_surrogates(text, rules)
            is_text = is_text and len(whole) == len(text) and whole == text
            text = whole
            if is_large:
                rules.rest()
        if not is_text:
            count += 1
            write_slices(writer, body, keep, start, rules)
            write_slices(writer, text, 0, len(text), rules)
            if is_large:
                rules.rest()
            if len(writer) + size - end > repaired_bytes_max:
                raise grows_too_much(len(body), repaired_bytes_max)
            keep = end
    if count == 0:
        return body
    rules.repair(INVALID_TEXT, count)
    write_slices(writer, body, keep, size, rules)
    repaired = writer.getvalue()
    rules.rest()
    return repaired


def _end_of_plain_string(text: bytes, start: i64, rules: Rules) -> i64:
    """Return the position, from `start` on, of the first byte that is a quote, a backslash or not ASCII, or the text's end."""
    size: i64 = len(text)
    position: i64 = start
    while position < size:
        stop: i64 = min(size, position + SLICE_BYTES)
        while position < stop:
            byte: i64 = text[position]
            if byte == QUOTE or byte == BACKSLASH or byte >= ASCII_END:
                return position
            position += 1
        rules.rest()
    return position


def _may_hold_surrogates(text: bytes, rules: Rules) -> bool:
    """Return whether any escape in the text may be half of a surrogate pair."""
    # A single byte is found at 10 GB/s, a longer sequence at 1 GB/s.
    first: i64 = text.find(b"\\")
    return first >= 0 and (contains(text, b"\\ud", first, rules) or contains(text, b"\\uD", first, rules))


def _without_lone_surrogates(text: bytes, rules: Rules) -> bytes:
    """Return a string's content with an escape of U+FFFD in the place of each half of a surrogate pair."""
    writer = BytesWriter()
    keep: i64 = 0
    size: i64 = len(text)
    position: i64 = 0
    while position + _ESCAPE_BYTES <= size:
        if text[position] != BACKSLASH:
            position = text.find(b"\\", position)
            if position < 0:
                break
            continue
        if text[position + 1] != SMALL_U:
            position += 2
            continue
        rules.read(0)
        unit: i64 = _unit(text, position)
        if unit < 0xD800 or unit > 0xDFFF:
            position += _ESCAPE_BYTES
            continue
        if unit < 0xDC00 and position + 2 * _ESCAPE_BYTES <= size and text[position + _ESCAPE_BYTES] == BACKSLASH:
            low: i64 = _unit(text, position + _ESCAPE_BYTES)
            if text[position + _ESCAPE_BYTES + 1] == SMALL_U and low >= 0xDC00 and low <= 0xDFFF:
                position += 2 * _ESCAPE_BYTES
                continue
        writer.write(text[keep:position])
        writer.write(_REPLACEMENT_ESCAPE)
        position += _ESCAPE_BYTES
        keep = position
    if keep == 0:
        return text
    writer.write(text[keep:])
    if size > SLICE_BYTES:
        rules.rest()
    return writer.getvalue()


def _unit(text: bytes, at: i64) -> i64:
    """Return the code unit of the escape at `at`; -1 if it is invalid."""
    unit: i64 = 0
    n: i64 = at + 2
    while n < at + _ESCAPE_BYTES:
        digit: i64 = text[n]
        if 0x30 <= digit <= 0x39:
            digit -= 0x30
        else:
            digit |= 0x20
            if digit < 0x61 or digit > 0x66:
                return -1
            digit -= 0x57
        unit = unit << 4 | digit
        n += 1
    return unit
