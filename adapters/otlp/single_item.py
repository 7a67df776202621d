"""Build the request of a single item: its resource, its scope, and of their items only this one.

What was sent is copied, not normalised. Each copy may be of 60 MB, so it is a stretch of its own. The request's size is known
before it is built. For accepted items nothing is read or copied.

Invariants:
1. The request, adapted, is what the item would have been by itself (test_any_rejected_otlp_item_can_be_replayed).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import Cursor, field_size, put_varint
from adapters.rules import Rules

_BODY: Final = 0x0A  # a request's entry for a resource; an entry's resource or scope
_MEMBER: Final = 0x12  # a resource entry's scope entries; a scope entry's metrics, log records or spans
_SCHEMA_URL: Final = 0x1A


class SingleItemExport:
    """Makes requests of one item each, of those in `buffer`. Its entries have been scanned."""

    def __init__(self, buffer: bytes, rules: Rules) -> None:
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.cursor: Final = Cursor(buffer)
        # The current entries: where they begin, and all of them but their members.
        self.resource_at: i64 = -1
        self.scope_at: i64 = -1
        self.resource: bytes = b""
        self.scope: bytes = b""

    def stand(self, resource_start: i64, resource_end: i64, scope_start: i64, scope_end: i64) -> None:
        """Set the resource's entry, and the scope's in it, that the next items belong to."""
        if resource_start != self.resource_at:
            self.resource_at = resource_start
            self.resource = self._without_members(resource_start, resource_end)
        if scope_start != self.scope_at:
            self.scope_at = scope_start
            self.scope = self._without_members(scope_start, scope_end)

    def size(self, item_bytes: i64) -> i64:
        """Return the size of the request that `request` makes of an item of so many bytes."""
        return field_size(len(self.resource) + field_size(len(self.scope) + field_size(item_bytes)))

    def request(self, item: bytes) -> bytes:
        """`item`: a LogRecord, a Span, or a Metric with one point."""
        scope_bytes: i64 = len(self.scope) + field_size(len(item))
        rules = self.rules
        rules.read(len(item))
        writer = BytesWriter()
        writer.append(_BODY)
        put_varint(writer, len(self.resource) + field_size(scope_bytes))
        writer.write(self.resource)
        rules.read(len(self.resource))
        writer.append(_MEMBER)
        put_varint(writer, scope_bytes)
        writer.write(self.scope)
        rules.read(len(self.scope))
        writer.append(_MEMBER)
        put_varint(writer, len(item))
        writer.write(item)
        rules.read(len(item))
        request = writer.getvalue()
        rules.read(len(request))
        return request

    def _without_members(self, start: i64, end: i64) -> bytes:
        """The resource or scope of an entry, and its schema URL: whole fields."""
        cursor = self.cursor
        writer = BytesWriter()
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _BODY or tag == _SCHEMA_URL:
                field = self.buffer[at:position]
                self.rules.read(len(field))
                writer.write(field)
                self.rules.read(len(field))
        members = writer.getvalue()
        self.rules.read(len(members))
        return members
