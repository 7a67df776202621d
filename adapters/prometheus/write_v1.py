"""Prometheus remote write 1.0: WriteRequest, as it is after decompression.

The law: the body is read as it lies on the wire; whatever is odd there is first given to protobuf's own parser. So what it
calls malformed is malformed here, and what it accepts is read as it reads it.

An item is a sample or a native histogram. Samples become gauge points with their values' bits, a stale marker's flagged as
having no recorded value besides. Metadata of the same request gives its family's metrics their description and unit. An
exemplar is part of the sample or histogram of its series that is nearest in time, is taken or rejected with it, and has it
rejected where it breaks a rule itself. A series that has exemplars alone (as Prometheus sends them) is one item: a point at its
last exemplar's time that holds them, whose value is NaN and flagged as not recorded.

A rejected item's payload is a serialized WriteRequest of one series: the labels, the sample or histogram and its exemplars, as
they were sent (in their plain form, where the body was odd); and its family's metadata, if the request had it.
"""

from typing import Final

from google.protobuf.message import DecodeError
from infrasage.prometheus.v1 import write_pb2
from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.errors import INVALID_PROTOBUF, RECORD_TOO_LARGE, TIMESTAMP_IN_FUTURE, TIMESTAMP_TOO_OLD, Malformed
from adapters.prometheus.exemplars import MILLISECONDS_MAX, NANOSECONDS_A_MILLISECOND, Exemplar, read_exemplar, share_out
from adapters.prometheus.histogram import FLAG_NO_RECORDED_VALUE, STALE_BITS, NativeHistogram
from adapters.prometheus.series import CACHE_BYTES_MAX, CACHE_ENTRIES_MAX, Series, SeriesCache, read_series
from adapters.record import METRICS, TYPE_METRIC, Adapted, BatchBuilder, Header, Rules
from adapters.wire import Cursor, NotPlain, is_utf8, put_bytes, put_varint, varint_size

# A metric's points are kept together up to this size, so that messages are filled well.
METRIC_BYTES_MAX: Final = 64 << 10

_NAN_BITS: Final = 0x7FF8000000000001  # Prometheus's ordinary NaN, which is no stale marker
_GAUGE: Final = 0x2A
_TIMESERIES: Final = 0x0A
_METADATA: Final = 0x1A
_LABELS: Final = 0x0A
_SAMPLES: Final = 0x12
_EXEMPLARS: Final = 0x1A
_HISTOGRAMS: Final = 0x22
# What may follow a family's name in the names of its series.
_SUFFIXES: Final = (b"_total", b"_bucket", b"_count", b"_sum", b"_created", b"_info")
_NO_EXEMPLARS: Final[list[Exemplar]] = []

_series: Final = SeriesCache(CACHE_ENTRIES_MAX, CACHE_BYTES_MAX)


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """A WriteRequest. Raises Malformed where protobuf can't parse it."""
    try:
        return _WriteRequest(body, header, rules, message_bytes_max).adapt()
    except NotPlain as odd:
        position = odd.position
    return _WriteRequest(_plain(body, position), header, rules, message_bytes_max).adapt()


def _plain(body: bytes, position: int) -> bytes:
    """The same request as protobuf's encoder writes it, known fields only. `position`: where it is odd."""
    try:
        request = write_pb2.WriteRequest.FromString(body)
    except DecodeError:
        message = f"cannot decode WriteRequest: {len(body)} bytes, malformed at or after byte {position}"
        raise Malformed(INVALID_PROTOBUF, message) from None
    request.DiscardUnknownFields()
    return request.SerializeToString()


class _Family:
    """Metadata of the metrics of one name, which was sent as start:end of the body."""

    def __init__(self, fields: bytes, start: i64, end: i64) -> None:
        self.fields: Final = fields  # description and unit, as fields 2 and 3 of Metric
        self.start: i64 = start
        self.end: i64 = end


class _Group:
    """What goes into one record: the metrics of one job and instance."""

    def __init__(self, service_id: bytes, resource: bytes, capacity: i64) -> None:
        self.service_id: Final = service_id
        self.resource: Final = resource
        self.capacity: i64 = capacity
        # Metrics, encoded, and how many items each holds.
        self.metrics: Final[list[bytes]] = []
        self.counts: Final[list[int]] = []
        # The metric at hand: what it is, what it begins with, its points.
        self.name: bytes = b""
        self.kind: i64 = 0
        self.temporality: i64 = 0
        self.prefix: bytes = b""
        self.points = BytesWriter()
        self.points_max: i64 = 0
        self.count: i64 = 0


