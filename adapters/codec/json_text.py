"""Write text as a JSON string, escaped as Python's json does: only quotes, backslashes and control characters are."""

from json.encoder import encode_basestring
from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_characters import BACKSLASH, QUOTE, SPACE
from adapters.codec.wire import HIGH_BITS

ESCAPES: Final = [encode_basestring(chr(byte))[1:-1].encode() for byte in range(128)]
_WORD_BYTES: Final = 8
# Read from bytes: mypyc shifts a literal as a C int, of 32 bits.
_LOW_BITS: Final = b"\x7f" * 8
_QUOTES: Final = b'"' * 8
_BACKSLASHES: Final = b"\\" * 8
_NO_CONTROLS: Final = b"\xe0" * 8  # a control character has none of these bits
_SPACES: Final = b" " * 8
_ONES: Final = b"\1" * 8


def put_plain(writer: BytesWriter, buffer: bytes, start: i64, end: i64) -> bool:
    """Write the text at start:end in quotes. Return False, and write nothing, if a character has to be escaped. At least eight
    bytes must follow the text."""
    quotes: i64 = read_i64_le(_QUOTES, 0)
    backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
    spaces: i64 = read_i64_le(_SPACES, 0)
    ones: i64 = read_i64_le(_ONES, 0)
    before: i64 = len(writer)
    writer.append(QUOTE)
    size: i64 = before + 1 + end - start
    while start < end:
        word: i64 = read_i64_le(buffer, start)
        # As in adapters/codec/json_scanner.py, but a byte beyond ASCII is no reason to stop.
        found: i64 = (word - spaces) | ((word ^ quotes) - ones) | ((word ^ backslashes) - ones)
        found &= ~word & read_i64_le(HIGH_BITS, min(end - start, _WORD_BYTES) << 3)
        if found:
            writer.truncate(before)
            return False
        write_i64_le(writer, word)
        start += _WORD_BYTES
    writer.truncate(size)
    writer.append(QUOTE)
    return True


def plain_end(buffer: bytes, position: i64, end: i64) -> i64:
    """Return the position of the first byte that JSON escapes; `end` if there is none."""
    low_bits: i64 = read_i64_le(_LOW_BITS, 0)
    quotes: i64 = read_i64_le(_QUOTES, 0)
    backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
    no_controls: i64 = read_i64_le(_NO_CONTROLS, 0)
    while position + _WORD_BYTES <= end:
        # Only a zero byte ends up without its high bit, as in adapters/codec/text.py.
        word: i64 = read_i64_le(buffer, position)
        quote: i64 = word ^ quotes
        backslash: i64 = word ^ backslashes
        control: i64 = word & no_controls
        other: i64 = ((quote & low_bits) + low_bits | quote) & ((backslash & low_bits) + low_bits | backslash)
        other &= (control & low_bits) + low_bits | control
        if other | low_bits != -1:
            break
        position += _WORD_BYTES
    while position < end:
        byte: i64 = buffer[position]
        if byte < SPACE or byte == QUOTE or byte == BACKSLASH:
            break
        position += 1
    return position
