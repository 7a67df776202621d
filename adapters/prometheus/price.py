"""Count the bytes that a remote write request takes beyond those of its body: in the store, each sample repeats its labels.

Invariants:
1. If every item is accepted, at least as many bytes of labels are counted here as in BatchBuilder
   (tests/unit/adapters/test_price.py, test_rows_of_remote_write_are_counted). If a series is rejected because a label is too
   long, its labels are in no row and are not counted (test_price.py,
   test_a_label_that_is_too_long_does_not_cost_the_request).
2. The texts of exemplars and descriptions are counted before any of them is made (test_price.py,
   test_what_a_remote_write_becomes_is_known_before).
3. No body is refused here for being malformed, since the adapter that reads it next does that (test_price.py,
   test_malformed_bodies_are_left_to_the_adapter).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical
from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused, too_many_row_bytes, too_many_row_bytes_for_plan
from adapters.rows import ROW_BYTES
from adapters.rules import NO_RULES, PLAN_ROW_BYTES_MAX, Rules

_LABELS: Final = 0x0A  # of a TimeSeries: labels in 1.0, references to symbols in 2.0
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
# Labels, descriptions and exemplars that are made in memory while a request is read may take `row_bytes_max >> MADE_SHIFT`.
MADE_SHIFT: Final = 1
# The bytes that each description takes in memory, without its text.
DESCRIPTION_BYTES: Final = 1_000
# A series of at most this size has no name, so it has no row. It counts as if it were full of items.
_TINY_SERIES_BYTES: Final = 8
# The most symbols of a request. It has one for each different text: some thousands for 10,000 series.
SYMBOLS_MAX: Final = 1 << 20
# A request with a longer series is always counted in detail.
_LONG_SERIES_BYTES: Final = 1 << 16


def check_rows_v1(
    body: bytes, row_bytes_max: i64, plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX, rules: Rules = NO_RULES
) -> None:
    """Refuse a WriteRequest of 1.0 whose rows have more than `row_bytes_max` bytes, or more than the plan allows. Rest as
    `rules` say. Raises RequestRefused."""
    limit: i64 = min(row_bytes_max, plan_row_bytes_max)
    rows = _SeriesRows(body, limit, row_bytes_max >> MADE_SHIFT, _TIMESERIES_V1, _HISTOGRAMS_V1, rules)
    try:
        # Each byte of a label is in one row for each sample, and a sample takes at least two bytes.
        if rows.may_exceed(1):
            rows.count()
        rows.count_metadata()
    except NonCanonical:
        return
    rows.check(row_bytes_max)


def check_rows_v2(
    body: bytes, row_bytes_max: i64, plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX, rules: Rules = NO_RULES
) -> None:
    """Refuse a Request of 2.0 whose rows have more than `row_bytes_max` bytes, or more than the plan allows. Rest as `rules`
    say. Raises RequestRefused."""
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
    """Return the refusal of a request that would take more than `made_bytes_max` in memory."""
    return RequestRefused(
        PAYLOAD_TOO_LARGE,
        f"the request of {size_bytes} bytes becomes more than {made_bytes_max}, with its labels repeated in"
        " every point: send smaller batches, or raise validation.request_row_bytes_max, which is twice this limit",
    )


def too_many_symbols() -> RequestRefused:
    """Return the refusal of a request of 2.0 with more than SYMBOLS_MAX symbols."""
    return RequestRefused(PAYLOAD_TOO_LARGE, f"the request has more than {SYMBOLS_MAX} symbols: send smaller batches")


class _SeriesRows:
    """A `_SeriesRows` counts the bytes of the rows of one request."""

    def __init__(
        self, buffer: bytes, row_bytes_max: i64, made_bytes_max: i64, series_tag: i64, histograms_tag: i64, rules: Rules
    ) -> None:
        """Begin with empty counts. `made_bytes_max` is the limit that too_many_made_bytes describes."""
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.made_bytes_max: i64 = made_bytes_max
        self.made_bytes: i64 = 0
        self.cursor: Final = Cursor(buffer)
        self.row_bytes_max: i64 = row_bytes_max
        self.series_tag: i64 = series_tag
        self.histograms_tag: i64 = histograms_tag
        self.row_bytes: i64 = 0
        # The length of each symbol of a 2.0 request, as eight bytes each.
        self.symbols: Final = BytesWriter()
        # Whether one of the labels that were checked last is so long that its series is not stored.
        self.is_refused: bool = False
        self.lengths: bytes = b""

    def read_symbols(self) -> i64:
        """Read the lengths of the symbols, and return that of the longest one. Raises NonCanonical, RequestRefused."""
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
        """Return whether the rows may exceed `row_bytes_max`, judged only by the lengths of the series. `label_bytes` is the
        most bytes that one byte of a series' labels can become.

        Leaves the cursor where it is. Raises NonCanonical.
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
                # A series has the most bytes of rows if half of it is labels, and the other half is samples of two bytes.
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
        """Raise RequestRefused if the counted bytes exceed a limit."""
        if self.row_bytes > row_bytes_max:
            raise too_many_row_bytes(row_bytes_max)
        if self.row_bytes > self.row_bytes_max:
            raise too_many_row_bytes_for_plan(self.row_bytes_max)
        if self.made_bytes > self.made_bytes_max:
            raise too_many_made_bytes(len(self.buffer), self.made_bytes_max)

    def count_metadata(self) -> None:
        """Count the metadata of a 1.0 request: each is an object in memory while the request is read. Moves the cursor.
        Raises NonCanonical."""
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
        """Count `row_bytes` and `made_bytes`, until one of them exceeds its limit. Raises NonCanonical."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        while cursor.position < end and self.row_bytes <= self.row_bytes_max and self.made_bytes <= self.made_bytes_max:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == self.series_tag:
                after: i64 = cursor.position
                series: i64 = after - cursor.start
                if series <= _TINY_SERIES_BYTES:
                    # The size alone decides: that costs a fraction of what rejecting each of its items would.
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
        if is_refused:  # then only the items count
            labels_bytes = 0
        # Bounded, so that the product fits 63 bits.
        labels_bytes = min(labels_bytes, self.row_bytes_max)
        self.row_bytes += items * (labels_bytes + ROW_BYTES) + end - start

    def _exemplar(self, start: i64, end: i64) -> None:
        """Add the texts of the 2.0 Exemplar at start:end to `made_bytes`."""
        cursor = self.cursor
        cursor.position = start
        while cursor.position < end:
            self.rules.read(0)
            if cursor.field(end) == _LABELS:
                after: i64 = cursor.position
                self.made_bytes += self._texts_bytes(cursor.start, after)
                cursor.position = after

    def _texts_bytes(self, start: i64, end: i64) -> i64:
        """Return the bytes of the symbols that the references at start:end name, and set `is_refused`."""
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
        """Return whether the 1.0 Label at start:end is so long that its series is not stored."""
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
