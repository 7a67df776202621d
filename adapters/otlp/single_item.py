"""Build the request of a single item: its resource, its scope, and only this item.

The sent bytes are copied, not normalised. Each copy may have 60 MB, so each counts as read. The request's size is known before
it is built. For accepted items, nothing is read or copied.

Invariants:
1. The request is adapted as the item would have been by itself (test_any_rejected_otlp_item_can_be_replayed).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.text import write_slices
from adapters.codec.wire import Cursor, field_size, put_varint
from adapters.rules import Rules

_BODY: Final = 0x0A  # a request's entry for a resource; an entry's resource or scope
_MEMBER: Final = 0x12  # a resource entry's scope entries; a scope entry's metrics, log records or spans
_SCHEMA_URL: Final = 0x1A


class SingleItemExport:
    """A `SingleItemExport` makes requests of one item each. The items are in `buffer`, whose entries have been scanned."""

    def __init__(self, buffer: bytes, rules: Rules) -> None:
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.cursor: Final = Cursor(buffer)
        # The current entries: where they begin, and their fields except their members.
        self.resource_at: i64 = -1
        self.scope_at: i64 = -1
        self.resource: bytes = b""
        self.scope: bytes = b""

    def set_scope(self, resource_start: i64, resource_end: i64, scope_start: i64, scope_end: i64) -> None:
        """Set the entry of the resource, and in it the entry of the scope, of the next items."""
        if resource_start != self.resource_at:
            self.resource_at = resource_start
            self.resource = self._without_members(resource_start, resource_end)
        if scope_start != self.scope_at:
            self.scope_at = scope_start
            self.scope = self._without_members(scope_start, scope_end)

    def size(self, item_bytes: i64) -> i64:
        """Return the size of the request that `request` makes of an item of `item_bytes`."""
        return field_size(len(self.resource) + field_size(len(self.scope) + field_size(item_bytes)))

    def request(self, item: bytes) -> bytes:
        """Return the request of `item`, which is a LogRecord, a Span, or a Metric with one point."""
        scope_bytes: i64 = len(self.scope) + field_size(len(item))
        rules = self.rules
        rules.read(len(item))
        writer = BytesWriter()
        writer.append(_BODY)
        put_varint(writer, len(self.resource) + field_size(scope_bytes))
        write_slices(writer, self.resource, 0, len(self.resource), rules)
        rules.read(len(self.resource))
        writer.append(_MEMBER)
        put_varint(writer, scope_bytes)
        write_slices(writer, self.scope, 0, len(self.scope), rules)
        rules.read(len(self.scope))
        writer.append(_MEMBER)
        put_varint(writer, len(item))
        write_slices(writer, item, 0, len(item), rules)
        rules.read(len(item))
        request = writer.getvalue()
        rules.read(len(request))
        return request

    def _without_members(self, start: i64, end: i64) -> bytes:
        """Return the resource or scope of an entry, and its schema URL, as whole fields."""
        cursor = self.cursor
        writer = BytesWriter()
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _BODY or tag == _SCHEMA_URL:
                write_slices(writer, self.buffer, at, position, self.rules)
                self.rules.read(2 * (position - at))
        members = writer.getvalue()
        self.rules.read(len(members))
        return members
