"""Read plain records of the native API from their bytes, without an object for each value.

A record that is not plain, or not accepted as it is, is parsed by itself, and `RecordAdapter.add` decides about it. A body that
is not JSON raises `NonPlain`, or `IndexError` if it ends too soon: then all of it is read again (adapters/native/request.py).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i32_le, write_i64_le
from mypy_extensions import i32, i64, u8

from adapters.codec.json_characters import (
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COLON,
    COMMA,
    MINUS,
    OPENING_BRACE,
    OPENING_BRACKET,
    QUOTE,
    SMALL_N,
    SPACE,
)
from adapters.codec.json_numbers import is_whole
from adapters.codec.json_reader import SLICE_BYTES
from adapters.codec.json_scanner import JsonName, JsonScanner, NonPlain
from adapters.codec.rfc3339 import BEYOND, parse_time
from adapters.codec.text import hex_id, is_no_id
from adapters.codec.wire import put_bytes, put_varint, varint_size
from adapters.native.members import MEMBERS
from adapters.native.records import RECORD_BYTES, SEVERITY_KEYS, TYPES, Group, RecordAdapter
from adapters.record import TYPE_EVENT, TYPE_LOG, TYPE_METRIC

# A longer record is parsed. It has at most as many objects and arrays as a slice may have.
_RECORD_BYTES_MAX: Final = 64 << 10

_SERVICE_ID: Final = 0
_TYPE: Final = 1
_METRIC_NAME: Final = 2
_VALUE: Final = 3
_TIMESTAMP: Final = 4
_BODY: Final = 5
_TRACE_ID: Final = 6
_ATTRIBUTES: Final = 7
_HAS_VALUE: Final = 1 << _VALUE
_HAS_BODY: Final = 1 << _BODY

# Fields of a NumberDataPoint and of a LogRecord.
_POINT_ATTRIBUTES: Final = 0x3A
_LOG_ATTRIBUTES: Final = 0x32
_SHORT_MAX: Final = 127
# The parser makes a double of an integer that is longer.
_PARSED_INTEGER_BYTES_MAX: Final = 19
_LITERALS: Final[dict[bool | None, bytes]] = {None: b"", True: b"true", False: b"false"}
_WORD_BYTES: Final = 8
# The low bits of the first n of eight bytes, as 8 bytes each, for n from 0 to 7.
_LOW_BITS: Final = b"".join([((1 << 8 * n) - 1).to_bytes(8, "little") for n in range(8)])
# A record with more unknown members is parsed.
_UNKNOWN_MAX: Final = 8
# The number of stamps: one for each hash of a key.
_STAMPS: Final = 4096
_STAMP_MAX: Final = 255


class _Member(JsonName):
    """A `_Member` is a member that a record may have."""

    def __init__(self, index: int, name: str) -> None:
        super().__init__(name)
        self.index: Final[i64] = index
        self.bit: Final[i64] = 2**index
        # The member that followed this one in the record that was read last.
        self.follower: _Member = self


_MEMBERS: Final = {name.encode(): _Member(index, name) for index, name in enumerate(MEMBERS)}
_HEAD: Final = _Member(len(MEMBERS), "")
_HEAD.follower = _MEMBERS[b"service_id"]


def scan_batch(adapter: RecordAdapter, batch_items_max: i64) -> i64:
    """Add each record of the body, which is an array. Return how many of them were parsed. Raises NonPlain, IndexError."""
    scan = _RecordScanner(adapter)
    text = scan.text
    position: i64 = scan.skip_space(0)
    if text[position] != OPENING_BRACKET:
        raise NonPlain
    position = scan.skip_space(position + 1)
    if text[position] == CLOSING_BRACKET:
        position += 1
    else:
        while True:
            if adapter.index >= batch_items_max:
                raise NonPlain
            position = scan.skip_space(scan.record(position))
            byte: i64 = text[position]
            position += 1
            if byte != COMMA:
                if byte != CLOSING_BRACKET:
                    raise NonPlain
                break
            if text[position] <= SPACE:
                position = scan.skip_space(position)
    scan.finish(position)
    return scan.parsed


def scan_record(adapter: RecordAdapter) -> i64:
    """Do what `scan_batch` does, for a body that is one record."""
    scan = _RecordScanner(adapter)
    scan.finish(scan.record(scan.skip_space(0)))
    return scan.parsed


class _RecordScanner(JsonScanner):
    def __init__(self, adapter: RecordAdapter) -> None:
        super().__init__(adapter.body, adapter.rules)
        self.adapter: Final = adapter
        self.parsed: i64 = 0
        # The name of the member that was looked up last, and the position behind its colon.
        self.name: bytes = b""
        self.position: i64 = 0
        # The current record's unknown members, and how many of them are not null.
        self.unknown: list[bytes] = []
        self.lost: i64 = 0
        # The current record's attributes, as fields of a point or a log record; and the values that a log record takes of them.
        self.attributes: Final = BytesWriter()
        self.severity: bytes = b""
        self.severity_rank: i64 = 0
        self.is_event_named: bool = False
        # The keys of the current record: the record's stamp is at the hash of each of its keys.
        self.stamps: Final = BytesWriter()
        self.stamps.write(bytes(_STAMPS))
        self.stamp: i64 = 0
        # Values of the record before, which the next one often has too. `before` has the texts by member.
        self.before: Final[list[bytes]] = [b"", b"", b"", b"", b"", b"", b""]
        self.group: Group | None = None
        self.timestamp: bytes = b""
        self.time_unix_nano: i64 = 0

    def record(self, position: i64) -> i64:
        """Add the record that begins at `position`. Return where it ends."""
        end: i64 = 0
        if self.text[position] == OPENING_BRACE:
            end = self._plain(position)
            if self.unknown:
                if end and self.lost:
                    self.adapter.note_unknown_of_last(self.lost)
                self.unknown = []
                self.lost = 0
        if end == 0:
            end = self.value_end(position, SLICE_BYTES)
            self.parsed += 1
            self.adapter.add(self.loaded(position, end))
        if end > self.rest_at:
            self.rest(end)
        return end

    def _plain(self, start: i64) -> i64:
        """Add the record at `start`, if it is plain and accepted as it is. Return where it ends, or 0 if it was not added."""
        text = self.text
        texts = [b"", b"", b"", b"", b"", b"", b""]
        number = 0.0
        type_: i64 = TYPE_METRIC
        tag: i64 = _POINT_ATTRIBUTES
        attributes_at: i64 = 0
        attributes_tag: i64 = 0
        there: i64 = 0  # a bit for each member that is not null
        seen: i64 = 0
        end: i64
        self.attributes.truncate(0)
        previous = _HEAD
        position: i64 = start + 1
        if text[position] <= SPACE:
            position = self.skip_space(position)
        while True:
            member = previous.follower
            is_known = True
            if self.is_name(member, position):
                position += member.size
            else:
                found = self._member(position)
                position = self.position
                if found is None:
                    is_known = False
                else:
                    member = found
                    previous.follower = member
            byte: i64 = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            if not is_known:
                position = self._skip_unknown(position)
                if position == 0:
                    return 0
            else:
                previous = member
                index: i64 = member.index
                if seen & member.bit:
                    return 0
                seen |= member.bit
                if byte == SMALL_N:
                    position = self.null_end(position)
                elif index == _ATTRIBUTES:
                    there |= member.bit
                    attributes_at = position
                    attributes_tag = tag
                    position = self._attributes(position, tag)
                    if position == 0:
                        return 0
                elif index == _VALUE:
                    there |= member.bit
                    end = self.double_end(position)
                    # The parser makes the integer 0 of -0.
                    if end and self.is_number_end(end) and (self.double != 0.0 or byte != MINUS):
                        number = self.double
                    else:
                        end = self.scalar_end(position)
                        value = self.loaded(position, end)
                        if not isinstance(value, float):
                            return 0
                        number = value
                    position = end
                else:
                    if byte != QUOTE:
                        return 0
                    there |= member.bit
                    end = self.string_end(position + 1)
                    if self.is_plain:
                        texts[index] = self._text(index, position + 1, end)
                    else:
                        texts[index] = self.unescaped(position + 1, end)
                    position = end + 1
                    if index == _TYPE:
                        type_ = TYPES.get(texts[index], 0)
                        if type_ == TYPE_LOG or type_ == TYPE_EVENT:
                            tag = _LOG_ATTRIBUTES
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            position += 1
            if byte != COMMA:
                if byte != CLOSING_BRACE:
                    raise NonPlain
                break
            if text[position] <= SPACE:
                position = self.skip_space(position)
        if position - start > _RECORD_BYTES_MAX or type_ == 0:
            return 0
        if attributes_at and attributes_tag != tag:  # the type came behind the attributes
            self.attributes.truncate(0)
            self._attributes(attributes_at, tag)
        return position if self._take(type_, texts, number, there) else 0

    def _skip_unknown(self, position: i64) -> i64:
        """Note the unknown member whose value is at `position`. Return the value's end, or 0 if the record has to be parsed."""
        if self.name in self.unknown or len(self.unknown) == _UNKNOWN_MAX:
            return 0
        self.unknown.append(self.name)
        if self.text[position] != SMALL_N:
            self.lost += 1
        return self.value_end(position, SLICE_BYTES)

    def _text(self, index: i64, start: i64, end: i64) -> bytes:
        """Return the text of a member: the object of the record before, if the text is the same."""
        text = self.text
        before = self.before[index]
        size: i64 = end - start
        if size < _WORD_BYTES or size != len(before):
            found = text[start:end]
            self.before[index] = found
            return found
        at: i64 = 0
        last: i64 = size - _WORD_BYTES
        while at < last:
            if read_i64_le(text, start + at) != read_i64_le(before, at):
                break
            at += _WORD_BYTES
        if at < last or read_i64_le(text, end - _WORD_BYTES) != read_i64_le(before, last):
            before = text[start:end]
            self.before[index] = before
        return before

    def _member(self, position: i64) -> _Member | None:
        """Return the member whose name is at `position`; None if it is unknown. Move behind the colon."""
        text = self.text
        if text[position] != QUOTE:
            raise NonPlain
        end: i64 = self.string_end(position + 1)
        content = text[position + 1 : end]
        if not self.is_plain:
            content = self.unescaped(position + 1, end)
        position = end + 1
        if text[position] <= SPACE:
            position = self.skip_space(position)
        if text[position] != COLON:
            raise NonPlain
        self.name = content
        self.position = position + 1
        return _MEMBERS.get(content)

    def _take(self, type_: i64, texts: list[bytes], number: float, there: i64) -> bool:
        """Add the record if it is accepted as it is. Return whether it is."""
        adapter = self.adapter
        rules = adapter.rules
        is_log = type_ == TYPE_LOG or type_ == TYPE_EVENT
        name = texts[_METRIC_NAME]
        if is_log:
            # A value, and a log's name, become attributes.
            if there & _HAS_VALUE or not there & _HAS_BODY or (len(name) and type_ == TYPE_LOG):
                return False
        elif len(name) == 0 or there & _HAS_BODY or not there & _HAS_VALUE:
            return False
        group = self.group
        service = texts[_SERVICE_ID]
        if group is None or group.type != type_ or group.service_id != service:
            if len(service) == 0:
                return False
            group = adapter.group_of(type_, service)
            if group is None:
                return False
            self.group = group
        sent = texts[_TRACE_ID]
        trace = b""
        if len(sent):
            trace = hex_id(sent.decode(), 16)
            if not trace and not is_no_id(sent):
                return False
        timestamp = texts[_TIMESTAMP]
        if timestamp != self.timestamp:
            self.timestamp = timestamp
            self.time_unix_nano = parse_time(timestamp)
        time_unix_nano: i64 = self.time_unix_nano
        if time_unix_nano <= 0 or time_unix_nano == BEYOND or rules.check_record_time(time_unix_nano, is_log):
            return False
        if is_log:
            return self._take_log(group, name, texts[_BODY], trace, time_unix_nano)
        metric = group.metrics.get(name)
        if metric is None:
            if rules.check_name(len(name)):
                return False
            metric = adapter.new_metric(group, name)
        adapter.put_point(number, trace, time_unix_nano)
        item = adapter.item
        item.write(self.attributes.getvalue())
        metric.add(item.getvalue(), adapter.index)
        rules.read(RECORD_BYTES)
        adapter.index += 1
        return True

    def _take_log(self, group: Group, name: bytes, body: bytes, trace: bytes, time_unix_nano: i64) -> bool:
        adapter = self.adapter
        if group.type == TYPE_EVENT:
            if not name:
                if self.is_event_named:
                    return False
                name = b"event"
            if adapter.rules.check_name(len(name)):
                return False
        item = adapter.item
        item.truncate(0)
        item.append(0x09)
        write_i64_le(item, time_unix_nano)
        if self.severity:
            adapter.put_severity(self.severity.decode())
        size: i64 = len(body)
        item.append(0x2A)
        put_varint(item, 1 + varint_size(size) + size)
        put_bytes(item, 0x0A, body)
        item.write(self.attributes.getvalue())
        if trace:
            put_bytes(item, 0x4A, trace)
        if group.type == TYPE_EVENT:
            put_bytes(item, 0x62, name)
        adapter.add_log(group, item.getvalue())
        adapter.rules.read(RECORD_BYTES)
        adapter.index += 1
        return True

    def _attributes(self, position: i64, tag: i64) -> i64:
        """Write the attributes whose object is at `position`, as fields `tag`. Return the object's end, or 0 if they are not
        plain, or not accepted as they are."""
        text = self.text
        rules = self.rules
        unasked_max: i64 = rules.attribute_bytes_unasked_max
        self.severity = b""
        self.severity_rank = len(SEVERITY_KEYS)
        self.is_event_named = False
        self._next_stamp()
        if text[position] != OPENING_BRACE:
            return 0
        position = self.skip_space(position + 1)
        if text[position] == CLOSING_BRACE:
            return position + 1
        left: i64 = rules.attributes_max
        while True:
            left -= 1
            if text[position] != QUOTE:
                raise NonPlain
            key: i64 = position + 1
            key_end: i64 = self.string_end(key)
            key_size: i64 = key_end - key
            is_plain_key = self.is_plain
            if not is_plain_key or left < 0 or key_size == 0 or self._may_be_repeated(key, key_end):
                return 0
            position = key_end + 1
            byte: i64 = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            if byte != COLON:
                raise NonPlain
            position += 1
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            # The bounds of the value's text, if it is in the body; else `other` is the text.
            start: i64 = position
            end: i64 = position
            other = b""
            if byte == QUOTE:
                start = position + 1
                end = self.string_end(start)
                position = end + 1
                if not self.is_plain:
                    other = self.unescaped(start, end)
                    end = start
                if tag == _LOG_ATTRIBUTES:
                    self._note(key, key_end, other or text[start:end])
            elif byte == OPENING_BRACE or byte == OPENING_BRACKET:
                return 0
            else:
                position = self.integer_end(start)
                if position and self.is_number_end(position) and (self.integer or byte == 0x30):
                    end = position
                else:
                    position = self.scalar_end(start)
                    other = self._scalar(start, position)
                if tag == _LOG_ATTRIBUTES and text[key:key_end] == b"event.name":
                    self.is_event_named = True
            size: i64 = len(other)
            if size == 0:
                size = end - start
            if key_size + size > unasked_max and rules.check_attribute(key_size, size):
                return 0
            self._put(tag, key, key_end, start, end, other)
            if position > self.rest_at:
                self.rest(position)
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            position += 1
            if byte != COMMA:
                if byte != CLOSING_BRACE:
                    raise NonPlain
                return position
            if text[position] <= SPACE:
                position = self.skip_space(position)

    def _scalar(self, start: i64, end: i64) -> bytes:
        """Return the text of an attribute's number, boolean or null at start:end. Raises NonPlain."""
        if end - start > _PARSED_INTEGER_BYTES_MAX and is_whole(self.text[start:end].decode("latin-1")):
            return self.text[start:end]
        value = self.loaded(start, end)
        return _LITERALS[value] if value is None or isinstance(value, bool) else repr(value).encode()

    def _put(self, tag: i64, key: i64, key_end: i64, start: i64, end: i64, other: bytes) -> None:
        """Write an attribute. Its key is at key:key_end of the text; its value is `other`, or at start:end if that is empty."""
        writer = self.attributes
        key_size: i64 = key_end - key
        other_size: i64 = len(other)
        size: i64 = other_size
        if size == 0:
            size = end - start
        if key_size + size + 6 <= _SHORT_MAX:
            write_i32_le(writer, i32(tag | (key_size + size + 6) << 8 | 0x0A << 16 | key_size << 24))
            self.copy(writer, key, key_end)
            write_i32_le(writer, i32(0x12 | (size + 2) << 8 | 0x0A << 16 | size << 24))
        else:
            value_size: i64 = 1 + varint_size(size) + size
            writer.append(u8(tag))
            put_varint(writer, 2 + varint_size(key_size) + key_size + varint_size(value_size) + value_size)
            writer.append(0x0A)
            put_varint(writer, key_size)
            self.copy(writer, key, key_end)
            writer.append(0x12)
            put_varint(writer, value_size)
            writer.append(0x0A)
            put_varint(writer, size)
        if other_size:
            writer.write(other)
        else:
            self.copy(writer, start, end)

    def _note(self, key: i64, key_end: i64, value: bytes) -> None:
        """Note an attribute's text that becomes a log record's severity, and that an event has a name."""
        name = self.text[key:key_end]
        if name == b"event.name":
            self.is_event_named = True
        if not value:
            return
        for rank in range(len(SEVERITY_KEYS)):
            if SEVERITY_KEYS[rank] == name and rank < self.severity_rank:
                self.severity_rank = rank
                self.severity = value

    def _next_stamp(self) -> None:
        self.stamp += 1
        if self.stamp > _STAMP_MAX:
            self.stamp = 1
            self.stamps.truncate(0)
            self.stamps.write(bytes(_STAMPS))

    def _may_be_repeated(self, key: i64, key_end: i64) -> bool:
        """Return whether the current record may have the key already, and stamp it."""
        text = self.text
        size: i64 = key_end - key
        if key + _WORD_BYTES > self.size:
            return True
        mixed: i64 = read_i64_le(text, key)
        if size < _WORD_BYTES:
            mixed &= read_i64_le(_LOW_BITS, size << 3)
        else:
            mixed ^= read_i64_le(text, key_end - _WORD_BYTES) >> 7
        mixed ^= size
        mixed ^= mixed >> 32
        mixed ^= mixed >> 16
        mixed ^= mixed >> 9
        at: i64 = mixed & (_STAMPS - 1)
        stamps = self.stamps
        if stamps[at] == self.stamp:
            return True
        stamps[at] = u8(self.stamp)
        return False
