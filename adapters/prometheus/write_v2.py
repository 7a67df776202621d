"""Adapt Prometheus remote write 2.0: an io.prometheus.write.v2.Request after decompression.

The conversion is that of adapters/prometheus/write_request.py, and the texts of a request are in its table of symbols.

A series' metadata decides its kind. A counter is a monotonic cumulative sum, as are bucket, count and sum of a classic
histogram or summary, each under its own name. Any other series' samples are a gauge's. A point counts since the start
timestamp of its sample, or else since the created timestamp of its series. A series that has only metadata is one item.

A rejected item's payload is a serialized Request of one series: its labels, metadata and created timestamp, the sample or
histogram and its exemplars, as they were sent (in their plain form if the body was unusual), but with a table of their own and
references into it. Items of a series that has both samples and histograms can be accepted, each in a request of its own.

Source: prometheus.io/docs/specs/prw/remote_write_spec_2_0.

Invariants:
1. A series is rejected if its labels' references are odd in number or lead out of the table, if it has both samples and
   histograms, or if it has nothing at all. Its neighbours are kept (test_a_bad_series_is_rejected_and_no_other). A help or unit
   that is not in the table is left out (test_a_help_or_unit_out_of_the_table_is_left_out).
2. A table that does not begin with the empty text is invalid, and the request is refused
   (test_a_table_without_the_empty_text_is_refused).
3. Any body is adapted like the reference in the tests does (test_any_request_is_adapted_as_the_twin_does).
"""

from typing import Final

from infrasage.prometheus.v2 import write_pb2
from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.canonical import adapt_or_canonicalize
from adapters.codec.text import quoted_utf8
from adapters.codec.wire import Cursor, NonCanonical, is_utf8, put_bytes, put_varint, varint_size
from adapters.errors import INVALID_PROTOBUF, INVALID_SERIES, TOO_MANY_ATTRIBUTES, Malformed
from adapters.price import check_elements, shape_of
from adapters.prometheus.exemplars import Exemplar, make_exemplar, set_label
from adapters.prometheus.histogram import CUMULATIVE
from adapters.prometheus.metadata import COUNTER, HISTOGRAM, SUMMARY, Description
from adapters.prometheus.price import SYMBOLS_MAX, check_rows_v2, too_many_symbols
from adapters.prometheus.series import (
    CACHE_BYTES_MAX,
    CACHE_ENTRIES_MAX,
    Series,
    SeriesCache,
    beginning,
    read_series,
    refused_series,
)
from adapters.prometheus.single_item import SingleItemWrite
from adapters.prometheus.symbol_ids import SYMBOL_IDS_BYTES_MAX, SYMBOL_IDS_MAX, SymbolIds
from adapters.prometheus.versions import refuse_unknown
from adapters.prometheus.write_request import GAUGE, NO_EXEMPLARS, SAMPLES, WriteRequestScan
from adapters.record import Adapted, Header
from adapters.repairs import METADATA_DROPPED
from adapters.rules import Rules

# The most descriptions that are cached while a request is read, by the bytes of their metadata.
DESCRIPTIONS_KEPT_MAX: Final = 10_000

_SYMBOLS: Final = 0x22
SHAPE: Final = shape_of(write_pb2.Request)
_TIMESERIES: Final = 0x2A
# Fields of a TimeSeries, in the order in which encoders write them.
_LABELS_REFS: Final = 0x0A
_HISTOGRAMS: Final = 0x1A
_EXEMPLARS: Final = 0x22
_METADATA: Final = 0x2A
_CREATED: Final = 0x30

_SUM: Final = 0x3A
_MONOTONIC: Final = CUMULATIVE + b"\x18\x01"
_REFS_BEYOND: Final = 2048
_LOW_32_BITS: Final = 0xFFFFFFFF

