"""Check a message against its table, and note the bytes that have to be replaced for the normal form.

`scan` accepts only bytes that protobuf's parser would read as the same message, and returns whether a copy of them is already
normal. If it is not, the patches make it normal. Anything unusual raises `NonCanonical`.
"""

from bisect import bisect_right
from typing import Final

from librt.strings import BytesWriter, read_i64_le
from mypy_extensions import i64

from adapters.checked_attributes import NOTHING, WHOLE, kept_of
from adapters.codec.text import shortened_name
from adapters.codec.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Cursor,
    NonCanonical,
    is_utf8,
    length_of,
    put_bytes,
    put_varint,
    with_length,
)
from adapters.errors import INVALID_HISTOGRAM, NESTED_TOO_DEEP, RECORD_TOO_LARGE
from adapters.otlp.any_value import put_string_value, text_of
from adapters.otlp.any_value_tags import KEY, STRING
from adapters.otlp.attributes import CLEAN, REWRITE, Attribute
from adapters.otlp.field_tables import (
    ATTRIBUTE,
    BIT_MASKS,
    BODY,
    BOOL,
    BOUNDS,
    BUCKET_COUNTS,
    COUNT,
    DATA,
    FIRST_NOTED,
    FLAGS,
    INT32,
    ITEM,
    LAST_UNREAD,
    MESSAGE,
    NAME,
    ODD,
    OTHER_SPAN_ID,
    OTHER_TIME,
    OTHER_TRACE_ID,
    PACKED_FIXED64,
    PACKED_VARINT,
    SKIP,
    SPAN_ID,
    TEMPORALITY,
    TEXT,
    TIME,
    TRACE_ID,
    UINT32,
    UNFIT,
    UNFIT_REASONS,
    ZERO_COUNT,
    MessageTable,
)
from adapters.otlp.histograms import ScannedBuckets
from adapters.otlp.patches import Patches
from adapters.repairs import (
    ATTRIBUTES_DROPPED,
    CUT_KEY_PREFIX,
    EXEMPLAR_DROPPED,
    HISTOGRAM_COUNT_DIFFERS,
    ID_DROPPED,
    INFINITE_BOUND,
    KEY_TRUNCATED,
    NAME_TRUNCATED,
    VALUE_LEFT_OUT,
    VALUE_TRUNCATED,
)
from adapters.rules import Rules

# How often a list of attributes is searched for a key that may be there twice, before its keys are put into a set.
_WALKS_MAX: Final = 8
TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
_DROPPED_MAX: Final = 0xFFFFFFFF  # the largest number of the field, a uint32
_BODY_BYTES_MAX: Final = 1 << 28
_FAULT_BYTES_MAX: Final = 500


