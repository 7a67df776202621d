"""Count the elements of a request before it is read: a sender pays by the byte, and a scanner by the element.

An element is a field on the wire that is not of fixed size: a message, an attribute, a label, a text, a number, or an entry of
a packed list. Each costs a step of a scanner. An empty message takes two bytes and costs as much as a full one.

The check reads a body before its adapter does, keeps nothing of it, and stops at the limit: 3 to 8 ns an element. It can also
read the pieces of a body as they are decompressed, so a body that holds too many is not decompressed further.
adapters/otlp/row_price.py and adapters/prometheus/price.py count the bytes of a request's rows.

Invariants:
1. An element takes at least two bytes of the body. So a body of at most twice the limit is not read at all
   (tests/unit/adapters/test_price.py, test_small_bodies_are_not_counted).
2. `check_elements` counts at least the number of steps that a scanner takes (test_price.py,
   test_each_kind_of_element_counts).
3. The check rests at least once for each 256 KiB (test_price.py, test_counting_rests).
4. A body is never refused for being malformed: the adapter that reads it next reports that (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
5. Wherever a body is cut into pieces, the pieces together have as many elements as the whole (test_price.py,
   test_pieces_have_the_elements_of_the_whole).
"""

from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from librt.strings import read_i64_le
from mypy_extensions import i64

from adapters.codec.pieces import PiecesCount
from adapters.codec.wire import BYTES, FIXED32, FIXED64, Cursor, NonCanonical
from adapters.errors import RequestRefused, too_many_elements
from adapters.rules import NO_RULES, Rules

# The fewest bytes that an element takes: its tag, and its length or value.
ELEMENT_BYTES_MIN: Final = 2
# A message of at most this size is not read: it counts as the most elements that it could hold.
_TINY_BYTES_MAX: Final = 8
# A list nested deeper is refused by the adapter, which reads no further than that.
_COUNTED_DEPTH_MAX: Final = 200
_WORD_BYTES: Final = 8
# The bits of an empty field: its tag, below 128, and its length.
_PAIR_BITS: Final = 16
_PAIRS: Final = 4
# Read from bytes: mypyc takes a literal as a C int, of 32 bits.
_THREE_PAIRS: Final = b"\xff" * 6 + bytes(2)
# The bytes from one rest, and one check of the limit, to the next: at most 10 ns a byte.
_REST_BYTES: Final = 256 << 10
# A tag has at most five bytes, and a number ten.
_HEAD_BYTES_MAX: Final = 16
# The end of a message whose size is not known.
_ENDLESS: Final = 1 << 60

# Fields of a KeyValue (key, value) and of an AnyValue (string).
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_STRING: Final = 0x0A
# The most bytes of a KeyValue whose key and text have less than 128 bytes each.
_PLAIN_TEXT_BYTES_MAX: Final = 258

# What a field of bytes may contain.
_TEXT: Final = 0  # bytes that are not read here
_MESSAGE: Final = 1
_ATTRIBUTE: Final = 2  # a KeyValue
_PACKED_FIXED64: Final = 3
_PACKED_VARINT: Final = 4

_TAGS: Final = 256  # every known tag is below
_FIXED64_TYPES: Final = (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE)


class Shape:
    """A `Shape` records the kinds of a message type's fields by tag, and the shapes of its submessages."""

    def __init__(self) -> None:
        self.kinds: bytes = bytes(_TAGS)
        self.children: Final[list[Shape]] = [self] * _TAGS


_shapes: Final[dict[str, Shape]] = {}


def shape_of(message_class: type[Message]) -> Shape:
    """Return the shape of a message type."""
    return _shape_of(cast("Descriptor", message_class.DESCRIPTOR))


def _shape_of(descriptor: Descriptor) -> Shape:
    shape = _shapes.get(descriptor.full_name)
    if shape is not None:
        return shape
    shape = _shapes[descriptor.full_name] = Shape()
    kinds = bytearray(_TAGS)
    for field in descriptor.fields:
        tag = field.number << 3 | BYTES
        if field.message_type is not None:
            kind = _ATTRIBUTE if field.message_type.name == "KeyValue" else _MESSAGE
            shape.children[tag] = _shape_of(field.message_type)
        elif not field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            kind = _TEXT
        else:
            kind = _PACKED_FIXED64 if field.type in _FIXED64_TYPES else _PACKED_VARINT
        kinds[tag] = kind
    shape.kinds = bytes(kinds)
    return shape


