"""Read large JSON texts piece by piece: a parser makes objects of a whole text at once, and nothing else runs meanwhile.

This module only finds where values begin and end. Each piece of up to about a megabyte goes to the parser, which decides
whether it is JSON. So only the bytes between the pieces (braces, brackets, commas, colons) are checked here.

Invariants:
1. The pieces of one array have its elements, each once, in order
   (tests/unit/adapters/codec/test_json_reader.py, test_pieces_are_the_elements_of_the_array).
2. A text that is not JSON is refused, however it is cut (test_json_reader.py, test_damaged_texts_are_refused).
3. Pieces of one string, joined, are the string (test_json_reader.py, test_pieces_are_the_string).
4. `rest` is called at least once for each 256 KiB (test_json_reader.py, test_it_rests).
5. A piece has at most CONTAINERS_MAX objects and arrays (test_json_reader.py, test_pieces_have_few_containers).
6. A text that is nested too deep is refused at that depth, and read once (test_json_reader.py, test_a_deep_text_is_read_once).
7. `shallow_json` changes only values that are nested too deep, and only if they are JSON (test_json_reader.py,
   test_what_is_nested_too_deep_is_emptied).
"""

from io import BytesIO
from typing import Final

import orjson
from librt.strings import BytesWriter
from mypy_extensions import i64, u8

from adapters.codec.json_characters import (
    BACKSLASH,
    CASE,
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COLON,
    COMMA,
    OPENING_BRACE,
    OPENING_BRACKET,
    QUOTE,
    SMALL_D,
    SMALL_U,
    SPACE,
)
from adapters.codec.json_numbers import is_number
from adapters.codec.text import REST_BYTES, byte_table, end_of_string, find_outside_strings
from adapters.rules import Rules

# The most bytes that the parser gets at once: it takes up to 20 ms for them.
SLICE_BYTES: Final = 1 << 20
# The most objects and arrays that it gets: they cost more than other values, since the garbage collector tracks each.
CONTAINERS_MAX: Final = 1 << 16
# How deep they may be nested: orjson reads no deeper.
_PARSER_DEPTH_MAX: Final = 1024
# `shallow_json` empties objects and arrays that are nested deeper. An attribute may nest 64 deep, and in OTLP/JSON each level
# takes up to four objects and arrays.
SHALLOW_DEPTH_MAX: Final = 300
_EMPTY_BYTES: Final = 2
_BRACKETS: Final = byte_table(b"{}[]")
# The parser's message for a number that JSON allows, and a double can't hold.
BEYOND_A_DOUBLE: Final = "number is infinity"
# Numbers that some senders write, and JSON does not have.
CONSTANTS: Final = (b"NaN", b"Infinity", b"-Infinity")

_END: Final = -1
_WORD_BYTES: Final = 8


def may_hold_many_containers(text: bytes) -> bool:
    """Return whether a text may have more objects and arrays than a slice may. Brackets in its strings count too."""
    return len(text) > CONTAINERS_MAX and text.count(b"{") + text.count(b"[") > CONTAINERS_MAX


class NotJson(Exception):
    """The text can't be read from `position` on; `why` is the reason."""

    def __init__(self, position: int, why: str = "not JSON") -> None:
        super().__init__(position)
        self.position: Final = position
        self.why: Final = why


