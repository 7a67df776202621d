"""OTLP metrics: an ExportMetricsServiceRequest becomes records of metrics, each with its points that may pass.

The law: a metric whose points are all clean is one slice of the body; a bad point is cut out and its neighbours stay.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from adapters.errors import RECORD_TOO_LARGE, UNSPECIFIED_TEMPORALITY
from adapters.otlp.attributes import CLEAN, REWRITE
from adapters.otlp.envelope import Envelope
from adapters.otlp.messages import METRIC, Message
from adapters.plain import adapt_plainly
from adapters.record import METRICS, TYPE_METRIC, Adapted, Header, Rules
from adapters.wire import NotPlain, field_size, put_bytes, put_varint

_POINT: Final = 0x0A  # `data_points` of every kind of metric
_DELTA: Final = 1
_CUMULATIVE: Final = 2
_FRAMING_BYTES_MAX: Final = 12  # tag and length of a metric's data and of a point


class _Refused:
    """A point that may not pass: which one of its metric's, where it is, and why."""

    def __init__(self, point: i64, start: i64, end: i64, reason: i64) -> None:
        self.point: i64 = point
        self.start: i64 = start
        self.end: i64 = end
        self.reason: i64 = reason


class MetricsEnvelope(Envelope):
    """While a metric is taken: what it is, where its data is, and what stands before and behind that, in normal form."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        super().__init__(body, header, rules, message_bytes_max, METRICS, TYPE_METRIC)
        self.start: i64 = 0
        self.end: i64 = 0
        self.data_tag: i64 = 0
        self.data_at: i64 = 0  # where the field begins whose payload is data_start:data_end
        self.data_start: i64 = 0
        self.data_end: i64 = 0
        self.point: Message = METRIC
        self.metric_reason: i64 = 0  # why no point of this metric can be taken
        self.before: bytes = b""
        self.behind: bytes = b""
        self.accepted: i64 = 0
        self.refused: Final[list[_Refused]] = []
        # Its data without the points, as sent, where it was asked for.
        self.data_head: bytes | None = None

    def take(self, start: i64, end: i64) -> None:
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(METRIC, start, end)
        if scanner.data_tag == 0:
            return  # a name, but nothing measured
        self.start = start
        self.end = end
        self.data_tag = scanner.data_tag
        self.data_at = scanner.data_at
        self.data_start = scanner.data_start
        self.data_end = scanner.data_end
        self.before = self._normal_fields(state, start, self.data_at)
        self.behind = self._normal_fields(state, self.data_end, end)
        data = METRIC.children[self.data_tag]
        self.point = data.children[_POINT]
        scanner.scan(data, self.data_start, self.data_end)
        count: i64 = scanner.items
        self.metric_reason = self.group_reason
        if self.metric_reason == 0 and state > REWRITE:
            self.metric_reason = state
        if self.metric_reason == 0 and data.has_temporality and scanner.temporality not in (_DELTA, _CUMULATIVE):
            self.metric_reason = UNSPECIFIED_TEMPORALITY

        builder = self.builder
        first: i64 = builder.index
        edited = self._edit_points()
        if edited is not None:
            metric = self._metric(edited)
        elif state == CLEAN:
            metric = self.buffer[start:end]
        else:
            metric = self._metric(self.buffer[self.data_start : self.data_end])
        if self.accepted and not builder.add(metric, self.accepted):
            self._take_in_pieces()
        if self.refused:
            self.data_head = None
            for refused in self.refused:
                builder.index = first + refused.point
                builder.reject(refused.reason, "", self.service_id, self._payload(refused))
        builder.index = first + count

    def _payload(self, refused: _Refused) -> bytes:
        """The request of this point alone, if there is room for it."""
        builder = self.builder
        if not builder.keeps(refused.end - refused.start):
            return b""
        head = self.data_head
        if head is None:
            head = self.data_head = self._data_without_points()
        data_bytes: i64 = len(head) + field_size(refused.end - refused.start)
        fields_bytes: i64 = self.data_at - self.start + self.end - self.data_end
        alone = self.standing()
        if not builder.keeps(alone.size(fields_bytes + field_size(data_bytes))):
            return b""
        buffer = self.buffer
        metric = BytesWriter()
        metric.write(buffer[self.start : self.data_at])
        put_varint(metric, self.data_tag)
        put_varint(metric, data_bytes)
        metric.write(head)
        put_bytes(metric, _POINT, buffer[refused.start : refused.end])
        metric.write(buffer[self.data_end : self.end])
        return alone.request(metric.getvalue())

    def _normal_fields(self, state: i64, start: i64, end: i64) -> bytes:
        """The metric's own fields at start:end, its metadata in normal form."""
        scanner = self.scanner
        if state != REWRITE:
            return self.buffer[start:end]
        if scanner.duplicate_keys and end == scanner.data_at and scanner.has_attribute(METRIC, start, end):
            raise NotPlain(start)  # metadata on both sides of the data, maybe: the plain form has all of it behind
        return scanner.normal(METRIC, start, end)

    def _metric(self, data: bytes) -> bytes:
        writer = BytesWriter()
        writer.write(self.before)
        put_bytes(writer, self.data_tag, data)
        writer.write(self.behind)
        return writer.getvalue()

    def _point_state(self, start: i64, end: i64) -> i64:
        """CLEAN, REWRITE or a reason."""
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(self.point, start, end)
        if self.metric_reason:
            return self.metric_reason
        reason: i64 = self.rules.check_time(scanner.time)
        return reason if reason and state <= REWRITE else state

    def _edit_points(self) -> bytes | None:
        """The metric's data without the points that may not pass, and the others in normal form; None: as it is."""
        cursor = self.cursor
        buffer = self.buffer
        end: i64 = self.data_end
        writer: BytesWriter | None = None
        keep: i64 = self.data_start  # from here on not written yet
        position: i64 = keep
        point: i64 = 0
        accepted: i64 = 0
        self.refused.clear()
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag != _POINT:
                continue
            first: i64 = cursor.start
            state: i64 = self._point_state(first, position)
            if state != CLEAN:
                if writer is None:
                    writer = BytesWriter()
                writer.write(buffer[keep:at])
                keep = position
                if state == REWRITE:
                    put_bytes(writer, _POINT, self.scanner.normal(self.point, first, position))
                else:
                    self.refused.append(_Refused(point, first, position, state))
            if state <= REWRITE:
                accepted += 1
            point += 1
        self.accepted = accepted
        if writer is None:
            return None
        writer.write(buffer[keep:end])
        return writer.getvalue()

    def _take_in_pieces(self) -> None:
        """The same points, as several metrics that each fit a message."""
        cursor = self.cursor
        buffer = self.buffer
        builder = self.builder
        end: i64 = self.data_end
        envelope = self._data_without_points()
        room: i64 = builder.capacity() - len(self.before) - len(self.behind) - len(envelope) - 2 * _FRAMING_BYTES_MAX
        piece = BytesWriter()
        piece.write(envelope)
        pieces: i64 = 0
        point: i64 = 0
        self.refused.clear()
        position: i64 = self.data_start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag != _POINT:
                continue
            first: i64 = cursor.start
            state: i64 = self._point_state(first, position)
            if state > REWRITE:
                self.refused.append(_Refused(point, first, position, state))
            else:
                normal = buffer[first:position] if state == CLEAN else self.scanner.normal(self.point, first, position)
                if len(piece) - len(envelope) + len(normal) + _FRAMING_BYTES_MAX > room:
                    if pieces:
                        builder.add(self._metric(piece.getvalue()), pieces)
                    piece.truncate(len(envelope))
                    pieces = 0
                put_bytes(piece, _POINT, normal)
                pieces += 1
                # One that leaves no room by this estimate stands alone, and the builder says whether it fits.
                if len(normal) + _FRAMING_BYTES_MAX > room:
                    if not builder.add(self._metric(piece.getvalue()), 1):
                        self.refused.append(_Refused(point, first, position, RECORD_TOO_LARGE))
                    piece.truncate(len(envelope))
                    pieces = 0
            point += 1
        if pieces:
            builder.add(self._metric(piece.getvalue()), pieces)

    def _data_without_points(self) -> bytes:
        """Temporality and the like."""
        cursor = self.cursor
        writer = BytesWriter()
        position: i64 = self.data_start
        while position < self.data_end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(self.data_end)
            position = cursor.position
            if tag != _POINT:
                writer.write(self.buffer[at:position])
        return writer.getvalue()


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Records of `body`, a serialized ExportMetricsServiceRequest. Raises Malformed."""
    return adapt_plainly(
        lambda plain: MetricsEnvelope(plain, header, rules, message_bytes_max).run(), body, ExportMetricsServiceRequest
    )