def check_elements(body: bytes, shape: Shape, elements_max: i64, rules: Rules = NO_RULES) -> None:
    """Refuse a serialized message of more than `elements_max` elements. Rest as `rules` say. Raises RequestRefused."""
    if len(body) <= elements_max * ELEMENT_BYTES_MIN or body is rules.counted_body:
        return
    count = _Count(elements_max, rules)
    try:
        count.whole(body, shape)
    except NonCanonical:
        return
    except _TooMany:
        raise too_many_elements(len(body), elements_max) from None


def may_hold_more_elements(body: bytes, shape: Shape, elements_max: i64, rules: Rules = NO_RULES) -> bool:
    """Return whether a message may hold more than `elements_max` elements. Behind a field that can't be read, any two bytes may
    be an element."""
    if len(body) <= elements_max * ELEMENT_BYTES_MIN:
        return False
    count = _Count(elements_max, rules)
    try:
        count.whole(body, shape)
    except NonCanonical as odd:
        unread: i64 = len(body) - odd.position
        return count.elements + (unread >> 1) > elements_max
    except _TooMany:
        return True
    return False


class ElementsCount(PiecesCount):
    """An `ElementsCount` counts the elements of a message that arrives in pieces."""

    def __init__(self, shape: Shape, elements_max: i64) -> None:
        super().__init__(elements_max * ELEMENT_BYTES_MIN, elements_max * ELEMENT_BYTES_MIN)
        self._elements_max: Final[i64] = elements_max
        self._count: Final = _Count(elements_max, NO_RULES)
        self._count.begin(shape)

    def _exceeds(self, piece: bytes) -> bool:
        """Count the next piece. Behind a field that can't be read, nothing is counted."""
        if not self.is_sure:
            return False
        try:
            self._count.piece(piece)
        except NonCanonical:
            self.is_sure = False
        except _TooMany:
            return True
        return False

    def _passes_over(self, size_bytes: i64) -> bool:
        """Pass over bytes within a long text, or behind a field that can't be read."""
        return not self.is_sure or self._count.pass_over(size_bytes)

    def _refusal(self) -> RequestRefused:
        return too_many_elements(int(self.size_bytes), int(self._elements_max), is_whole=False)


class _TooMany(Exception):
    """The limit is exceeded, so the rest need not be read."""


class _Open:
    """An `_Open` is a message whose end is in a later piece."""

    def __init__(self, shape: Shape, end: i64, depth: i64) -> None:
        self.shape: Final = shape
        self.end: Final[i64] = end
        self.depth: Final[i64] = depth


def _moved(messages: list[_Open], gone: i64) -> list[_Open]:
    """Return open messages as they are in a buffer that has lost its first `gone` bytes."""
    moved: list[_Open] = []
    for one in messages:
        end: i64 = one.end if one.end == _ENDLESS else one.end - gone
        moved.append(_Open(one.shape, end, one.depth))
    return moved