class JsonSlices:
    """A `JsonSlices` is a cursor over `text`. A method that says that it moves, moves behind the part that it has read."""

    def __init__(self, text: bytes, rules: Rules, *, allows_constants: bool = False) -> None:
        """Begin at the start. With `allows_constants`, `check_value` accepts NaN and infinities, which are not JSON."""
        self.allows_constants: Final = allows_constants
        self.text: Final = text
        self.rules: Final = rules
        self.size: i64 = len(text)
        self.position: i64 = 0
        self.rest_at: i64 = REST_BYTES
        # The number of elements that `next_elements` returned.
        self.elements: i64 = 0
        # The number of objects and arrays since `skip_value` or `next_elements` began.
        self.containers: i64 = 0
        # Whether the cursor is in a string; `next_text` returns more of it.
        self.is_in_string: bool = False

    def peek(self) -> i64:
        """Return the next byte that is not white space; -1 at the end. Moves up to it."""
        text = self.text
        size: i64 = self.size
        position: i64 = self.position
        while position < size:
            byte: i64 = text[position]
            if byte > SPACE or (byte != SPACE and byte != 0x0A and byte != 0x0D and byte != 0x09):
                self.position = position
                return byte
            position += 1
            if position > self.rest_at:
                self._rest(position)
        self.position = position
        return _END

    def expect(self, byte: i64) -> None:
        """Move behind `byte`, which must be next. Raises NotJson."""
        if self.peek() != byte:
            raise NotJson(self.position)
        self.position += 1

    def end(self) -> None:
        """Raise NotJson if anything but white space follows."""
        if self.peek() != _END:
            raise NotJson(self.position)

    def name(self) -> bytes:
        """Return the name of the next member, in quotes. Moves behind its colon. Raises NotJson."""
        if self.peek() != QUOTE:
            raise NotJson(self.position)
        start: i64 = self.position
        self._skip_string()
        name = self.text[start : self.position]
        self.expect(COLON)
        return name

    def has_next(self, closing: i64) -> bool:
        """Move behind a comma, and return True; or behind the closing bracket, and return False. Raises NotJson."""
        byte: i64 = self.peek()
        if byte != COMMA and byte != closing:
            raise NotJson(self.position)
        self.position += 1
        return byte == COMMA

    def skip_value(self, bytes_max: i64, containers_max: i64 = CONTAINERS_MAX) -> bool:
        """Move behind the next value and return True, if it has at most `bytes_max` bytes, and `containers_max` objects and
        arrays. Else return False, and do not move. Raises NotJson."""
        self.containers = 0
        return self._skip_value(bytes_max, containers_max)

    def _skip_value(self, bytes_max: i64, containers_max: i64) -> bool:
        """Do what `skip_value` does; `containers_max` includes the objects and arrays that were counted before."""
        first: i64 = self.peek()
        start: i64 = self.position
        if first == QUOTE:
            self._skip_string()
        elif first == OPENING_BRACE or first == OPENING_BRACKET:
            if not self._skip_container(start, bytes_max, containers_max):
                self.seek_back(start)
                return False
        else:
            self._skip_scalar()
        if self.position - start > bytes_max:
            self.seek_back(start)
            return False
        return True

    def check_value(self) -> None:
        """Move behind the next value, of any size and depth, and check that it is JSON. Raises NotJson."""
        closings = BytesWriter()  # the closing brackets of the open objects and arrays
        while True:
            opening: i64 = self.peek()
            if opening == OPENING_BRACE or opening == OPENING_BRACKET:
                self.position += 1
                closing: i64 = CLOSING_BRACE if opening == OPENING_BRACE else CLOSING_BRACKET
                if self.peek() != closing:
                    closings.append(u8(closing))
                    if closing == CLOSING_BRACE:
                        self.check_name()
                    continue
                self.position += 1
            elif opening == QUOTE:
                self._check_string()
            else:
                self._check_scalar()
            while True:
                depth: i64 = len(closings)
                if depth == 0:
                    return
                closing = i64(closings[depth - 1])
                if self.has_next(closing):
                    if closing == CLOSING_BRACE:
                        self.check_name()
                    break
                closings.truncate(depth - 1)

    def check_name(self) -> None:
        """Move behind the name of the next member, of any length, and its colon. Raises NotJson."""
        if self.peek() != QUOTE:
            raise NotJson(self.position)
        self._check_string()
        self.expect(COLON)

    def _check_string(self) -> None:
        self.open_string()
        while self.is_in_string:
            self._check(self.next_text(), self.position)

    def _check_scalar(self) -> None:
        start: i64 = self.position
        self._skip_scalar()
        if self.position - start <= SLICE_BYTES:
            self._check(self.text[start : self.position], start)
        elif not is_number(self.text, start, self.position, self.rules):  # a parser would take it in one go
            raise NotJson(start)

    def _check(self, token: bytes, position: i64) -> None:
        self.rules.read(0)
        try:
            orjson.loads(token)
        except orjson.JSONDecodeError as error:
            if BEYOND_A_DOUBLE not in error.msg and not (self.allows_constants and token in CONSTANTS):
                raise NotJson(position) from None

    def next_elements(self) -> bytes:
        """Return the next elements of the array in which the cursor is, as an array: as many as fit a slice, or empty if the
        next element is larger. Moves behind the comma that follows them, or up to the closing bracket. Raises NotJson."""
        if self.peek() == CLOSING_BRACKET:
            raise NotJson(self.position)
        start: i64 = self.position
        end: i64 = start
        elements: i64 = 0
        self.containers = 0
        while True:
            at: i64 = self.position
            if not self._skip_value(SLICE_BYTES, CONTAINERS_MAX) or (elements and self.position - start > SLICE_BYTES):
                self.seek_back(at)
                break
            end = self.position
            elements += 1
            byte: i64 = self.peek()
            if byte == CLOSING_BRACKET:
                break
            if byte != COMMA:
                raise NotJson(self.position)
            self.position += 1
            if self.peek() == CLOSING_BRACKET:
                raise NotJson(self.position)
        self.elements = elements
        if elements == 0:
            return b""
        return b"[" + self.text[start:end] + b"]"

    def open_string(self) -> None:
        """Move into the string that must be next. Raises NotJson."""
        self.expect(QUOTE)
        self.is_in_string = True

    def next_text(self) -> bytes:
        """Return the next piece of the string in which the cursor is, as a JSON string of whole characters, escapes, and
        surrogate pairs. Moves behind it, and at the end behind the quote. Raises NotJson."""
        text = self.text
        size: i64 = self.size
        start: i64 = self.position
        position: i64 = start
        stop: i64 = min(size, start + REST_BYTES)
        while position < stop:
            byte: i64 = text[position]
            if byte == QUOTE:
                self.is_in_string = False
                self.position = position + 1
                self._rest(position)
                return b'"' + text[start : self.position]
            if byte == BACKSLASH:
                position += self._escape_bytes(position)
            else:
                position += 1
        while position < size and position < stop + _WORD_BYTES and text[position] & 0xC0 == 0x80:
            position += 1
        if position >= size:
            raise NotJson(int(size))
        self.position = position
        self._rest(position)
        return b'"' + text[start:position] + b'"'

    def _escape_bytes(self, at: i64) -> i64:
        """Return the size of the escape that begins at `at`, including the next escape if both are one character."""
        text = self.text
        if at + 7 >= self.size or text[at + 1] != SMALL_U:
            return 2
        high: i64 = text[at + 3] | CASE
        is_high = text[at + 2] | CASE == SMALL_D and (high == 0x38 or high == 0x39 or high == 0x61 or high == 0x62)
        return 12 if is_high and text[at + 6] == BACKSLASH and text[at + 7] == SMALL_U else 6

    def seek_back(self, position: i64) -> None:
        """Move back to `position`. The bytes that follow are read once more, and rest once more."""
        self.position = position
        self.rest_at = min(self.rest_at, position + REST_BYTES)

    def _skip_string(self) -> None:
        self.position = end_of_string(self.text, self.position + 1, self.size, self.rules)
        self._rest(self.position)

    def _skip_container(self, start: i64, bytes_max: i64, containers_max: i64) -> bool:
        text = self.text
        size: i64 = self.size
        last: i64 = min(size, start + bytes_max)
        depth: i64 = 0
        position: i64 = start
        while position < last:
            byte: i64 = text[position]
            if byte == QUOTE:
                # Not beyond `last`: a long string would be read again for each container around it.
                position = end_of_string(text, position + 1, last, self.rules)
                self._rest(position)
                continue
            position += 1
            if byte == OPENING_BRACE or byte == OPENING_BRACKET:
                depth += 1
                self.containers += 1
                if self.containers > containers_max:
                    return False
                if depth > _PARSER_DEPTH_MAX:
                    # Else the reading of each inner object would get as far as this one.
                    raise NotJson(position, "nested too deep")
                self._rest(position)
            elif byte == CLOSING_BRACE or byte == CLOSING_BRACKET:
                depth -= 1
                if depth == 0:
                    self.position = position
                    return True
        if last == size:
            raise NotJson(size)
        return False

    def _skip_scalar(self) -> None:
        text = self.text
        size: i64 = self.size
        start: i64 = self.position
        position: i64 = start
        while position < size:
            byte: i64 = text[position]
            if byte <= SPACE or byte == COMMA or byte == CLOSING_BRACE or byte == CLOSING_BRACKET or byte == COLON:
                break
            position += 1
            if position > self.rest_at:
                self._rest(position)
        if position == start:
            raise NotJson(start)
        self.position = position

    def _rest(self, position: i64) -> None:
        if position > self.rest_at:
            self.rest_at = position + REST_BYTES
            self.rules.rest()


