"""Labels of remote write 1.0, read where they lie: one walk turns what nearly every sender writes into attributes, and what the
series before had too (metric, job, instance) is not made again.

The law: what is said here of labels is what `read_series` says of them, which defines it. Labels that are not written plainly
(one name and one value each, neither empty, lengths of at most two bytes), that break a rule of their own, or that lie too near
the end of the body to be read eight bytes at a time, are left to it. Nothing is remembered beyond the request.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.prometheus.series import Series, is_part, resource_of
from adapters.record import UNKNOWN_SERVICE
from adapters.wire import is_utf8, put_varint, varint_size

_LABELS: Final = 0x0A  # of a TimeSeries
_NAME: Final = 0x0A
_VALUE: Final = 0x12
_ATTRIBUTES: Final = 0x3A  # of a NumberDataPoint
_TEXT: Final = 0x0A  # of an AnyValue

_METRIC_NAME: Final = b"__name__"
_INSTANCE: Final = b"instance"
_WORD_BYTES: Final = 8


class LabelReader:
    """Reads the series of one request, one by one. After `read`, `series` holds what the labels say, until the next."""

    def __init__(self, buffer: bytes) -> None:
        self.buffer: Final = buffer
        self.series: Final = Series()
        self.attributes: Final = BytesWriter()
        # Where in the buffer the texts lie that the series' name and resource were made of.
        self.name_at: i64 = 0
        self.name_bytes: i64 = -1
        self.job_at: i64 = 0
        self.job_bytes: i64 = -1
        self.instance_at: i64 = 0
        self.instance_bytes: i64 = -1

    def read(self, start: i64, end: i64) -> i64:
        """The labels at the beginning of start:end, a TimeSeries: where they end, or -1: `read_series` is to read them."""
        buffer = self.buffer
        attributes = self.attributes
        attributes.truncate(0)
        # What begins before this can be read eight bytes at a time, and so can what a label's first bytes say of it.
        last: i64 = min(end, len(buffer) - _WORD_BYTES)
        name_at: i64 = 0
        name_bytes: i64 = 0
        job_at: i64 = 0
        job_bytes: i64 = 0
        instance_at: i64 = 0
        instance_bytes: i64 = 0
        key_bytes_max: i64 = 0
        value_bytes_max: i64 = 0
        count: i64 = 0
        before_at: i64 = 0
        before_bytes: i64 = 0
        ascending = True
        position: i64 = start
        while position < last and buffer[position] == _LABELS:
            label_at: i64 = position + 2
            length: i64 = buffer[position + 1]
            if length > 127:
                more: i64 = buffer[label_at]
                if more > 127:
                    return -1
                length = length & 127 | more << 7
                label_at += 1
            position = label_at + length
            key_bytes: i64 = buffer[label_at + 1]
            key_at: i64 = label_at + 2
            # Behind the name: a tag, a length, and at least one byte.
            value_at: i64 = key_at + key_bytes + 2
            if position > last or value_at >= position or key_bytes == 0 or key_bytes > 127 or buffer[label_at] != _NAME:
                return -1
            value_bytes: i64 = buffer[value_at - 1]
            if value_bytes > 127:
                more = buffer[value_at]
                if more > 127 or more == 0:
                    return -1
                value_bytes = value_bytes & 127 | more << 7
                value_at += 1
            if buffer[key_at + key_bytes] != _VALUE or value_at + value_bytes != position or value_bytes == 0:
                return -1
            key_bytes_max = max(key_bytes_max, key_bytes)
            value_bytes_max = max(value_bytes_max, value_bytes)
            if ascending:
                ascending = self._is_after(key_at, key_bytes, before_at, before_bytes)
                before_at = key_at
                before_bytes = key_bytes

            if key_bytes == 8 and read_i64_le(buffer, key_at) == read_i64_le(_METRIC_NAME, 0):
                name_at = value_at
                name_bytes = value_bytes
            elif key_bytes == 8 and read_i64_le(buffer, key_at) == read_i64_le(_INSTANCE, 0):
                instance_at = value_at
                instance_bytes = value_bytes
            elif key_bytes == 3 and buffer[key_at] == 0x6A and buffer[key_at + 1] == 0x6F and buffer[key_at + 2] == 0x62:
                job_at = value_at
                job_bytes = value_bytes
            else:
                # A KeyValue, as `put_attribute` writes it: name and value are there already, each behind its length.
                count += 1
                any_bytes: i64 = 1 + varint_size(value_bytes) + value_bytes
                attributes.append(_ATTRIBUTES)
                put_varint(attributes, 3 + key_bytes + varint_size(any_bytes) + any_bytes)
                self._copy(label_at, key_at + key_bytes + 1)
                put_varint(attributes, any_bytes)
                attributes.append(_TEXT)
                self._copy(key_at + key_bytes + 1, position)
        if last <= position < end and buffer[position] == _LABELS:
            return -1
        if name_bytes == 0 or not (_is_ascii(buffer, start, position) or self._is_text(start, position)):
            return -1
        if not ascending and self._has_name_twice(start, position):
            return -1

        series = self.series
        if name_bytes != self.name_bytes or not _is_same(buffer, name_at, self.name_at, name_bytes):
            self.name_at = name_at
            self.name_bytes = name_bytes
            series.name = buffer[name_at : name_at + name_bytes]
            series.is_part = is_part(series.name)
        if (
            instance_bytes != self.instance_bytes
            or job_bytes != self.job_bytes
            or not _is_same(buffer, instance_at, self.instance_at, instance_bytes)
            or not _is_same(buffer, job_at, self.job_at, job_bytes)
        ):
            self.instance_at = instance_at
            self.instance_bytes = instance_bytes
            self.job_at = job_at
            self.job_bytes = job_bytes
            job = buffer[job_at : job_at + job_bytes]
            series.service_id = job or UNKNOWN_SERVICE
            series.resource = resource_of(job, buffer[instance_at : instance_at + instance_bytes])
        series.attributes = attributes.getvalue()
        series.attribute_count = count
        series.key_bytes_max = key_bytes_max
        series.value_bytes_max = value_bytes_max
        return position

    def _is_after(self, at: i64, size: i64, before_at: i64, before_size: i64) -> bool:
        """Whether the name at `at` comes behind the one before, as names do where senders have sorted them."""
        buffer = self.buffer
        n: i64 = 0
        while n < size and n < before_size:
            byte: i64 = buffer[at + n]
            before: i64 = buffer[before_at + n]
            if byte != before:
                return byte > before
            n += 1
        return size > before_size

    def _copy(self, start: i64, end: i64) -> None:
        """start:end, eight bytes at a time, to the attributes."""
        buffer = self.buffer
        attributes = self.attributes
        position: i64 = start
        while position < end:
            write_i64_le(attributes, read_i64_le(buffer, position))
            position += _WORD_BYTES
        if position > end:
            attributes.truncate(len(attributes) - (position - end))

    def _is_text(self, start: i64, end: i64) -> bool:
        """Whether all names and values of labels that are written plainly are UTF-8."""
        buffer = self.buffer
        position: i64 = start
        while position < end:
            label_at: i64 = position + 2
            length: i64 = buffer[position + 1]
            if length > 127:
                length = length & 127 | buffer[label_at] << 7
                label_at += 1
            position = label_at + length
            key_at: i64 = label_at + 2
            value_at: i64 = key_at + buffer[label_at + 1] + 2
            if not is_utf8(buffer, key_at, value_at - 2):
                return False
            if buffer[value_at - 1] > 127:
                value_at += 1
            if not is_utf8(buffer, value_at, position):
                return False
        return True

    def _has_name_twice(self, start: i64, end: i64) -> bool:
        """Of labels that are written plainly."""
        buffer = self.buffer
        names: set[bytes] = set()
        count: i64 = 0
        position: i64 = start
        while position < end:
            label_at: i64 = position + 2
            length: i64 = buffer[position + 1]
            if length > 127:
                length = length & 127 | buffer[label_at] << 7
                label_at += 1
            position = label_at + length
            key_at: i64 = label_at + 2
            names.add(buffer[key_at : key_at + buffer[label_at + 1]])
            count += 1
        return len(names) < count


def _is_ascii(buffer: bytes, start: i64, end: i64) -> bool:
    half: i64 = 0x80808080
    high_bits: i64 = half << 32 | half
    position: i64 = start
    bits: i64 = 0
    while position + _WORD_BYTES <= end:
        bits |= read_i64_le(buffer, position)
        position += _WORD_BYTES
    while position < end:
        bits |= buffer[position]
        position += 1
    return bits & high_bits == 0


def _is_same(buffer: bytes, one: i64, other: i64, size: i64) -> bool:
    """Whether as many bytes are the same at both places."""
    n: i64 = 0
    while n + _WORD_BYTES <= size:
        if read_i64_le(buffer, one + n) != read_i64_le(buffer, other + n):
            return False
        n += _WORD_BYTES
    while n < size:
        if buffer[one + n] != buffer[other + n]:
            return False
        n += 1
    return True