class _Count:
    """A `_Count` counts the elements of one body, or of a body's pieces."""

    def __init__(self, elements_max: i64, rules: Rules) -> None:
        self.buffer: bytes = b""
        self.cursor: Cursor = Cursor(b"")
        self.rules: Final = rules
        self.rest_at: i64 = _REST_BYTES
        self.elements_max: Final[i64] = elements_max
        self.elements: i64 = 0
        # The beginning of the first field that is not counted, in the buffer or behind it.
        self.position: i64 = 0
        # The messages that this field is in, the innermost first.
        self.open: list[_Open] = []

    def whole(self, body: bytes, shape: Shape) -> None:
        """Count a body. Raises NonCanonical, _TooMany."""
        self.buffer = body
        self.cursor = Cursor(body)
        self.message(shape, 0, len(body), 0)

    def begin(self, shape: Shape) -> None:
        """Begin to count a message of unknown size."""
        self.open = [_Open(shape, _ENDLESS, 0)]

    def piece(self, piece: bytes) -> None:
        """Count the next piece of the message, as far as its fields are complete. Raises NonCanonical, _TooMany."""
        gone: i64 = min(self.position, len(self.buffer))
        self.buffer = self.buffer[gone:] + piece
        self.cursor = Cursor(self.buffer)
        self.rest_at = _REST_BYTES
        outer = self.open
        self.open = []
        position: i64 = self.position - gone
        while True:
            first = outer.pop(0)
            end: i64 = first.end if first.end == _ENDLESS else first.end - gone
            if not self.message(first.shape, position, end, first.depth):
                break
            position = end
        self.open += _moved(outer, gone)

    def pass_over(self, size_bytes: i64) -> bool:
        """Pass over the next `size_bytes` bytes, if they are within a field that is counted. Return whether they are."""
        gone: i64 = len(self.buffer) + size_bytes
        if self.position < gone:
            return False
        self.buffer = b""
        self.position -= gone
        self.open = _moved(self.open, gone)
        return True

    def message(self, shape: Shape, start: i64, end: i64, depth: i64) -> bool:
        """Count the elements of the message at start:end. Return whether its end was reached; else it is open. Raises
        NonCanonical, _TooMany."""
        if depth > _COUNTED_DEPTH_MAX:
            return True
        buffer = self.buffer
        cursor = self.cursor
        kinds = shape.kinds
        size_read: i64 = len(buffer)
        words_end: i64 = min(end, size_read - _WORD_BYTES)
        readable: i64 = end if end <= size_read else size_read - _HEAD_BYTES_MAX
        three_pairs: i64 = read_i64_le(_THREE_PAIRS, 0)
        elements: i64 = 0
        position: i64 = start
        while position < readable:
            stop: i64 = min(readable, self.rest_at)
            while position < stop:
                begin: i64 = position
                first: i64 = position + 2
                after: i64 = 0
                tag: i64 = 0
                if position < words_end:
                    word: i64 = read_i64_le(buffer, position)
                    tag = word & 0xFF
                    length: i64 = word >> 8 & 0xFF
                    if tag & 7 == BYTES and tag < 128 and length < 128:
                        if length == 0 and word >> _PAIR_BITS == word & three_pairs:
                            elements += _PAIRS  # the same field four times, and empty
                            position += _WORD_BYTES
                            continue
                        after = first + length
                    elif tag & 7 == FIXED64 and tag < 128:
                        position += 9
                        continue
                    elif tag & 7 == 0 and tag < 128 and length < 128:
                        elements += 1
                        position += 2
                        continue
                if after == 0:
                    cursor.position = position
                    tag = cursor.field(end)
                    first = cursor.start
                    after = cursor.position
                    if tag & 7 != BYTES:
                        position = after
                        elements += 0 if tag & 7 == FIXED64 or tag & 7 == FIXED32 else 1
                        continue
                if after > end:
                    raise NonCanonical(position)
                position = after
                size: i64 = after - first
                elements += 1
                if size == 0 or tag > 255:
                    continue
                kind: i64 = kinds[tag]
                if kind == _TEXT:
                    continue
                if kind == _ATTRIBUTE and after <= size_read and self._is_plain_text(first, after):
                    continue
                if kind == _ATTRIBUTE and after > size_read and size <= _PLAIN_TEXT_BYTES_MAX:
                    return self._leave(shape, end, depth, begin, elements - 1)  # it is read once it is whole
                if kind == _PACKED_FIXED64:
                    elements += size >> 3
                elif size <= _TINY_BYTES_MAX or kind == _PACKED_VARINT:
                    elements += size >> 1
                else:
                    self._add(elements)
                    elements = 0
                    if not self.message(shape.children[tag], first, after, depth + 1):
                        self.open.append(_Open(shape, end, depth))
                        return False
            if position >= self.rest_at:
                self._add(elements)
                elements = 0
                self.rest_at = position + _REST_BYTES
                self.rules.rest()
        if position < end:
            return self._leave(shape, end, depth, position, elements)
        self._add(elements)
        return True

    def _leave(self, shape: Shape, end: i64, depth: i64, position: i64, elements: i64) -> bool:
        """Leave an open message at its field that begins at `position`. Raises _TooMany."""
        self._add(elements)
        self.position = position
        self.open.append(_Open(shape, end, depth))
        return False

    def _add(self, elements: i64) -> None:
        self.elements += elements
        if self.elements > self.elements_max:
            raise _TooMany

    def _is_plain_text(self, start: i64, end: i64) -> bool:
        """Return whether the KeyValue at start:end is a key and a text, both short, and nothing else."""
        buffer = self.buffer
        if end - start < 4 or buffer[start] != _KEY:
            return False
        value: i64 = buffer[start + 1]
        value += start + 2
        if value + 4 > end or buffer[value] != _VALUE or buffer[value + 2] != _STRING:
            return False
        length: i64 = buffer[value + 1]
        text_length: i64 = buffer[value + 3]
        return length < 128 and value + 2 + length == end and text_length == length - 2
