"""Read values of OTLP/JSON that are too large to be parsed at once, and contain no messages.

They become the same as small values (adapters/otlp/json_objects.py).
"""

from typing import Final

import orjson
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.json_characters import CLOSING_BRACE, CLOSING_BRACKET, OPENING_BRACE, OPENING_BRACKET, QUOTE
from adapters.codec.json_reader import SLICE_BYTES, JsonSlices
from adapters.codec.text import REST_BYTES
from adapters.errors import INVALID_JSON, Malformed
from adapters.otlp.json_bytes import BASE64_PREFIX, BYTE_MAX, bytes_of, bytes_of_numbers
from adapters.otlp.json_fields import Field
from adapters.otlp.json_notes import Notes, Unfit
from adapters.otlp.json_objects import check_number

# The bytes that are kept of a very long name, which no message has, and of a member of bytes written as JavaScript does.
_SHOWN_NAME_BYTES: Final = 100


class LargeValues:
    """A `LargeValues` reads values of any size at the cursor of `slices`. Each method moves behind the value that it reads."""

    def __init__(self, slices: JsonSlices, name: str, notes: Notes) -> None:
        """Read from `slices`. `name` is the request's name in error messages."""
        self.slices: Final = slices
        self.name: Final = name
        self.notes: Final = notes
        self.text: Final = slices.text
        self.rules: Final = slices.rules

    def member_name(self) -> str:
        """Return the name of the next member, or the beginning of a very long one, which no message has. Moves behind its
        colon."""
        slices = self.slices
        slices.peek()
        start: i64 = slices.position
        name = slices.name()
        if len(name) > SLICE_BYTES:
            slices.seek_back(start)
            slices.check_name()
            return name[1:_SHOWN_NAME_BYTES].decode(errors="replace")
        text = self.loaded(name)
        assert isinstance(text, str)
        return text

    def loaded(self, piece: bytes) -> object:
        try:
            return orjson.loads(piece)
        except orjson.JSONDecodeError as error:
            check_number(error, self.notes)
            where = f"{error.msg} before byte {self.slices.position}"
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: {int(self.slices.size)} bytes, {where}") from None

    def whole_text(self) -> bytes:
        """Return the string at the cursor. Moves behind it."""
        text = BytesWriter()
        self.slices.open_string()
        while self.slices.is_in_string:
            text.write(self._next_text().encode())
        return text.getvalue()

    def _next_text(self) -> str:
        text = self.loaded(self.slices.next_text())
        assert isinstance(text, str)
        return text

    def base64(self, field: Field, prefix: str = "") -> bytes:
        """Return the bytes of the base64 string at the cursor, without a prefix if it has one. Moves behind it."""
        content = BytesWriter()
        unread = ""
        is_padded = False
        self.slices.open_string()
        while self.slices.is_in_string:
            text = self._next_text().removeprefix(prefix)
            prefix = ""
            digits = text.rstrip("=")
            if "=" in digits or (is_padded and digits):
                raise Unfit(f"{field.name} must be base64")
            is_padded = is_padded or len(digits) < len(text)
            unread += digits
            whole = len(unread) // 4 * 4
            content.write(self._bytes_of(field, unread[:whole]))
            unread = unread[whole:]
        content.write(self._bytes_of(field, unread))
        return content.getvalue()

    def bytes_in_other_form(self, field: Field, first: i64) -> bytes:
        """Return the bytes of the array or object at the cursor, in the forms that JavaScript writes. Moves behind it."""
        if first == OPENING_BRACKET:
            return self._array_of_bytes(field)
        slices = self.slices
        content = BytesWriter()
        data: bytes | None = None
        is_buffer = False
        is_other = False
        slices.expect(OPENING_BRACE)
        while True:
            name = self.member_name()
            opening: i64 = slices.peek()
            if name == "data" and opening == OPENING_BRACKET:
                data = self._array_of_bytes(field)
            elif name == "data" and opening == QUOTE:
                data = self.base64(field, BASE64_PREFIX)
            else:
                start: i64 = slices.position
                slices.check_value()
                text = self.text[start : slices.position] if slices.position - start < _SHOWN_NAME_BYTES else b""
                is_buffer = is_buffer or (name == "type" and text == b'"Buffer"')
                if name == str(len(content)) and text.isdigit() and int(text) <= BYTE_MAX:
                    content.append(int(text))
                else:
                    is_other = True
            self.rules.read(0)
            if not slices.has_next(CLOSING_BRACE):
                break
        if is_buffer and data is not None:
            return data
        if is_other or data is not None:
            raise Unfit(f"{field.name} must be base64, or numbers from 0 to {BYTE_MAX}", field.reason)
        return content.getvalue()

    def _array_of_bytes(self, field: Field) -> bytes:
        """Return the bytes of the array of numbers at the cursor. Moves behind it."""
        slices = self.slices
        content = BytesWriter()
        slices.expect(OPENING_BRACKET)
        if slices.peek() == CLOSING_BRACKET:
            slices.position += 1
            return b""
        while slices.peek() != CLOSING_BRACKET:
            piece = slices.next_elements()
            numbers = bytes_of_numbers(self.loaded(piece)) if piece else None
            if numbers is None:
                raise Unfit(f"{field.name} must be base64, or numbers from 0 to {BYTE_MAX}", field.reason)
            content.write(numbers)
            self.rules.rest()
        slices.position += 1
        return content.getvalue()

    def whole_number(self, field: Field, first: i64) -> bytes:
        """Return the digits of the integer at the cursor, a number or a string. Moves behind it."""
        if first == QUOTE:
            text = self.whole_text()
        else:
            start: i64 = self.slices.position
            self.slices.check_value()
            text = self.text[start : self.slices.position]
        self.rules.rest()
        position: i64 = 1 if text.startswith(b"-") else 0
        is_whole = text[position : position + 1] != b"0"
        while is_whole and position < len(text):
            is_whole = text[position : position + REST_BYTES].isdigit()
            position += REST_BYTES
            self.rules.rest()
        if not is_whole:
            raise Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes that is no integer", field.reason)
        return text

    def _bytes_of(self, field: Field, digits: str) -> bytes:
        content = bytes_of(field, digits)
        if content is None:
            self.notes.refuse(field, "base64", digits)
            raise self.notes.refusal()
        return content
