"""Read labels of remote write 1.0 in place.

Most series have the labels of the series before, except for one or two. Labels that are the same, byte by byte and at the same
place, are not read again: their encoded attributes are copied. Nothing is remembered beyond the request.

`read_series` reads labels that are not written plainly: plain labels have one name and one value each, neither empty, and
lengths of at most two bytes. It also reads labels that break a rule, or are too near the end of the body to be read eight
bytes at a time, and large series, where reading must rest.

Invariants:
1. The result for any labels is that of `read_series`, which defines it (test_a_series_is_read_as_it_would_be_alone,
   test_bytes_that_were_changed_are_read_as_they_would_be_alone).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import is_utf8, put_varint, varint_size
from adapters.prometheus.series import LARGE_BYTES, Series, resource_of
from adapters.record import UNKNOWN_SERVICE
from adapters.rules import Rules

_LABELS: Final = 0x0A  # of a TimeSeries
_NAME: Final = 0x0A
_VALUE: Final = 0x12
_ATTRIBUTES: Final = 0x3A  # of a NumberDataPoint
_TEXT: Final = 0x0A  # of an AnyValue

# The uses of a label.
_ATTRIBUTE: Final = 0
_METRIC_NAME: Final = 1
_JOB: Final = 2
_INSTANCE: Final = 3
# Attributes that also replace a missing job or instance.
_SERVICE_NAME: Final = 4
_SERVICE_INSTANCE: Final = 5

_METRIC_NAME_KEY: Final = b"__name__"
_INSTANCE_KEY: Final = b"instance"
_SERVICE_NAME_KEY: Final = b"service_name"
_SERVICE_INSTANCE_KEY: Final = b"service_instance_id"
_WORD_BYTES: Final = 8
# No setting allows as many attributes.
_LABELS_MAX: Final = 66_000


class _Label:
    """A `_Label` is a label that was read: its place in the buffer, with its tag and length, and its use."""

    def __init__(self) -> None:
        self.at: i64 = 0
        self.size: i64 = 0
        self.key_at: i64 = 0  # counted from `at`, like `value_at`
        self.key_bytes: i64 = 0
        self.value_at: i64 = 0
        self.value_bytes: i64 = 0
        self.role: i64 = _ATTRIBUTE
        # The bytes that it takes of the series' attributes.
        self.made_bytes: i64 = 0


class LabelReader:
    """A `LabelReader` reads the series of one request, one by one. After `read`, `series` has the labels' meaning, until the
    next `read`."""

    def __init__(self, buffer: bytes, rules: Rules) -> None:
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.series: Final = Series()  # its `is_part` is not used
        # The labels of the series before, in their order, and how many of these objects are in use.
        self.labels: Final[list[_Label]] = []
        self.count: i64 = 0
        # The job and instance of the series' resource.
        self.job: bytes = b""
        self.instance: bytes = b""
        self.writer: Final = BytesWriter()

    def read(self, start: i64, end: i64) -> i64:
        """Read the first labels of start:end, a TimeSeries. Return their end, or -1 if `read_series` must read them."""
        buffer = self.buffer
        writer = self.writer
        labels = self.labels
        series = self.series
        made = series.attributes
        count_before: i64 = self.count
        self.count = 0  # until all labels are known to be plain
        writer.truncate(0)
        if end - start > LARGE_BYTES:
            return -1
        # A word that begins before this is within the buffer.
        last: i64 = min(end, len(buffer) - _WORD_BYTES)
        # Up to here the labels are known to be those of the series before.
        same_to: i64 = start
        # How much of `made` has been passed, and how much of that has been copied.
        made_at: i64 = 0
        copied_to: i64 = 0
        has_new_names = False
        has_new_place = False
        name_label: i64 = -1
        job_label: i64 = -1
        instance_label: i64 = -1
        service_name_label: i64 = -1
        service_instance_label: i64 = -1
        key_bytes_max: i64 = 0
        value_bytes_max: i64 = 0
        attributes: i64 = 0
        n: i64 = 0
        position: i64 = start
        while position < last and buffer[position] == _LABELS:
            if n == len(labels):
                if n == _LABELS_MAX:
                    return -1
                labels.append(_Label())
            label = labels[n]
            next_: i64 = position + label.size
            if n < count_before and next_ > same_to and next_ <= last:
                same_to = _same_to(buffer, position, label.at, next_, last)
            if n < count_before and next_ <= same_to:
                label.at = position
                made_at += label.made_bytes
            else:
                role_before: i64 = _ATTRIBUTE
                made_before: i64 = 0
                key_at: i64 = label.at + label.key_at
                key_bytes: i64 = label.key_bytes
                if n < count_before:
                    role_before = label.role
                    made_before = label.made_bytes
                next_ = self._read_label(label, position, last)
                if next_ < 0:
                    return -1
                if label.key_bytes != key_bytes or not _is_same(buffer, position + label.key_at, key_at, key_bytes):
                    has_new_names = True
                if role_before >= _JOB or label.role >= _JOB:
                    has_new_place = True
                is_attribute = label.role == _ATTRIBUTE or label.role >= _SERVICE_NAME
                if made_before or is_attribute:
                    _copy(writer, made, copied_to, made_at)
                    made_at += made_before
                    copied_to = made_at
                    if is_attribute:
                        self._make(label)
            key_bytes_max = max(key_bytes_max, label.key_bytes)
            value_bytes_max = max(value_bytes_max, label.value_bytes)
            role: i64 = label.role
            if role == _ATTRIBUTE:
                attributes += 1
            elif role == _METRIC_NAME:
                name_label = n
            elif role == _JOB:
                job_label = n
            elif role == _INSTANCE:
                instance_label = n
            else:
                attributes += 1
                if role == _SERVICE_NAME:
                    service_name_label = n
                else:
                    service_instance_label = n
            position = next_
            n += 1
        if name_label < 0 or (last <= position < end and buffer[position] == _LABELS):
            return -1
        if n != count_before:
            has_new_names = True
            has_new_place = True
        if has_new_names and not self._is_each_name_once(n):
            return -1

        if len(writer) or copied_to or made_at != len(made):
            _copy(writer, made, copied_to, made_at)
            series.attributes = writer.getvalue()
        name = self._value(name_label)
        if name != series.name:
            series.name = name
        if has_new_place:
            self._place(
                self._value(job_label if job_label >= 0 else service_name_label),
                self._value(instance_label if instance_label >= 0 else service_instance_label),
            )
        series.attribute_count = attributes
        series.key_bytes_max = key_bytes_max
        series.value_bytes_max = value_bytes_max
        self.count = n
        return position

    def _read_label(self, label: _Label, position: i64, last: i64) -> i64:
        """Read the Label whose tag is at `position`. Return its end, or -1 if it is not plain or ends beyond `last`. At least
        eight bytes behind `last` can be read."""
        buffer = self.buffer
        at: i64 = position + 2
        length: i64 = buffer[position + 1]
        if length > 127:
            more: i64 = buffer[at]
            if more > 127:
                return -1
            length = length & 127 | more << 7
            at += 1
        end: i64 = at + length
        key_bytes: i64 = buffer[at + 1]
        key_at: i64 = at + 2
        # Behind the name: a tag, a length, and at least one byte.
        value_at: i64 = key_at + key_bytes + 2
        if end > last or value_at >= end or key_bytes == 0 or key_bytes > 127 or buffer[at] != _NAME:
            return -1
        value_bytes: i64 = buffer[value_at - 1]
        if value_bytes > 127:
            more = buffer[value_at]
            if more > 127 or more == 0:
                return -1
            value_bytes = value_bytes & 127 | more << 7
            value_at += 1
        if buffer[key_at + key_bytes] != _VALUE or value_at + value_bytes != end or value_bytes == 0:
            return -1
        if not (is_utf8(buffer, key_at, key_at + key_bytes) and is_utf8(buffer, value_at, end)):
            return -1
        label.at = position
        label.size = end - position
        label.key_at = key_at - position
        label.key_bytes = key_bytes
        label.value_at = value_at - position
        label.value_bytes = value_bytes
        label.made_bytes = 0
        label.role = _ATTRIBUTE
        if key_bytes == 8:
            word: i64 = read_i64_le(buffer, key_at)
            if word == read_i64_le(_METRIC_NAME_KEY, 0):
                label.role = _METRIC_NAME
            elif word == read_i64_le(_INSTANCE_KEY, 0):
                label.role = _INSTANCE
        elif key_bytes == 3 and buffer[key_at] == 0x6A and buffer[key_at + 1] == 0x6F and buffer[key_at + 2] == 0x62:
            label.role = _JOB
        elif key_bytes == 12:
            if _is_key(buffer, key_at, _SERVICE_NAME_KEY):
                label.role = _SERVICE_NAME
        elif key_bytes == 19 and _is_key(buffer, key_at, _SERVICE_INSTANCE_KEY):
            label.role = _SERVICE_INSTANCE
        return end

    def _make(self, label: _Label) -> None:
        """Write a label's KeyValue as `put_attribute` does: its name and value are copied from the body with their lengths."""
        writer = self.writer
        buffer = self.buffer
        made_at: i64 = len(writer)
        name_at: i64 = label.at + label.key_at - 2  # with its tag and its length
        text_at: i64 = name_at + 2 + label.key_bytes + 1  # the length of the value, and it
        text_bytes: i64 = label.at + label.size - text_at
        any_bytes: i64 = 1 + text_bytes
        writer.append(_ATTRIBUTES)
        put_varint(writer, 3 + label.key_bytes + varint_size(any_bytes) + any_bytes)
        _copy(writer, buffer, name_at, text_at)
        put_varint(writer, any_bytes)
        writer.append(_TEXT)
        _copy(writer, buffer, text_at, text_at + text_bytes)
        label.made_bytes = len(writer) - made_at

    def _is_each_name_once(self, count: i64) -> bool:
        """Return whether no name occurs twice among the first `count` labels."""
        labels = self.labels
        n: i64 = 1
        while n < count and self._is_before(labels[n - 1], labels[n]):
            n += 1
        if n >= count:
            return True  # sorted, as most senders have them
        names: set[bytes] = set()
        n = 0
        while n < count:
            label = labels[n]
            at: i64 = label.at + label.key_at
            names.add(self.buffer[at : at + label.key_bytes])
            n += 1
        return len(names) == count

    def _is_before(self, label: _Label, next_: _Label) -> bool:
        """Return whether the name of `label` sorts before that of `next_`."""
        buffer = self.buffer
        at: i64 = label.at + label.key_at
        next_at: i64 = next_.at + next_.key_at
        n: i64 = 0
        while n < label.key_bytes and n < next_.key_bytes:
            byte: i64 = buffer[at + n]
            next_byte: i64 = buffer[next_at + n]
            if byte != next_byte:
                return byte < next_byte
            n += 1
        return label.key_bytes < next_.key_bytes

    def _value(self, n: i64) -> bytes:
        """Return the value of label `n`; empty if `n` is negative."""
        if n < 0:
            return b""
        label = self.labels[n]
        at: i64 = label.at + label.value_at
        return self.buffer[at : at + label.value_bytes]

    def _place(self, job: bytes, instance: bytes) -> None:
        if job != self.job or instance != self.instance:
            self.job = job
            self.instance = instance
            self.series.service_id = job or UNKNOWN_SERVICE
            self.series.resource = resource_of(job, instance, self.rules)