class Scanner:
    """A `Scanner` scans messages of one request's body. Its notes (`time`, …) are of the item or envelope scanned last."""

    def __init__(self, cursor: Cursor, rules: Rules) -> None:
        self.cursor: Final = cursor
        self.buffer: Final = cursor.buffer
        self.rules: Final = rules
        # Attributes of one list beyond this many are only checked for their form. They are left out, and counted as dropped.
        self.attributes_max: Final[i64] = rules.attributes_max
        # A log record's longer body that is not text is not converted: the record would exceed every message.
        self.body_bytes_max: i64 = _BODY_BYTES_MAX
        self.attribute: Final = Attribute(cursor, rules)
        self.patches: Final = Patches(cursor.buffer)
        # Whether some list of attributes has a key twice; then `normal` looks for it.
        self.duplicate_keys: bool = False
        # Whether some attribute was cut: it may be stored under another key than its own.
        self.has_cuts: bool = False
        # The exemplars that are left out: the beginning and the end of each run of them, in order.
        self.left_out: list[int] = []
        self.time: i64 = 0
        self.other_time: i64 = 0
        self.valid_trace_id: bool = False
        self.valid_span_id: bool = False
        # Whether an id of the item is present and invalid: of the wrong length, or all zero.
        self.invalid_id: bool = False
        # The number of the item's own invalid ids that are not all zero: zeros mean that there is no id.
        self.odd_ids: i64 = 0
        self.data_tag: i64 = 0
        self.data_at: i64 = 0
        self.data_length_at: i64 = 0
        self.data_start: i64 = 0
        self.data_end: i64 = 0
        self.items: i64 = 0
        self.temporality: i64 = 0
        self.seen: i64 = 0  # the bits of the fields of the message scanned last
        self.buckets: Final = ScannedBuckets(cursor.buffer, rules)
        # The fault in words, if its sender needs more than the reason's message.
        self.fault: str = ""

    def begin(self) -> None:
        """Forget the notes and patches, before an item or envelope is scanned."""
        self.forget_notes()
        self.patches.clear()

    def forget_notes(self) -> None:
        """Forget the notes, but not the patches."""
        self.duplicate_keys = False
        self.has_cuts = False
        if self.left_out:
            self.left_out = []
        self.time = 0
        self.other_time = 0
        self.valid_trace_id = False
        self.valid_span_id = False
        self.invalid_id = False
        self.odd_ids = 0
        self.data_tag = 0
        self.items = 0
        self.temporality = 0
        self.fault = ""

    def scan(self, message: MessageTable, start: i64, end: i64) -> i64:
        """Scan a message. Return CLEAN, REWRITE, or the first reason for its rejection. Raises NonCanonical."""
        cursor = self.cursor
        buffer = self.buffer
        actions = message.actions
        masks = message.masks
        seen: i64 = 0
        # One bit for each hash of a key, 256 in all.
        keys_0: i64 = 0
        keys_1: i64 = 0
        keys_2: i64 = 0
        keys_3: i64 = 0
        walks: i64 = 0
        names: set[bytes] | None = None
        made: list[bytes] | None = None  # the keys that were made for cut attributes
        attributes: i64 = 0
        attributes_max: i64 = self.attributes_max
        is_dropped_reported = False
        state: i64 = CLEAN
        last_word: i64 = len(buffer) - 8
        position: i64 = start
        while position < end:
            at: i64 = position
            # Nearly every field has one byte of tag, and one or two of length, one of value, or eight or four of payload: such
            # fields are read here.
            tag: i64 = 0
            length_at: i64 = at + 1
            first: i64 = length_at
            after: i64 = 0
            if at <= last_word:
                word: i64 = read_i64_le(buffer, at)
                tag = word & 255
                kind: i64 = word & 7
                short: i64 = word >> 8 & 255
                if kind == BYTES:
                    first = at + 2
                    if short > 127:
                        first = at + 3
                        more: i64 = word >> 16 & 255
                        short = short & 127 | more << 7
                        if more > 127:
                            tag = 0
                    after = first + short
                elif kind == FIXED64:
                    after = at + 9
                elif kind == VARINT and short < 128:
                    cursor.value = short
                    after = at + 2
                elif kind == FIXED32:
                    after = at + 5
            if tag < 8 or tag > 127 or after == 0 or after > end:
                cursor.position = at
                tag = cursor.field(end)
                length_at = cursor.length_at
                first = cursor.start
                after = cursor.position
            position = after
            if tag > 255:
                if tag == UNFIT and state <= REWRITE:
                    state = self._unfit(first, after) or state
                continue
            action: i64 = actions[tag]
            mask: i64 = read_i64_le(masks, tag << 3)
            if mask:
                if seen & mask:
                    raise NonCanonical(at)
                seen |= mask
            if action == ATTRIBUTE:
                attributes += 1
                if attributes > attributes_max:
                    if is_dropped_reported:
                        raise NonCanonical(at)  # the plain form has the count behind the attributes
                    self.rules.read(after - first)
                    self.attribute.check_form(first, after)
                    self.patches.cut(self.patches.count, self.patches.delta, at, after, b"")
                    if state == CLEAN:
                        state = REWRITE
                    continue
                found: i64 = self.attribute.check(first, after)
                if found == REWRITE:
                    if self.attribute.is_cut:
                        if made is None:
                            made = []
                            self.has_cuts = True
                        self._note_cut(made)
                        self.patches.replace(length_at, after, self.attribute.take_cut(buffer[at:length_at], has_marker=True))
                    else:
                        self.patches.replace(length_at, after, self.attribute.normal)
                elif found == NESTED_TOO_DEEP and message.leaves_out:
                    self.patches.cut(self.patches.count, self.patches.delta, at, after, b"")
                    self.rules.repair_pending(VALUE_LEFT_OUT)
                    found = REWRITE
                if found > state and state <= REWRITE:
                    state = found
                hashed: i64 = self.attribute.key_hash()
                key_bit: i64 = read_i64_le(BIT_MASKS, (hashed & 63) << 3)
                met: i64 = 0
                if hashed < 128:
                    if hashed < 64:
                        met = keys_0 & key_bit
                        keys_0 |= key_bit
                    else:
                        met = keys_1 & key_bit
                        keys_1 |= key_bit
                elif hashed < 192:
                    met = keys_2 & key_bit
                    keys_2 |= key_bit
                else:
                    met = keys_3 & key_bit
                    keys_3 |= key_bit
                if met or names is not None:
                    is_repeated = False
                    if walks < _WALKS_MAX:
                        walks += 1
                        is_repeated = self._is_repeated(message, start, at)
                    else:
                        # There are too many attributes to search them each time, or keys that are made to collide.
                        name = buffer[self.attribute.key_start : self.attribute.key_end]
                        if names is None:
                            names = self._names(message, start, at)
                        is_repeated = name in names
                        names.add(name)
                    if is_repeated:
                        self.duplicate_keys = True
                        if state == CLEAN:
                            state = REWRITE
            elif action <= LAST_UNREAD:
                if action == ODD:
                    raise NonCanonical(at)
            elif action >= FIRST_NOTED:
                self._note(action, tag, at, length_at, first, after)
            elif action == TEXT:
                if not is_utf8(buffer, first, after, self.rules):
                    raise NonCanonical(first)
            elif action == INT32:
                if cursor.value < -0x80000000 or cursor.value > 0x7FFFFFFF:
                    raise NonCanonical(first)
            elif action == UINT32:
                if cursor.value < 0 or cursor.value > 0xFFFFFFFF:
                    raise NonCanonical(first)
                if tag == message.dropped_tag:
                    is_dropped_reported = True
                    if attributes > attributes_max:
                        dropped: i64 = min(cursor.value + attributes - attributes_max, _DROPPED_MAX)
                        self.patches.replace(first, after, length_of(dropped))
            elif action == BOOL:
                if cursor.value < 0 or cursor.value > 1:
                    raise NonCanonical(first)
            elif action == PACKED_FIXED64 or action == BUCKET_COUNTS or action == BOUNDS:
                if (after - first) & 7:
                    raise NonCanonical(first)
                if action == BUCKET_COUNTS:
                    self.buckets.counts_length_at = length_at
                    self.buckets.counts_start = first
                    self.buckets.counts_end = after
                    if self.buckets.bounds_end > self.buckets.bounds_start and self.buckets.infinite() >= 0:
                        raise NonCanonical(at)  # the plain form has the bounds behind the counts
                elif action == BOUNDS:
                    self.buckets.bounds_start = first
                    self.buckets.bounds_end = after
                    left_out: i64 = self.buckets.infinite()
                    if left_out >= 0:
                        self._leave_out_infinity(left_out, at, length_at, first, after)
                        if state == CLEAN:
                            state = REWRITE
                if first == after:
                    self.patches.replace(at, after, b"")
                    if state == CLEAN:
                        state = REWRITE
            elif action == PACKED_VARINT:
                self.buckets.add_packed(cursor, first, after)
                if first == after:
                    self.patches.replace(at, after, b"")
                    if state == CLEAN:
                        state = REWRITE
            elif action == MESSAGE:
                child = message.children[tag]
                if child.is_exemplar:
                    found = self._scan_exemplar(child, at, length_at, first, after)
                else:
                    patches = self.patches
                    delta: i64 = patches.delta
                    place: i64 = patches.open()
                    found = self.scan(child, first, after)
                    patches.close(place, delta, length_at, first, after)
                self.rules.read(after - first)
                if found > state and state <= REWRITE:
                    state = found
            elif action == NAME:
                if not is_utf8(buffer, first, after, self.rules):
                    raise NonCanonical(first)
                found = self.rules.check_name(after - first)
                if found and message.cuts_name and self.rules.cuts_names:
                    self.patches.replace(length_at, after, self._name_within(first, after))
                    self.rules.repair_pending(NAME_TRUNCATED)
                    found = REWRITE
                if found > state and state <= REWRITE:
                    state = found
            elif action == BODY:
                found = self._check_body(length_at, first, after)
                if found > state and state <= REWRITE:
                    state = found
            else:  # OTHER_TRACE_ID or OTHER_SPAN_ID
                size: i64 = TRACE_ID_BYTES if action == OTHER_TRACE_ID else SPAN_ID_BYTES
                if after > first and not _is_id(buffer, first, after, size):
                    self.patches.replace(at, after, b"")
                    if not _is_zero(buffer, first, after):
                        self.rules.repair_pending(ID_DROPPED)
                    if state == CLEAN:
                        state = REWRITE
        if made is not None and self._is_made_twice(message, start, end, made):
            self.duplicate_keys = True
        if attributes > attributes_max:
            dropped = attributes - attributes_max
            self.rules.repair_pending(ATTRIBUTES_DROPPED, dropped)
            if message.dropped_tag and not is_dropped_reported:
                self.patches.replace(end, end, bytes((message.dropped_tag,)) + length_of(dropped))
        self.seen = seen
        return state

    def _scan_exemplar(self, message: MessageTable, at: i64, length_at: i64, first: i64, after: i64) -> i64:
        """Scan the exemplar at at:after as `scan` does. An exemplar that is rejected is left out, with its repairs."""
        patches = self.patches
        rules = self.rules
        delta: i64 = patches.delta
        place: i64 = patches.open()
        fault = self.fault
        before = rules.take_pending()
        found: i64 = self.scan(message, first, after)
        if found <= REWRITE:
            patches.close(place, delta, length_at, first, after)
            rules.put_back_pending(before)
            return found
        patches.cut(place, delta, at, after, b"")
        self.fault = fault
        rules.pending = before
        rules.repair_pending(EXEMPLAR_DROPPED)
        left_out = self.left_out
        if left_out and left_out[-1] == at:
            left_out[-1] = after
        elif not patches.is_full:
            left_out.append(at)
            left_out.append(after)
        return REWRITE

    def _note_cut(self, made: list[bytes]) -> None:
        """Count the cuts of the attribute checked last as repairs, and note the keys that were made for it."""
        attribute = self.attribute
        if attribute.is_key_cut:
            self.rules.repair_pending(KEY_TRUNCATED)
            made.append(attribute.stored_key)
        if attribute.marker:
            self.rules.repair_pending(VALUE_TRUNCATED)
            made.append(CUT_KEY_PREFIX + attribute.stored_key)

    def _is_made_twice(self, message: MessageTable, start: i64, end: i64, made: list[bytes]) -> bool:
        """Return whether a key that was made for a cut attribute occurs twice: it may also have been sent."""
        keys = set(made)
        if len(keys) < len(made):
            return True
        attributes: i64 = 0
        cursor = self.cursor
        position: i64 = start
        while position < end and attributes < self.attributes_max:
            cursor.position = position
            tag: i64 = cursor.field(end)
            self.rules.read(cursor.position - position)
            position = cursor.position
            if tag < 256 and message.actions[tag] == ATTRIBUTE:
                attributes += 1
                if self.attribute.key_of(cursor.start, position) in keys:
                    return True
        return False

    def _name_within(self, start: i64, end: i64) -> bytes:
        """Return the name at start:end, which is too long, cut and with its length before it."""
        name = shortened_name(self.buffer[start:end], self.rules.name_bytes_max, self.rules)
        return length_of(len(name)) + name

    def _unfit(self, start: i64, end: i64) -> i64:
        """Return the reason that the JSON reader wrote at start:end for a value that does not fit; 0 if it is none."""
        if start == end:
            return 0
        reason: i64 = self.buffer[start]
        if reason not in UNFIT_REASONS:
            return 0
        self.fault = self.buffer[start + 1 : min(end, start + _FAULT_BYTES_MAX)].decode("utf-8", "replace")
        return reason

    def fault_of(self, reason: i64) -> str:
        """Return the message for the item scanned last, rejected for `reason`; empty if the rules' message is used."""
        if reason == INVALID_HISTOGRAM or (reason in UNFIT_REASONS and reason != NESTED_TOO_DEEP):
            return self.fault
        return ""

    def histogram_reason(self) -> i64:
        """Return the reason to reject the histogram's point scanned last, and set `fault`; 0 if it is accepted."""
        buckets = self.buckets
        fault = buckets.fault()
        if fault:
            self.fault = fault
            return INVALID_HISTOGRAM
        if not buckets.adds_up():
            self.rules.repair_pending(HISTOGRAM_COUNT_DIFFERS)
        return 0

    def _leave_out_infinity(self, counts_left_out: i64, at: i64, length_at: i64, start: i64, end: i64) -> None:
        """Patch the bounds at start:end, and the counts before them, to the part that `ScannedBuckets` keeps."""
        buckets = self.buckets
        if counts_left_out:
            first: i64 = buckets.counts_start
            after: i64 = buckets.counts_end
            if after + 8 != at:
                raise NonCanonical(at)  # the plain form has the counts right before the bounds
            self.patches.replace(buckets.counts_length_at, at, with_length(self.buffer, first, after, self.rules))
        if buckets.bounds_end == start:
            self.patches.replace(at, end, b"")
        else:
            self.patches.replace(length_at, end, with_length(self.buffer, start, end - 8, self.rules))
        self.rules.repair_pending(INFINITE_BOUND)

    def _note(self, action: i64, tag: i64, at: i64, length_at: i64, first: i64, after: i64) -> None:
        """Note the field at at:after, of an item or its envelope. Its length, if it has one, is at length_at:first, its payload
        at first:after."""
        buffer = self.buffer
        if action == TIME:
            self.time = read_i64_le(buffer, first)
        elif action == OTHER_TIME:
            self.other_time = read_i64_le(buffer, first)
        elif action == TRACE_ID:
            self.valid_trace_id = _is_id(buffer, first, after, TRACE_ID_BYTES)
            if not self.valid_trace_id and after > first:
                self._drop_id(at, first, after)
        elif action == SPAN_ID:
            self.valid_span_id = _is_id(buffer, first, after, SPAN_ID_BYTES)
            if not self.valid_span_id and after > first:
                self._drop_id(at, first, after)
        elif action == ITEM:
            self.items += 1
            self.rules.read(0)
        elif action == TEMPORALITY:
            value: i64 = self.cursor.value
            if value < -0x80000000 or value > 0x7FFFFFFF:
                raise NonCanonical(first)
            self.temporality = value
            if value == 0 and self.rules.assumes_cumulative:
                raise NonCanonical(first)  # the plain form is without 0, so that a value can be written behind the points
        elif action == COUNT:
            self.buckets.count = read_i64_le(buffer, first)
        elif action == ZERO_COUNT:
            self.buckets.add(read_i64_le(buffer, first))
        elif action == FLAGS:
            flags: i64 = self.cursor.value
            if flags < 0 or flags > 0xFFFFFFFF:
                raise NonCanonical(first)
            self.buckets.flags = flags
        elif action == DATA:
            self.data_tag = tag
            self.data_at = at
            self.data_length_at = length_at
            self.data_start = first
            self.data_end = after

    def _drop_id(self, at: i64, first: i64, after: i64) -> None:
        """Patch out an invalid id: a log record is kept without it, and a span is rejected."""
        self.invalid_id = True
        if not _is_zero(self.buffer, first, after):
            self.odd_ids += 1
        self.patches.replace(at, after, b"")

    def _is_repeated(self, message: MessageTable, start: i64, at: i64) -> bool:
        """Return whether the key of the attribute checked last is in the same list, before `at`."""
        buffer = self.buffer
        actions = message.actions
        attribute = self.attribute
        key_start: i64 = attribute.key_start
        key_end: i64 = attribute.key_end
        size: i64 = key_end - key_start
        last: i64 = buffer[key_end - 1]  # for an empty key the byte before it, which is not used
        cursor = self.cursor
        position: i64 = start
        while position < at:
            tag: i64 = buffer[position]
            first: i64 = position + 2
            # Nearly every attribute is short, and its key comes first: such attributes are read here.
            if tag < 128 and first + 2 <= at and actions[tag] == ATTRIBUTE and 2 <= buffer[position + 1] < 128:
                position = first + buffer[position + 1]
                length: i64 = buffer[first + 1]
                # Most keys of the same length have another last byte.
                if buffer[first] == KEY and length < 128 and (length != size or (size and buffer[first + 1 + size] != last)):
                    continue
                attribute.locate(first, position)
            else:
                cursor.position = position
                tag = cursor.field(at)
                position = cursor.position
                if tag > 255 or actions[tag] != ATTRIBUTE:
                    continue
                attribute.locate(cursor.start, position)
            first = attribute.key_start
            if attribute.key_end - first == size and buffer[first : first + size] == buffer[key_start:key_end]:
                return True
        return False

    def _names(self, message: MessageTable, start: i64, at: i64) -> set[bytes]:
        """Return the keys of the list's attributes before `at`."""
        cursor = self.cursor
        names: set[bytes] = set()
        position: i64 = start
        while position < at:
            cursor.position = position
            tag: i64 = cursor.field(at)
            self.rules.read(cursor.position - position)
            position = cursor.position
            if tag < 256 and message.actions[tag] == ATTRIBUTE:
                names.add(self.attribute.key_of(cursor.start, position))
        return names

    def _check_body(self, length_at: i64, start: i64, end: i64) -> i64:
        """Check a log record's body. Return CLEAN if it is a string, REWRITE for any other value, or a reason."""
        buffer = self.buffer
        # Nearly every body is one short string.
        if end - start > 1 and buffer[start] == STRING and buffer[start + 1] == end - start - 2 and end - start < 130:
            if not is_utf8(buffer, start + 2, end, self.rules):
                raise NonCanonical(start + 2)
            return CLEAN
        reason: i64 = self.attribute.check_value(start, end, 0)
        if reason:
            return reason
        cursor = self.cursor
        cursor.position = start
        if start < end and self.buffer[start] == 0x0A:
            cursor.field(end)
            if cursor.position == end:
                return CLEAN
        if end - start > self.body_bytes_max:
            return RECORD_TOO_LARGE
        writer = BytesWriter()
        put_string_value(writer, text_of(cursor, start, end, self.rules))
        self.patches.replace(length_at, end, writer.getvalue())
        return REWRITE

    def normal(self, message: MessageTable, start: i64, end: i64) -> bytes:
        """Return the normal form of start:end, whole fields of the message that was scanned last."""
        writer = BytesWriter()
        if self.duplicate_keys:
            self._write_last(writer, message, start, end)
        else:
            self.patches.write(writer, start, end)
        return writer.getvalue()

    def _write_last(self, writer: BytesWriter, message: MessageTable, start: i64, end: i64) -> None:
        """Write start:end in the normal form, with only the last attribute of each key. Fields are checked once more."""
        attributes: i64 = 0
        is_dropped_reported = False
        cursor = self.cursor
        buffer = self.buffer
        kept_at = self._kept_positions(message, start, end)
        keep: i64 = start  # from here on not written yet
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            action: i64 = message.actions[tag] if tag < 256 else SKIP
            first: i64 = cursor.start
            length_at: i64 = cursor.length_at
            self.rules.read(position - at)
            if action == ATTRIBUTE:
                attributes += 1
                kept = kept_at.get(at, NOTHING)
                if kept == NOTHING:
                    writer.write(buffer[keep:at])
                    keep = position
                else:
                    found: i64 = self.attribute.check(first, position)
                    if found == REWRITE:
                        writer.write(buffer[keep:length_at])
                        if self.attribute.is_cut:
                            writer.write(self.attribute.take_cut(buffer[at:length_at], has_marker=kept == WHOLE))
                        else:
                            writer.write(self.attribute.normal)
                        keep = position
                    elif found == NESTED_TOO_DEEP:
                        writer.write(buffer[keep:at])
                        keep = position
            elif action == NAME:
                if message.cuts_name and self.rules.check_name(position - first):
                    writer.write(buffer[keep:length_at])
                    writer.write(self._name_within(first, position))
                    keep = position
            elif tag == message.dropped_tag and tag and attributes > self.attributes_max:
                is_dropped_reported = True
                writer.write(buffer[keep:first])
                writer.write(length_of(min(cursor.value + attributes - self.attributes_max, _DROPPED_MAX)))
                keep = position
            elif action == MESSAGE:
                child = message.children[tag]
                if child.is_exemplar and bisect_right(self.left_out, at) & 1:
                    writer.write(buffer[keep:at])
                    keep = position
                elif child.is_rewritten:
                    content = BytesWriter()
                    self._write_last(content, child, first, position)
                    writer.write(buffer[keep:at])
                    put_bytes(writer, tag, content.getvalue())
                    keep = position
            elif action == BUCKET_COUNTS or action == BOUNDS:
                left: i64 = self.buckets.counts_end
                if action == BOUNDS:
                    left = self.buckets.bounds_end
                if left < position or left == first:
                    writer.write(buffer[keep:at])
                    keep = position
                    if left > first:
                        put_bytes(writer, tag, buffer[first:left])
            elif first == position and (action == PACKED_FIXED64 or action == PACKED_VARINT):
                writer.write(buffer[keep:at])
                keep = position
            elif action == BODY:
                writer.write(buffer[keep:at])
                put_varint(writer, tag)
                put_string_value(writer, text_of(cursor, first, position, self.rules))
                keep = position
            elif action == TRACE_ID or action == SPAN_ID or action == OTHER_TRACE_ID or action == OTHER_SPAN_ID:
                # Only a log record comes here with an invalid id of its own: it is kept without the id.
                is_trace = action == TRACE_ID or action == OTHER_TRACE_ID
                if position > first and not _is_id(buffer, first, position, TRACE_ID_BYTES if is_trace else SPAN_ID_BYTES):
                    writer.write(buffer[keep:at])
                    keep = position
        writer.write(buffer[keep:end])
        if attributes > self.attributes_max and message.dropped_tag and not is_dropped_reported:
            writer.append(int(message.dropped_tag))
            put_varint(writer, attributes - self.attributes_max)

    def has_attribute(self, message: MessageTable, start: i64, end: i64) -> bool:
        """Return whether any field at start:end is an attribute."""
        return len(self._kept_positions(message, start, end)) > 0

    def _kept_positions(self, message: MessageTable, start: i64, end: i64) -> dict[int, int]:
        """Return which part of each attribute is stored, by its position: only the last of each key is. Attributes beyond the
        limit are not included."""
        places: list[int] = []
        keys: list[bytes] = []
        markers: list[bytes] = []
        position: i64 = start
        cursor = self.cursor
        attributes: i64 = 0
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            self.rules.read(position - at)
            if tag < 256 and message.actions[tag] == ATTRIBUTE:
                attributes += 1
                if attributes > self.attributes_max:
                    continue
                places.append(at)
                key = b""
                marker = b""
                if self.has_cuts:
                    key, marker = self.attribute.stored_keys(cursor.start, position)
                else:
                    key = self.attribute.key_of(cursor.start, position)
                keys.append(key)
                markers.append(marker)
        return dict(zip(places, kept_of(keys, markers), strict=True))


def _is_id(buffer: bytes, start: i64, end: i64, length: i64) -> bool:
    """Return whether start:end has the length of an id, and is not all zero."""
    if end - start != length:
        return False
    position: i64 = start
    while position < end:
        if read_i64_le(buffer, position) != 0:
            return True
        position += 8
    return False


def _is_zero(buffer: bytes, first: i64, after: i64) -> bool:
    """Return whether an id is only zeros, which means that there is none. Any other invalid id is reported."""
    position: i64 = first
    while position < after and buffer[position] == 0:
        position += 1
    return position == after
