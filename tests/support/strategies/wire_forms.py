"""A message in the forms that protobuf allows: all that an encoder may write, and that parses to the same message.

Source: protobuf.dev, "Encoding"; each parser must take all of it. `form` asks a `random.Random`, not Hypothesis: a form is one
draw, and so thousands of them can be made, and inserted at once.
"""

import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_DOUBLE: 1,
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_SFIXED64: 1,
    FieldDescriptor.TYPE_FLOAT: 5,
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_SFIXED32: 5,
    FieldDescriptor.TYPE_STRING: 2,
    FieldDescriptor.TYPE_BYTES: 2,
    FieldDescriptor.TYPE_MESSAGE: 2,
}
_FIXED: Final = {
    FieldDescriptor.TYPE_DOUBLE: "<d",
    FieldDescriptor.TYPE_FIXED64: "<Q",
    FieldDescriptor.TYPE_SFIXED64: "<q",
    FieldDescriptor.TYPE_FLOAT: "<f",
    FieldDescriptor.TYPE_FIXED32: "<I",
    FieldDescriptor.TYPE_SFIXED32: "<i",
}
_ZIGZAG: Final = (FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64)
# A parser takes the low 32 bits of such a varint only.
_NARROW: Final = (
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_ENUM,
)
# What a later version may have added: near, at our own records' numbers, and at the ends of what is allowed.
_UNKNOWN_NUMBERS: Final = (*range(1, 40), 99, 1000, 19_000_000, 536_870_911)


# What a form may do beside what the official encoder does.
ODDITIES: Final = (
    "any_order",  # fields, but for those whose order matters
    "unknown_field",
    "unknown_group",
    "oneof_twice",
    "singular_twice",
    "two_pieces",  # a singular submessage
    "default_written",
    "list_split",  # a packed list, in several
    "list_unpacked",
    "list_empty",  # a packed list without elements
    "wide_varint",  # more bits than the field's type has
    "padded_varint",  # in more bytes than it needs
    "padded_length",  # and of a tag
)


