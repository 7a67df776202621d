"""Bodies in protobuf that have texts that are not UTF-8, or are oddly written.

A body is read as it lies on the wire. Where that stumbles, its texts are repaired (adapters/codec/text_repair.py) and it is
read once more. Where that stumbles too, protobuf's parser is asked, once: what it refuses is malformed; what it reads is
written anew, plainly, known fields only, and read in that form.
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

# Protobuf's own parser takes up to 170 bytes of memory and 0.2 us an element, and no client that we know writes oddly.
ODD_BODY_BYTES_MAX: Final = 16 << 20
ODD_ELEMENTS_MAX: Final = 1 << 19
_MISTYPED_MESSAGES_MAX: Final = 1_000


def adapt_plainly(
    adapt: Callable[[bytes], Adapted], body: bytes, message_class: type[Message], rules: Rules, kept_unknown: bytes = b""
) -> Adapted:
    """Return what `adapt`, which raises NonCanonical, makes of a body; else of the body with its texts repaired; else of the
    canonical form of that. Raises Malformed, RequestRefused.

    Where that has no item, it has the fields of the body that are unknown. `kept_unknown`: the tag of an unknown field that
    `adapt` knows: where a body may have it, the canonical form has the unknown fields, too.
    """
    adapted = _adapted(adapt, body, message_class, rules, kept_unknown)
    if body and not adapted.parts and not adapted.rejected and adapted.unknown_fields is None:
        adapted.unknown_fields = unknown_fields(body, message_class.DESCRIPTOR) or None
    return adapted


def _adapted(
    adapt: Callable[[bytes], Adapted], body: bytes, message_class: type[Message], rules: Rules, kept_unknown: bytes
) -> Adapted:
    """As `adapt_plainly`, without the unknown fields."""
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
    """The same message as a plain encoder writes it. Raises Malformed, with `position`, where the reading first stumbled.

    `sent_bytes`: how long the body was before its texts were repaired.
    """
    name = message_class.DESCRIPTOR.name
    if len(body) > ODD_BODY_BYTES_MAX:
        raise Malformed(
            INVALID_PROTOBUF,
            f"cannot decode {name}: {len(body)} bytes, not plainly written at byte {position};"
            f" such a body may have {ODD_BODY_BYTES_MAX} bytes: check that it is complete, or send smaller batches",
        )
    if may_hold_more_elements(body, shape_of(message_class), ODD_ELEMENTS_MAX, rules):
        raise RequestRefused(
            PAYLOAD_TOO_LARGE,
            f"the {name} of {len(body)} bytes is not plainly written at byte {position}, and holds more than the"
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
    """Return which field of its first messages has the number of a known one, and a wire type that this can't have; nothing if
    none has. Protobuf's parser takes it for unknown. A request of another signal has such fields."""
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
