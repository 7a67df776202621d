"""Convert remote write's native histograms to OTLP's: exponential ones to exponential histogram points, and those with custom
buckets (schema -53) to histogram points.

Sparse buckets become dense ones, and the gaps between them zeros. A bucket's index in OTLP is Prometheus's index less one. A
gauge histogram has no temporality (it is left unspecified), and any other is cumulative. The sender's reset hint is kept in the
metric's metadata, prometheus.reset_hint, since an attribute would make another series of it. OTLP's counts are integers, so a
float histogram's counts are rounded if they are not. Then the attribute infrasage.float_histogram has the exact counts, as JSON
by OTLP's bucket index. A stale marker is a point flagged as having no recorded value.

A count that is not the sum of the buckets is kept, as in OTLP (adapters/otlp/histograms.py).

Invariants:
1. A histogram is kept whole or rejected, as `NativeHistogram.prepare` decides
   (test_histograms_that_do_not_fit_are_rejected).
2. The zeros for gaps are bounded, for a histogram and for a request (test_gaps_are_bounded_in_a_request).

Source: prometheus/model/histogram (Validate), prometheus.io/docs/specs/native_histograms.
"""

from typing import Final

from librt.strings import BytesWriter, read_f64_le, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical, put_bytes, put_signed_varint, put_varint
from adapters.errors import INVALID_HISTOGRAM
from adapters.prometheus.metadata import METADATA_TAG
from adapters.record import put_attribute

SCHEMA_MIN: Final = -4
SCHEMA_MAX: Final = 8
SCHEMA_CUSTOM: Final = -53
# The most dense buckets of one side of one histogram. At schema 8, the finest, these cover 77 powers of ten.
BUCKETS_MAX: Final = 65_536
# The most empty buckets in the gaps of all of a request's histograms: a few bytes of a span can make many.
GAP_BUCKETS_MAX: Final = 4 << 20
# The largest relative difference between a float histogram's count and the sum of its buckets.
FLOAT_COUNT_TOLERANCE: Final = 1e-6

STALE_BITS: Final = 0x7FF0000000000002
FLAG_NO_RECORDED_VALUE: Final = 1
# Field 2 of Sum, Histogram and ExponentialHistogram: cumulative.
CUMULATIVE: Final = b"\x10\x02"

_RESET_HINT_YES: Final = 1
_RESET_HINT_NO: Final = 2
_RESET_HINT_GAUGE: Final = 3
_LOW_32_BITS: Final = 0xFFFFFFFF
_INT64_MAX: Final = 0x7FFFFFFFFFFFFFFF
_INT32_MIN: Final = -0x80000000
# Rounded doubles below this fit int64.
_COUNT_END: Final = 9.2e18
_NO_GAP: Final = bytes(BUCKETS_MAX)
# The cost of a member of a JSON object, as bytes of a body.
_MEMBER_BYTES: Final = 80


def _hint(word: bytes) -> bytes:
    writer = BytesWriter()
    put_attribute(writer, METADATA_TAG, b"prometheus.reset_hint", word)
    return writer.getvalue()


_WAS_RESET: Final = _hint(b"yes")
_WAS_NOT_RESET: Final = _hint(b"no")


def unzigzag(n: i64) -> i64:
    """Return the number that protobuf writes as the varint `n` in a field of type sint64."""
    return ((n >> 1) & _INT64_MAX) ^ -(n & 1)