class Forms:
    """Writes messages with some of the oddities: all of them at once would hide from an adapter's fast path what each does."""

    def __init__(self, lot: random.Random, oddities: Iterable[str], oddness: float = 0.5) -> None:
        """`oddness`: how likely each is, wherever it can be."""
        self._lot = lot
        self._oddness = dict.fromkeys(oddities, oddness)

    def form(self, message: Message) -> bytes:
        """One form of the message. It parses to the same message, but for unknown fields."""
        return b"".join(self.fields(message))

    def fields(self, message: Message) -> list[bytes]:
        """The same, divided into fields."""
        pieces = [(field.number, self._field(message, field)) for field in _alone(message)]
        pieces += [self._oneof(message, oneof.fields) for oneof in message.DESCRIPTOR.oneofs]
        streams = [stream for _, stream in sorted(pieces) if stream]
        if self._is("any_order"):  # in any order, but of one field's (or oneof's) pieces
            order = [n for n, stream in enumerate(streams) for _ in stream]
            self._lot.shuffle(order)
            iterators = [iter(stream) for stream in streams]
            fields = [next(iterators[n]) for n in order]
        else:
            fields = [field for stream in streams for field in stream]
        for oddity in ("unknown_field", "unknown_group"):
            if self._is(oddity):
                unknown = self._unknown(set(message.DESCRIPTOR.fields_by_number), oddity == "unknown_group")
                fields.insert(self._lot.randint(0, len(fields)), unknown)
        return fields

    def _is(self, oddity: str) -> bool:
        return oddity in self._oddness and self._lot.random() < self._oddness[oddity]

    def _oneof(self, message: Message, fields: Sequence[Any]) -> tuple[int, list[bytes]]:
        """A member that another replaces, and the one that counts, whose number it is."""
        for field in fields:
            if message.HasField(field.name):
                others = [other for other in fields if other is not field]
                decoys = [self._decoy(self._lot.choice(others))] if others and self._is("oneof_twice") else []
                return field.number, [*decoys, *self._field(message, field)]
        return 0, []

    def _field(self, message: Message, field: FieldDescriptor) -> list[bytes]:
        """All pieces of a field, in the order that they must have."""
        value = getattr(message, field.name)
        if field.is_repeated:
            packable = _WIRE_TYPES.get(field.type, 0) != 2
            pieces = self._list(field, value) if packable else [self._element(field, entry) for entry in value]
        elif field.has_presence and not message.HasField(field.name):
            return []
        elif field.message_type is not None:
            inner = self.fields(value)
            pieces = [self._delimited(field.number, b"".join(inner))]
            if self._is("two_pieces"):
                cut = self._lot.randint(0, len(inner))
                pieces = [self._delimited(field.number, b"".join(piece)) for piece in (inner[:cut], inner[cut:])]
        elif field.has_presence or value or _is_negative_zero(value):
            decoys = [self._decoy(field)] if self._is("singular_twice") else []
            pieces = [*decoys, self._element(field, value)]
        else:
            decoys = [self._decoy(field)] if self._is("singular_twice") else []
            pieces = [*decoys, self._element(field, value)] if decoys or self._is("default_written") else []
        return pieces

    def _list(self, field: FieldDescriptor, values: Iterable[Any]) -> list[bytes]:
        """Packed, not packed, in several pieces, some of them empty."""
        left = list(values)
        pieces = []
        while left:
            taken = self._lot.randint(1, len(left)) if self._is("list_split") else len(left)
            if self._is("list_unpacked"):
                pieces += [self._element(field, value) for value in left[:taken]]
            else:
                pieces.append(self._delimited(field.number, b"".join(self._scalar(field, value) for value in left[:taken])))
            del left[:taken]
        if self._is("list_empty"):
            pieces.insert(self._lot.randint(0, len(pieces)), self._delimited(field.number, b""))
        return pieces

    def _decoy(self, field: FieldDescriptor) -> bytes:
        """One occurrence of a singular field that a later one replaces."""
        kind = field.type
        if field.message_type is not None:
            return self._delimited(field.number, b"")
        if kind == FieldDescriptor.TYPE_STRING:
            return self._element(field, "decoy")
        if kind == FieldDescriptor.TYPE_BYTES:
            return self._element(field, b"decoy")
        return self._element(field, 1)

    def _element(self, field: FieldDescriptor, value: Any) -> bytes:
        """One value behind a tag."""
        if field.message_type is not None:
            return self._delimited(field.number, self.form(value))
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._delimited(field.number, value.encode())
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._delimited(field.number, value)
        return self._tag(field.number, _WIRE_TYPES.get(field.type, 0)) + self._scalar(field, value)

    def _scalar(self, field: FieldDescriptor, value: Any) -> bytes:
        if field.type in _FIXED:
            return struct.pack(_FIXED[field.type], value)
        number = int(value)
        if field.type in _ZIGZAG:
            number = number * 2 if number >= 0 else -number * 2 - 1
        if field.type in _NARROW and self._is("wide_varint"):
            number = (number & 0xFFFFFFFF) | self._lot.getrandbits(32) << 32
        elif field.type == FieldDescriptor.TYPE_BOOL and value and self._is("wide_varint"):
            number = self._lot.choice([2, 1 << 40, 2**64 - 1])
        return self._varint(number, "padded_varint", 10)

    def _delimited(self, number: int, payload: bytes) -> bytes:
        return self._tag(number, 2) + self._varint(len(payload), "padded_length", 5) + payload

    def _tag(self, number: int, wire_type: int) -> bytes:
        return self._varint(number << 3 | wire_type, "padded_length", 5)

    def _varint(self, number: int, padded: str, bytes_max: int) -> bytes:
        """Of so many bytes at most, where it is padded."""
        number &= 2**64 - 1
        out = bytearray()
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
        if len(out) < bytes_max and self._is(padded):
            out[-1] |= 128
            out += b"\x80" * self._lot.randint(0, bytes_max - len(out) - 1) + b"\0"
        return bytes(out)

    def _unknown(self, known: set[int], is_group: bool) -> bytes:
        """A field that the message does not have."""
        number = self._lot.choice([number for number in _UNKNOWN_NUMBERS if number not in known])
        if is_group:
            inner = [self._unknown(set(), self._lot.random() < 0.2) for _ in range(self._lot.randint(0, 2))]
            return self._tag(number, 3) + b"".join(inner) + self._tag(number, 4)
        kind = self._lot.choice([0, 1, 2, 5])
        if kind == 0:
            return self._tag(number, 0) + self._varint(
                self._lot.getrandbits(self._lot.choice([1, 7, 32, 64])), "padded_varint", 10
            )
        if kind == 2:
            return self._delimited(number, self._lot.randbytes(self._lot.choice([0, 1, 3, 130])))
        return self._tag(number, kind) + self._lot.randbytes(8 if kind == 1 else 4)


def _alone(message: Message) -> list[Any]:
    """Fields that are in no oneof."""
    return [field for field in message.DESCRIPTOR.fields if field.containing_oneof is None]


def _is_negative_zero(value: Any) -> bool:
    return isinstance(value, float) and struct.pack("<d", value) != bytes(8)


def canonical(message: Message) -> bytes:
    """As the official encoder writes it, without unknown fields; deterministic."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy.SerializeToString(deterministic=True)
