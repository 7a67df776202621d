"""Text from senders: ids in hex, where strings of JSON end, and how sent text is shown in a message.

Text that is shown is short and printable ASCII, so it can forge neither a line of a log nor a colour of a terminal.
"""

from binascii import unhexlify
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

from adapters.rules import NO_RULES, Rules

SHOWN_CHARACTERS_MAX: Final = 40
# Of a trace's id, the longest, in hex.
_ID_DIGITS_MAX: Final = 32
_SHOWN_BYTES_MAX: Final = 4 * SHOWN_CHARACTERS_MAX
# A name is shortened to so many bytes at least: its beginning must be seen beside the digest.
SHORTENED_BYTES_MIN: Final = 32
_DIGEST_DIGITS: Final = 16
# From one rest to the next, where text is only looked through.
REST_BYTES: Final = 256 << 10

_BOM: Final = b"\xef\xbb\xbf"
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_WORD_BYTES: Final = 8
# Looked up: mypyc shifts a literal as a C int, of 32 bits.
_LOW_BITS: Final = b"\x7f" * 8
_QUOTES: Final = b'"' * 8
_BACKSLASHES: Final = b"\\" * 8


def without_bom(text: bytes, rules: Rules) -> bytes:
    """Return JSON without the byte order mark that some senders put before it; a reader may ignore one (RFC 8259, 8.1)."""
    if not text.startswith(_BOM):
        return text
    rules.rest()
    text = text[len(_BOM) :]
    rules.rest()
    return text


def end_of_string(text: bytes, start: i64, end: i64, rules: Rules = NO_RULES) -> i64:
    """Behind the quote that closes the string whose content begins at `start`; the end of the text, where none does. Rests by
    `rules`."""
    rest_at: i64 = start + REST_BYTES
    position: i64 = start
    low_bits: i64 = read_i64_le(_LOW_BITS, 0)
    quotes: i64 = read_i64_le(_QUOTES, 0)
    backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
    while position < end:
        # Eight bytes at a time, as long as there is neither a quote nor a backslash among them: of such a byte, exclusive-or
        # leaves zero, and only of zero this leaves no high bit set.
        words_end: i64 = min(end, rest_at)
        while position + _WORD_BYTES <= words_end:
            word: i64 = read_i64_le(text, position)
            quote: i64 = word ^ quotes
            backslash: i64 = word ^ backslashes
            other: i64 = ((quote & low_bits) + low_bits | quote) & ((backslash & low_bits) + low_bits | backslash)
            if other | low_bits == -1:
                position += _WORD_BYTES
                continue
            word_end: i64 = position + _WORD_BYTES
            while position < word_end:
                byte: i64 = word & 0xFF
                word >>= 8
                position += 1
                if byte == _QUOTE:
                    return position
                if byte == _BACKSLASH:
                    word >>= 8
                    position += 1
        stop: i64 = min(position + _WORD_BYTES, end)
        while position < stop:
            byte = text[position]
            position += 1
            if byte == _QUOTE:
                return position
            if byte == _BACKSLASH:
                position += 1
        if position + _WORD_BYTES > rest_at:
            rules.rest()
            rest_at = position + REST_BYTES
    return end


def find_outside_strings(text: bytes, position: i64, wanted: bytes, rules: Rules) -> i64:
    """Return where the next wanted byte is, outside of the strings of a JSON text; the text's size, where there is none.

    `wanted`: from `byte_table`. Rests by `rules`.
    """
    size: i64 = len(text)
    start: i64 = position
    rest_at: i64 = start + REST_BYTES
    while position < size:
        byte: i64 = text[position]
        if byte == _QUOTE:
            position = end_of_string(text, position + 1, size, rules)
        elif wanted[byte]:
            break
        else:
            position += 1
        if position > rest_at:
            rules.rest()
            rest_at = position + REST_BYTES
    rules.read(position - start)
    return position


def byte_table(wanted: bytes) -> bytes:
    """Return 256 bytes, of which those at the wanted ones are not 0."""
    return bytes([byte in wanted for byte in range(256)])


def hex_id(text: str, size: int) -> bytes:
    """The `size` bytes of an id written in hex, in any case. Nothing, where it is anything else, or all zero."""
    if len(text) != 2 * size:
        return b""
    try:
        identifier = unhexlify(text)
    except ValueError:
        return b""
    return identifier if identifier.strip(b"\0") else b""


def is_no_id(text: bytes) -> bool:
    """Return whether a text is one to 32 zeros, as senders that have no id write it: `0`, `0000000000000000`."""
    return 0 < len(text) <= _ID_DIGITS_MAX and not text.strip(b"0")


def text_within(text: bytes, bytes_max: i64) -> bytes:
    """The beginning of a text: at most so many bytes, and whole characters."""
    end: i64 = bytes_max
    while end > 0 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def shortened_name(name: bytes, bytes_max: i64, rules: Rules) -> bytes:
    """A name of more bytes than that: its beginning, whole characters of it, then `~` and 16 digits of its SHA-256, so that two
    names stay two. `bytes_max`: at least `SHORTENED_BYTES_MIN`. Rests by `rules`."""
    digest = sha256()
    position: i64 = 0
    size: i64 = len(name)
    while position < size:
        part = name[position : position + REST_BYTES]
        digest.update(part)
        position += REST_BYTES
        rules.read(len(part))
    return text_within(name, bytes_max - _DIGEST_DIGITS - 1) + b"~" + digest.hexdigest()[:_DIGEST_DIGITS].encode()


def quoted(text: str) -> str:
    """In double quotes, as JSON escapes it."""
    shown = encode_basestring_ascii(text[:SHOWN_CHARACTERS_MAX]).replace("\x7f", "\\u007f")
    return shown if len(text) <= SHOWN_CHARACTERS_MAX else f"{shown}... of {len(text)} characters"


def quoted_utf8(text: bytes) -> str:
    """`quoted`, of UTF-8. Of a long text only the beginning is decoded."""
    if len(text) <= _SHOWN_BYTES_MAX:
        return quoted(text.decode())
    return f"{quoted(text_within(text, _SHOWN_BYTES_MAX).decode()[:SHOWN_CHARACTERS_MAX])}... of {len(text)} bytes"


def shortened(token: str) -> str:
    """A token that is printable ASCII anyway."""
    if len(token) <= SHOWN_CHARACTERS_MAX:
        return token
    return f"{token[:SHOWN_CHARACTERS_MAX]}... of {len(token)} characters"