class _WriteRequest:
    """One request on its way from body to messages."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        self.buffer: Final = body
        self.cursor: Final = Cursor(body)
        self.rules: Final = rules
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        self.histogram: Final = NativeHistogram(self.cursor)
        self.families: Final[dict[bytes, _Family]] = {}
        self.groups: Final[dict[bytes, _Group]] = {}
        self.group: _Group | None = None
        self.index: i64 = 0
        # Of the series at hand: where its labels are.
        self.labels_start: i64 = 0
        self.labels_end: i64 = 0
        # Of the item at hand.
        self.value_bits: i64 = 0
        self.time_ms: i64 = 0
        self.time_unix_nano: i64 = 0
        # Why the item or series at hand can't be taken, if the rules can't say it.
        self.message: str = ""

    def adapt(self) -> Adapted:
        """Raises NotPlain."""
        cursor = self.cursor
        end: i64 = len(self.buffer)
        # Metadata stands behind the series that it describes.
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag == _METADATA:
                after: i64 = cursor.position
                self._read_metadata(cursor.start, after)
                cursor.position = after
            elif tag != _TIMESERIES and (tag >> 3 == 1 or tag >> 3 == 3):
                raise NotPlain(cursor.start)
        position: i64 = 0
        while position < end:
            cursor.position = position
            tag = cursor.field(end)
            position = cursor.position
            if tag == _TIMESERIES:
                self._take_series(cursor.start, position)
        return self._pack()

    def _read_metadata(self, start: i64, end: i64) -> None:
        cursor = self.cursor
        buffer = self.buffer
        family = b""
        description = b""
        unit = b""
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag == 0x12 or tag == 0x22 or tag == 0x2A:
                if not is_utf8(buffer, cursor.start, cursor.position):
                    raise NotPlain(cursor.start)
                text = buffer[cursor.start : cursor.position]
                if tag == 0x12:
                    family = text
                elif tag == 0x22:
                    description = text
                else:
                    unit = text
            elif tag != 0x08 and tag >> 3 <= 5 and tag >> 3 != 3:
                raise NotPlain(cursor.start)
        fields = BytesWriter()
        if description:
            put_bytes(fields, 0x12, description)
        if unit:
            put_bytes(fields, 0x1A, unit)
        self.families[family] = _Family(fields.getvalue(), start, end)

    def _family_of(self, name: bytes) -> _Family | None:
        """Of a series."""
        families = self.families
        if not families:
            return None
        family = families.get(name)
        if family is None:
            for suffix in _SUFFIXES:
                if name.endswith(suffix):
                    return families.get(name[: -len(suffix)])
        return family

    def _take_series(self, start: i64, end: i64) -> None:
        """The TimeSeries at start:end: labels, samples, exemplars, histograms, as every encoder has them."""
        cursor = self.cursor
        buffer = self.buffer
        labels_end: i64 = start
        cursor.position = start
        while labels_end < end and buffer[labels_end] == _LABELS:
            cursor.field(end)
            labels_end = cursor.position
        self.labels_start = start
        self.labels_end = labels_end
        labels = buffer[start:labels_end]
        series = _series.get(labels)
        if series is None:
            series = read_series(cursor, start, labels_end)
            _series.put(labels, series)

        cursor.position = labels_end
        items: i64 = 0
        exemplars: i64 = 0
        before: i64 = _SAMPLES
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag >> 3 > 4:
                continue
            if tag < before or (tag != _SAMPLES and tag != _EXEMPLARS and tag != _HISTOGRAMS):
                raise NotPlain(cursor.start)
            before = tag
            if tag == _EXEMPLARS:
                exemplars += 1
            else:
                items += 1
        self.message = series.message
        reason: i64 = series.check(self.rules)
        if exemplars:
            self._take_with_exemplars(series, reason, labels_end, end, items)
            return
        position: i64 = labels_end
        while position < end:
            cursor.position = position
            tag = cursor.field(end)
            position = cursor.position
            if tag == _SAMPLES:
                self._take_sample(series, reason, cursor.start, position, _NO_EXEMPLARS)
            elif tag == _HISTOGRAMS:
                self._take_histogram(series, reason, cursor.start, position, _NO_EXEMPLARS)

    def _take_with_exemplars(self, series: Series, reason: i64, start: i64, end: i64, items: i64) -> None:
        """The items of a series that has exemplars too, at start:end."""
        cursor = self.cursor
        exemplars: list[Exemplar] = []
        # Of each item, in milliseconds.
        times: list[int] = []
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _EXEMPLARS:
                exemplars.append(read_exemplar(cursor, cursor.start, position, self.rules))
            elif tag == _SAMPLES:
                self._read_sample(cursor.start, position)
                times.append(self.time_ms)
            elif tag == _HISTOGRAMS:
                self.histogram.read(cursor.start, position)
                times.append(self.histogram.time_ms)
        if items == 0:
            self._take_exemplars_alone(series, reason or _reason_of(exemplars), exemplars)
            return

        shares = share_out(exemplars, times)
        n = 0
        position = start
        while position < end:
            cursor.position = position
            tag = cursor.field(end)
            position = cursor.position
            if tag == _SAMPLES or tag == _HISTOGRAMS:
                share = shares[n]
                n += 1
                self.message = series.message
                if tag == _SAMPLES:
                    self._take_sample(series, reason or _reason_of(share), cursor.start, position, share)
                else:
                    self._take_histogram(series, reason or _reason_of(share), cursor.start, position, share)

    def _take_exemplars_alone(self, series: Series, reason: i64, exemplars: list[Exemplar]) -> None:
        self.time_ms = max([exemplar.time_ms for exemplar in exemplars])
        self.value_bits = _NAN_BITS
        if reason == 0:
            reason = self._check_time()
        if reason == 0 and not self._put_sample(series, FLAG_NO_RECORDED_VALUE, exemplars):
            reason = RECORD_TOO_LARGE
        if reason:
            self._reject(reason, series, 0, 0, 0, exemplars)

    def _take_sample(self, series: Series, reason: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> None:
        self._read_sample(start, end)
        if reason == 0:
            reason = self._check_time()
        if reason == 0:
            flags: i64 = FLAG_NO_RECORDED_VALUE if self.value_bits == STALE_BITS else 0
            if self._put_sample(series, flags, exemplars):
                return
            reason = RECORD_TOO_LARGE
        self._reject(reason, series, _SAMPLES, start, end, exemplars)

    def _take_histogram(self, series: Series, reason: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> None:
        histogram = self.histogram
        histogram.read(start, end)
        self.time_ms = histogram.time_ms
        if reason == 0:
            reason = self._check_time()
        if reason == 0:
            reason = histogram.prepare()
            self.message = histogram.message
        if reason == 0:
            payloads = [exemplar.payload for exemplar in exemplars]
            point = histogram.point(self.time_unix_nano, series.attributes, payloads)
            need: i64 = 1 + varint_size(len(point)) + len(point)
            group = self._metric(series, histogram.metric_tag(), histogram.temporality(), need)
            if group is not None:
                put_bytes(group.points, 0x0A, point)
                return
            reason = RECORD_TOO_LARGE
        self._reject(reason, series, _HISTOGRAMS, start, end, exemplars)

    def _read_sample(self, start: i64, end: i64) -> None:
        """Into `value_bits` and `time_ms`."""
        cursor = self.cursor
        self.value_bits = 0
        self.time_ms = 0
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag == 0x09:
                self.value_bits = read_i64_le(self.buffer, cursor.start)
            elif tag == 0x10:
                self.time_ms = cursor.value
            elif tag >> 3 <= 2:
                raise NotPlain(cursor.start)

    def _check_time(self) -> i64:
        """Of `time_ms`, into `time_unix_nano`: 0, or why it can't be taken."""
        self.message = ""
        time_ms = self.time_ms
        if time_ms > MILLISECONDS_MAX:
            return TIMESTAMP_IN_FUTURE
        if time_ms >= 0:
            self.time_unix_nano = time_ms * NANOSECONDS_A_MILLISECOND
            return self.rules.check_time(self.time_unix_nano)
        if self.rules.check_time(1) == 0:  # the window reaches back beyond what the record can hold
            self.message = "Timestamp is not after 1970-01-01T00:00:00Z"
        return TIMESTAMP_TOO_OLD

    def _reject(self, reason: i64, series: Series, tag: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> None:
        """The item at hand: field `tag` of its series with the payload start:end, and its exemplars; or those alone."""
        builder = self.builder
        builder.type = TYPE_METRIC
        builder.index = self.index
        service_id = series.service_id
        if self.rules.check_name(len(service_id)):
            service_id = b""
        builder.reject(reason, self.message, service_id, self._payload(series, tag, start, end, exemplars))
        self.index += 1

    def _payload(self, series: Series, tag: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> bytes:
        """The request of this item alone, if there is room for it."""
        if not self.builder.keeps(end - start):
            return b""
        series_bytes: i64 = self.labels_end - self.labels_start
        if tag:
            series_bytes += 1 + varint_size(end - start) + end - start
        for exemplar in exemplars:
            exemplar_bytes: i64 = exemplar.end - exemplar.start
            series_bytes += 1 + varint_size(exemplar_bytes) + exemplar_bytes
        size: i64 = 1 + varint_size(series_bytes) + series_bytes
        family = self._family_of(series.name)
        if family is not None:
            size += 1 + varint_size(family.end - family.start) + family.end - family.start
        if not self.builder.keeps(size):
            return b""
        buffer = self.buffer
        writer = BytesWriter()
        writer.append(_TIMESERIES)
        put_varint(writer, series_bytes)
        writer.write(buffer[self.labels_start : self.labels_end])
        if tag == _SAMPLES:
            put_bytes(writer, _SAMPLES, buffer[start:end])
        for exemplar in exemplars:
            put_bytes(writer, _EXEMPLARS, buffer[exemplar.start : exemplar.end])
        if tag == _HISTOGRAMS:
            put_bytes(writer, _HISTOGRAMS, buffer[start:end])
        if family is not None:
            put_bytes(writer, _METADATA, buffer[family.start : family.end])
        return writer.getvalue()

    def _put_sample(self, series: Series, flags: i64, exemplars: list[Exemplar]) -> bool:
        """A NumberDataPoint of `value_bits` at `time_unix_nano`. False: more than fits a message."""
        attributes = series.attributes
        size: i64 = 18 + len(attributes)
        if flags:
            size += 2
        for exemplar in exemplars:
            size += 1 + varint_size(len(exemplar.payload)) + len(exemplar.payload)
        group = self._metric(series, _GAUGE, 0, 1 + varint_size(size) + size)
        if group is None:
            return False
        points = group.points
        points.append(0x0A)
        put_varint(points, size)
        points.append(0x19)
        write_i64_le(points, self.time_unix_nano)
        points.append(0x21)
        write_i64_le(points, self.value_bits)
        for exemplar in exemplars:
            put_bytes(points, 0x2A, exemplar.payload)
        points.write(attributes)
        if flags:
            points.append(0x40)
            points.append(int(flags))
        return True

    def _metric(self, series: Series, kind: i64, temporality: i64, point_bytes: i64) -> _Group | None:
        """The group whose metric at hand is this series' and has room for one more point; counts that point. None: it is more
        than fits a message, even alone."""
        group = self.group
        if group is None or group.resource is not series.resource:
            group = self.groups.get(series.resource)
            if group is None:
                builder = self.builder
                builder.open_group(METRICS, TYPE_METRIC, series.service_id, series.resource)
                group = _Group(series.service_id, series.resource, builder.capacity())
                self.groups[series.resource] = group
            self.group = group
        if group.count:
            if (
                group.kind != kind
                or len(group.points) + point_bytes > group.points_max
                or group.name != series.name
                or group.temporality != temporality
            ):
                _close_metric(group)
        if group.count == 0:
            prefix = BytesWriter()
            put_bytes(prefix, 0x0A, series.name)
            family = self._family_of(series.name)
            if family is not None:
                prefix.write(family.fields)
            group.prefix = prefix.getvalue()
            group.name = series.name
            group.kind = kind
            group.temporality = temporality
            # The tags and lengths of the metric and of its gauge or histogram, and the temporality, take up to 16 bytes.
            group.points_max = min(group.capacity - len(group.prefix) - 16, METRIC_BYTES_MAX)
            if point_bytes > group.points_max and not _fits_alone(group, point_bytes):
                return None
        group.count += 1
        self.index += 1
        return group

    def _pack(self) -> Adapted:
        builder = self.builder
        for group in self.groups.values():
            _close_metric(group)
            builder.open_group(METRICS, TYPE_METRIC, group.service_id, group.resource)
            for n in range(len(group.metrics)):
                taken = builder.add(group.metrics[n], group.counts[n])
                assert taken  # `_metric` has seen to it
        return builder.finish()


def _reason_of(exemplars: list[Exemplar]) -> i64:
    """Why the item that these belong to can't be taken, or 0."""
    for exemplar in exemplars:
        if exemplar.reason:
            return exemplar.reason
    return 0


def _data_bytes(group: _Group, points_bytes: i64) -> i64:
    """Of the gauge or histogram that holds the points."""
    return points_bytes + 2 if group.temporality else points_bytes


def _fits_alone(group: _Group, point_bytes: i64) -> bool:
    """Whether a metric of one point fits a message."""
    data_bytes: i64 = _data_bytes(group, point_bytes)
    metric_bytes: i64 = len(group.prefix) + 1 + varint_size(data_bytes) + data_bytes
    return 1 + varint_size(metric_bytes) + metric_bytes <= group.capacity


def _close_metric(group: _Group) -> None:
    """Encode the metric at hand, if there is one."""
    if group.count == 0:
        return
    points = group.points
    size: i64 = _data_bytes(group, len(points))
    metric = BytesWriter()
    metric.write(group.prefix)
    put_varint(metric, group.kind)
    put_varint(metric, size)
    metric.write(points.getvalue())
    if group.temporality:
        metric.append(0x10)
        put_varint(metric, group.temporality)
    group.metrics.append(metric.getvalue())
    group.counts.append(group.count)
    points.truncate(0)
    group.count = 0
