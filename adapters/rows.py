"""Count the bytes of the rows that records become: messages are cut, and inserts are bounded, by this count.

The store makes one row of each log record, span and data point. A record's resource is in each of its rows, and a group's
scope in each row of the group. A metric's name, description, unit and metadata are in the row of each of its points. So a few
bytes on the wire can become many in the store, and the size of a message does not show how many.

Invariants:
1. `row_bytes` is additive: that of concatenated messages is the sum of theirs (test_rows.py, test_row_bytes_are_additive).
2. BatchBuilder counts the same while it packs as `row_bytes` reads from the message (test_rows.py,
   test_parts_count_the_bytes_of_their_rows).
3. `row_bytes` returns a number for any bytes (test_rows.py, test_any_bytes_have_row_bytes).
"""

from typing import Final

from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical
from adapters.errors import too_many_row_bytes, too_many_row_bytes_for_plan
from adapters.record_tags import BATCH_PART, GROUP, ITEM, ITEM_COUNT, RECORD, SOURCE, TYPE
from adapters.rules import Rules

# The bytes of a row in addition to its texts and numbers on the wire: columns of fixed width, and the offsets of strings,
# arrays and maps. A gauge's row has 258 of these bytes, a span's 290.
ROW_BYTES: Final = 256

# Values of infrasage.v1.Type and Source. Messages of type trace hold spans, unless the native API made them.
_TYPE_LOG: Final = 2
_TYPE_TRACE: Final = 3
_TYPE_EVENT: Final = 4
_SOURCE_NATIVE: Final = 1
_POINT: Final = 0x0A  # `data_points` of every kind of metric data
# Fields of a Metric.
_GAUGE: Final = 0x2A
_SUM: Final = 0x3A
_HISTOGRAM: Final = 0x4A
_EXPONENTIAL: Final = 0x52
_SUMMARY: Final = 0x5A


def check_row_count(rows: i64, rules: Rules) -> None:
    """Refuse a request if `rows` rows have too many bytes even when they are empty. Raises RequestRefused."""
    check_row_bytes(rows * ROW_BYTES, rules)


def check_row_bytes(row_bytes: i64, rules: Rules) -> None:
    """Refuse a request if the bytes of its rows exceed a limit of `rules`. Raises RequestRefused."""
    if row_bytes > rules.request_row_bytes_max:
        raise too_many_row_bytes(rules.request_row_bytes_max)
    if row_bytes > rules.plan_row_bytes_max:
        raise too_many_row_bytes_for_plan(rules.plan_row_bytes_max)


def row_bytes(payload: bytes) -> int:
    """Return how many bytes the rows of a serialized TelemetryBatch have. Bytes that can't be read count as their number."""
    cursor = Cursor(payload)
    end: i64 = len(payload)
    total: i64 = 0
    try:
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            after: i64 = cursor.position
            if tag == RECORD:
                total += _record_bytes(cursor, cursor.start, after)
                cursor.position = after
    except NonCanonical:
        return int(end)
    return int(total)


def points_of(cursor: Cursor, start: i64, end: i64) -> tuple[i64, i64]:
    """Return the number of data points of the Metric at start:end, and their bytes. Raises NonCanonical."""
    points: i64 = 0
    points_bytes: i64 = 0
    cursor.position = start
    while cursor.position < end:
        data: i64 = cursor.field(end)
        if data == _GAUGE or data == _SUM or data == _HISTOGRAM or data == _EXPONENTIAL or data == _SUMMARY:
            data_end: i64 = cursor.position
            cursor.position = cursor.start
            while cursor.position < data_end:
                point_at: i64 = cursor.position
                if cursor.field(data_end) == _POINT:
                    points += 1
                    points_bytes += cursor.position - point_at
    return points, points_bytes


def _record_bytes(cursor: Cursor, start: i64, end: i64) -> i64:
    """Return the row bytes of the TelemetryRecord at start:end. A receipt is a row of its own."""
    head: i64 = 0  # the bytes that are in every row
    type_: i64 = 0
    source: i64 = 0
    groups = False
    position: i64 = start
    while position < end:
        at: i64 = position
        cursor.position = at
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == GROUP:
            groups = True
        elif tag != BATCH_PART and tag != ITEM_COUNT:
            head += position - at
            if tag == TYPE:
                type_ = cursor.value
            elif tag == SOURCE:
                source = cursor.value
    if not groups:
        return head + ROW_BYTES
    holds_points = type_ != _TYPE_LOG and type_ != _TYPE_EVENT and (type_ != _TYPE_TRACE or source == _SOURCE_NATIVE)
    total: i64 = 0
    position = start
    while position < end:
        cursor.position = position
        tag = cursor.field(end)
        position = cursor.position
        if tag == GROUP:
            total += _group_bytes(cursor, cursor.start, position, head + ROW_BYTES, holds_points)
    return total


def _group_bytes(cursor: Cursor, start: i64, end: i64, row_head: i64, holds_points: bool) -> i64:
    """Return the row bytes of the Group at start:end. `row_head` is the bytes of each row without its group and item."""
    rows: i64 = 0
    head: i64 = row_head
    items: i64 = 0  # the bytes that are in one row only, or are counted already for each row
    position: i64 = start
    while position < end:
        at: i64 = position
        cursor.position = at
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag != ITEM:
            head += position - at
            continue
        items += position - at
        if not holds_points:
            rows += 1
            continue
        first: i64 = cursor.start
        points, points_bytes = points_of(cursor, first, position)
        rows += points
        if points > 1:
            items += (points - 1) * (position - first - points_bytes)
    if rows == 0:
        rows = 1
    return rows * head + items
