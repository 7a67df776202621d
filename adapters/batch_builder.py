"""The messages under construction: items become groups, groups records, and records messages.

Invariants:
1. A message has at most `message_bytes_max` bytes, and its rows at most `Rules.message_row_bytes_max`, unless it holds a single
   row (tests/unit/adapters/test_rows.py, test_messages_are_cut_by_the_bytes_of_their_rows), which may take
   `Rules.item_bytes_max` (tests/contracts/test_adapter_large_items.py, test_a_large_item_has_a_message_of_its_own). It is cut
   between two items, never inside one.
2. Each item that arrived is in the adapter's `Adapted` once: in a part, or among the rejected.
3. A rejected item's payload, given to the same adapter again, is that item alone. The payloads never exceed the budget that
   the request's rules set. Of an item that no message can hold, it is the beginning.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import put_bytes, put_varint, varint_size
from adapters.record import REJECTIONS_KEPT_MAX, Adapted, Header, Part, Rejection
from adapters.record_tags import BATCH_PART, GROUP, ITEM, ITEM_COUNT, RECORD, SERVICE, TYPE
from adapters.rows import ROW_BYTES, check_row_bytes
from adapters.rules import Rules

_ITEM_TAG_BYTES: Final = 1
# Where an open record or group is that has no items yet.
_UNWRITTEN: Final = -1
# batch_part and item_count, and the tags and lengths of the record and of its last group.
_FRAMING_BYTES_MAX: Final = 26


class BatchBuilder:
    """Packs items into groups, groups into records, and records into messages: of at most `message_bytes_max` bytes, and of
    rows of at most `rules.message_row_bytes_max`.

    Use: `open_record` whenever signal, type, service or resource change, then `open_group` for each scope, then `add` its
    items; at the end `finish`. A group or record without items is not written.
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
        # The message under construction: its bytes, and the items of its records that are closed.
        self.message = BytesWriter()
        self.message_items: i64 = 0
        # Of the rows of the message under construction, what is open included.
        self.row_bytes: i64 = 0
        self.row_bytes_max: i64 = rules.message_row_bytes_max
        # Of each row of the open group, beside its item's.
        self.group_row_bytes: i64 = 0
        # The open record and group: what comes before their groups and items, and where their lengths are in the message. They
        # are written with their first item, and their lengths, which always take the same bytes, when they are closed.
        self.head: bytes = b""
        self.scope: bytes = b""
        self.record_at: i64 = _UNWRITTEN
        self.group_at: i64 = _UNWRITTEN
        self.unwritten_bytes: i64 = 0  # of `head` and `scope`
        self.record_items: i64 = 0  # of its groups that are closed
        self.group_items: i64 = 0
        self.length_bytes: i64 = varint_size(self.item_bytes_max)
        self.no_length: bytes = bytes(self.length_bytes)
        # What is left of the budget for rejected items' payloads.
        self.payloads_left: i64 = rules.dead_letter_items_max
        self.payload_bytes_left: i64 = rules.dead_letter_bytes_max

    def open_record(self, signal: i64, type_: i64, service_id: bytes, resource: bytes) -> None:
        """`resource`: the resource and its schema URL, as fields of a TelemetryRecord."""
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
        """`scope`: the scope and its schema URL, as fields of a Group."""
        self._close_group()
        self.scope = scope
        self.unwritten_bytes = len(scope)
        if self.record_at == _UNWRITTEN:
            self.unwritten_bytes += len(self.head)
        self.group_row_bytes = len(self.head) + len(scope) + ROW_BYTES

    def capacity(self) -> i64:
        """The most bytes, tag and length included, that one `add` can take in the open group."""
        return self.message_bytes_max - len(self.head) - len(self.scope) - _FRAMING_BYTES_MAX

    def item_capacity(self) -> i64:
        """The same of an item that has a message of its own."""
        return self.item_bytes_max - len(self.head) - len(self.scope) - _FRAMING_BYTES_MAX

    def points_max(self, group_row_bytes: i64, metric_bytes: i64, points_bytes: i64) -> i64:
        """Return how many points a metric may have so that its rows fit a message; at least 1.

        `group_row_bytes` is that of its group, `metric_bytes` the metric without its points, `points_bytes` all of those.
        """
        points: i64 = (self.row_bytes_max - points_bytes) // (group_row_bytes + metric_bytes)
        if points < 1:
            return 1
        return points

    def begin(self, size_bytes: i64, items: i64, repeated_bytes: i64) -> bool:
        """Take `items` accepted items that are one Metric, LogRecord or Span; the caller then writes its `size_bytes` to
        `message`. Return False, and take nothing, where they do not fit a message.

        `repeated_bytes`: how many of them are in the row of each of the items; 0 where there is one item.
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
        """As `begin`, of bytes that are there already."""
        if not self.begin(len(item), items, repeated_bytes):
            return False
        self.message.write(item)
        return True

    def keeps(self, payload_bytes: i64) -> bool:
        """Return whether a payload of so many bytes would be kept with the next rejected item. Asked before one is made."""
        if self.is_cut(payload_bytes):
            payload_bytes = self.rules.dead_letter_cut_bytes
        return (
            self.payloads_left > 0
            and payload_bytes <= self.payload_bytes_left
            and len(self.out.rejections) < REJECTIONS_KEPT_MAX
        )

    def is_cut(self, payload_bytes: i64) -> bool:
        """Return whether only the beginning of such a payload is kept."""
        return payload_bytes > self.item_bytes_max and self.rules.dead_letter_cut_bytes > 0

    def reject(self, reason: i64, message: str, service_id: bytes, payload: bytes) -> None:
        """Refuse the next item; without a `message`, in the words of the rules. `payload`: one that `keeps` said yes to, or
        nothing."""
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
        """Refuse the next items for one reason: they are only counted, which is all where so many have been refused before."""
        key = (int(self.type), int(reason))
        self.out.rejected[key] = self.out.rejected.get(key, 0) + items
        self.index += items

    def _write_open(self) -> None:
        """Write what comes before the items of the open group, and before it what comes before those of the open record."""
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
        """Write the length of what is behind its place, up to the end: a varint that is padded to the size of the place."""
        message = self.message
        last: i64 = at + self.length_bytes - 1
        size: i64 = len(message) - last - 1
        while at < last:
            message[at] = int(size & 127 | 128)
            size >>= 7
            at += 1
        message[last] = int(size)

    def _close_group(self) -> None:
        """The next items are of the same group, in another record."""
        if self.group_at == _UNWRITTEN:
            return
        self._put_length(self.group_at)
        self.group_at = _UNWRITTEN
        self.record_items += self.group_items
        self.group_items = 0

    def close_record(self) -> None:
        """The next items are of the same group of the same resource, in another record."""
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
