"""What a remote write request costs beyond the bytes of its body: the labels that each of its samples repeats in the store.

Invariants:
1. What is counted is at least what BatchBuilder counts, for labels, where each item is accepted
   (tests/unit/adapters/test_price.py, test_rows_of_remote_write_are_counted). Of a series that is rejected for the length of
   a label, that label is in no row (test_price.py, test_a_label_that_is_too_long_does_not_cost_the_request).
2. Texts of exemplars and descriptions are counted before any is made (test_price.py,
   test_what_a_remote_write_becomes_is_known_before).
3. A body is never refused for being malformed: the adapter that reads it next says so (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical
from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused, too_many_row_bytes, too_many_row_bytes_for_plan
from adapters.rows import ROW_BYTES
from adapters.rules import NO_RULES, PLAN_ROW_BYTES_MAX, Rules

_LABELS: Final = 0x0A  # of a TimeSeries: 1.0's labels, 2.0's references
_NAME: Final = 0x0A  # of 1.0's Label
_VALUE: Final = 0x12
_SAMPLES: Final = 0x12
_TIMESERIES_V1: Final = 0x0A
_HISTOGRAMS_V1: Final = 0x22
_SYMBOLS: Final = 0x22
_TIMESERIES_V2: Final = 0x2A
_HISTOGRAMS_V2: Final = 0x1A
_METADATA_V1: Final = 0x1A
_EXEMPLARS_V2: Final = 0x22
# What is made in memory while a request is read may be so much of what its rows may be: labels, descriptions and exemplars.
MADE_SHIFT: Final = 1
# What each description takes, beside its text.
DESCRIPTION_BYTES: Final = 1_000
# A series of so few bytes has no name, so no row. It counts as full of items.
_TINY_SERIES_BYTES: Final = 8
# A request has as many symbols as it has different texts: of 10,000 series, some thousands.
SYMBOLS_MAX: Final = 1 << 20
# A series of more bytes is always counted.
_LONG_SERIES_BYTES: Final = 1 << 16


def check_rows_v1(
    body: bytes, row_bytes_max: i64, plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX, rules: Rules = NO_RULES
) -> None:
    """Refuse a WriteRequest of 1.0 whose rows have more bytes than that, or than the plan allows. Rests by `rules`. Raises
    RequestRefused."""
    limit: i64 = min(row_bytes_max, plan_row_bytes_max)
    rows = _SeriesRows(body, limit, row_bytes_max >> MADE_SHIFT, _TIMESERIES_V1, _HISTOGRAMS_V1, rules)
    try:
        # Each byte of a label is in as many rows as there are samples, which take two bytes at least.
        if rows.may_exceed(1):
            rows.count()
        rows.count_metadata()
    except NonCanonical:
        return
    rows.check(row_bytes_max)


def check_rows_v2(
    body: bytes, row_bytes_max: i64, plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX, rules: Rules = NO_RULES
) -> None:
    """Refuse a Request of 2.0 whose rows have more bytes than that, or than the plan allows. Rests by `rules`. Raises
    RequestRefused."""
    limit: i64 = min(row_bytes_max, plan_row_bytes_max)
    rows = _SeriesRows(body, limit, row_bytes_max >> MADE_SHIFT, _TIMESERIES_V2, _HISTOGRAMS_V2, rules)
    try:
        longest: i64 = rows.read_symbols()
        if rows.may_exceed(longest):
            rows.count()
    except NonCanonical:
        return
    rows.check(row_bytes_max)


def too_many_made_bytes(size_bytes: int, made_bytes_max: int) -> RequestRefused:
    """Return the refusal of a request that would become more bytes in memory than that."""
    return RequestRefused(
        PAYLOAD_TOO_LARGE,
        f"the request of {size_bytes} bytes becomes more than {made_bytes_max}, with its labels repeated in"
        " every point: send smaller batches, or raise validation.request_row_bytes_max, which is twice this limit",
    )


def too_many_symbols() -> RequestRefused:
    """Return the refusal of a request of 2.0 with more symbols than are taken."""
    return RequestRefused(PAYLOAD_TOO_LARGE, f"the request has more than {SYMBOLS_MAX} symbols: send smaller batches")


class _SeriesRows:
    """Counts the bytes of the rows of one request."""

    def __init__(
        self, buffer: bytes, row_bytes_max: i64, made_bytes_max: i64, series_tag: i64, histograms_tag: i64, rules: Rules
    ) -> None:
        """`made_bytes_max`: see too_many_made_bytes."""
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.made_bytes_max: i64 = made_bytes_max
        self.made_bytes: i64 = 0
        self.cursor: Final = Cursor(buffer)
        self.row_bytes_max: i64 = row_bytes_max
        self.series_tag: i64 = series_tag
        self.histograms_tag: i64 = histograms_tag
        self.row_bytes: i64 = 0
        # 2.0's: the length of each symbol, in eight bytes.
        self.symbols: Final = BytesWriter()
        # Whether a label counted last is so long that nothing of its series is stored.
        self.is_refused: bool = False
        self.lengths: bytes = b""

    def read_symbols(self) -> i64:
        """The length of the longest. Raises NonCanonical, RequestRefused."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        longest: i64 = 1
        left: i64 = SYMBOLS_MAX
        while cursor.position < end:
            at: i64 = cursor.position
            if cursor.field(end) != _SYMBOLS:
                cursor.position = at
                break
            size: i64 = cursor.position - cursor.start
            self.rules.read(0)
            left -= 1
            if left < 0:
                raise too_many_symbols()
            write_i64_le(self.symbols, size)
            longest = max(longest, size)
        self.lengths = self.symbols.getvalue()
        return longest

    def may_exceed(self, label_bytes: i64) -> bool:
        """Return whether the rows may, by the lengths of the series alone. `label_bytes`: what a byte of labels becomes at
        most.

        Moves no cursor. Raises NonCanonical.
        """
        size: i64 = len(self.buffer)
        if size < _LONG_SERIES_BYTES and (size >> 1) * (size * label_bytes + ROW_BYTES) <= self.row_bytes_max:
            return False
        cursor = self.cursor
        first: i64 = cursor.position
        most: i64 = 0
        while cursor.position < size:
            tag: i64 = cursor.field(size)
            self.rules.read(0)
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

    def check(self, row_bytes_max: i64) -> None:
        """Raise RequestRefused where what was counted is too much."""
        if self.row_bytes > row_bytes_max:
            raise too_many_row_bytes(row_bytes_max)
        if self.row_bytes > self.row_bytes_max:
            raise too_many_row_bytes_for_plan(self.row_bytes_max)
        if self.made_bytes > self.made_bytes_max:
            raise too_many_made_bytes(len(self.buffer), self.made_bytes_max)

    def count_metadata(self) -> None:
        """Count 1.0's metadata, where each is an object while the request is read. Moves the cursor. Raises NonCanonical."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        if (end >> 1) * DESCRIPTION_BYTES <= self.made_bytes_max:
            return
        cursor.position = 0
        while cursor.position < end and self.made_bytes <= self.made_bytes_max:
            self.rules.read(0)
            if cursor.field(end) == _METADATA_V1:
                self.made_bytes += DESCRIPTION_BYTES

    def count(self) -> None:
        """Into `row_bytes` and `made_bytes`, until one is over its limit. Raises NonCanonical."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        while cursor.position < end and self.row_bytes <= self.row_bytes_max and self.made_bytes <= self.made_bytes_max:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == self.series_tag:
                after: i64 = cursor.position
                series: i64 = after - cursor.start
                if series <= _TINY_SERIES_BYTES:
                    # Refused by its first bytes, at a fraction of what refusing each of its items costs.
                    self.row_bytes += (series >> 1) * ROW_BYTES + series
                    continue
                self._series(cursor.start, after)
                cursor.position = after

    def _series(self, start: i64, end: i64) -> None:
        cursor = self.cursor
        labels_bytes: i64 = 0
        items: i64 = 0
        is_refused = False
        cursor.position = start
        while cursor.position < end:
            at: i64 = cursor.position
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == _LABELS:
                if self.series_tag == _TIMESERIES_V1:
                    after: i64 = cursor.position
                    labels_bytes += after - at
                    if after - at > self.rules.attribute_bytes_unasked_max:
                        is_refused = is_refused or self._is_long_label(cursor.start, after)
                        cursor.position = after
                else:
                    after = cursor.position
                    labels_bytes += self._texts_bytes(cursor.start, after)
                    is_refused = is_refused or self.is_refused
                    cursor.position = after
            elif tag == _SAMPLES or tag == self.histograms_tag:
                items += 1
            elif tag == _EXEMPLARS_V2 and self.series_tag == _TIMESERIES_V2:
                after = cursor.position
                self._exemplar(cursor.start, after)
                cursor.position = after
        if is_refused:  # its items alone
            labels_bytes = 0
        # Bounded, so that the product is no more than 63 bits hold.
        labels_bytes = min(labels_bytes, self.row_bytes_max)
        self.row_bytes += items * (labels_bytes + ROW_BYTES) + end - start

    def _exemplar(self, start: i64, end: i64) -> None:
        """The texts of 2.0's Exemplar at start:end, into `made_bytes`."""
        cursor = self.cursor
        cursor.position = start
        while cursor.position < end:
            self.rules.read(0)
            if cursor.field(end) == _LABELS:
                after: i64 = cursor.position
                self.made_bytes += self._texts_bytes(cursor.start, after)
                cursor.position = after

    def _texts_bytes(self, start: i64, end: i64) -> i64:
        """Of the symbols that are referred to at start:end."""
        cursor = self.cursor
        lengths = self.lengths
        count: i64 = len(lengths) >> 3
        total: i64 = 0
        is_name = True
        self.is_refused = False
        cursor.position = start
        while cursor.position < end:
            ref: i64 = cursor.varint(end)
            if 0 <= ref < count:
                size: i64 = read_i64_le(lengths, ref << 3)
                total += size
                if is_name:
                    self._check_label(size, 0)
                else:
                    self._check_label(0, size)
            is_name = not is_name
        return total

    def _is_long_label(self, start: i64, end: i64) -> bool:
        """Return whether 1.0's Label at start:end is so long that nothing of its series is stored."""
        cursor = self.cursor
        self.is_refused = False
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            size: i64 = cursor.position - cursor.start
            if tag == _NAME:
                self._check_label(size, 0)
            elif tag == _VALUE:
                self._check_label(0, size)
        return self.is_refused

    def _check_label(self, name_bytes: i64, value_bytes: i64) -> None:
        if name_bytes > self.rules.key_bytes_max or value_bytes > self.rules.value_bytes_max:
            self.is_refused = True
