"""OTLP metrics: convert an ExportMetricsServiceRequest to records of metrics, each with its accepted points.

A metric whose points are all clean is one slice of the body (test_clean_metrics_are_one_slice_of_the_body).
A bad point is cut out and its neighbours stay.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from adapters.canonical import adapt_or_canonicalize
from adapters.codec.text import write_slices
from adapters.codec.wire import NonCanonical, field_size, length_of, put_bytes, put_varint
from adapters.errors import RECORD_TOO_LARGE, UNSPECIFIED_TEMPORALITY
from adapters.otlp.attributes import CLEAN, REWRITE
from adapters.otlp.export_request import Envelope
from adapters.otlp.field_tables import METRIC, UNFIT_TAG, MessageTable
from adapters.record import METRICS, REJECTIONS_KEPT_MAX, TYPE_METRIC, Adapted, Header
from adapters.repairs import TEMPORALITY_ASSUMED, VALUE_MISSING
from adapters.rules import Rules

_POINT: Final = 0x0A  # `data_points` of every kind of metric
_DELTA: Final = 1
_CUMULATIVE: Final = 2
# `aggregation_temporality`, which sums and histograms have under the same number.
_IS_CUMULATIVE: Final = b"\x10\x02"
_FRAMING_BYTES_MAX: Final = 12  # tag and length of a metric's data and of a point


class _Refused:
    """A `_Refused` is a rejected point: its number in the metric, its place, and the reason."""

    def __init__(self, point: i64, start: i64, end: i64, reason: i64, fault: str) -> None:
        self.fault: Final = fault
        self.point: i64 = point
        self.start: i64 = start
        self.end: i64 = end
        self.reason: i64 = reason


class MetricsEnvelope(Envelope):
    """A `MetricsEnvelope` adapts metrics. Its fields hold the current metric: its data, and its own fields in normal form."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        super().__init__(body, header, rules, message_bytes_max, METRICS, TYPE_METRIC)
        self.start: i64 = 0
        self.end: i64 = 0
        self.data_tag: i64 = 0
        self.metric_state: i64 = CLEAN  # the state of the metric's own fields
        self.data_at: i64 = 0  # the beginning of the field whose payload is data_start:data_end
        self.data_length_at: i64 = 0
        self.data_start: i64 = 0
        self.data_end: i64 = 0
        self.point: MessageTable = METRIC
        self.metric_reason: i64 = 0  # why no point of this metric can be accepted
        self.lacks_temporality: bool = False  # if so, it is stored as cumulative
        self.before: bytes = b""
        self.behind: bytes = b""
        self.accepted: i64 = 0
        self.points_repairs: dict[int, int] | None = None  # the repairs of the accepted points
        self.points_bytes: i64 = 0  # the accepted points in normal form, including tags and lengths
        # The first rejected points, and the number of the others for each reason.
        self.refused: Final[list[_Refused]] = []
        self.refused_more: Final[dict[int, int]] = {}
        # The metric's data without the points, as sent, if it was needed.
        self.data_head: bytes | None = None

    def take(self, start: i64, end: i64) -> None:
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(METRIC, start, end)
        if state <= REWRITE and scanner.patches.is_full:
            state = RECORD_TOO_LARGE
        metric_repairs = self.rules.take_pending()
        if scanner.data_tag == 0:
            return  # a name, but nothing measured
        self.start = start
        self.end = end
        self.data_tag = scanner.data_tag
        self.data_at = scanner.data_at
        self.data_length_at = scanner.data_length_at
        self.data_start = scanner.data_start
        self.data_end = scanner.data_end
        self.metric_state = state
        if state != CLEAN:
            self.before = self._normal_fields(state, start, self.data_at)
            self.behind = self._normal_fields(state, self.data_end, end)
        data = METRIC.children[self.data_tag]
        self.point = data.children[_POINT]
        count: i64 = self.skip(_POINT, self.data_start, self.data_end)  # they come first, and are read later
        if self.cursor.position < self.data_end:
            scanner.scan(data, self.cursor.position, self.data_end)
            count += scanner.items
        self.metric_reason = self.group_reason
        if self.metric_reason == 0 and state > REWRITE:
            self.metric_reason = state
        self.lacks_temporality = False
        if self.metric_reason == 0 and data.has_temporality and scanner.temporality not in (_DELTA, _CUMULATIVE):
            if scanner.temporality == 0 and self.rules.assumes_cumulative:
                self.lacks_temporality = True
            else:
                self.metric_reason = UNSPECIFIED_TEMPORALITY

        builder = self.builder
        first: i64 = builder.index
        self._edit_points()
        if self.accepted and not (self._take_patched() if state == CLEAN else self._take_rebuilt()):
            self._take_in_pieces()
        if self.accepted:
            if self.lacks_temporality:
                self.rules.repair(TEMPORALITY_ASSUMED)
            self.rules.count_repairs(metric_repairs)
            self.count_repairs(self.points_repairs)
        if self.refused:
            self.data_head = None
            for refused in self.refused:
                builder.index = first + refused.point
                builder.reject(refused.reason, refused.fault, self.service_id, self._payload(refused))
            for reason, points in self.refused_more.items():
                builder.reject_more(reason, points)
        builder.index = first + count

    def _refuse(self, point: i64, start: i64, end: i64, reason: i64) -> None:
        self.rules.pending = None
        if len(self.refused) < REJECTIONS_KEPT_MAX:
            self.refused.append(_Refused(point, start, end, reason, self.scanner.fault_of(reason)))
        else:
            self.refused_more[reason] = self.refused_more.get(reason, 0) + 1

    def _forget_points(self) -> None:
        if self.refused:
            self.refused.clear()
            self.refused_more.clear()
        self.accepted = 0
        self.points_repairs = None

    def _accept(self) -> None:
        """Count the point read last as accepted, and its repairs."""
        self.accepted += 1
        repairs = self.rules.take_pending()
        if repairs is None:
            return
        counted = self.points_repairs
        if counted is None:
            self.points_repairs = repairs
            return
        for kind, count in repairs.items():
            counted[kind] = counted.get(kind, 0) + count

    def _payload(self, refused: _Refused) -> bytes:
        """Return the request of this point alone, or empty if the budget has no room for it."""
        builder = self.builder
        if not builder.keeps(refused.end - refused.start):
            return b""
        head = self.data_head
        if head is None:
            head = self.data_head = self._data_without_points()
        data_bytes: i64 = len(head) + field_size(refused.end - refused.start)
        fields_bytes: i64 = self.data_at - self.start + self.end - self.data_end
        single = self.single_item_export()
        if not builder.keeps(single.size(fields_bytes + field_size(data_bytes))):
            return b""
        buffer = self.buffer
        rules = self.rules
        metric = BytesWriter()
        write_slices(metric, buffer, self.start, self.data_at, rules)
        rules.read(self.data_at - self.start)
        put_varint(metric, self.data_tag)
        put_varint(metric, data_bytes)
        metric.write(head)
        point = buffer[refused.start : refused.end]
        rules.read(len(point))
        put_bytes(metric, _POINT, point)
        rules.read(len(point))
        write_slices(metric, buffer, self.data_end, self.end, rules)
        rules.read(self.end - self.data_end)
        return single.request(metric.getvalue())

    def _normal_fields(self, state: i64, start: i64, end: i64) -> bytes:
        """Return the metric's own fields at start:end, with its metadata in normal form."""
        scanner = self.scanner
        if state != REWRITE:
            return self.buffer[start:end]
        if scanner.duplicate_keys and end == scanner.data_at and scanner.has_attribute(METRIC, start, end):
            raise NonCanonical(start)  # metadata may be on both sides of the data: the plain form has all of it behind
        return scanner.normal(METRIC, start, end)

    def _metric(self, data: bytes) -> bytes:
        writer = BytesWriter()
        writer.write(self.before)
        put_bytes(writer, self.data_tag, data)
        writer.write(self.behind)
        return writer.getvalue()

    def _point_state(self, start: i64, end: i64) -> i64:
        """Scan and check a point. Return CLEAN, REWRITE or a reason."""
        scanner = self.scanner
        scanner.forget_notes()
        if self.point.has_buckets:
            scanner.buckets.clear()
        state: i64 = scanner.scan(self.point, start, end)
        if self.metric_reason:
            return self.metric_reason
        if state > REWRITE:
            return state
        reason: i64 = self.rules.check_time(scanner.time)
        if reason == 0 and self.point.has_buckets:
            reason = scanner.histogram_reason()
        if reason:
            return reason
        if self.point.value_bits and scanner.seen & self.point.value_bits == 0:
            self.rules.repair_pending(VALUE_MISSING)
        return state

    def _edit_points(self) -> None:
        """Patch the metric's data, so that the rejected points are left out, and the others are in normal form."""
        cursor = self.cursor
        rules = self.rules
        scanner = self.scanner
        patches = scanner.patches
        patches.clear()
        end: i64 = self.data_end
        position: i64 = self.data_start
        point: i64 = 0
        other_bytes: i64 = 0
        self._forget_points()
        data: i64 = patches.open()
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag != _POINT:
                other_bytes += position - at
                continue
            first: i64 = cursor.start
            length_at: i64 = cursor.length_at
            delta: i64 = patches.delta
            place: i64 = patches.open()
            state: i64 = self._point_state(first, position)
            rules.read(position - at)
            if state > REWRITE:
                patches.cut(place, delta, at, position, b"")
                self._refuse(point, first, position, state)
            else:
                if scanner.duplicate_keys:
                    normal = scanner.normal(self.point, first, position)
                    patches.cut(place, delta, length_at, position, length_of(len(normal)) + normal)
                else:
                    patches.close(place, delta, length_at, first, position)
                self._accept()
            point += 1
        self.points_bytes = end - self.data_start - other_bytes + patches.delta
        if self.lacks_temporality:
            patches.replace(end, end, _IS_CUMULATIVE)
        patches.close(data, 0, self.data_length_at, self.data_start, end)

    def _take_patched(self) -> bool:
        """Add the whole metric, whose own fields are already normal. Return False if it does not fit a message."""
        patches = self.scanner.patches
        builder = self.builder
        if patches.is_full:
            return False
        size: i64 = self.end - self.start + patches.delta
        if not builder.begin(size, self.accepted, size - self.points_bytes):
            return False
        if patches.count == 0:
            builder.message.write(self.buffer[self.start : self.end])
        else:
            patches.write(builder.message, self.start, self.end)
        return True

    def _take_rebuilt(self) -> bool:
        """Add the whole metric, made of its own fields in normal form and its data. Return False if it does not fit."""
        patches = self.scanner.patches
        # Data that is larger than any item may be is not copied.
        if patches.is_full or self.data_end - self.data_start + patches.delta > self.builder.item_capacity():
            return False
        data = BytesWriter()
        patches.write(data, self.data_start, self.data_end)
        metric = self._metric(data.getvalue())
        return self.builder.add(metric, self.accepted, len(metric) - self.points_bytes)

    def _take_in_pieces(self) -> None:
        """Add the same points as several metrics that each fit a message."""
        cursor = self.cursor
        buffer = self.buffer
        builder = self.builder
        end: i64 = self.data_end
        if self.metric_state == CLEAN:
            self.before = buffer[self.start : self.data_at]
            self.behind = buffer[end : self.end]
        envelope = self._data_without_points()
        if self.lacks_temporality:
            envelope += _IS_CUMULATIVE
        own_bytes: i64 = len(self.before) + len(self.behind) + len(envelope) + 2 * _FRAMING_BYTES_MAX
        room: i64 = builder.capacity() - own_bytes
        pieces_max: i64 = builder.points_max(builder.group_row_bytes, own_bytes, min(room, self.points_bytes))
        piece = BytesWriter()
        piece.write(envelope)
        pieces: i64 = 0
        point: i64 = 0
        self._forget_points()
        position: i64 = self.data_start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag != _POINT:
                continue
            first: i64 = cursor.start
            self.scanner.patches.clear()
            state: i64 = self._point_state(first, position)
            self.rules.read(position - first)
            if state <= REWRITE and self._is_larger_than_any(position - first):
                state = RECORD_TOO_LARGE
            if state > REWRITE:
                self._refuse(point, first, position, state)
            else:
                normal = buffer[first:position] if state == CLEAN else self.scanner.normal(self.point, first, position)
                if pieces == pieces_max or len(piece) - len(envelope) + len(normal) + _FRAMING_BYTES_MAX > room:
                    taken = self._add_piece(piece, len(envelope), pieces)
                    assert taken
                    pieces = 0
                put_bytes(piece, _POINT, normal)
                pieces += 1
                # A point that exceeds the room by this estimate is alone, and the builder decides whether it fits.
                is_single = len(normal) + _FRAMING_BYTES_MAX > room
                if is_single and not self._add_piece(piece, len(envelope), 1):
                    self._refuse(point, first, position, RECORD_TOO_LARGE)
                else:
                    self._accept()
                if is_single:
                    pieces = 0
            point += 1
        taken = self._add_piece(piece, len(envelope), pieces)
        assert taken

    def _is_larger_than_any(self, size_bytes: i64) -> bool:
        """Return whether the point scanned last, sent as `size_bytes`, is larger than any item may be, without copying it."""
        patches = self.scanner.patches
        if patches.is_full:
            return True
        if self.scanner.duplicate_keys:
            return False
        return size_bytes + patches.delta > self.builder.item_capacity()

    def _add_piece(self, piece: BytesWriter, head_bytes: i64, points: i64) -> bool:
        """Add a metric of the points that are in `piece` behind `head_bytes`, and remove them from it. Return False if it does
        not fit a message, which is only possible for a single point."""
        if points == 0:
            return True
        metric = self._metric(piece.getvalue())
        points_bytes: i64 = len(piece) - head_bytes
        piece.truncate(head_bytes)
        return self.builder.add(metric, points, len(metric) - points_bytes)

    def _data_without_points(self) -> bytes:
        """Return the fields of the metric's data except its points: temporality and similar fields."""
        cursor = self.cursor
        writer = BytesWriter()
        position: i64 = self.data_start
        while position < self.data_end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(self.data_end)
            position = cursor.position
            if tag != _POINT:
                write_slices(writer, self.buffer, at, position, self.rules)
        return writer.getvalue()


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt `body`, a serialized ExportMetricsServiceRequest. Raises Malformed, RequestRefused."""
    return adapt_or_canonicalize(
        lambda plain: MetricsEnvelope(plain, header, rules, message_bytes_max).run(),
        body,
        ExportMetricsServiceRequest,
        rules,
        UNFIT_TAG,
    )