def _copy(writer: BytesWriter, source: bytes, start: i64, end: i64) -> None:
    """Write start:end of the source, eight bytes at a time."""
    position: i64 = start
    last: i64 = len(source) - _WORD_BYTES
    while position < end and position <= last:
        write_i64_le(writer, read_i64_le(source, position))
        position += _WORD_BYTES
    while position < end:
        writer.append(source[position])
        position += 1
    if position > end:
        writer.truncate(len(writer) - (position - end))


def _is_same(buffer: bytes, one: i64, other: i64, size: i64) -> bool:
    """Return whether `size` bytes are the same at both places."""
    n: i64 = 0
    while n + _WORD_BYTES <= size:
        if read_i64_le(buffer, one + n) != read_i64_le(buffer, other + n):
            return False
        n += _WORD_BYTES
    if size >= _WORD_BYTES:
        n = size - _WORD_BYTES
        return read_i64_le(buffer, one + n) == read_i64_le(buffer, other + n)
    while n < size:
        if buffer[one + n] != buffer[other + n]:
            return False
        n += 1
    return True


def _is_key(buffer: bytes, at: i64, key: bytes) -> bool:
    """Return whether the key, of 8 to 24 bytes, is at `at`."""
    last: i64 = len(key) - _WORD_BYTES
    middle: i64 = min(_WORD_BYTES, last)
    return (
        read_i64_le(buffer, at) == read_i64_le(key, 0)
        and read_i64_le(buffer, at + middle) == read_i64_le(key, middle)
        and read_i64_le(buffer, at + last) == read_i64_le(key, last)
    )


def _same_to(buffer: bytes, one: i64, other: i64, enough: i64, last: i64) -> i64:
    """Return up to where the bytes from `one` on are known to be the same as from `other` on: exactly, if that is before
    `enough`, or else at least up to there. A word that begins before `last` is within the buffer."""
    position: i64 = one
    shift: i64 = other - one
    while position < last and read_i64_le(buffer, position) == read_i64_le(buffer, position + shift):
        position += _WORD_BYTES
    while position < enough and buffer[position] == buffer[position + shift]:
        position += 1
    return position