_series: Final = SeriesCache(CACHE_ENTRIES_MAX, CACHE_BYTES_MAX)
_numbers: Final = SymbolIds(SYMBOL_IDS_MAX, SYMBOL_IDS_BYTES_MAX)


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt a Request. Raises Malformed if protobuf can't parse it or all its fields are unknown, and RequestRefused if it
    exceeds a limit of the request, or is of the other version."""
    adapted = adapt_or_canonicalize(
        lambda plain: _Request(plain, header, rules, message_bytes_max).run(), body, write_pb2.Request, rules
    )
    refuse_unknown(adapted)
    return adapted


class _Request(WriteRequestScan):
    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        super().__init__(
            body, header, rules, message_bytes_max, exemplars_tag=_EXEMPLARS, histograms_tag=_HISTOGRAMS, has_start=True
        )
        self.symbols: Final[list[bytes]] = []
        # The number of each symbol, as eight bytes.
        self.numbers: bytes = b""
        # The numbers of the current series' symbols, in the order of its references.
        self.key = BytesWriter()
        # After `_read_refs`: the number of references, and the first that leads out of the table, or -1.
        self.refs: i64 = 0
        self.stray: i64 = -1
        # References beyond this many are not followed: the series has too many attributes.
        self.refs_max: Final[i64] = 2 * rules.attributes_max + _REFS_BEYOND
        self.described: dict[bytes, Description] = {}
        # The metadata of the series before: where it is, and its description.
        self.metadata_start: i64 = 0
        self.metadata_end: i64 = 0
        self.described_last: Description = self.no_description
        # The current series: where it begins, and where its references are.
        self.series_start: i64 = 0
        self.labels_start: i64 = 0
        self.labels_end: i64 = 0
        # Makes requests of rejected items; created when the first is to be kept.
        self.single_item: SingleItemWrite | None = None

    def run(self) -> Adapted:
        rules = self.rules
        check_elements(self.buffer, SHAPE, rules.request_elements_max, rules)
        rules.rest()
        check_rows_v2(self.buffer, rules.request_row_bytes_max, rules.plan_row_bytes_max, rules)
        rules.rest()
        cursor = self.cursor
        end: i64 = len(self.buffer)
        tag: i64 = self._read_symbols(end)
        while tag:
            after: i64 = cursor.position
            if tag == _TIMESERIES:
                series: i64 = cursor.start
                self._take_timeseries(series, after)
                self.rules.read(after - series)
            elif tag >> 3 == 4 or tag >> 3 == 5:
                raise NonCanonical(cursor.start)
            cursor.position = after
            tag = cursor.field(end) if after < end else 0
        return self.pack()

    def _read_symbols(self, end: i64) -> i64:
        """Read the table of symbols. Return the tag of the first field behind it, or 0 at the end."""
        cursor = self.cursor
        buffer = self.buffer
        symbols = self.symbols
        numbers = BytesWriter()
        tag: i64 = 0
        while cursor.position < end:
            tag = cursor.field(end)
            if tag != _SYMBOLS:
                break
            symbol = buffer[cursor.start : cursor.position]
            self.rules.read(cursor.position - cursor.start)
            number: i64 = _numbers.get(symbol)
            if number == 0:
                if not is_utf8(buffer, cursor.start, cursor.position, self.rules):
                    raise NonCanonical(cursor.start)
                number = _numbers.add(symbol)
            symbols.append(symbol)
            write_i64_le(numbers, number)
            if len(symbols) > SYMBOLS_MAX:
                raise too_many_symbols()
            tag = 0
        if symbols and symbols[0]:
            raise Malformed(
                INVALID_PROTOBUF,
                f"the first of {len(symbols)} symbols must be the empty text; it is {quoted_utf8(symbols[0])}",
            )
        self.numbers = numbers.getvalue()
        return tag

    def _take_timeseries(self, start: i64, end: i64) -> None:
        """Read the TimeSeries at start:end. Its fields are in the order of their numbers, as every encoder writes them."""
        cursor = self.cursor
        labels_start: i64 = start
        labels_end: i64 = start
        metadata_start: i64 = start
        metadata_end: i64 = start
        sample_start: i64 = start
        sample_end: i64 = start
        samples: i64 = 0
        histograms: i64 = 0
        exemplars: i64 = 0
        before: i64 = 0
        self.created_ms = 0
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag >> 3 > 6:
                continue
            if tag == SAMPLES and tag >= before:
                sample_start = cursor.start
                sample_end = cursor.position
                samples += 1
            elif tag == _HISTOGRAMS and tag >= before:
                histograms += 1
            elif tag == _EXEMPLARS and tag >= before:
                exemplars += 1
            elif tag <= before:
                raise NonCanonical(cursor.start)
            elif tag == _LABELS_REFS:
                labels_start = cursor.start
                labels_end = cursor.position
            elif tag == _METADATA:
                metadata_start = cursor.start
                metadata_end = cursor.position
            elif tag == _CREATED:
                self.created_ms = cursor.value
            else:
                raise NonCanonical(cursor.start)
            before = tag

        series = self._series_of(labels_start, labels_end)
        self.series_start = start
        self.labels_start = labels_start
        self.labels_end = labels_end
        description = self._description_at(metadata_start, metadata_end)
        self.description = description
        type_: i64 = description.type
        if type_ == COUNTER or (series.is_part and (type_ == HISTOGRAM or type_ == SUMMARY)):
            self.kind = _SUM
            self.tail = _MONOTONIC
        else:
            self.kind = GAUGE
            self.tail = b""
        self.message = series.message
        reason: i64 = series.check(self.rules)
        if reason == 0 and samples and histograms:
            reason = INVALID_SERIES
            self.message = f"samples ({int(samples)}) and histograms ({int(histograms)}) in one series"
        taken: i64 = self._taken_items() if description.lost else 0

        if exemplars:
            self.take_with_exemplars(series, reason, start, end, samples + histograms, exemplars)
        elif samples == 1 and histograms == 0:
            self.take_sample(series, reason, sample_start, sample_end, NO_EXEMPLARS)
        elif samples or histograms:
            self.take_items(series, reason, start, end)
        else:
            if reason == 0 and not description.fields:
                reason = INVALID_SERIES
                self.message = "a series without samples, histograms, exemplars and metadata"
            self.take_description(series, reason)
        if description.lost and self._taken_items() > taken:
            self.rules.repair(METADATA_DROPPED, description.lost)

    def _taken_items(self) -> i64:
        """Return how many items were accepted so far."""
        return self.index - self.builder.out.rejected_count()

    def _read_refs(self, start: i64, end: i64) -> None:
        """Write the numbers of the packed references at start:end into `key`. Moves the cursor. Raises NonCanonical."""
        cursor = self.cursor
        buffer = self.buffer
        numbers = self.numbers
        key = self.key
        count: i64 = len(self.symbols)
        key.truncate(0)
        refs: i64 = 0
        refs_max: i64 = self.refs_max
        self.stray = -1
        position: i64 = start
        while position < end:
            ref: i64 = buffer[position]
            position += 1
            if ref > 127:
                more: i64 = buffer[position] if position < end else 128
                if more < 128:
                    ref = (ref & 127) | more << 7
                    position += 1
                else:
                    cursor.position = position - 1
                    ref = cursor.varint(end) & _LOW_32_BITS
                    position = cursor.position
            refs += 1
            if refs > refs_max:
                continue
            if ref < count:
                write_i64_le(key, read_i64_le(numbers, ref * 8))
            elif self.stray < 0:
                self.stray = ref
        self.refs = refs

    def _refs_fault(self) -> str:
        """Return the fault of the references read last, in words; empty if they have none."""
        if self.stray >= 0:
            return f"a label refers to symbol {int(self.stray)}, which is not in the table"
        return f"an odd number of label references: {int(self.refs)}" if self.refs % 2 else ""

    def _series_of(self, start: i64, end: i64) -> Series:
        """Return the series whose labels are the references at start:end."""
        self._read_refs(start, end)
        fault = self._refs_fault()
        if fault:
            return refused_series(INVALID_SERIES, fault)
        if self.refs > self.refs_max:
            return refused_series(TOO_MANY_ATTRIBUTES, "")
        key = self.key.getvalue()
        series = _series.get(key)
        if series is None:
            labels = self._labels_of(start, end)
            self.rules.read(len(labels))
            series = read_series(Cursor(labels, self.rules), 0, len(labels))
            _series.put(key, series)
        return series

    def _texts_of(self, start: i64, end: i64) -> list[bytes]:
        """Return the texts of the references at start:end, which all lead into the table."""
        cursor = self.cursor
        texts: list[bytes] = []
        size: i64 = 0
        cursor.position = start
        while cursor.position < end:
            text = self.symbols[cursor.varint(end) & _LOW_32_BITS]
            size += len(text)
            texts.append(text)
        # One byte can refer to a text of a megabyte.
        self.count_made_bytes(size)
        return texts

    def _labels_of(self, start: i64, end: i64) -> bytes:
        """Return the labels in the form of 1.0, as fields 1 of its TimeSeries."""
        texts = self._texts_of(start, end)
        labels = BytesWriter()
        for n in range(0, len(texts), 2):
            name = texts[n]
            value = texts[n + 1]
            put_varint(labels, 0x0A)
            put_varint(labels, 2 + varint_size(len(name)) + len(name) + varint_size(len(value)) + len(value))
            put_bytes(labels, 0x0A, name)
            put_bytes(labels, 0x12, value)
            self.rules.read(len(name) + len(value))
        return labels.getvalue()

    def _description_at(self, start: i64, end: i64) -> Description:
        """Return the description in the Metadata at start:end."""
        if start == end:
            return self.no_description
        if self._is_as_before(start, end):
            return self.described_last
        raw = self.buffer[start:end]
        description = self.described.get(raw)
        if description is None:
            description = self._make_description(start, end)
            if len(self.described) >= DESCRIPTIONS_KEPT_MAX:
                self.described = {}
            self.described[raw] = description
        self.metadata_start = start
        self.metadata_end = end
        self.described_last = description
        return description

    def _is_as_before(self, start: i64, end: i64) -> bool:
        """Return whether start:end is the same as the metadata before: neighbours often belong to one metric."""
        buffer = self.buffer
        before: i64 = self.metadata_start
        if end - start != self.metadata_end - before:
            return False
        while start < end:
            if buffer[start] != buffer[before]:
                return False
            start += 1
            before += 1
        return True

    def _make_description(self, start: i64, end: i64) -> Description:
        cursor = self.cursor
        symbols = self.symbols
        count: i64 = len(symbols)
        type_: i64 = 0
        help_: i64 = 0
        unit: i64 = 0
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == 0x08:
                type_ = cursor.value & _LOW_32_BITS
            elif tag == 0x18:
                help_ = cursor.value & _LOW_32_BITS
            elif tag == 0x20:
                unit = cursor.value & _LOW_32_BITS
            elif tag >> 3 == 1 or tag >> 3 == 3 or tag >> 3 == 4:
                raise NonCanonical(cursor.start)
        lost: i64 = 0
        if help_ and help_ >= count:
            help_ = 0
            lost += 1
        if unit and unit >= count:
            unit = 0
            lost += 1
        help_text = symbols[help_] if help_ else b""
        unit_text = symbols[unit] if unit else b""
        self.count_made_bytes(len(help_text) + len(unit_text))
        # A text that is larger than any item may be is refused as its beginning is.
        size_max: i64 = self.builder.item_bytes_max
        help_text = beginning(help_text, 0, len(help_text), size_max)
        unit_text = beginning(unit_text, 0, len(unit_text), size_max)
        description = Description(type_, help_text, unit_text, start, end)
        description.lost = lost
        return description

    def read_exemplar(self, start: i64, end: i64) -> Exemplar:
        cursor = self.cursor
        labels_start: i64 = start
        labels_end: i64 = start
        value_bits: i64 = 0
        time_ms: i64 = 0
        has_labels = False
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == _LABELS_REFS and not has_labels:
                labels_start = cursor.start
                labels_end = cursor.position
                has_labels = True
            elif tag == 0x11:
                value_bits = read_i64_le(self.buffer, cursor.start)
            elif tag == 0x18:
                time_ms = cursor.value
            elif tag >> 3 <= 3:
                raise NonCanonical(cursor.start)
        attributes: dict[bytes, bytes] = {}
        self._read_refs(labels_start, labels_end)
        fault = self._refs_fault()
        if not fault and self.refs > self.refs_max:
            fault = f"{int(self.refs)} label references"
        if not fault:
            texts = self._texts_of(labels_start, labels_end)
            for n in range(0, len(texts), 2):
                set_label(attributes, texts[n], texts[n + 1])
        exemplar = make_exemplar(start, end, attributes, value_bits, time_ms, self.rules)
        if fault:
            exemplar.reason = INVALID_SERIES
            exemplar.message = f"an exemplar: {fault}"
        return exemplar

    def payload(self, tag: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> bytes:
        builder = self.builder
        if not builder.keeps(end - start):
            return b""
        single = self.single_item
        if single is None:
            single = self.single_item = SingleItemWrite(self.buffer, self.symbols, self.rules)
        meta = self.description
        single.set_series(self.series_start, self.labels_start, self.labels_end, meta.start, meta.end, self.created_ms)
        for exemplar in exemplars:
            single.add(exemplar.start, exemplar.end)
        return single.request(tag, start, end) if builder.keeps(single.size(tag, end - start)) else b""
