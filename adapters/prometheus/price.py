"""What a remote write request costs beyond the bytes of its body: the labels that each of its samples repeats in the store.

Invariants:
1. What is counted is at least what BatchBuilder counts, for labels, where each item is accepted
   (tests/adapters/test_price.py, test_rows_of_remote_write_are_counted).
2. A body is never refused for being malformed: the adapter that reads it next says so (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.errors import too_many_row_bytes
from adapters.rows import ROW_BYTES
from adapters.wire import Cursor, NotPlain

_LABELS: Final = 0x0A  # of a TimeSeries: 1.0's labels, 2.0's references
_SAMPLES: Final = 0x12
_TIMESERIES_V1: Final = 0x0A
_HISTOGRAMS_V1: Final = 0x22
_SYMBOLS: Final = 0x22
_TIMESERIES_V2: Final = 0x2A
_HISTOGRAMS_V2: Final = 0x1A
# A series of more bytes is always counted.
_LONG_SERIES_BYTES: Final = 1 << 16


def check_rows_v1(body: bytes, row_bytes_max: i64) -> None:
    """Refuse a WriteRequest of 1.0 whose rows have more bytes than that. Raises RequestRefused."""
    rows = _Rows(body, row_bytes_max, _TIMESERIES_V1, _HISTOGRAMS_V1)
    try:
        # Each byte of a label is in as many rows as there are samples, which take two bytes at least.
        if rows.may_exceed(1):
            rows.count()
    except NotPlain:
        return
    if rows.row_bytes > row_bytes_max:
        raise too_many_row_bytes(row_bytes_max)


def check_rows_v2(body: bytes, row_bytes_max: i64) -> None:
    """Refuse a Request of 2.0 whose rows have more bytes than that. Raises RequestRefused."""
    rows = _Rows(body, row_bytes_max, _TIMESERIES_V2, _HISTOGRAMS_V2)
    try:
        longest: i64 = rows.read_symbols()
        if rows.may_exceed(longest):
            rows.count()
    except NotPlain:
        return
    if rows.row_bytes > row_bytes_max:
        raise too_many_row_bytes(row_bytes_max)


class _Rows:
    """Counts the bytes of the rows of one request."""

    def __init__(self, buffer: bytes, row_bytes_max: i64, series_tag: i64, histograms_tag: i64) -> None:
        self.buffer: Final = buffer
        self.cursor: Final = Cursor(buffer)
        self.row_bytes_max: i64 = row_bytes_max
        self.series_tag: i64 = series_tag
        self.histograms_tag: i64 = histograms_tag
        self.row_bytes: i64 = 0
        # 2.0's: the length of each symbol, in eight bytes.
        self.symbols: Final = BytesWriter()
        self.lengths: bytes = b""

    def read_symbols(self) -> i64:
        """The length of the longest. Raises NotPlain."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        longest: i64 = 1
        while cursor.position < end:
            at: i64 = cursor.position
            if cursor.field(end) != _SYMBOLS:
                cursor.position = at
                break
            size: i64 = cursor.position - cursor.start
            write_i64_le(self.symbols, size)
            longest = max(longest, size)
        self.lengths = self.symbols.getvalue()
        return longest

    def may_exceed(self, label_bytes: i64) -> bool:
        """Whether the rows may, by the lengths of the series alone. `label_bytes`: what a byte of labels becomes at most.

        Moves no cursor. Raises NotPlain.
        """
        size: i64 = len(self.buffer)
        if size < _LONG_SERIES_BYTES and (size >> 1) * (size * label_bytes + ROW_BYTES) <= self.row_bytes_max:
            return False
        cursor = self.cursor
        first: i64 = cursor.position
        most: i64 = 0
        while cursor.position < size:
            tag: i64 = cursor.field(size)
            if tag == self.series_tag:
                # So many bytes are the most rows where half of them are labels, and half samples of two bytes.
                series: i64 = cursor.position - cursor.start
                if series > _LONG_SERIES_BYTES:
                    most = self.row_bytes_max + 1
                    break
                most += (series * series >> 3) * label_bytes + (series >> 1) * ROW_BYTES
                if most > self.row_bytes_max:
                    break
        cursor.position = first
        return most > self.row_bytes_max

    def count(self) -> None:
        """Into `row_bytes`, until it is over the limit. Raises NotPlain."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        while cursor.position < end and self.row_bytes <= self.row_bytes_max:
            tag: i64 = cursor.field(end)
            if tag == self.series_tag:
                after: i64 = cursor.position
                self._series(cursor.start, after)
                cursor.position = after

    def _series(self, start: i64, end: i64) -> None:
        cursor = self.cursor
        labels_bytes: i64 = 0
        items: i64 = 0
        cursor.position = start
        while cursor.position < end:
            at: i64 = cursor.position
            tag: i64 = cursor.field(end)
            if tag == _LABELS:
                if self.series_tag == _TIMESERIES_V1:
                    labels_bytes += cursor.position - at
                else:
                    after: i64 = cursor.position
                    labels_bytes += self._texts_bytes(cursor.start, after)
                    cursor.position = after
            elif tag == _SAMPLES or tag == self.histograms_tag:
                items += 1
        # Bounded, so that the product is no more than 63 bits hold.
        labels_bytes = min(labels_bytes, self.row_bytes_max)
        self.row_bytes += items * (labels_bytes + ROW_BYTES) + end - start

    def _texts_bytes(self, start: i64, end: i64) -> i64:
        """Of the symbols that are referred to at start:end."""
        cursor = self.cursor
        lengths = self.lengths
        count: i64 = len(lengths) >> 3
        total: i64 = 0
        cursor.position = start
        while cursor.position < end:
            ref: i64 = cursor.varint(end)
            if 0 <= ref < count:
                total += read_i64_le(lengths, ref << 3)
        return total
