"""How many elements a request holds, known before it is read: a sender pays by the byte, and a scanner by the element.

An element is a field on the wire that is not of fixed size: a message, an attribute, a label, a text, a number, or an entry of
a packed list. Each costs a step of a scanner. An empty message takes two bytes and costs as much as a full one.

The check reads a body before its adapter does, keeps nothing of it, and stops at the limit: 3 to 12 ns an element. What the
rows of a request cost, adapters/otlp/row_price.py and adapters/prometheus/price.py say.

Invariants:
1. An element takes at least two bytes of the body. So a body of at most twice the limit is not read at all
   (tests/unit/adapters/test_price.py, test_small_bodies_are_not_counted).
2. What `check_elements` counts is at least the number of steps that a scanner takes (test_price.py,
   test_each_kind_of_element_counts).
3. It rests at least once for each 256 KiB, but for a value of one attribute (test_price.py, test_counting_rests).
4. A body is never refused for being malformed: the adapter that reads it next says so (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
"""

from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from librt.strings import read_i64_le
from mypy_extensions import i64

from adapters.codec.wire import BYTES, FIXED32, FIXED64, Cursor, NonCanonical
from adapters.errors import too_many_elements
from adapters.rules import NO_RULES, Rules

# The fewest bytes that an element takes: its tag, and its length or value.
ELEMENT_BYTES_MIN: Final = 2
# A message of at most so many bytes is not read: it counts as many elements as it could hold.
_TINY_BYTES_MAX: Final = 8
# A list nested deeper is refused by the adapter, which reads no further than that.
_DEPTH_MAX: Final = 200
_WORD_BYTES: Final = 8
# How many are counted before the limit is looked at.
_COUNTED_AT_ONCE: Final = 10_000
# From one rest to the next: 10 ns a byte at most.
_REST_BYTES: Final = 256 << 10

# Of a KeyValue, an AnyValue.
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_STRING: Final = 0x0A
_ARRAY: Final = 0x2A
_KVLIST: Final = 0x32


# What a field of bytes holds.
_TEXT: Final = 0  # nothing that is read here
_MESSAGE: Final = 1
_ATTRIBUTE: Final = 2  # a KeyValue
_ANY_VALUE: Final = 3
_PACKED_FIXED64: Final = 4
_PACKED_VARINT: Final = 5

_TAGS: Final = 256  # every known tag is below
_FIXED64_TYPES: Final = (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE)
_VALUES: Final = {"KeyValue": _ATTRIBUTE, "AnyValue": _ANY_VALUE}


class Shape:
    """What the fields of one message type hold, by tag; and the shapes of its submessages."""

    def __init__(self) -> None:
        self.kinds: bytes = bytes(_TAGS)
        self.children: Final[dict[int, Shape]] = {}


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
            kind = _VALUES.get(field.message_type.name, _MESSAGE)
            if kind == _MESSAGE:
                shape.children[tag] = _shape_of(field.message_type)
        elif not field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            kind = _TEXT
        else:
            kind = _PACKED_FIXED64 if field.type in _FIXED64_TYPES else _PACKED_VARINT
        kinds[tag] = kind
    shape.kinds = bytes(kinds)
    return shape


def check_elements(body: bytes, shape: Shape, elements_max: i64, rules: Rules = NO_RULES) -> None:
    """Refuse a serialized message of that shape that holds more elements than that. Rests by `rules`. Raises RequestRefused."""
    if len(body) <= elements_max * ELEMENT_BYTES_MIN:
        return
    count = _Count(body, elements_max, rules)
    try:
        count.message(shape, 0, len(body), 0)
    except NonCanonical:
        return
    except _TooMany:
        raise too_many_elements(len(body), elements_max) from None


def may_hold_more_elements(body: bytes, shape: Shape, elements_max: i64, rules: Rules = NO_RULES) -> bool:
    """Return whether a message of that shape may hold more elements than that. From where it is odd, any two bytes may be
    one."""
    if len(body) <= elements_max * ELEMENT_BYTES_MIN:
        return False
    count = _Count(body, elements_max, rules)
    try:
        count.message(shape, 0, len(body), 0)
    except NonCanonical as odd:
        unread: i64 = len(body) - odd.position
        return count.elements + (unread >> 1) > elements_max
    except _TooMany:
        return True
    return False


