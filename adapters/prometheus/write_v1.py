"""Adapt Prometheus remote write 1.0: a WriteRequest after decompression.

The conversion is that of adapters/prometheus/write_request.py. Samples are gauge points with their values' bits; a stale
marker's point is also flagged as having no recorded value. Metadata of the same request describes its family's metrics, before
or after them. If no item of the request is of that family (as Prometheus sends it), the metadata is an item of its own.

A rejected item's payload is a serialized WriteRequest of one series: the labels, the sample or histogram and its exemplars, as
they were sent (in their plain form if the body was unusual), and its family's metadata, if the request had it. The payload of
rejected metadata is a WriteRequest that has only this metadata.

Invariants:
1. Any body is adapted like the reference in the tests does (test_any_request_is_adapted_as_the_twin_does,
   test_spoilt_bytes_are_adapted_as_the_twin_does).
"""

from typing import Final

from infrasage.prometheus.v1 import write_pb2
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.canonical import adapt_or_canonicalize
from adapters.codec.wire import NonCanonical, field_size, is_utf8, put_bytes, put_varint
from adapters.errors import MISSING_METRIC_NAME, TOO_MANY_ATTRIBUTES
from adapters.price import check_elements, shape_of
from adapters.prometheus.exemplars import Exemplar, read_exemplar
from adapters.prometheus.labels import LabelReader
from adapters.prometheus.metadata import Description
from adapters.prometheus.price import DESCRIPTION_BYTES, check_rows_v1
from adapters.prometheus.series import Series, beginning, read_series, refused_series
from adapters.prometheus.versions import refuse_unknown
from adapters.prometheus.write_request import NO_EXEMPLARS, SAMPLES, WriteRequestScan
from adapters.record import Adapted, Header
from adapters.rules import ENTRY_WORK_BYTES, Rules

