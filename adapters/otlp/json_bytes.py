"""Read ids and bytes of OTLP/JSON: hex and base64, and the forms that encoders of other mappings write.

ProtoJSON uses base64 for every field of bytes, also for ids. JavaScript writes a Uint8Array as an object of numbers, and a
Buffer as an object that holds an array, or base64 (`bufferjson`, which may put `base64:` before it).
"""

import binascii
from typing import Final

from adapters.otlp.json_fields import HEX, Field

BYTE_MAX: Final = 255
# The length of 16 bytes in base64, padded.
_BASE64_ID_MAX: Final = 24
# The prefix that the package `bufferjson` writes before a Buffer's base64.
BASE64_PREFIX: Final = "base64:"
_HEX_DIGITS: Final = "0123456789abcdefABCDEF"


def bytes_of(field: Field, value: object) -> bytes | None:
    """Return the bytes of a value in the field's form, hex for ids and base64 for others; None if it is not in that form."""
    if not isinstance(value, str):
        return None
    if field.kind == HEX:
        is_hex = len(value) % 2 == 0 and not value.strip(_HEX_DIGITS)
        return binascii.unhexlify(value) if is_hex else None
    return _bytes_of_base64(value)


def bytes_in_other_form(field: Field, value: object) -> bytes | None:
    """Return the bytes of an id in base64, or of an id or bytes written as numbers, as JavaScript does. Return None if the
    value is neither, or an id has the wrong length.

    A text of only hex digits is not read as base64: it is a part of an id.
    """
    content: bytes | None = None
    if isinstance(value, str):
        if field.kind == HEX and value.strip(_HEX_DIGITS) and len(value) <= _BASE64_ID_MAX:
            content = _bytes_of_base64(value)
    elif isinstance(value, list):
        content = bytes_of_numbers(value)
    elif isinstance(value, dict):
        data = value.get("data")
        if value.get("type") == "Buffer" and isinstance(data, list):
            content = bytes_of_numbers(data)
        elif value.get("type") == "Buffer" and isinstance(data, str):
            content = _bytes_of_base64(data.removeprefix(BASE64_PREFIX))
        else:
            content = bytes_of_numbers([value.get(str(n)) for n in range(len(value))])
    if content is None or (field.kind == HEX and len(content) != field.id_bytes and content):
        return None
    return content


def bytes_of_numbers(numbers: object) -> bytes | None:
    """Return the bytes of a list of numbers; None if it is not a list of numbers from 0 to 255."""
    if not isinstance(numbers, list):
        return None
    content: list[int] = []
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0 or number > BYTE_MAX:
            return None
        content.append(number)
    return bytes(content)


def _bytes_of_base64(value: str) -> bytes | None:
    # Either alphabet, padded or not, as protobuf's JSON mapping allows.
    standard = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        return None