def shallow_json(body: bytes, rules: Rules, *, allows_constants: bool = False) -> bytes:
    """Return a JSON text with each object and array emptied that is nested deeper than `SHALLOW_DEPTH_MAX`. A parser reads it.

    Return the text itself if no value is nested that deep, or one of these is not JSON. `allows_constants` is as in
    `JsonSlices`.
    """
    size: i64 = len(body)
    shallow = BytesIO()  # its buffer becomes the result without a copy
    slices = JsonSlices(body, rules, allows_constants=allows_constants)
    keep: i64 = 0
    depth: i64 = 0
    position: i64 = find_outside_strings(body, 0, _BRACKETS, rules)
    while position < size:
        byte: i64 = body[position]
        end: i64 = position + 1
        if byte == CLOSING_BRACE or byte == CLOSING_BRACKET:
            depth -= 1
        elif depth < SHALLOW_DEPTH_MAX:
            depth += 1
        else:
            slices.position = position
            try:
                slices.check_value()
            except NotJson:
                return body
            end = slices.position
            if end - position > _EMPTY_BYTES:
                _copy(shallow, body, keep, position + 1, rules)
                keep = end - 1  # the closing bracket
        position = find_outside_strings(body, end, _BRACKETS, rules)
    if keep == 0:
        return body
    _copy(shallow, body, keep, size, rules)
    return shallow.getvalue()


def _copy(target: BytesIO, text: bytes, start: i64, end: i64, rules: Rules) -> None:
    """Append start:end of the text, with a rest for each slice."""
    while start < end:
        target.write(text[start : min(end, start + SLICE_BYTES)])
        start += SLICE_BYTES
        rules.rest()