class NativeBuckets:
    """A `NativeBuckets` holds one side's buckets as sent: spans, and counts as packed deltas or doubles."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.lengths: list[int] = []
        self.deltas_start: i64 = 0
        self.deltas_end: i64 = 0
        self.deltas: i64 = 0
        self.counts_start: i64 = 0
        self.counts_end: i64 = 0
        # After `NativeHistogram.prepare`: the first dense bucket's index, the number of dense buckets, and their encoding.
        self.first: i64 = 0
        self.dense: i64 = 0
        self.payload = BytesWriter()

    def clear(self) -> None:
        self.offsets.clear()
        self.lengths.clear()
        self.deltas_start = self.deltas_end = self.deltas = 0
        self.counts_start = self.counts_end = 0

    def count(self, is_float: bool) -> i64:
        return (self.counts_end - self.counts_start) // 8 if is_float else self.deltas


class NativeHistogram:
    """A `NativeHistogram` reads a histogram, checks and encodes it. One object serves all histograms of a request in turn."""

    def __init__(self, cursor: Cursor, *, has_start: bool) -> None:
        """Prepare to read. With `has_start`, histograms are those of 2.0, which have a start timestamp."""
        self.field_max: i64 = 17 if has_start else 16
        self.cursor: Final = cursor
        self.buffer: Final = cursor.buffer
        self.positive: Final = NativeBuckets()
        self.negative: Final = NativeBuckets()
        self.gap_buckets_left: i64 = GAP_BUCKETS_MAX
        # After `read`: the fields as they were sent.
        self.is_float: bool = False
        self.has_other_zero_count: bool = False
        self.count_bits: i64 = 0
        self.zero_count_bits: i64 = 0
        self.sum_bits: i64 = 0
        self.schema: i64 = 0
        self.zero_threshold_bits: i64 = 0
        self.reset_hint: i64 = 0
        self.time_ms: i64 = 0
        self.start_ms: i64 = 0
        self.bounds_start: i64 = 0
        self.bounds_end: i64 = 0
        # After `prepare`: the fault in words, or OTLP's counts.
        self.message: str = ""
        self.count: i64 = 0
        self.zero_count: i64 = 0
        self.is_fractional: bool = False
        self.adds_up: bool = True
        self.total: i64 = 0
        self.float_total: float = 0.0

    def read(self, start: i64, end: i64) -> None:
        """Read the Histogram at start:end. Moves the cursor. Raises NonCanonical."""
        cursor = self.cursor
        buffer = self.buffer
        positive = self.positive
        negative = self.negative
        positive.clear()
        negative.clear()
        self.is_float = False
        self.count_bits = self.zero_count_bits = self.sum_bits = self.zero_threshold_bits = 0
        self.schema = self.reset_hint = self.time_ms = self.start_ms = self.bounds_start = self.bounds_end = 0
        zero_count_is_float = False
        rules = cursor.rules
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            rules.read(0)
            position = cursor.position
            first: i64 = cursor.start
            if tag == 0x08 or tag == 0x11:
                self.is_float = tag == 0x11
                self.count_bits = read_i64_le(buffer, first) if tag == 0x11 else cursor.value
            elif tag == 0x19:
                self.sum_bits = read_i64_le(buffer, first)
            elif tag == 0x20:
                self.schema = self._sint32(cursor.value)
            elif tag == 0x29:
                self.zero_threshold_bits = read_i64_le(buffer, first)
            elif tag == 0x30 or tag == 0x39:
                zero_count_is_float = tag == 0x39
                self.zero_count_bits = read_i64_le(buffer, first) if tag == 0x39 else cursor.value
            elif tag == 0x42:
                self._read_span(negative, first, position)
            elif tag == 0x4A:
                self._read_deltas(negative, first, position)
            elif tag == 0x52:
                self._read_counts(negative, first, position)
            elif tag == 0x5A:
                self._read_span(positive, first, position)
            elif tag == 0x62:
                self._read_deltas(positive, first, position)
            elif tag == 0x6A:
                self._read_counts(positive, first, position)
            elif tag == 0x70:
                self.reset_hint = cursor.value & _LOW_32_BITS
            elif tag == 0x78:
                self.time_ms = cursor.value
            elif tag == 0x82:
                if self.bounds_end or (position - first) % 8:
                    raise NonCanonical(first)
                self.bounds_start = first
                self.bounds_end = position
            elif tag == 0x88 and self.field_max == 17:
                self.start_ms = cursor.value
            elif tag >> 3 <= self.field_max:
                raise NonCanonical(first)
        self.has_other_zero_count = zero_count_is_float != self.is_float and self.zero_count_bits != 0

    def _sint32(self, value: i64) -> i64:
        if value < 0 or value > _LOW_32_BITS:
            raise NonCanonical(self.cursor.start)
        return unzigzag(value)

    def _read_span(self, side: NativeBuckets, start: i64, end: i64) -> None:
        cursor = self.cursor
        cursor.position = start
        offset: i64 = 0
        length: i64 = 0
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            cursor.rules.read(0)
            if tag == 0x08:
                offset = self._sint32(cursor.value)
            elif tag == 0x10:
                length = cursor.value
                if length < 0 or length > _LOW_32_BITS:
                    raise NonCanonical(cursor.start)
            elif tag >> 3 <= 2:
                raise NonCanonical(cursor.start)
        # If there are more spans than buckets may be, the spans that were read suffice to reject the histogram.
        if len(side.offsets) <= BUCKETS_MAX:
            side.offsets.append(int(offset))
            side.lengths.append(int(length))

    def _read_deltas(self, side: NativeBuckets, start: i64, end: i64) -> None:
        if side.deltas_end:
            raise NonCanonical(start)
        side.deltas_start = start
        side.deltas_end = end
        cursor = self.cursor
        cursor.position = start
        while cursor.position < end:
            cursor.varint(end)
            cursor.rules.read(0)
            side.deltas += 1

    def _read_counts(self, side: NativeBuckets, start: i64, end: i64) -> None:
        if side.counts_end or (end - start) % 8:
            raise NonCanonical(start)
        side.counts_start = start
        side.counts_end = end

    def prepare(self) -> i64:
        """Check the histogram, and make its buckets dense. Return 0, or INVALID_HISTOGRAM with `message`. Moves the cursor."""
        self.message = self._fault()
        return INVALID_HISTOGRAM if self.message else 0

    def _fault(self) -> str:
        """Return the fault in words; empty if there is none. Set `adds_up`."""
        schema: i64 = self.schema
        is_custom = schema == SCHEMA_CUSTOM
        positive = self.positive
        negative = self.negative
        if not is_custom and (schema < SCHEMA_MIN or schema > SCHEMA_MAX):
            return f"schema {schema} is not {SCHEMA_MIN} to {SCHEMA_MAX} or {SCHEMA_CUSTOM}"
        if self.has_other_zero_count or positive.count(not self.is_float) or negative.count(not self.is_float):
            return "integer and float counts are mixed"
        if is_custom:
            if self.zero_count_bits or self.zero_threshold_bits:
                return "custom buckets have no zero bucket"
            if negative.offsets or negative.count(self.is_float):
                return "custom buckets have no negative side"
            fault = self._bounds_fault()
            if fault:
                return fault
        elif self.bounds_end > self.bounds_start:
            return f"schema {schema} has no custom bounds"

        self.is_fractional = False
        self.total = 0
        self.float_total = 0.0
        if self.is_float:
            self.count = self._float_count(self.count_bits)
            self.zero_count = self._float_count(self.zero_count_bits)
            self.float_total = _as_double(self.zero_count_bits)
        else:
            self.count = self.count_bits
            self.zero_count = self.total = self.zero_count_bits
        if self.count < 0 or self.zero_count < 0:
            return "a count is negative, not finite, or beyond int64"
        fault = self._densify(negative, is_custom)
        if not fault:
            fault = self._densify(positive, is_custom)
        self.adds_up = not self._has_other_count()
        return fault

    def _bounds_fault(self) -> str:
        """Return the fault of the bounds, or empty. They must ascend strictly and be finite: infinity is not among them."""
        rules = self.cursor.rules
        position: i64 = self.bounds_start
        before = float("-inf")
        while position < self.bounds_end:
            bound = read_f64_le(self.buffer, position)
            rules.read(0)
            if not (before < bound < float("inf")):
                return "custom bounds must be finite and ascend"
            before = bound
            position += 8
        return ""

    def _float_count(self, bits: i64) -> i64:
        """Return a float count as an integer, if necessary rounded half to even; -1 if int64 can't hold it."""
        value = _as_double(bits)
        if not (0.0 <= value < _COUNT_END):
            return -1
        count = round(value)
        if count != value:
            self.is_fractional = True
        return count

    def _densify(self, side: NativeBuckets, is_custom: bool) -> str:
        """Set `first`, `dense` and `payload`, and add to the totals. Return the fault, or empty."""
        cursor = self.cursor
        rules = cursor.rules
        payload = side.payload
        payload.truncate(0)
        side.first = side.dense = 0
        spanned = sum(side.lengths)
        if spanned != side.count(self.is_float):
            return f"spans of {spanned} buckets, counts of {int(side.count(self.is_float))}"
        index: i64 = 0
        last: i64 = 0
        count: i64 = 0
        counts: i64 = side.counts_start
        cursor.position = side.deltas_start
        for n in range(len(side.offsets)):
            offset: i64 = side.offsets[n]
            if offset < 0 and (n or is_custom):
                return f"span {n} has the negative offset {offset}"
            index += offset
            left: i64 = side.lengths[n]
            while left:
                rules.read(0)
                if self.is_float:
                    bits: i64 = read_i64_le(self.buffer, counts)
                    counts += 8
                    count = self._float_count(bits)
                    if count < 0:
                        return "a bucket's count is negative, not finite, or beyond int64"
                    self.float_total += _as_double(bits)
                else:
                    delta: i64 = unzigzag(cursor.varint(side.deltas_end))
                    if delta > _INT64_MAX - last or delta < -last:
                        return "a bucket's count is negative or beyond int64"
                    count = last = last + delta
                    if count > _INT64_MAX - self.total:
                        return "the buckets' counts are beyond int64"
                    self.total += count
                fault = self._put_gap(side, index, is_custom)
                if fault:
                    return fault
                if is_custom:
                    write_i64_le(payload, count)
                else:
                    put_varint(payload, count)
                side.dense += 1
                index += 1
                left -= 1
        if is_custom:
            bounds: i64 = (self.bounds_end - self.bounds_start) // 8
            while side.dense <= bounds:
                rules.read(0)
                write_i64_le(payload, 0)
                side.dense += 1
        return ""

    def _put_gap(self, side: NativeBuckets, index: i64, is_custom: bool) -> str:
        """Write empty buckets up to the bucket at Prometheus's `index`. Return the fault, or empty."""
        payload = side.payload
        if is_custom:
            bounds: i64 = (self.bounds_end - self.bounds_start) // 8
            if index > bounds:
                return f"a bucket at {index} with only {bounds} custom bounds"
            while side.dense < index:
                self.cursor.rules.read(0)
                write_i64_le(payload, 0)
                side.dense += 1
            return ""
        if side.dense == 0:
            if index <= _INT32_MIN or index > -(_INT32_MIN + 1):
                return f"a bucket at {index}, beyond int32"
            side.first = index - 1
            return ""
        gap: i64 = index - 1 - (side.first + side.dense)
        if side.dense + gap >= BUCKETS_MAX:
            return f"more than {BUCKETS_MAX} buckets, gaps included"
        if gap:
            if gap > self.gap_buckets_left:
                return f"more than {GAP_BUCKETS_MAX} empty buckets in the gaps of one request"
            self.gap_buckets_left -= gap
            payload.write(_NO_GAP[:gap])
            side.dense += gap
        return ""

    def _has_other_count(self) -> bool:
        """Return whether the count differs from the buckets' total. If the sum is NaN, some observations are in no bucket."""
        total_sum = _as_double(self.sum_bits)
        if self.is_float:
            count = _as_double(self.count_bits)
            slack = FLOAT_COUNT_TOLERANCE * max(count, self.float_total)
            excess = self.float_total - count
            return excess > slack or (total_sum == total_sum and -excess > slack)
        return self.total > self.count or (total_sum == total_sum and self.total != self.count)

    def point_bytes_min(self) -> i64:
        """Return the least bytes of `point`, after `prepare`. A request can have 40 MB of custom bounds."""
        return len(self.positive.payload) + len(self.negative.payload) + self.bounds_end - self.bounds_start

    def metric_tag(self) -> i64:
        """Return the field of Metric that the point is for: histogram or exponential_histogram."""
        return 0x4A if self.schema == SCHEMA_CUSTOM else 0x52

    def tail(self) -> bytes:
        """Return the bytes that follow the points in that field: the temporality, unless it has none."""
        return b"" if self.reset_hint == _RESET_HINT_GAUGE else CUMULATIVE

    def hint(self) -> bytes:
        """Return field 12 of Metric, which contains the sender's reset hint; empty if there is none."""
        if self.reset_hint == _RESET_HINT_YES:
            return _WAS_RESET
        return _WAS_NOT_RESET if self.reset_hint == _RESET_HINT_NO else b""

    def point(self, time_unix_nano: i64, start_unix_nano: i64, attributes: bytes, exemplars: list[bytes]) -> bytes:
        """Return a HistogramDataPoint or ExponentialHistogramDataPoint, after `prepare`. `attributes` are the series'."""
        if self.schema == SCHEMA_CUSTOM:
            return self._custom_point(time_unix_nano, start_unix_nano, attributes, exemplars)
        writer = BytesWriter()
        self._put_attributes(writer, 0x0A, attributes)
        if start_unix_nano:
            _put_fixed64(writer, 0x11, start_unix_nano)
        _put_fixed64(writer, 0x19, time_unix_nano)
        if self.count:
            _put_fixed64(writer, 0x21, self.count)
        _put_fixed64(writer, 0x29, self.sum_bits)
        if self.schema:
            writer.append(0x30)
            put_varint(writer, self.schema << 1 if self.schema > 0 else -self.schema * 2 - 1)
        if self.zero_count:
            _put_fixed64(writer, 0x39, self.zero_count)
        _put_side(writer, 0x42, self.positive)
        _put_side(writer, 0x4A, self.negative)
        self._put_flags(writer)
        for exemplar in exemplars:
            put_bytes(writer, 0x5A, exemplar)
        if self.zero_threshold_bits:
            _put_fixed64(writer, 0x71, self.zero_threshold_bits)
        return writer.getvalue()

    def _custom_point(self, time_unix_nano: i64, start_unix_nano: i64, attributes: bytes, exemplars: list[bytes]) -> bytes:
        writer = BytesWriter()
        if start_unix_nano:
            _put_fixed64(writer, 0x11, start_unix_nano)
        _put_fixed64(writer, 0x19, time_unix_nano)
        if self.count:
            _put_fixed64(writer, 0x21, self.count)
        _put_fixed64(writer, 0x29, self.sum_bits)
        put_bytes(writer, 0x32, self.positive.payload.getvalue())
        if self.bounds_end > self.bounds_start:
            put_bytes(writer, 0x3A, self.buffer[self.bounds_start : self.bounds_end])
        for exemplar in exemplars:
            put_bytes(writer, 0x42, exemplar)
        self._put_attributes(writer, 0x4A, attributes)
        self._put_flags(writer)
        return writer.getvalue()

    def _put_flags(self, writer: BytesWriter) -> None:
        if self.sum_bits == STALE_BITS:
            writer.append(0x50)
            writer.append(FLAG_NO_RECORDED_VALUE)

    def _put_attributes(self, writer: BytesWriter, tag: i64, attributes: bytes) -> None:
        """Write the series' attributes under `tag` instead of NumberDataPoint's, and the counts that integers can't hold."""
        cursor = Cursor(attributes)
        end: i64 = len(attributes)
        while cursor.position < end:
            cursor.field(end)
            put_bytes(writer, tag, attributes[cursor.start : cursor.position])
        if self.is_fractional:
            exact = (
                f'{{"count":{_as_double(self.count_bits)!r},"zero_count":{_as_double(self.zero_count_bits)!r},'
                f'"positive":{self._exact(self.positive)},"negative":{self._exact(self.negative)}}}'
            )
            put_attribute(writer, tag, b"infrasage.float_histogram", exact.encode())

    def _exact(self, side: NativeBuckets) -> str:
        """Return a side's float counts by OTLP's index, as a JSON object."""
        members: list[str] = []
        index: i64 = 0 if self.schema == SCHEMA_CUSTOM else -1
        position: i64 = side.counts_start
        for offset, length in zip(side.offsets, side.lengths, strict=True):
            index += offset
            for _ in range(length):
                self.cursor.rules.read(_MEMBER_BYTES)
                members.append(f'"{int(index)}":{read_f64_le(self.buffer, position)!r}')
                position += 8
                index += 1
        return "{" + ",".join(members) + "}"


def _put_fixed64(writer: BytesWriter, tag: i64, bits: i64) -> None:
    writer.append(int(tag))
    write_i64_le(writer, bits)


def _put_side(writer: BytesWriter, tag: i64, side: NativeBuckets) -> None:
    """Write ExponentialHistogramDataPoint.Buckets, unless the side has none."""
    if side.dense == 0:
        return
    buckets = BytesWriter()
    if side.first:
        buckets.append(0x08)
        put_signed_varint(buckets, side.first << 1 if side.first > 0 else -side.first * 2 - 1)
    put_bytes(buckets, 0x12, side.payload.getvalue())
    put_bytes(writer, tag, buckets.getvalue())


def _as_double(bits: i64) -> float:
    """Return the double of these bits."""
    writer = BytesWriter()
    write_i64_le(writer, bits)
    return read_f64_le(writer.getvalue(), 0)
