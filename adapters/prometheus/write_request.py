"""The common part of remote write 1.0 and 2.0: the conversion of series, samples, histograms, exemplars and metadata.

The body is read in place. If it is unusual, protobuf decides (adapters/canonical.py). Items are accepted or rejected in the
order in which they were sent.

An item is a sample or a native histogram. An exemplar is part of the sample or histogram of its series that is nearest in
time. It is accepted or rejected with that item; if it breaks a rule itself, it is left out, which is counted as a repair. A
series that has only exemplars (as Prometheus sends them) is one item: a point at its last exemplar's time that holds them. The
point's value is NaN, and flagged as not recorded. The item is rejected if all its exemplars break a rule.

Metadata alone is also an item: a point at the time of receipt, flagged as not recorded. It is a summary's point for every type,
since remote write has no other summaries: among gauges it would show in their charts.

Invariants:
1. The bytes that are made of a body are bounded, since labels that the body has once are repeated in every point
   (test_what_becomes_of_a_request_is_bounded).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.batch_builder import METRIC_BYTES_MAX, BatchBuilder
from adapters.codec.wire import Cursor, NonCanonical, field_size, put_bytes, put_varint
from adapters.errors import RECORD_TOO_LARGE, TIMESTAMP_IN_FUTURE, TIMESTAMP_TOO_OLD
from adapters.prometheus.exemplars import MILLISECONDS_MAX, NANOSECONDS_A_MILLISECOND, Exemplar, assign_exemplars
from adapters.prometheus.histogram import FLAG_NO_RECORDED_VALUE, STALE_BITS, NativeHistogram
from adapters.prometheus.metadata import Description
from adapters.prometheus.price import MADE_SHIFT, too_many_made_bytes
from adapters.prometheus.series import Series
from adapters.record import METRICS, TYPE_METRIC, Adapted, Header
from adapters.repairs import EXEMPLAR_DROPPED, HISTOGRAM_COUNT_DIFFERS
from adapters.rules import Rules

# Half of the limit of row bytes is the limit of all points, and of the texts and objects that are made for them. Usual bodies
# become as many bytes as they have, or a few times as many.
_GROUP_BYTES: Final = 1_000
_METRIC_BYTES: Final = 200
# An exemplar's objects take 500 bytes, and all are freed at once. No sender has as many exemplars in a request as this allows.
_EXEMPLAR_BYTES: Final = 2_000
_MOMENT_BYTES: Final = 200  # an item's time, if the series has exemplars

_NAN_BITS: Final = 0x7FF8000000000001  # Prometheus's ordinary NaN, which is not a stale marker
# Fields of Metric.
GAUGE: Final = 0x2A
SUMMARY: Final = 0x5A
# A field of a TimeSeries, in both versions.
SAMPLES: Final = 0x12
NO_EXEMPLARS: Final[list[Exemplar]] = []


class _SeriesGroup:
    """A `_SeriesGroup` holds the metrics of one job and instance, which become one record."""

    def __init__(self, service_id: bytes, resource: bytes, builder: BatchBuilder, description: Description) -> None:
        """Take the group's limits from `builder`, in which it is open."""
        self.service_id: Final = service_id
        self.resource: Final = resource
        self.capacity: i64 = builder.capacity()
        self.item_capacity: i64 = builder.item_capacity()
        self.row_bytes: i64 = builder.group_row_bytes
        # The encoded metrics, each in three pieces: the bytes before its points, the points, and the bytes behind them. And
        # the number of items in each.
        self.heads: Final[list[bytes]] = []
        self.bodies: Final[list[bytes]] = []
        self.tails: Final[list[bytes]] = []
        self.counts: Final[list[int]] = []
        # The current metric: its own fields and their size, its points, and the bytes behind those.
        self.name: bytes = b""
        self.kind: i64 = 0
        self.description: Description = description
        self.hint: bytes = b""
        self.prefix_bytes: i64 = 0
        self.points = BytesWriter()
        self.points_bytes_max: i64 = 0
        self.points_max: i64 = 0
        self.tail: bytes = b""
        self.count: i64 = 0