SHAPE: Final = shape_of(write_pb2.WriteRequest)
_TIMESERIES: Final = 0x0A
_METADATA: Final = 0x1A
# Fields of a TimeSeries.
_LABELS: Final = 0x0A
_EXEMPLARS: Final = 0x1A
_HISTOGRAMS: Final = 0x22
_LABELS_BEYOND: Final = 1024
# The suffixes that a series' name may have behind its family's name.
_SUFFIXES: Final = (b"_total", b"_bucket", b"_count", b"_sum", b"_created", b"_info")


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt a WriteRequest. Raises Malformed if protobuf can't parse it or all its fields are unknown, and RequestRefused if it
    exceeds a limit of the request, or is of the other version."""
    adapted = adapt_or_canonicalize(
        lambda plain: _WriteRequest(plain, header, rules, message_bytes_max).run(), body, write_pb2.WriteRequest, rules
    )
    refuse_unknown(adapted)
    return adapted


class _WriteRequest(WriteRequestScan):
    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        super().__init__(
            body, header, rules, message_bytes_max, exemplars_tag=_EXEMPLARS, histograms_tag=_HISTOGRAMS, has_start=False
        )
        # The last metadata of each family, by the family's name; and all metadata.
        self.families: Final[dict[bytes, Description]] = {}
        self.descriptions: Final[list[tuple[bytes, Description]]] = []
        self.reader: Final = LabelReader(body, rules)
        # The labels of the current series: how many, if they were counted (more than `labels_max` are not read), and where.
        self.labels: i64 = 0
        self.labels_max: i64 = rules.attributes_max + _LABELS_BEYOND
        self.labels_start: i64 = 0
        self.labels_end: i64 = 0

    def run(self) -> Adapted:
        rules = self.rules
        check_elements(self.buffer, SHAPE, rules.request_elements_max, rules)
        rules.rest()
        check_rows_v1(self.buffer, rules.request_row_bytes_max, rules.plan_row_bytes_max, rules)
        rules.rest()
        cursor = self.cursor
        end: i64 = len(self.buffer)
        # Metadata comes after the series that it describes.
        while cursor.position < end:
            cursor.skip_fields(_TIMESERIES, end)
            if cursor.position == end:
                break
            tag: i64 = cursor.field(end)
            if tag == _METADATA:
                after: i64 = cursor.position
                self._read_metadata(cursor.start, after)
                cursor.position = after
            elif tag != _TIMESERIES and (tag >> 3 == 1 or tag >> 3 == 3):
                raise NonCanonical(cursor.start)
        position: i64 = 0
        while position < end:
            at: i64 = position
            cursor.position = position
            tag = cursor.field(end)
            position = cursor.position
            if tag == _TIMESERIES:
                self._take_series(cursor.start, position)
                self.rules.read(position - at)
        for family, description in self.descriptions:
            if not description.has_item:
                self._take_family(family, description)
        return self.pack()

    def _read_metadata(self, start: i64, end: i64) -> None:
        cursor = self.cursor
        buffer = self.buffer
        type_: i64 = 0
        family = b""
        description = b""
        unit = b""
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == 0x12 or tag == 0x22 or tag == 0x2A:
                if not is_utf8(buffer, cursor.start, cursor.position, self.rules):
                    raise NonCanonical(cursor.start)
                text = beginning(buffer, cursor.start, cursor.position, self.builder.item_bytes_max)
                if tag == 0x12:
                    family = text
                elif tag == 0x22:
                    description = text
                else:
                    unit = text
            elif tag == 0x08:
                type_ = cursor.value & 0xFFFFFFFF
            elif tag >> 3 <= 5 and tag >> 3 != 3:
                raise NonCanonical(cursor.start)
        self.count_made_bytes(DESCRIPTION_BYTES)
        self.rules.read(end - start)
        described = Description(type_, description, unit, start, end)
        self.families[family] = described
        self.descriptions.append((family, described))

    def _description_of(self, name: bytes) -> Description:
        """Return the description of the family of a series named `name`."""
        families = self.families
        described = families.get(name)
        if described is None:
            for suffix in _SUFFIXES:
                if name.endswith(suffix):
                    return families.get(name[: -len(suffix)], self.no_description)
            return self.no_description
        return described

    def _take_family(self, family: bytes, description: Description) -> None:
        """Accept or reject metadata that no item belongs to."""
        self.rules.read(ENTRY_WORK_BYTES)
        series = Series()
        series.name = family
        if not family:
            series.reason = MISSING_METRIC_NAME
            series.message = "metadata without the name of its family"
        self.description = description
        self.message = series.message
        self.take_description(series, series.check(self.rules))

    def _take_series(self, start: i64, end: i64) -> None:
        """Read the TimeSeries at start:end: labels, samples, exemplars, histograms, in the order of every encoder."""
        cursor = self.cursor
        series = self.reader.series
        labels_end: i64 = self.reader.read(start, end)
        if labels_end < 0:
            labels_end = self._end_of_labels(start, end)
            if self.labels > self.labels_max:
                series = refused_series(TOO_MANY_ATTRIBUTES, "")
            else:
                series = read_series(cursor, start, labels_end)
        self.labels_start = start
        self.labels_end = labels_end
        if self.families:
            self.description = self._description_of(series.name)

        buffer = self.buffer
        self.message = series.message
        reason: i64 = series.check(self.rules)
        sample_start: i64 = labels_end + 2
        if sample_start <= end and buffer[labels_end] == SAMPLES and buffer[labels_end + 1] == end - sample_start:
            # Nearly every series has one sample and nothing else. It is shorter than 128 bytes, as its length is one byte.
            self.take_sample(series, reason, sample_start, end, NO_EXEMPLARS)
            return
        cursor.position = labels_end
        items: i64 = 0
        exemplars: i64 = 0
        before: i64 = SAMPLES
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag >> 3 > 4:
                continue
            if tag < before or (tag != SAMPLES and tag != _EXEMPLARS and tag != _HISTOGRAMS):
                raise NonCanonical(cursor.start)
            before = tag
            if tag == _EXEMPLARS:
                exemplars += 1
            else:
                items += 1
        if exemplars:
            self.take_with_exemplars(series, reason, labels_end, end, items, exemplars)
        else:
            self.take_items(series, reason, labels_end, end)

    def _end_of_labels(self, start: i64, end: i64) -> i64:
        cursor = self.cursor
        buffer = self.buffer
        position: i64 = start
        labels: i64 = 0
        cursor.position = start
        while position < end and buffer[position] == _LABELS:
            cursor.field(end)
            self.rules.read(0)
            position = cursor.position
            labels += 1
        self.labels = labels
        return position

    def read_exemplar(self, start: i64, end: i64) -> Exemplar:
        return read_exemplar(self.cursor, start, end, self.rules)

    def payload(self, tag: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> bytes:
        builder = self.builder
        if not builder.keeps(end - start):
            return b""
        has_series = tag != 0 or len(exemplars) > 0
        series_bytes: i64 = self.labels_end - self.labels_start
        if tag:
            series_bytes += field_size(end - start)
        for exemplar in exemplars:
            series_bytes += field_size(exemplar.end - exemplar.start)
        size: i64 = field_size(series_bytes) if has_series else 0
        description = self.description
        if description is not self.no_description:
            size += field_size(description.end - description.start)
        if not builder.keeps(size):
            return b""
        buffer = self.buffer
        rules = self.rules
        writer = BytesWriter()
        # Each copy may have 60 MB, so each counts as read.
        if has_series:
            writer.append(_TIMESERIES)
            put_varint(writer, series_bytes)
            labels = buffer[self.labels_start : self.labels_end]
            rules.read(len(labels))
            writer.write(labels)
            rules.read(len(labels))
            if tag == SAMPLES:
                sent = buffer[start:end]
                rules.read(len(sent))
                put_bytes(writer, SAMPLES, sent)
                rules.read(len(sent))
            for exemplar in exemplars:
                sent = buffer[exemplar.start : exemplar.end]
                rules.read(len(sent))
                put_bytes(writer, _EXEMPLARS, sent)
                rules.read(len(sent))
            if tag == _HISTOGRAMS:
                sent = buffer[start:end]
                rules.read(len(sent))
                put_bytes(writer, _HISTOGRAMS, sent)
                rules.read(len(sent))
        if description is not self.no_description:
            sent = buffer[description.start : description.end]
            rules.read(len(sent))
            put_bytes(writer, _METADATA, sent)
            rules.read(len(sent))
        request = writer.getvalue()
        rules.read(len(request))
        return request
