"""Convert attributes to the normal form, in which every value is a string. Integers are decimal, booleans true/false, doubles
in shortest round-trip form (NaN, Infinity, -Infinity), bytes base64, arrays and key-value lists JSON. A missing value is the
empty string.

A value that is already normal is left in its place. Any other value is checked here before it is rewritten, never after.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le
from mypy_extensions import i64

from adapters.codec.text import shortened_name, text_within
from adapters.codec.wire import Cursor, NonCanonical, field_size, is_ascii, is_utf8, put_bytes, put_varint
from adapters.errors import ATTRIBUTE_KEY_TOO_LONG, ATTRIBUTE_VALUE_TOO_LONG, NESTED_TOO_DEEP
from adapters.otlp.any_value import beginning_of, put_string_value, text_of
from adapters.otlp.any_value_tags import ARRAY, BOOL, BYTES, DOUBLE, INT, KEY, KEY_STRINDEX, KVLIST, STRINDEX, STRING, VALUE
from adapters.otlp.normal_forms import NormalForms
from adapters.repairs import CUT_KEY_PREFIX
from adapters.rules import NESTING_MAX, Rules

CLEAN: Final = 0
REWRITE: Final = 1

# If a value that is not text is this many times too long as sent, only the beginning of its text is made.
WRITTEN_TO_BE_CUT: Final = 4

# opentelemetry-proto: a receiver of another signal treats such a field as absent, and reports it.
_KEY_IN_TABLE: Final = "KeyValue.key_strindex refers to a table of strings, which profiles alone have: the key is read as empty"
_TEXT_IN_TABLE: Final = (
    "AnyValue.string_value_strindex refers to a table of strings, which profiles alone have: the value is read as empty"
)


class Attribute:
    """An `Attribute` reads KeyValues: `check` returns the state of one, and sets the places of its key and value. If it has to
    be rewritten, `check` also sets its normal form, with its length before it."""

    def __init__(self, cursor: Cursor, rules: Rules) -> None:
        self.cursor: Final = cursor
        self.buffer: Final = cursor.buffer
        self.rules: Final = rules
        self.unasked_bytes_max: Final[i64] = rules.attribute_bytes_unasked_max
        self.key_start: i64 = 0
        self.key_end: i64 = 0
        self.value_start: i64 = 0
        self.value_end: i64 = 0
        self.normal: bytes = b""
        # Whether the key or the value of the attribute checked last was cut.
        self.is_cut: bool = False
        self.is_key_cut: bool = False
        self.stored_key: bytes = b""  # the key of an attribute that was cut
        # Whether a checked value refers to a table of strings. It is not cached, since it must be reported each time.
        self.is_in_table: bool = False
        # The marker of a cut value: an attribute that contains its original size, with its length before it; or empty.
        self.marker: bytes = b""

    def locate(self, start: i64, end: i64) -> i64:
        """Find key and value of the KeyValue at start:end. Return CLEAN if it has a key, then a string value, and nothing else;
        or else REWRITE."""
        buffer = self.buffer
        if end - start >= 4 and buffer[start] == KEY:
            key_length: i64 = buffer[start + 1]
            p: i64 = start + 2 + key_length
            if key_length < 128 and p + 4 <= end and buffer[p] == VALUE:
                value_length: i64 = buffer[p + 1]
                if value_length < 128 and p + 2 + value_length == end:
                    is_string = buffer[p + 2] == STRING
                    if not is_string or buffer[p + 3] == value_length - 2:
                        self.key_start = start + 2
                        self.key_end = p
                        self.value_start = p + 2
                        self.value_end = end
                        return CLEAN if is_string else REWRITE
        return self._locate_any(start, end)

    def _locate_any(self, start: i64, end: i64) -> i64:
        cursor = self.cursor
        cursor.position = start
        self.key_start = self.key_end = self.value_start = self.value_end = start
        seen: i64 = 0
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag == KEY:
                if seen & 1:
                    raise NonCanonical(cursor.position)
                seen |= 1
                self.key_start = cursor.start
                self.key_end = cursor.position
            elif tag == VALUE:
                if seen & 2:
                    raise NonCanonical(cursor.position)
                seen |= 2
                self.value_start = cursor.start
                self.value_end = cursor.position
            else:
                # An unknown field, or a known number with another wire type, is not in the normal form.
                seen |= 4
                if tag == KEY_STRINDEX:
                    self.rules.note_misplaced(_KEY_IN_TABLE)
        in_order = seen == 3 and self.value_start > self.key_end
        return CLEAN if in_order and _is_one_string(cursor, self.value_start, self.value_end) else REWRITE

    def check(self, start: i64, end: i64) -> i64:
        """Return CLEAN, REWRITE, or the reason to reject the KeyValue at start:end. Raises NonCanonical."""
        state: i64 = self.locate(start, end)
        buffer = self.buffer
        if state == CLEAN:
            return self._check_clean(buffer, start, end)
        reason: i64 = 0
        if end - start > self.unasked_bytes_max:
            reason = self.rules.check_attribute(self.key_end - self.key_start, self.value_end - self.value_start)
        if reason == 0:
            known = _known.find(buffer, start, end)
            if len(known):
                self.normal = known
                return REWRITE
        return self._check_new(start, end, reason)

    def _check_clean(self, buffer: bytes, start: i64, end: i64) -> i64:
        """Check a KeyValue that has a key, then a string, and nothing else. Return as `check`."""
        key_start: i64 = self.key_start
        key_end: i64 = self.key_end
        value_end: i64 = self.value_end
        # If all bytes are ASCII, including tags and lengths, key and text need not be checked one by one.
        text_start: i64 = value_end - _string_length(self.cursor, self.value_start, value_end)
        if end - start < 8 or not is_ascii(buffer, start, end):
            if not is_utf8(buffer, key_start, key_end, self.rules):
                raise NonCanonical(key_start)
            if not is_utf8(buffer, text_start, value_end, self.rules):
                raise NonCanonical(text_start)
        if end - start > self.unasked_bytes_max:
            reason: i64 = self.rules.check_attribute(key_end - key_start, value_end - text_start)
            if reason and self._is_cut_for(reason):
                return self._cut(buffer[key_start:key_end], buffer[text_start:value_end])
            return reason or CLEAN
        return CLEAN

    def check_form(self, start: i64, end: i64) -> None:
        """Check only that this KeyValue is well-formed. Raises NonCanonical."""
        if start == end:
            return
        state: i64 = self.locate(start, end)
        if not is_utf8(self.buffer, self.key_start, self.key_end, self.rules):
            raise NonCanonical(self.key_start)
        if state == CLEAN:
            text_start: i64 = self.value_end - _string_length(self.cursor, self.value_start, self.value_end)
            if not is_utf8(self.buffer, text_start, self.value_end, self.rules):
                raise NonCanonical(text_start)
        else:
            self.check_value(self.value_start, self.value_end, 0)

    def _check_new(self, start: i64, end: i64, reason: i64) -> i64:
        """Check a KeyValue that has to be rewritten, and is not cached. `reason` is the reason to reject it known so far."""
        key_start: i64 = self.key_start
        key_end: i64 = self.key_end
        value_start: i64 = self.value_start
        value_end: i64 = self.value_end
        self.is_in_table = False
        if not is_utf8(self.buffer, key_start, key_end, self.rules):
            raise NonCanonical(key_start)
        # The value is checked even if there is a reason: if it is malformed, the whole body is.
        found: i64 = self.check_value(value_start, value_end, 0)
        self.key_start = key_start
        self.key_end = key_end
        key = self.buffer[key_start:key_end]
        if reason and self._is_cut_for(reason):
            if found:
                return found
            # A string's text need not be made. Of another value's text, only the necessary part is made.
            is_text = _is_one_string(self.cursor, value_start, value_end)
            if is_text or not self.rules.truncates_values:
                return self._cut(key, text_of(self.cursor, value_start, value_end, self.rules))
            if value_end - value_start > WRITTEN_TO_BE_CUT * self.rules.value_bytes_max:
                beginning = beginning_of(self.cursor, value_start, value_end, self.rules.value_bytes_max, self.rules)
                return self._cut_to(key, beginning, value_end - value_start)
            return self._cut(key, text_of(self.cursor, value_start, value_end, self.rules))
        if reason or found:
            return reason or found
        self.normal = _normal_of(key, text_of(self.cursor, value_start, value_end, self.rules))
        if not self.is_in_table:
            _known.keep(self.buffer, start, end, self.normal)
        return REWRITE

    def _is_cut_for(self, reason: i64) -> bool:
        """Return whether an attribute that `reason` rejects is cut instead."""
        rules = self.rules
        if reason == ATTRIBUTE_KEY_TOO_LONG:
            return rules.cuts_keys
        return reason == ATTRIBUTE_VALUE_TOO_LONG and rules.truncates_values

    def _cut(self, key: bytes, text: bytes) -> i64:
        """Set the normal form of an attribute, with its key and text cut to their limits. Return REWRITE."""
        if len(text) > self.rules.value_bytes_max:
            return self._cut_to(key, text_within(text, self.rules.value_bytes_max), len(text))
        self.normal = _normal_of(self._key_within(key), text)
        return REWRITE

    def _cut_to(self, key: bytes, text: bytes, sent_bytes: i64) -> i64:
        """Do what `_cut` does, but keep `text` of a value that had `sent_bytes`, which its marker contains."""
        key = self._key_within(key)
        self.is_cut = True
        self.stored_key = key
        self.normal = _normal_of(key, text)
        self.marker = _normal_of(CUT_KEY_PREFIX + key, str(int(sent_bytes)).encode())
        return REWRITE

    def _key_within(self, key: bytes) -> bytes:
        rules = self.rules
        if len(key) <= rules.key_bytes_max:
            return key
        self.is_cut = True
        self.is_key_cut = True
        self.stored_key = shortened_name(key, rules.key_bytes_max, rules)
        return self.stored_key

    def take_cut(self, tag: bytes, *, has_marker: bool) -> bytes:
        """Return the cut attribute checked last, with its length before it, and its marker behind it if its value was cut."""
        cut = self.normal
        if self.marker and has_marker:
            cut += tag + self.marker
        self.is_cut = False
        self.is_key_cut = False
        self.marker = b""
        return cut

    def stored_keys(self, start: i64, end: i64) -> tuple[bytes, bytes]:
        """Return the key under which this KeyValue is stored, and the key of its marker, or empty if its value was not cut.
        Raises NonCanonical."""
        self.check(start, end)
        if not self.is_cut:
            return self.key_of(start, end), b""
        marker = CUT_KEY_PREFIX + self.stored_key if self.marker else b""
        self.take_cut(b"", has_marker=False)
        return self.stored_key, marker

    def key_hash(self) -> i64:
        """Return a hash, from 0 to 255, of the key of the attribute checked last."""
        buffer = self.buffer
        start: i64 = self.key_start
        end: i64 = self.key_end
        length: i64 = end - start
        mixed: i64 = 0
        if length >= 8:
            head: i64 = read_i64_le(buffer, start)
            tail: i64 = read_i64_le(buffer, end - 8)
            mixed = tail ^ (tail >> 32) ^ (head >> 8) ^ (head >> 40)
        elif length:
            # The bytes before the key are shifted out. At least eight bytes exist: tags and lengths of the messages around it.
            tail = read_i64_le(buffer, end - 8) >> ((8 - length) << 3)
            mixed = tail & ((1 << (length << 3)) - 1)
            mixed ^= mixed >> 32
        # Multiplicative hashing, twice; the products stay below 2**63.
        mixed = ((mixed ^ (length << 8)) & 0xFFFFFFFF) * 0x5E3779B1 >> 31
        return (mixed & 0xFFFFFFFF) * 0x45D9F3B3 >> 32 & 255

    def check_value(self, start: i64, end: i64, depth: i64) -> i64:
        """Check that an AnyValue is well-formed, and not nested too deep. Return 0 or a reason. Raises NonCanonical."""
        size: i64 = end - start
        if size >= 2 and start + 8 <= len(self.buffer):
            # Nearly every value is a short text, a double or a boolean, and nothing else.
            word: i64 = read_i64_le(self.buffer, start)
            short: i64 = word >> 8 & 255
            tag: i64 = word & 255
            if tag == STRING and short == size - 2 and short < 128:
                if not is_utf8(self.buffer, start + 2, end, self.rules):
                    raise NonCanonical(start + 2)
                return 0
            if (tag == DOUBLE and size == 9) or (tag == BOOL and size == 2 and short < 2):
                return 0
        cursor = self.cursor
        cursor.position = start
        members: i64 = 0
        while cursor.position < end:
            tag = cursor.field(end)
            after: i64 = cursor.position
            if tag == STRING:
                if not is_utf8(self.buffer, cursor.start, after, self.rules):
                    raise NonCanonical(cursor.start)
            elif tag == ARRAY or tag == KVLIST:
                if depth >= NESTING_MAX:
                    return NESTED_TOO_DEEP
                reason: i64 = self._check_values(tag, cursor.start, after, depth + 1)
                if reason:
                    return reason
                cursor.position = after
            elif tag == BOOL:
                if cursor.value != 0 and cursor.value != 1:
                    raise NonCanonical(cursor.start)
            elif tag == STRINDEX:
                if cursor.value < -0x80000000 or cursor.value > 0x7FFFFFFF:
                    raise NonCanonical(cursor.start)
                self.is_in_table = True
                self.rules.note_misplaced(_TEXT_IN_TABLE)
            elif tag >> 3 <= 8 and tag != INT and tag != DOUBLE and tag != BYTES:
                raise NonCanonical(cursor.start)
            if tag >> 3 <= 8:
                members += 1
        if members > 1:
            raise NonCanonical(start)  # members of a oneof replace or merge with one another
        return 0

    def _check_values(self, kind: i64, start: i64, end: i64, depth: i64) -> i64:
        """Check the values of an ArrayValue, or the KeyValues of a KeyValueList. Return 0 or a reason."""
        cursor = self.cursor
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            after: i64 = cursor.position
            if tag == 0x0A:
                self.rules.read(0)
                reason: i64 = 0
                if kind == ARRAY:
                    reason = self.check_value(cursor.start, after, depth)
                else:
                    entry: i64 = cursor.start
                    state: i64 = self.locate(entry, after)
                    # If all bytes are ASCII, including tags and lengths, key and text need not be checked one by one.
                    if state == CLEAN and after - entry >= 8 and is_ascii(self.buffer, entry, after):
                        cursor.position = after
                        continue
                    if not is_utf8(self.buffer, self.key_start, self.key_end, self.rules):
                        raise NonCanonical(self.key_start)
                    reason = self.check_value(self.value_start, self.value_end, depth)
                if reason:
                    return reason
                cursor.position = after
            elif tag >> 3 == 1:
                raise NonCanonical(cursor.start)
        return 0

    def key_of(self, start: i64, end: i64) -> bytes:
        self.locate(start, end)
        return self.buffer[self.key_start : self.key_end]


# The lengths and normal forms of KeyValues that are well-formed, and had to be rewritten.
_known: Final = NormalForms()


def _normal_of(key: bytes, text: bytes) -> bytes:
    """Return a KeyValue in the normal form, with its length before it."""
    writer = BytesWriter()
    put_varint(writer, field_size(len(key)) + field_size(field_size(len(text))))
    put_bytes(writer, KEY, key)
    writer.append(VALUE)
    put_string_value(writer, text)
    return writer.getvalue()


def _is_one_string(cursor: Cursor, start: i64, end: i64) -> bool:
    """Return whether an AnyValue is one string and nothing else."""
    if start >= end or cursor.buffer[start] != STRING:
        return False
    cursor.position = start
    cursor.field(end)
    return cursor.position == end


def _string_length(cursor: Cursor, start: i64, end: i64) -> i64:
    """Return the length of the string that the AnyValue at start:end consists of."""
    length: i64 = end - start - 2
    if length < 128:
        return length
    cursor.position = start + 1
    return cursor.varint(end)
