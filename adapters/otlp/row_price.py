"""Count the bytes of the rows of an OTLP export request before it is read.

The store repeats a resource, a scope, and a metric's own fields in each row (adapters/rows.py), and a sender pays for them
once. The check reads a large body before its adapter does, keeps nothing of it, and stops at the limit: about 5 ns an item. A
body that exceeds the limit as it was sent is counted once more with cut attributes and names (adapters/otlp/stored_size.py).

Invariants:
1. If each item is accepted as it is, the count is the same as BatchBuilder's (tests/unit/adapters/test_price.py,
   test_rows_are_counted_as_the_builder_counts_them).
2. A request that is within the limit after its values are cut is not refused (tests/unit/adapters/test_price.py,
   test_rows_are_counted_as_they_are_cut).
3. A body is never refused for being malformed: the adapter that reads it next reports that (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
"""

from typing import Final

from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical
from adapters.otlp.field_tables import DATA, METRIC, RESOURCE, SCOPE, MessageTable
from adapters.otlp.stored_size import StoredSize
from adapters.rows import ROW_BYTES, check_row_bytes, points_of
from adapters.rules import Rules

# Fields of a request, the same for each signal.
_RESOURCE: Final = 0x0A
_BODY: Final = 0x0A  # an entry's resource or scope
_POINT: Final = 0x0A  # of a metric's data
_MEMBER: Final = 0x12  # a resource's scopes, a scope's metrics, log records or spans
# A smaller body need not be counted before it is read, which takes a few milliseconds: BatchBuilder stops at the limit, too.
# If a plan allows less, every body is counted, since a tenant can send many small ones.
UNPRICED_BYTES_MAX: Final = 256 << 10
# How many items are counted before the limit is checked.
_COUNTED_AT_ONCE: Final = 10_000


def check_rows(body: bytes, rules: Rules, item: MessageTable) -> None:
    """Refuse an OTLP export request whose rows have more bytes than `rules` allow. Raises RequestRefused.

    `item` is the table of the items in its scopes.
    """
    for is_cut in (False, True):
        rows = _Rows(body, rules, item, is_cut=is_cut)
        if rows.fit():
            return
    check_row_bytes(rows.row_bytes, rules)


class _TooManyRowBytes(Exception):
    """The limit is exceeded, so the rest need not be read."""


class _Rows:
    """A `_Rows` counts the bytes of the rows of one OTLP export request. Of most messages, only the length is read."""

    def __init__(self, buffer: bytes, rules: Rules, item: MessageTable, *, is_cut: bool) -> None:
        """Begin with empty counts. With `is_cut`, attributes and names count as they are stored."""
        self.buffer: Final = buffer
        self.cursor: Final = Cursor(buffer)
        self.rules: Final = rules
        self.row_bytes_max: i64 = min(rules.request_row_bytes_max, rules.plan_row_bytes_max)
        self.item: Final = item
        self.is_cut: Final = is_cut
        self.stored: Final = StoredSize(self.cursor, rules)
        self.row_bytes: i64 = 0
        self.members: i64 = 0  # the number of the members of the entry read last, and their bytes
        self.members_bytes: i64 = 0

    def fit(self) -> bool:
        """Return whether the request is within the limit, or is malformed, which its adapter reports."""
        try:
            self._request()
        except NonCanonical:
            return True
        except _TooManyRowBytes:
            return False
        return True

    def _request(self) -> None:
        """Count the request. Raises NonCanonical, _TooManyRowBytes."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        position: i64 = 0
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _RESOURCE:
                self._resource(cursor.start, position)
            self.rules.read(0)

    def _resource(self, start: i64, end: i64) -> None:
        cursor = self.cursor
        own_bytes: i64 = self._own_bytes(RESOURCE, start, end)
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _MEMBER:
                self.rules.read(0)
                self._scope(own_bytes, cursor.start, position)

    def _own_bytes(self, message: MessageTable, start: i64, end: i64) -> i64:
        """Return the size of the entry at start:end without its members. `message` is the table of its first field."""
        cursor = self.cursor
        cursor.position = start
        members: i64 = 0
        members_bytes: i64 = 0
        while cursor.position < end:
            at: i64 = cursor.position
            skipped: i64 = cursor.skip_fields(_MEMBER, end)
            if cursor.position == at:
                if cursor.field(end) != _MEMBER:
                    continue
                skipped = 1
            members += skipped
            members_bytes += cursor.position - at
            self.rules.read(0)
        self.members = members
        self.members_bytes = members_bytes
        own_bytes: i64 = end - start - members_bytes
        return self._stored_bytes(message, own_bytes, start, end) if self.is_cut else own_bytes

    def _stored_bytes(self, message: MessageTable, own_bytes: i64, start: i64, end: i64) -> i64:
        """Return how many of the `own_bytes` of the entry at start:end are stored in each row."""
        cursor = self.cursor
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            first: i64 = cursor.start
            position = cursor.position
            self.rules.read(0)
            if tag == _BODY:
                own_bytes -= position - first - self.stored.of(message, first, position)
                if self.stored.is_refused:
                    return 0  # no item of this entry is stored
        return own_bytes

    def _scope(self, resource_bytes: i64, start: i64, end: i64) -> None:
        cursor = self.cursor
        group_bytes: i64 = resource_bytes + self._own_bytes(SCOPE, start, end) + ROW_BYTES
        if self.item is not METRIC and not self.is_cut:
            self._add(self.members * group_bytes + self.members_bytes)
            return
        items: i64 = 0
        items_bytes: i64 = 0
        cursor.position = start
        while cursor.position < end:
            at: i64 = cursor.position
            if cursor.field(end) != _MEMBER:
                continue
            after: i64 = cursor.position
            if self.item is METRIC:
                self._metric(group_bytes, cursor.start, after)
                cursor.position = after
                continue
            first: i64 = cursor.start
            items += 1
            items_bytes += first - at + self.stored.of(self.item, first, after)
            cursor.position = after
            if items == _COUNTED_AT_ONCE:
                self._add(items * group_bytes + items_bytes)
                items = items_bytes = 0
        self._add(items * group_bytes + items_bytes)

    def _metric(self, group_bytes: i64, start: i64, end: i64) -> None:
        points, points_bytes = points_of(self.cursor, start, end)
        own_bytes: i64 = end - start - points_bytes
        if self.is_cut:
            own_bytes -= end - start - self.stored.of(METRIC, start, end)
            if self.stored.is_refused:
                own_bytes = 0
            points_bytes = self._stored_points_bytes(start, end)
        self._add(points * (group_bytes + own_bytes) + points_bytes)

    def _stored_points_bytes(self, start: i64, end: i64) -> i64:
        """Return the stored bytes of the points of the Metric at start:end."""
        cursor = self.cursor
        total: i64 = 0
        position: i64 = start
        while position < end:
            cursor.position = position
            data_tag: i64 = cursor.field(end)
            data_at: i64 = cursor.start
            position = cursor.position
            if data_tag > 255 or METRIC.actions[data_tag] != DATA:
                continue
            data = METRIC.children[data_tag]
            while data_at < position:
                cursor.position = data_at
                point_tag: i64 = cursor.field(position)
                first: i64 = cursor.start
                after: i64 = cursor.position
                if point_tag == _POINT:
                    total += first - data_at + self.stored.of(data.children[_POINT], first, after)
                data_at = after
        return total

    def _add(self, row_bytes: i64) -> None:
        self.row_bytes += row_bytes
        if self.row_bytes > self.row_bytes_max:
            raise _TooManyRowBytes