class _TooMany(Exception):
    """The limit is exceeded: the rest need not be read."""


class _Count:
    """Counts the elements of one body."""

    def __init__(self, buffer: bytes, elements_max: i64, rules: Rules) -> None:
        self.buffer: Final = buffer
        self.cursor: Final = Cursor(buffer)
        self.rules: Final = rules
        self.rest_at: i64 = _REST_BYTES
        self.elements_max: i64 = elements_max
        self.elements: i64 = 0

    def message(self, shape: Shape, start: i64, end: i64, depth: i64) -> None:
        """Count those of the message at start:end. Raises NonCanonical, _TooMany."""
        buffer = self.buffer
        cursor = self.cursor
        kinds = shape.kinds
        words_end: i64 = min(end, len(buffer) - _WORD_BYTES)
        child = shape
        child_tag: i64 = 0
        elements: i64 = 0
        position: i64 = start
        while position < end:
            stop: i64 = min(end, self.rest_at)
            while position < stop:
                first: i64 = position + 2
                after: i64 = 0
                tag: i64 = 0
                if position < words_end:
                    word: i64 = read_i64_le(buffer, position)
                    tag = word & 0xFF
                    length: i64 = word >> 8 & 0xFF
                    if tag & 7 == BYTES and tag < 128 and length < 128:
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
                        if tag & 7 != FIXED64 and tag & 7 != FIXED32:
                            elements += 1
                        continue
                if after > end:
                    raise NonCanonical(position)
                position = after
                size: i64 = after - first
                elements += 1
                if elements > _COUNTED_AT_ONCE:
                    self._add(elements)
                    elements = 0
                if size == 0 or tag > 255:
                    continue
                kind: i64 = kinds[tag]
                if kind == _TEXT:
                    continue
                if kind == _ATTRIBUTE:
                    if not self._is_plain_text(first, after):
                        self.elements += elements
                        elements = 0
                        self._value(first, after, _VALUE, depth + 1)
                elif kind == _MESSAGE:
                    if size <= _TINY_BYTES_MAX:
                        elements += size >> 1
                    else:
                        if tag != child_tag:
                            child = shape.children[tag]
                            child_tag = tag
                        self.elements += elements
                        elements = 0
                        self.message(child, first, after, depth + 1)
                elif kind == _PACKED_FIXED64:
                    elements += size >> 3
                elif kind == _PACKED_VARINT:
                    elements += size >> 1
                elif kind == _ANY_VALUE:
                    self.elements += elements
                    elements = 0
                    self._value(first, after, 0, depth + 1)
            if position >= self.rest_at:
                self.rest_at = position + _REST_BYTES
                self.rules.rest()
        self._add(elements)

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

    def _value(self, start: i64, end: i64, kind: i64, depth: i64) -> None:
        """Count the fields of an AnyValue (`kind` 0), a KeyValue (0x12), an ArrayValue (0x2A) or a KeyValueList (0x32)."""
        if depth > _DEPTH_MAX:
            return
        cursor = self.cursor
        elements: i64 = 0
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            elements += 1
            if elements > _COUNTED_AT_ONCE:
                self._add(elements)
                elements = 0
            size: i64 = position - cursor.start
            if size <= 1 or tag & 7 != BYTES:
                continue
            inner: i64 = -1
            if kind == 0:
                if tag == _ARRAY or tag == _KVLIST:
                    inner = tag
            elif kind == _VALUE:
                if tag == _VALUE:
                    inner = 0
            elif tag == 0x0A:
                inner = 0
                if kind == _KVLIST:
                    inner = _VALUE
            if inner < 0:
                continue
            if size <= _TINY_BYTES_MAX:
                elements += size >> 1
            else:
                self._add(elements)
                elements = 0
                self._value(cursor.start, position, inner, depth + 1)
        self._add(elements)
