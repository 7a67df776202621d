"""Read text from senders: ids in hex, the ends of JSON strings, and sent text as it is shown in a message.

Shown text is short and printable ASCII, so it can forge neither a log line nor a terminal colour.
"""

from binascii import unhexlify
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Final

from librt.strings import BytesWriter, read_i64_le
from mypy_extensions import i64

from adapters.codec.json_characters import BACKSLASH, QUOTE
from adapters.rules import NO_RULES, Rules

SHOWN_CHARACTERS_MAX: Final = 40
# A trace's id is the longest, in hex.
_ID_DIGITS_MAX: Final = 32
_SHOWN_BYTES_MAX: Final = 4 * SHOWN_CHARACTERS_MAX
# The least bytes that a name may be shortened to: its beginning must be seen next to the digest.
SHORTENED_BYTES_MIN: Final = 32
_DIGEST_DIGITS: Final = 16
# Bytes from one rest to the next, if text is only scanned.
REST_BYTES: Final = 256 << 10
# The same where a sequence of bytes is searched, at 1 GB/s.
_SEARCHED_BYTES: Final = 1 << 20

_BOM: Final = b"\xef\xbb\xbf"
_WORD_BYTES: Final = 8
# Read from bytes: mypyc shifts a literal as a C int, of 32 bits.
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
    """Return the position behind the quote that closes the string whose content begins at `start`, or `end` if none does. Rest
    as `rules` say."""
    rest_at: i64 = start + REST_BYTES
    position: i64 = start
    low_bits: i64 = read_i64_le(_LOW_BITS, 0)
    quotes: i64 = read_i64_le(_QUOTES, 0)
    backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
    while position < end:
        # Eight bytes at a time, as long as there is neither a quote nor a backslash among them: exclusive-or makes such a byte
        # zero, and only a zero byte ends up without its high bit.
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
                if byte == QUOTE:
                    return position
                if byte == BACKSLASH:
                    word >>= 8
                    position += 1
        stop: i64 = min(position + _WORD_BYTES, end)
        while position < stop:
            byte = text[position]
            position += 1
            if byte == QUOTE:
                return position
            if byte == BACKSLASH:
                position += 1
        if position + _WORD_BYTES > rest_at:
            rules.rest()
            rest_at = position + REST_BYTES
    return end


def find_outside_strings(text: bytes, position: i64, byte_set: bytes, rules: Rules) -> i64:
    """Return the position of the next byte of `byte_set` outside of the strings of a JSON text; the text's size if there is
    none.

    `byte_set` is a table from `byte_table`. Rest as `rules` say.
    """
    size: i64 = len(text)
    start: i64 = position
    rest_at: i64 = start + REST_BYTES
    while position < size:
        byte: i64 = text[position]
        if byte == QUOTE:
            position = end_of_string(text, position + 1, size, rules)
        elif byte_set[byte]:
            break
        else:
            position += 1
        if position > rest_at:
            rules.rest()
            rest_at = position + REST_BYTES
    rules.read(position - start)
    return position


def write_slices(writer: BytesWriter, buffer: bytes, start: i64, end: i64, rules: Rules) -> None:
    """Write start:end, which may be most of a body, slice by slice: two copies of 60 MB at once take 100 ms."""
    position: i64 = start
    while end - position > REST_BYTES:
        stop: i64 = position + REST_BYTES
        writer.write(buffer[position:stop])
        rules.rest()
        position = stop
    writer.write(buffer[position:end])


def contains(text: bytes, word: bytes, position: i64, rules: Rules) -> bool:
    """Return whether `word` is in `text` from `position` on, slice by slice: two bytes take 50 ms to be found in 60 MB."""
    while position < len(text):
        stop: i64 = position + _SEARCHED_BYTES
        if text.find(word, position, stop + len(word) - 1) >= 0:
            return True
        position = stop
        rules.rest()
    return False


def byte_table(byte_set: bytes) -> bytes:
    """Return a table of 256 bytes that is not 0 at each byte of `byte_set`."""
    return bytes([byte in byte_set for byte in range(256)])


def hex_id(text: str, size: int) -> bytes:
    """Return the `size` bytes of an id written in hex, in any case; empty if `text` is anything else, or all zero."""
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
    """Return the beginning of a text: at most `bytes_max` bytes, and whole characters."""
    end: i64 = bytes_max
    while end > 0 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def shortened_name(name: bytes, bytes_max: i64, rules: Rules) -> bytes:
    """Return a name of more than `bytes_max` bytes shortened: its first whole characters, `~`, and 16 digits of its SHA-256, so
    that two names stay different. `bytes_max` is at least `SHORTENED_BYTES_MIN`. Rest as `rules` say."""
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
    """Return a text, or its beginning, in double quotes and escaped as in JSON."""
    shown = encode_basestring_ascii(text[:SHOWN_CHARACTERS_MAX]).replace("\x7f", "\\u007f")
    return shown if len(text) <= SHOWN_CHARACTERS_MAX else f"{shown}... of {len(text)} characters"


def quoted_utf8(text: bytes) -> str:
    """Return what `quoted` returns, for UTF-8. Only the beginning of a long text is decoded."""
    if len(text) <= _SHOWN_BYTES_MAX:
        return quoted(text.decode())
    return f"{quoted(text_within(text, _SHOWN_BYTES_MAX).decode()[:SHOWN_CHARACTERS_MAX])}... of {len(text)} bytes"


def shortened(token: str) -> str:
    """Return a token, or its beginning. It must be printable ASCII."""
    if len(token) <= SHOWN_CHARACTERS_MAX:
        return token
    return f"{token[:SHOWN_CHARACTERS_MAX]}... of {len(token)} characters"
