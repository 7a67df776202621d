"""Count the bytes that a message has when its attributes and names are cut, before it is scanned.

The count is at most the stored size, except for the bytes that the normal form of a value adds. If the rows of a request are
near their limit, BatchBuilder decides.
"""

from typing import Final

from mypy_extensions import i64

from adapters.codec.wire import BYTES, Cursor, field_size
from adapters.otlp.any_value_tags import KEY, STRING, VALUE
from adapters.otlp.attributes import WRITTEN_TO_BE_CUT
from adapters.otlp.field_tables import ATTRIBUTE, MESSAGE, NAME, MessageTable
from adapters.repairs import CUT_KEY_PREFIX
from adapters.rules import Rules


class StoredSize:
    """A `StoredSize` counts the bytes of messages in `cursor`'s buffer."""

    def __init__(self, cursor: Cursor, rules: Rules) -> None:
        self.cursor: Final = cursor
        self.rules: Final = rules
        # Whether a too long attribute or name of the message counted last may not be cut, so that the message is not stored.
        self.is_refused: bool = False

    def of(self, message: MessageTable, start: i64, end: i64) -> i64:
        """Return the size of start:end, whole fields of a message. Moves the cursor. Raises NonCanonical."""
        self.is_refused = False
        return self._of(message, start, end)

    def _of(self, message: MessageTable, start: i64, end: i64) -> i64:
        cursor = self.cursor
        rules = self.rules
        size: i64 = end - start
        attributes: i64 = 0
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            at: i64 = position
            first: i64 = cursor.start
            position = cursor.position
            rules.read(0)
            if tag > 255 or tag & 7 != BYTES:
                continue
            action: i64 = message.actions[tag]
            if action == ATTRIBUTE:
                attributes += 1
                if attributes > rules.attributes_max:
                    size -= position - at
                elif position - first > rules.attribute_bytes_unasked_max:
                    size -= self._cut_of(first, position)
            elif action == MESSAGE:
                size -= position - first - self._of(message.children[tag], first, position)
            elif action == NAME and position - first > rules.name_bytes_max:
                if message.cuts_name and rules.cuts_names:
                    size -= position - first - rules.name_bytes_max
                else:
                    self.is_refused = True
        return size

    def _cut_of(self, start: i64, end: i64) -> i64:
        """Return how many bytes are cut of the KeyValue at start:end, less those of the marker that contains its length."""
        cursor = self.cursor
        rules = self.rules
        key_bytes: i64 = 0
        value_bytes: i64 = 0
        is_text = False
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            first: i64 = cursor.start
            position = cursor.position
            if tag == KEY:
                key_bytes = position - first
            elif tag == VALUE and position > first:
                value_bytes = position - first
                cursor.position = first
                is_text = cursor.field(position) == STRING and cursor.position == position
                if is_text:
                    value_bytes = position - cursor.start
        cut: i64 = 0
        if key_bytes > rules.key_bytes_max:
            if rules.cuts_keys:
                cut = key_bytes - rules.key_bytes_max
            else:
                self.is_refused = True
        if value_bytes > rules.value_bytes_max:
            if rules.truncates_values:
                kept: i64 = rules.value_bytes_max
                if not is_text and value_bytes > WRITTEN_TO_BE_CUT * rules.value_bytes_max:
                    kept = 0
                cut += value_bytes - kept - field_size(len(CUT_KEY_PREFIX) + min(key_bytes, rules.key_bytes_max))
            else:
                self.is_refused = True
        return max(cut, 0)
