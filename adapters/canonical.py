"""Read protobuf bodies that have texts that are not UTF-8, or that are unusually written.

A body is first read as it was sent. If that fails, its texts are repaired (adapters/codec/text_repair.py), and it is read once
more. If that fails too, protobuf's parser reads it, once. A body that the parser refuses is malformed. Any other is rewritten
in its canonical form, with known fields only, and read in that form.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from adapters.codec.text_repair import repaired_wire
from adapters.codec.wire import NonCanonical
from adapters.errors import INVALID_PROTOBUF, PAYLOAD_TOO_LARGE, Malformed, RequestRefused
from adapters.price import may_hold_more_elements, shape_of
from adapters.record import Adapted
from adapters.rules import Rules
from adapters.unknown_fields import unknown_fields

# Protobuf's parser takes up to 170 bytes of memory and 0.2 us per element, and no client that we know needs it.
ODD_BODY_BYTES_MAX: Final = 16 << 20
ODD_ELEMENTS_MAX: Final = 1 << 19
_MISTYPED_MESSAGES_MAX: Final = 1_000


def adapt_or_canonicalize(
    adapt: Callable[[bytes], Adapted], body: bytes, message_class: type[Message], rules: Rules, kept_unknown: bytes = b""
) -> Adapted:
    """Return the result of `adapt` for a body; if it raises NonCanonical, for the body with its texts repaired; and else for
    the canonical form of that. Raises Malformed, RequestRefused.

    A result without items has the unknown fields of the body. `kept_unknown` is the tag of an unknown field that `adapt`
    knows: if a body may have it, the canonical form keeps the unknown fields.
    """
    adapted = _adapted(adapt, body, message_class, rules, kept_unknown)
    if body and not adapted.parts and not adapted.rejected and adapted.unknown_fields is None:
        adapted.unknown_fields = unknown_fields(body, message_class.DESCRIPTOR) or None
    return adapted


def _adapted(
    adapt: Callable[[bytes], Adapted], body: bytes, message_class: type[Message], rules: Rules, kept_unknown: bytes
) -> Adapted:
    """Return what `adapt_or_canonicalize` returns, without the unknown fields."""
    before = rules.repaired
    try:
        return adapt(body)
    except NonCanonical as odd:
        position = odd.position
    rules.restore_repairs(before)
    repaired = repaired_wire(body, message_class, rules)
    before = rules.repaired
    if repaired is not body:
        try:
            return adapt(repaired)
        except NonCanonical as odd:
            position = odd.position
        rules.restore_repairs(before)
    plain = _plain(repaired, len(body), message_class, position, rules, kept_unknown)
    try:
        return adapt(plain)
    except NonCanonical as odd:
        raise _cannot_decode(message_class.DESCRIPTOR.name, len(plain), odd.position) from None


def _plain(
    body: bytes, sent_bytes: int, message_class: type[Message], position: int, rules: Rules, kept_unknown: bytes
) -> bytes:
    """Return the same message as a plain encoder writes it. Raises Malformed with `position`, where the reading first failed,
    and RequestRefused if the body has too many elements for the parser.

    `sent_bytes` is the size of the body before its texts were repaired.
    """
    name = message_class.DESCRIPTOR.name
    if len(body) > ODD_BODY_BYTES_MAX:
        raise Malformed(
            INVALID_PROTOBUF,
            f"cannot decode {name}: {len(body)} bytes, not in canonical form at byte {position};"
            f" such a body may have {ODD_BODY_BYTES_MAX} bytes: check that it is complete, or send smaller batches",
        )
    if may_hold_more_elements(body, shape_of(message_class), ODD_ELEMENTS_MAX, rules):
        raise RequestRefused(
            PAYLOAD_TOO_LARGE,
            f"the {name} of {len(body)} bytes is not in canonical form at byte {position}, and may hold more than the"
            f" {ODD_ELEMENTS_MAX} elements that such a body may have: send smaller batches",
        )
    rules.rest()
    message = message_class()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise _cannot_decode(name, sent_bytes, min(position, sent_bytes)) from None
    rules.rest()
    mistyped = _mistyped(message)
    if mistyped:
        raise Malformed(
            INVALID_PROTOBUF, f"cannot decode {name}: {mistyped}: check that the request is sent to the route of its signal"
        )
    if not kept_unknown or kept_unknown not in body:
        message.DiscardUnknownFields()
    rules.rest()
    return message.SerializeToString()


def _mistyped(message: Message) -> str:
    """Return the first field whose number is known and whose wire type is wrong, or empty if the first messages have none.
    Protobuf's parser treats such a field as unknown. A request of another signal has such fields."""
    pending = [message]
    left = _MISTYPED_MESSAGES_MAX
    while pending and left:
        left -= 1
        found = pending.pop()
        descriptor = found.DESCRIPTOR
        unknown_set: Any = UnknownFieldSet(found)  # whose stubs have no iterator
        for unknown in unknown_set:
            field = descriptor.fields_by_number.get(unknown.field_number)
            if field is not None:
                return f"{descriptor.name}.{field.name} has wire type {unknown.wire_type}"
        for field, value in found.ListFields():
            if field.message_type is not None:
                pending.extend(islice(value, left) if field.is_repeated else [value])
    return ""


def _cannot_decode(name: str, size_bytes: int, position: int) -> Malformed:
    where = f"truncated at {position}" if position >= size_bytes else f"malformed at or after byte {position}"
    return Malformed(INVALID_PROTOBUF, f"cannot decode {name}: {size_bytes} bytes, {where}")
