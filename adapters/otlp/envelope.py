"""What the three signals have in common: resources, scopes under them, items under those.

The law: items are visited in the order in which they were sent. A body that is odd is given to protobuf's own parser once;
what it refuses is malformed, what it reads is written anew, plainly, and visited in that form.
"""

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.errors import INVALID_PROTOBUF, Malformed
from adapters.otlp.attributes import CLEAN, REWRITE
from adapters.otlp.messages import RESOURCE, RESOURCE_ENVELOPE, SCOPE, SCOPE_ENVELOPE, Message
from adapters.otlp.scan import Scanner
from adapters.record import UNKNOWN_SERVICE, Adapted, BatchBuilder, Header, Rules
from adapters.wire import Cursor, NotPlain, is_utf8, put_bytes

_SERVICE_NAME: Final = b"service.name"
_RESOURCE_TAG: Final = 0x3A
_RESOURCE_SCHEMA_URL_TAG: Final = 0x42
_SCOPE_TAG: Final = 0x4A
_SCOPE_SCHEMA_URL_TAG: Final = 0x52


class Envelope:
    """Walks one request. A signal's adapter overrides `take`, which is given each item (metrics: each metric)."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int, signal: int, type_: int) -> None:
        self.buffer: Final = body
        self.cursor: Final = Cursor(body)
        self.rules: Final = rules
        self.scanner: Final = Scanner(self.cursor, rules)
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        self.signal: i64 = signal
        self.type: i64 = type_
        self.group_reason: i64 = 0  # why nothing of this resource or scope can be taken
        self.service_id: bytes = UNKNOWN_SERVICE

    def take(self, start: i64, end: i64) -> None:
        """One item (or metric) at start:end, accepted or rejected."""
        raise NotImplementedError

    def settle(self, message: Message, state: i64, reason: i64, start: i64, end: i64) -> None:
        """Reject the item scanned last for a reason, or take it: as it is where its state is CLEAN, else in normal form."""
        if reason:
            self.builder.reject(reason, 1)
        elif state == CLEAN:
            self.builder.add_or_reject(self.buffer[start:end])
        else:
            self.builder.add_or_reject(self.scanner.normal(message, start, end))

    def run(self) -> Adapted:
        """Raises NotPlain."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        position: i64 = 0
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == 0x0A:
                self._resource(cursor.start, position)
            elif tag >> 3 == 1:
                raise NotPlain(cursor.start)
        return self.builder.finish()

    def _resource(self, start: i64, end: i64) -> None:
        """A ResourceMetrics, ResourceLogs or ResourceSpans."""
        group = BytesWriter()
        self.service_id = UNKNOWN_SERVICE
        reason: i64 = self._head(group, RESOURCE_ENVELOPE, RESOURCE, _RESOURCE_TAG, start, end)
        named: i64 = self.rules.check_name(len(self.service_id))
        if reason == 0:
            reason = named
        resource = group.getvalue()
        cursor = self.cursor
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == 0x12:
                self._scope(resource, reason, cursor.start, position)

    def _scope(self, resource: bytes, reason: i64, start: i64, end: i64) -> None:
        """A ScopeMetrics, ScopeLogs or ScopeSpans."""
        group = BytesWriter()
        group.write(resource)
        found: i64 = self._head(group, SCOPE_ENVELOPE, SCOPE, _SCOPE_TAG, start, end)
        self.group_reason = reason or found
        self.builder.open_group(self.signal, self.type, self.service_id, group.getvalue())
        cursor = self.cursor
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == 0x12:
                self.take(cursor.start, position)

    def _head(self, group: BytesWriter, envelope: Message, message: Message, tag_out: i64, start: i64, end: i64) -> i64:
        """Write an envelope's resource or scope, in normal form, and its schema URL; 0 or the reason why not."""
        cursor = self.cursor
        seen: i64 = 0
        reason: i64 = 0
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            first: i64 = cursor.start
            if tag == 0x0A:
                if seen & 1:
                    raise NotPlain(first)
                seen |= 1
                reason = self._normal(group, message, tag_out, first, position)
            elif tag == 0x1A:
                if seen & 2 or not is_utf8(self.buffer, first, position):
                    raise NotPlain(first)
                seen |= 2
                put_bytes(group, tag_out + 8, self.buffer[first:position])
            elif tag != 0x12 and tag < 256 and envelope.actions[tag] == 0:
                raise NotPlain(first)
        return reason

    def _normal(self, group: BytesWriter, message: Message, tag_out: i64, start: i64, end: i64) -> i64:
        raw = self.buffer[start:end]
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(message, start, end)
        if state > REWRITE:
            return state
        normal = raw
        if state == REWRITE:
            normal = scanner.normal(message, start, end)
        put_bytes(group, tag_out, normal)
        if tag_out == _RESOURCE_TAG:
            self.service_id = _service_of(normal)
        return 0


def _service_of(resource: bytes) -> bytes:
    """service.name of a Resource in normal form."""
    at = resource.find(_SERVICE_NAME)
    if at < 0:
        return UNKNOWN_SERVICE
    cursor = Cursor(resource)
    end: i64 = len(resource)
    position: i64 = 0
    while position < end:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == 0x0A:
            cursor.position = cursor.start
            cursor.field(position)
            if resource[cursor.start : cursor.position] == _SERVICE_NAME:
                cursor.field(position)  # AnyValue
                cursor.position = cursor.start
                cursor.field(position)  # its string
                return resource[cursor.start : cursor.position] or UNKNOWN_SERVICE
    return UNKNOWN_SERVICE


# Protobuf's own parser takes up to fifty times a body's size in memory; and no client that we know writes oddly.
ODD_BODY_BYTES_MAX: Final = 16 * 1024 * 1024


def adapt_with(make: Callable[[bytes], Envelope], body: bytes, message_class: type[ProtobufMessage]) -> Adapted:
    """What the envelope that `make` gives for a body makes of it; of its plain form, where it is odd. Raises Malformed."""
    try:
        return make(body).run()
    except NotPlain as odd:
        body = _plain(body, message_class, odd.position)
    try:
        return make(body).run()
    except NotPlain as odd:
        raise _cannot_decode(message_class.DESCRIPTOR.name, body, odd.position) from None


def _plain(body: bytes, message_class: type[ProtobufMessage], position: int) -> bytes:
    """The same message as a plain encoder writes it. Raises Malformed, with `position`, where the reading first stumbled."""
    name = message_class.DESCRIPTOR.name
    if len(body) > ODD_BODY_BYTES_MAX:
        raise Malformed(
            INVALID_PROTOBUF,
            f"cannot decode {name}: {len(body)} bytes, not plainly written at {position};"
            f" such a body may have {ODD_BODY_BYTES_MAX} bytes: check that it is complete, or send smaller batches",
        )
    message = message_class()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise _cannot_decode(name, body, position) from None
    message.DiscardUnknownFields()
    return message.SerializeToString()


def _cannot_decode(name: str, body: bytes, position: int) -> Malformed:
    where = f"truncated at {position}" if position >= len(body) else f"not valid at {position}"
    return Malformed(INVALID_PROTOBUF, f"cannot decode {name}: {len(body)} bytes, {where}")
