"""Build messages: pack items into groups, groups into records, and records into messages.

Invariants:
1. A message has at most `message_bytes_max` bytes, and its rows have at most `Rules.message_row_bytes_max` bytes
   (tests/unit/adapters/test_rows.py, test_messages_are_cut_by_the_bytes_of_their_rows). A message of a single row may be
   larger, up to `Rules.item_bytes_max` (tests/contracts/test_adapter_large_items.py,
   test_a_large_item_has_a_message_of_its_own). A message ends between two items, never inside one.
2. Each item that arrived is in the adapter's `Adapted` exactly once: in a part, or among the rejected items.
3. The same adapter reads a rejected item's payload as that item alone (tests/contracts/test_adapter_replay.py). The payloads
   of a request never exceed the budget that its rules set. If an item is too large for any message, its payload is only its
   beginning (tests/contracts/test_adapter_large_items.py, test_of_what_no_message_can_hold_the_beginning_is_kept).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import put_bytes, put_varint, varint_size
from adapters.record import REJECTIONS_KEPT_MAX, Adapted, Header, Part, Rejection
from adapters.record_tags import BATCH_PART, GROUP, ITEM, ITEM_COUNT, RECORD, SERVICE, TYPE
from adapters.rows import ROW_BYTES, check_row_bytes
from adapters.rules import Rules

# Adapters keep a metric's points together up to this size, so that messages are filled well.
METRIC_BYTES_MAX: Final = 64 << 10

_ITEM_TAG_BYTES: Final = 1
# The place of an open record or group that is not written yet, since it has no items.
_UNWRITTEN: Final = -1
# The most bytes of batch_part, item_count, and the tags and lengths of the record and of its last group.
_FRAMING_BYTES_MAX: Final = 26


class BatchBuilder:
    """A `BatchBuilder` packs items into groups, groups into records, and records into messages. Each message has at most
    `message_bytes_max` bytes, and its rows have at most `rules.message_row_bytes_max` bytes.

    Call `open_record` whenever the signal, type, service or resource changes, then `open_group` for each scope, then `add` for
    each of its items, and `finish` at the end. A group or record without items is not written.
    """

    def __init__(self, header: Header, rules: Rules, message_bytes_max: int) -> None:
        self.rules: Final = rules
        self.prefix: Final = header.prefix
        self.message_bytes_max: i64 = message_bytes_max
        self.item_bytes_max: i64 = max(message_bytes_max, rules.item_bytes_max)
        self.out: Final = Adapted()
        self.index: i64 = 0
        self.signal: i64 = 0
        self.type: i64 = 0
        # The bytes of the current message, and the number of items in its closed records.
        self.message = BytesWriter()
        self.message_items: i64 = 0
        # The bytes of the rows of the current message, including its open record and group.
        self.row_bytes: i64 = 0
        self.row_bytes_max: i64 = rules.message_row_bytes_max
        # The bytes that each row of the open group has in addition to those of its item.
        self.group_row_bytes: i64 = 0
        # `head` comes before the groups of the open record, and `scope` before the items of the open group. Both are written
        # with the first item. `record_at` and `group_at` are the places of the two lengths in the message. A length always
        # takes the same number of bytes, and is written when its record or group is closed.
        self.head: bytes = b""
        self.scope: bytes = b""
        self.record_at: i64 = _UNWRITTEN
        self.group_at: i64 = _UNWRITTEN
        self.unwritten_bytes: i64 = 0  # bytes of `head` and `scope` that are not written yet
        self.record_items: i64 = 0  # items of the closed groups of the open record
        self.group_items: i64 = 0
        self.length_bytes: i64 = varint_size(self.item_bytes_max)
        self.no_length: bytes = bytes(self.length_bytes)
        # The rest of the budget for payloads of rejected items.
        self.payloads_left: i64 = rules.dead_letter_items_max
        self.payload_bytes_left: i64 = rules.dead_letter_bytes_max

    def open_record(self, signal: i64, type_: i64, service_id: bytes, resource: bytes) -> None:
        """Close the open record and begin another. `resource` is the resource and its schema URL, as fields of a
        TelemetryRecord."""
        self.close_record()
        if signal != self.signal:
            self.close_message()
            self.signal = signal
        self.type = type_
        head = BytesWriter()
        head.write(self.prefix)
        put_varint(head, TYPE)
        put_varint(head, type_)
        put_bytes(head, SERVICE, service_id)
        head.write(resource)
        self.head = head.getvalue()

    def open_group(self, scope: bytes) -> None:
        """Close the open group and begin another. `scope` is the scope and its schema URL, as fields of a Group."""
        self._close_group()
        self.scope = scope
        self.unwritten_bytes = len(scope)
        if self.record_at == _UNWRITTEN:
            self.unwritten_bytes += len(self.head)
        self.group_row_bytes = len(self.head) + len(scope) + ROW_BYTES

    def capacity(self) -> i64:
        """Return the most bytes, including tag and length, that one `add` can take in the open group."""
        return self.message_bytes_max - len(self.head) - len(self.scope) - _FRAMING_BYTES_MAX

    def item_capacity(self) -> i64:
        """Return the most bytes, including tag and length, of an item that has a message of its own."""
        return self.item_bytes_max - len(self.head) - len(self.scope) - _FRAMING_BYTES_MAX

    def points_max(self, group_row_bytes: i64, metric_bytes: i64, points_bytes: i64) -> i64:
        """Return how many points a metric may have so that its rows fit into a message; at least 1.

        `group_row_bytes` is the attribute of that name while the metric's group is open. `metric_bytes` is the size of the
        metric without its points, `points_bytes` the size of all its points.
        """
        points: i64 = (self.row_bytes_max - points_bytes) // (group_row_bytes + metric_bytes)
        if points < 1:
            return 1
        return points

    def begin(self, size_bytes: i64, items: i64, repeated_bytes: i64) -> bool:
        """Take one Metric, LogRecord or Span, which has `items` accepted items; the caller then writes its `size_bytes` bytes
        to `message`. Return False, and take nothing, if it does not fit into a message.

        `repeated_bytes` is how many of those bytes each item's row repeats; 0 if there is one item.
        """
        need: i64 = _ITEM_TAG_BYTES + varint_size(size_bytes) + size_bytes
        rows: i64 = need + items * self.group_row_bytes + (items - 1) * repeated_bytes
        if (
            len(self.message) + self.unwritten_bytes + need + _FRAMING_BYTES_MAX > self.message_bytes_max
            or self.row_bytes + rows > self.row_bytes_max
        ):
            if items > 1:
                if need > self.capacity() or rows > self.row_bytes_max:
                    return False
            elif need > self.item_capacity():
                return False
            self.close_record()
            self.close_message()
        if self.group_at == _UNWRITTEN:
            self._write_open()
        self.row_bytes += rows
        message = self.message
        message.append(ITEM)
        put_varint(message, size_bytes)
        self.group_items += items
        self.index += items
        return True

    def add(self, item: bytes, items: i64, repeated_bytes: i64) -> bool:
        """Take one Metric, LogRecord or Span as `begin` does, and write it to the message."""
        if not self.begin(len(item), items, repeated_bytes):
            return False
        self.message.write(item)
        return True

    def keeps(self, payload_bytes: i64) -> bool:
        """Return whether a payload of `payload_bytes` would be kept with the next rejected item. Adapters ask before they make
        the payload."""
        if self.is_cut(payload_bytes):
            payload_bytes = self.rules.dead_letter_cut_bytes
        return (
            self.payloads_left > 0
            and payload_bytes <= self.payload_bytes_left
            and len(self.out.rejections) < REJECTIONS_KEPT_MAX
        )

    def is_cut(self, payload_bytes: i64) -> bool:
        """Return whether only the beginning of a payload of `payload_bytes` is kept."""
        return payload_bytes > self.item_bytes_max and self.rules.dead_letter_cut_bytes > 0

    def reject(self, reason: i64, message: str, service_id: bytes, payload: bytes) -> None:
        """Reject the next item. If `message` is empty, the rules' message for the reason is used. `payload` is empty, or one
        for which `keeps` returned True."""
        out = self.out
        self.rules.note_rejected()
        key = (int(self.type), int(reason))
        out.rejected[key] = out.rejected.get(key, 0) + 1
        if len(out.rejections) < REJECTIONS_KEPT_MAX:
            payload_bytes = len(payload)
            if self.is_cut(payload_bytes):
                payload = payload[: self.rules.dead_letter_cut_bytes]
            words = message or self.rules.message(reason)
            out.rejections.append(Rejection(self.index, self.type, reason, words, service_id, payload, payload_bytes))
            if payload:
                self.payloads_left -= 1
                self.payload_bytes_left -= len(payload)
                out.dead_letter_items += 1
                out.dead_letter_bytes += len(payload)
        self.index += 1

    def reject_more(self, reason: i64, items: i64) -> None:
        """Reject the next `items` items for one reason, and only count them. Use it only when REJECTIONS_KEPT_MAX items have
        been rejected before."""
        key = (int(self.type), int(reason))
        self.out.rejected[key] = self.out.rejected.get(key, 0) + items
        self.index += items

    def _write_open(self) -> None:
        """Write the head of the open record, unless it is written, and the scope of the open group."""
        message = self.message
        if self.record_at == _UNWRITTEN:
            message.append(RECORD)
            self.record_at = len(message)
            message.write(self.no_length)
            message.write(self.head)
        message.append(GROUP)
        self.group_at = len(message)
        message.write(self.no_length)
        message.write(self.scope)
        self.unwritten_bytes = 0

    def _put_length(self, at: i64) -> None:
        """Write the number of bytes from behind the length's place to the end of the message, as a varint that is padded to
        the size of the place."""
        message = self.message
        last: i64 = at + self.length_bytes - 1
        size: i64 = len(message) - last - 1
        while at < last:
            message[at] = int(size & 127 | 128)
            size >>= 7
            at += 1
        message[last] = int(size)

    def _close_group(self) -> None:
        """Write the length of the open group. Items that follow begin the same group again."""
        if self.group_at == _UNWRITTEN:
            return
        self._put_length(self.group_at)
        self.group_at = _UNWRITTEN
        self.record_items += self.group_items
        self.group_items = 0

    def close_record(self) -> None:
        """End the open record. Items that follow have the same resource and scope, in another record."""
        self._close_group()
        if self.record_at == _UNWRITTEN:
            return
        message = self.message
        if self.out.parts:
            put_varint(message, BATCH_PART)
            put_varint(message, len(self.out.parts))
        put_varint(message, ITEM_COUNT)
        put_varint(message, self.record_items)
        self._put_length(self.record_at)
        self.record_at = _UNWRITTEN
        self.unwritten_bytes = len(self.head) + len(self.scope)
        self.out.accepted[self.type] += self.record_items
        self.message_items += self.record_items
        self.record_items = 0

    def close_message(self) -> None:
        if self.message_items:
            message = self.message
            self._add_part(Part(self.signal, message.getvalue(), int(self.message_items), int(self.row_bytes)))
            message.truncate(0)

    def _add_part(self, part: Part) -> None:
        out = self.out
        out.parts.append(part)
        out.row_bytes += part.row_bytes
        check_row_bytes(out.row_bytes, self.rules)
        self.row_bytes = 0
        self.message_items = 0

    def finish(self) -> Adapted:
        self.close_record()
        if self.message_items:
            self._add_part(Part.written(self.signal, self.message, int(self.message_items), int(self.row_bytes)))
        self.out.repaired = self.rules.repaired
        self.out.unknown_fields = self.rules.unknown_fields if self.index == 0 else self.rules.misplaced_fields
        return self.out