class WriteRequestScan:
    """A `WriteRequestScan` converts one request to messages. A version's subclass reads its series, and makes the payloads of
    rejected items."""

    def __init__(
        self,
        body: bytes,
        header: Header,
        rules: Rules,
        message_bytes_max: int,
        *,
        exemplars_tag: i64,
        histograms_tag: i64,
        has_start: bool,
    ) -> None:
        """Prepare for a version with these tags of a TimeSeries. With `has_start`, items have a start timestamp."""
        self.buffer: Final = body
        self.cursor: Final = Cursor(body, rules)
        self.rules: Final = rules
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        self.histogram: Final = NativeHistogram(self.cursor, has_start=has_start)
        self.received_time_unix_nano: i64 = header.received_time_unix_nano
        self.exemplars_tag: i64 = exemplars_tag
        self.histograms_tag: i64 = histograms_tag
        self.sample_field_max: i64 = 3 if has_start else 2
        self.made_bytes: i64 = 0
        self.made_bytes_max: i64 = rules.request_row_bytes_max >> MADE_SHIFT
        self.no_description: Final = Description(0, b"", b"", 0, 0)
        self.groups: Final[dict[bytes, _SeriesGroup]] = {}
        self.group: _SeriesGroup | None = None
        self.head: Final = BytesWriter()
        self.index: i64 = 0
        # The number of accepted items of each kind.
        self.samples: i64 = 0
        self.histograms: i64 = 0
        self.exemplars: i64 = 0
        # The current series: its description, the field of Metric for its samples, the bytes behind them there, and the time
        # since when it counts.
        self.description: Description = self.no_description
        self.kind: i64 = GAUGE
        self.tail: bytes = b""
        self.created_ms: i64 = 0
        # The current item.
        self.value_bits: i64 = 0
        self.time_ms: i64 = 0
        self.start_ms: i64 = 0
        self.time_unix_nano: i64 = 0
        # The message for the rejection of the current item or series, if the rules have none.
        self.message: str = ""

    def run(self) -> Adapted:
        """Convert the request. Raises NonCanonical, RequestRefused."""
        raise NotImplementedError

    def read_exemplar(self, start: i64, end: i64) -> Exemplar:
        """Return the Exemplar at start:end. Moves the cursor. Raises NonCanonical."""
        raise NotImplementedError

    def payload(self, tag: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> bytes:
        """Return the request of one item, or empty if the budget has no room for it. The item is field `tag` of the current
        series, at start:end, and its exemplars; only the exemplars if `tag` is 0; or else only the series' description."""
        raise NotImplementedError

    def count_made_bytes(self, size_bytes: i64) -> None:
        """Count bytes before they are made of the body. Raises RequestRefused if they become too many."""
        self.made_bytes += size_bytes
        if self.made_bytes > self.made_bytes_max:
            raise too_many_made_bytes(len(self.buffer), self.made_bytes_max)

    def take_items(self, series: Series, reason: i64, start: i64, end: i64) -> None:
        """Accept or reject the samples and histograms at start:end, of a series without exemplars. A `reason` rejects all."""
        cursor = self.cursor
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == SAMPLES:
                self.take_sample(series, reason, cursor.start, position, NO_EXEMPLARS)
            elif tag == self.histograms_tag:
                self._take_histogram(series, reason, cursor.start, position, NO_EXEMPLARS)

    def take_with_exemplars(self, series: Series, reason: i64, start: i64, end: i64, items: i64, count: i64) -> None:
        """Accept or reject the items at start:end, of a series that also has `count` exemplars."""
        self.count_made_bytes(_MOMENT_BYTES * items + _EXEMPLAR_BYTES * count)
        cursor = self.cursor
        message = self.message
        exemplars: list[Exemplar] = []
        # The first item of each time, by the time in milliseconds.
        firsts: dict[int, int] = {}
        n = 0
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == self.exemplars_tag:
                self.rules.read(position - cursor.start)
                exemplars.append(self.read_exemplar(cursor.start, position))
            elif tag == SAMPLES:
                self._read_sample(cursor.start, position)
                firsts.setdefault(self.time_ms, n)
                n += 1
            elif tag == self.histograms_tag:
                self.histogram.read(cursor.start, position)
                firsts.setdefault(self.histogram.time_ms, n)
                n += 1
        self.message = message
        if n == 0:
            self._take_only_exemplars(series, reason, exemplars)
            return

        shares = assign_exemplars(exemplars, firsts, self.rules)
        n = 0
        position = start
        while position < end:
            cursor.position = position
            tag = cursor.field(end)
            position = cursor.position
            if tag == SAMPLES or tag == self.histograms_tag:
                share = shares.get(n, NO_EXEMPLARS)
                n += 1
                self.message = message
                if tag == SAMPLES:
                    self.take_sample(series, reason, cursor.start, position, share)
                else:
                    self._take_histogram(series, reason, cursor.start, position, share)

    def _note_exemplars(self, sent: list[Exemplar], taken: list[Exemplar]) -> None:
        """Count the exemplars of an accepted item, and their repairs."""
        self.exemplars += len(taken)
        for exemplar in taken:
            if exemplar.repairs is not None:
                self.rules.count_repairs(exemplar.repairs)
        if len(taken) < len(sent):
            self.rules.repair(EXEMPLAR_DROPPED, len(sent) - len(taken))

    def _take_only_exemplars(self, series: Series, reason: i64, exemplars: list[Exemplar]) -> None:
        taken = _taken_of(exemplars)
        self.time_ms = max([exemplar.time_ms for exemplar in exemplars])
        self.start_ms = 0
        self.value_bits = _NAN_BITS
        if reason == 0:
            reason = self._check_time()
            if not taken:
                reason = exemplars[0].reason
                self.message = exemplars[0].message
        if reason == 0 and not self._put_sample(series, FLAG_NO_RECORDED_VALUE, exemplars):
            reason = RECORD_TOO_LARGE
        if reason:
            self._reject(reason, series, 0, 0, 0, exemplars)

    def take_description(self, series: Series, reason: i64) -> None:
        """Accept or reject a series whose description alone is known."""
        if reason == 0:
            size: i64 = 11 + len(series.attributes)
            group = self._metric(series, SUMMARY, b"", b"", field_size(size))
            if group is not None:
                points = group.points
                points.append(0x0A)
                put_varint(points, size)
                points.append(0x19)
                write_i64_le(points, self.received_time_unix_nano)
                points.write(series.attributes)
                points.append(0x40)
                points.append(FLAG_NO_RECORDED_VALUE)
                return
            reason = RECORD_TOO_LARGE
        self._reject(reason, series, 0, 0, 0, NO_EXEMPLARS)

    def take_sample(self, series: Series, reason: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> None:
        self._read_sample(start, end)
        self.rules.read(end - start)
        if reason == 0:
            reason = self._check_time()
        if reason == 0:
            flags: i64 = 0
            if self.value_bits == STALE_BITS:
                flags = FLAG_NO_RECORDED_VALUE
            if self._put_sample(series, flags, exemplars):
                self.samples += 1
                return
            reason = RECORD_TOO_LARGE
        self._reject(reason, series, SAMPLES, start, end, exemplars)

    def _take_histogram(self, series: Series, reason: i64, start: i64, end: i64, exemplars: list[Exemplar]) -> None:
        histogram = self.histogram
        histogram.read(start, end)
        self.rules.read(end - start)
        self.time_ms = histogram.time_ms
        self.start_ms = histogram.start_ms
        if reason == 0:
            reason = self._check_time()
        if reason == 0:
            reason = histogram.prepare()
            self.message = histogram.message
        if reason == 0 and histogram.point_bytes_min() > self.builder.item_bytes_max:
            reason = RECORD_TOO_LARGE
        if reason == 0:
            taken = _taken_of(exemplars)
            payloads = [exemplar.payload for exemplar in taken]
            point = histogram.point(self.time_unix_nano, self._start_unix_nano(), series.attributes, payloads)
            group = self._metric(series, histogram.metric_tag(), histogram.tail(), histogram.hint(), field_size(len(point)))
            if group is not None:
                put_bytes(group.points, 0x0A, point)
                self.histograms += 1
                if not histogram.adds_up:
                    self.rules.repair(HISTOGRAM_COUNT_DIFFERS)
                self._note_exemplars(exemplars, taken)
                return
            reason = RECORD_TOO_LARGE
        self._reject(reason, series, self.histograms_tag, start, end, exemplars)

    def _read_sample(self, start: i64, end: i64) -> None:
        """Read the sample at start:end into `value_bits`, `time_ms` and `start_ms`."""
        cursor = self.cursor
        if end - start > 10 and self.buffer[start] == 0x09 and self.buffer[start + 9] == 0x10:
            # Nearly every sample has a value and a time, in this order.
            cursor.position = start + 10
            self.time_ms = cursor.varint(end)
            if cursor.position == end:
                self.value_bits = read_i64_le(self.buffer, start + 1)
                self.start_ms = 0
                return
        self.value_bits = 0
        self.time_ms = 0
        self.start_ms = 0
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            self.rules.read(0)
            if tag == 0x09:
                self.value_bits = read_i64_le(self.buffer, cursor.start)
            elif tag == 0x10:
                self.time_ms = cursor.value
            elif tag == 0x18 and self.sample_field_max == 3:
                self.start_ms = cursor.value
            elif tag >> 3 <= self.sample_field_max:
                raise NonCanonical(cursor.start)

    def _start_unix_nano(self) -> i64:
        """Return since when the item counts; 0 if it has no start, or one that the record can't hold."""
        start_ms: i64 = self.start_ms
        if start_ms == 0:
            start_ms = self.created_ms
        # Not a conditional expression, which would make an object of the number when compiled.
        if start_ms <= 0 or start_ms > MILLISECONDS_MAX:
            return 0
        return start_ms * NANOSECONDS_A_MILLISECOND

    def _check_time(self) -> i64:
        """Convert `time_ms` to `time_unix_nano`. Return 0, or the reason why the time is rejected."""
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
        """Reject the current item; `payload` takes the same arguments."""
        self.description.has_item = True
        builder = self.builder
        builder.type = TYPE_METRIC
        builder.index = self.index
        service_id = series.service_id
        if self.rules.check_name(len(service_id)):
            service_id = b""
        builder.reject(reason, self.message, service_id, self.payload(tag, start, end, exemplars))
        self.index += 1

    def _put_sample(self, series: Series, flags: i64, exemplars: list[Exemplar]) -> bool:
        """Add a NumberDataPoint of `value_bits` at `time_unix_nano`. Return False if it does not fit a message."""
        attributes = series.attributes
        start_unix_nano: i64 = self._start_unix_nano()
        size: i64 = 18 + len(attributes)
        if start_unix_nano:
            size += 9
        if flags:
            size += 2
        taken = _taken_of(exemplars)
        for exemplar in taken:
            size += field_size(len(exemplar.payload))
        group = self._metric(series, self.kind, self.tail, b"", field_size(size))
        if group is None:
            return False
        self._note_exemplars(exemplars, taken)
        points = group.points
        points.append(0x0A)
        put_varint(points, size)
        if start_unix_nano:
            points.append(0x11)
            write_i64_le(points, start_unix_nano)
        points.append(0x19)
        write_i64_le(points, self.time_unix_nano)
        points.append(0x21)
        write_i64_le(points, self.value_bits)
        for exemplar in taken:
            put_bytes(points, 0x2A, exemplar.payload)
        points.write(attributes)
        if flags:
            points.append(0x40)
            points.append(int(flags))
        return True

    def _metric(self, series: Series, kind: i64, tail: bytes, hint: bytes, point_bytes: i64) -> _SeriesGroup | None:
        """Return the group whose current metric is this series' and has room for one more point, and count that point.
        Return None if the point does not fit a message, even alone.

        `kind` is the field of Metric for the point, `tail` the bytes behind the points there, and `hint` more fields of Metric.
        """
        self.count_made_bytes(point_bytes)
        description = self.description
        group = self.group
        if group is None or group.resource is not series.resource:
            group = self.groups.get(series.resource)
            if group is None:
                builder = self.builder
                self.count_made_bytes(_GROUP_BYTES)
                builder.open_record(METRICS, TYPE_METRIC, series.service_id, series.resource)
                builder.open_group(b"")
                group = _SeriesGroup(series.service_id, series.resource, builder, description)
                self.groups[series.resource] = group
            self.group = group
        if group.count:
            if (
                group.kind != kind
                or group.count == group.points_max
                or len(group.points) + point_bytes > group.points_bytes_max
                or (group.name is not series.name and group.name != series.name)
                or (group.tail is not tail and group.tail != tail)
                or (group.hint is not hint and group.hint != hint)
                or (group.description is not description and group.description.fields != description.fields)
            ):
                self._close_metric(group)
        if group.count == 0:
            self.count_made_bytes(_METRIC_BYTES + len(series.name) + len(description.fields))
            description.has_item = True
            group.prefix_bytes = field_size(len(series.name)) + len(description.fields) + len(hint)
            group.name = series.name
            group.kind = kind
            group.tail = tail
            group.hint = hint
            group.description = description
            # The tags and lengths of the metric and of its gauge or histogram, and the tail, take up to 16 bytes.
            own_bytes: i64 = group.prefix_bytes + 16
            group.points_bytes_max = min(group.capacity - own_bytes, METRIC_BYTES_MAX)
            group.points_max = self.builder.points_max(group.row_bytes, own_bytes, group.points_bytes_max)
            if point_bytes > group.points_bytes_max and not _fits_by_itself(group, point_bytes):
                return None
        group.count += 1
        self.index += 1
        return group

    def _close_metric(self, group: _SeriesGroup) -> None:
        """Encode the current metric, if there is one."""
        if group.count == 0:
            return
        points = group.points
        head = self.head
        head.truncate(0)
        put_bytes(head, 0x0A, group.name)
        head.write(group.description.fields)
        head.write(group.hint)
        put_varint(head, group.kind)
        put_varint(head, len(points) + len(group.tail))
        group.heads.append(head.getvalue())
        group.bodies.append(points.getvalue())
        group.tails.append(group.tail)
        group.counts.append(group.count)
        points.truncate(0)
        group.count = 0

    def pack(self) -> Adapted:
        """Pack the records, after all items were accepted or rejected."""
        builder = self.builder
        for group in self.groups.values():
            self._close_metric(group)
            builder.open_record(METRICS, TYPE_METRIC, group.service_id, group.resource)
            builder.open_group(b"")
            for n in range(len(group.counts)):
                head = group.heads[n]
                body = group.bodies[n]
                tail = group.tails[n]
                own_bytes: i64 = len(head) + len(tail)
                taken = builder.begin(own_bytes + len(body), group.counts[n], own_bytes)
                assert taken  # `_metric` has checked that it fits
                builder.message.write(head)
                builder.message.write(body)
                builder.message.write(tail)
                self.rules.read(len(body))
        adapted = builder.finish()
        adapted.samples = self.samples
        adapted.histograms = self.histograms
        adapted.exemplars = self.exemplars
        return adapted


def _taken_of(exemplars: list[Exemplar]) -> list[Exemplar]:
    """Return the exemplars that break no rule."""
    for exemplar in exemplars:
        if exemplar.reason:
            return [each for each in exemplars if each.reason == 0]
    return exemplars


def _fits_by_itself(group: _SeriesGroup, point_bytes: i64) -> bool:
    """Return whether a metric of one point fits a message."""
    return field_size(group.prefix_bytes + field_size(point_bytes + len(group.tail))) <= group.item_capacity
