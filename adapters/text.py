"""Text from senders: ids written in hex, JSON that is too dense to read, and how what was sent is shown in a message.

The law: what is shown is short and printable ASCII, so that it can forge neither a line of a log nor a colour of a terminal.
"""

from binascii import unhexlify
from json.encoder import encode_basestring_ascii
from typing import Final

from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused

SHOWN_CHARACTERS_MAX: Final = 40

# Objects, arrays and commas of one JSON body. 64 MiB of the shortest attributes have 7 million; 64 MiB of "{}," would have
# 45 million, and take gigabytes once parsed.
JSON_PARTS_MAX: Final = 8_000_000


def check_json_parts(body: bytes) -> None:
    """Refuse JSON that would take far more memory than its own size. Raises RequestRefused."""
    parts = body.count(b"{") + body.count(b"[") + body.count(b",")
    if parts > JSON_PARTS_MAX:
        raise RequestRefused(
            PAYLOAD_TOO_LARGE,
            f"the JSON of {len(body)} bytes has {parts} objects, arrays and commas; at most {JSON_PARTS_MAX} are read:"
            " send smaller batches",
        )


def hex_id(text: str, size: int) -> bytes:
    """The `size` bytes of an id written in hex, in any case. Nothing, where it is anything else, or all zero."""
    if len(text) != 2 * size:
        return b""
    try:
        identifier = unhexlify(text)
    except ValueError:
        return b""
    return identifier if identifier.strip(b"\0") else b""


def quoted(text: str) -> str:
    """In double quotes, as JSON escapes it."""
    shown = encode_basestring_ascii(text[:SHOWN_CHARACTERS_MAX]).replace("\x7f", "\\u007f")
    return shown if len(text) <= SHOWN_CHARACTERS_MAX else f"{shown}... of {len(text)} characters"


def shortened(token: str) -> str:
    """A token that is printable ASCII anyway."""
    if len(token) <= SHOWN_CHARACTERS_MAX:
        return token
    return f"{token[:SHOWN_CHARACTERS_MAX]}... of {len(token)} characters"
