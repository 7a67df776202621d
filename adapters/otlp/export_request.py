"""Adapt the common part of the three signals' requests: resources, scopes in them, and items in those.

A rejected item's payload is a serialized request of the same signal that holds only this item, under its resource and scope
with their schema URLs. A metric's payload also has the metric's other fields. All of it is as it was sent: in its plain form if
the body was unusual, as protobuf if it was JSON.

Invariants:
1. Items are visited in the order in which they were sent (test_any_request_is_adapted_as_the_twin_does).
2. A body that is unusual is passed to protobuf's parser once. A body that the parser refuses is malformed
   (test_damaged_bytes_get_protobufs_own_verdict). Any other is rewritten plainly, and visited in that form
   (test_an_oddly_written_request_is_adapted_as_the_twin_does).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.batch_builder import BatchBuilder
from adapters.codec.text import shortened_name
from adapters.codec.wire import Cursor, NonCanonical, is_utf8, put_bytes
from adapters.errors import RECORD_TOO_LARGE
from adapters.otlp.any_value import text_of
from adapters.otlp.attributes import CLEAN, REWRITE
from adapters.otlp.field_tables import (
    LOG_RECORD,
    METRIC,
    RESOURCE,
    RESOURCE_ENVELOPE,
    SCOPE,
    SCOPE_ENVELOPE,
    SPAN,
    MessageTable,
)
from adapters.otlp.patches import PATCHES_MAX
from adapters.otlp.row_price import UNPRICED_BYTES_MAX, check_rows
from adapters.otlp.scan import Scanner
from adapters.otlp.single_item import SingleItemExport
from adapters.price import check_elements, shape_of
from adapters.record import LOGS, METRICS, TRACES, UNKNOWN_SERVICE, Adapted, Header
from adapters.repairs import NAME_TRUNCATED
from adapters.rules import Rules

SHAPES: Final = {
    METRICS: shape_of(ExportMetricsServiceRequest),
    LOGS: shape_of(ExportLogsServiceRequest),
    TRACES: shape_of(ExportTraceServiceRequest),
}
_ITEMS: Final = {METRICS: METRIC, LOGS: LOG_RECORD, TRACES: SPAN}
_SERVICE_NAME: Final = b"service.name"
# Fields of an entry, as sent and as kept (record_tags.py): its resource or scope, its scopes or items, and its schema URL.
_BODY: Final = 0x0A
_CHILD: Final = 0x12
_SCHEMA_URL: Final = 0x1A
# The most bytes of scopes or items that are skipped between two rests, and the bytes that each counts as read.
_SKIPPED_BYTES: Final = 64 << 10
_SKIP_WORK_BYTES: Final = 16


class Envelope:
    """An `Envelope` walks through one request. A signal's adapter overrides `take`, which gets each item (or each metric)."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int, signal: int, type_: int) -> None:
        self.buffer: Final = body
        self.cursor: Final = Cursor(body)
        self.rules: Final = rules
        self.scanner: Final = Scanner(self.cursor, rules)
        # On the wire, a value takes at most four times the bytes of its JSON.
        self.scanner.body_bytes_max = max(4 * message_bytes_max, rules.item_bytes_max)
        self.scanner.patches.patches_max = max(PATCHES_MAX, message_bytes_max >> 1)
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        self.signal: i64 = signal
        self.type: i64 = type_
        self.group_reason: i64 = 0  # why no item of this resource or scope can be accepted
        # The repairs of the resource and the scope, which count if an item of theirs is stored.
        self.resource_repairs: dict[int, int] | None = None
        self.scope_repairs: dict[int, int] | None = None
        self.service_id: bytes = UNKNOWN_SERVICE
        # The current entries, and the object that makes requests of their items, created when the first is to be kept.
        self.resource_start: i64 = 0
        self.resource_end: i64 = 0
        self.scope_start: i64 = 0
        self.scope_end: i64 = 0
        self.single_item: SingleItemExport | None = None

    def take(self, start: i64, end: i64) -> None:
        """Accept or reject one item (or metric) at start:end."""
        raise NotImplementedError

    def settle(self, message: MessageTable, state: i64, reason: i64, start: i64, end: i64) -> None:
        """Reject the item scanned last if it has a reason. Or else add it: as sent if its state is CLEAN, or in normal form."""
        if reason:
            self._reject(reason, start, end)
            return
        scanner = self.scanner
        builder = self.builder
        if scanner.patches.is_full:
            taken = False
        elif state == CLEAN:
            taken = builder.begin(end - start, 1, 0)
            if taken:
                builder.message.write(self.buffer[start:end])
        elif scanner.duplicate_keys:
            taken = builder.add(scanner.normal(message, start, end), 1, 0)
        else:
            taken = builder.begin(end - start + scanner.patches.delta, 1, 0)
            if taken:
                scanner.patches.write(builder.message, start, end)
        if not taken:
            self._reject(RECORD_TOO_LARGE, start, end)
            return
        self.count_repairs(self.rules.take_pending())

    def count_repairs(self, repairs: dict[int, int] | None) -> None:
        """Count the repairs of an item that is stored, and of the resource and scope that are stored with it."""
        rules = self.rules
        if repairs is not None:
            rules.count_repairs(repairs)
        if self.resource_repairs is not None:
            rules.count_repairs(self.resource_repairs)
            self.resource_repairs = None
        if self.scope_repairs is not None:
            rules.count_repairs(self.scope_repairs)
            self.scope_repairs = None

    def _reject(self, reason: i64, start: i64, end: i64) -> None:
        """Reject the log record or span at start:end."""
        self.rules.pending = None
        builder = self.builder
        payload = b""
        if builder.keeps(end - start):
            single = self.single_item_export()
            if builder.keeps(single.size(end - start)):
                payload = single.request(self.buffer[start:end])
        builder.reject(reason, self.scanner.fault_of(reason), self.service_id, payload)

    def single_item_export(self) -> SingleItemExport:
        """Return the object that makes requests of single items, set to the current scope."""
        single = self.single_item
        if single is None:
            single = self.single_item = SingleItemExport(self.buffer, self.rules)
        single.set_scope(self.resource_start, self.resource_end, self.scope_start, self.scope_end)
        return single

    def run(self) -> Adapted:
        """Adapt the request. Raises NonCanonical, and RequestRefused if the request exceeds a limit."""
        buffer = self.buffer
        check_elements(buffer, SHAPES[self.signal], self.rules.request_elements_max, self.rules)
        rules = self.rules
        rules.rest()
        if len(buffer) > UNPRICED_BYTES_MAX or rules.plan_row_bytes_max < rules.request_row_bytes_max:
            check_rows(buffer, rules, _ITEMS[int(self.signal)])
        cursor = self.cursor
        end: i64 = len(buffer)
        position: i64 = 0
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == 0x0A:
                self._resource(cursor.start, position)
            elif tag >> 3 == 1:
                raise NonCanonical(cursor.start)
            rules.read(0)
        return self.builder.finish()

    def _resource(self, start: i64, end: i64) -> None:
        """Adapt a ResourceMetrics, ResourceLogs or ResourceSpans."""
        self.resource_start = start
        self.resource_end = end
        head = BytesWriter()
        self.service_id = UNKNOWN_SERVICE
        reason: i64 = self._head(head, RESOURCE_ENVELOPE, RESOURCE, start, end)
        named: i64 = self.rules.check_name(len(self.service_id))
        if named and self.rules.cuts_names:
            self.service_id = shortened_name(self.service_id, self.rules.name_bytes_max, self.rules)
            self.rules.repair_pending(NAME_TRUNCATED)
        elif named:
            self.service_id = b""
            if reason == 0:
                reason = named
        self.resource_repairs = self.rules.take_pending()
        self.rules.read(len(head))
        self.builder.open_record(self.signal, self.type, self.service_id, head.getvalue())
        cursor = self.cursor
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _CHILD:
                self._scope(reason, cursor.start, position)

    def _scope(self, reason: i64, start: i64, end: i64) -> None:
        """Adapt a ScopeMetrics, ScopeLogs or ScopeSpans."""
        self.scope_start = start
        self.scope_end = end
        head = BytesWriter()
        found: i64 = self._head(head, SCOPE_ENVELOPE, SCOPE, start, end)
        self.group_reason = reason or found
        rules = self.rules
        self.scope_repairs = rules.take_pending()
        rules.read(len(head))
        self.builder.open_group(head.getvalue())
        cursor = self.cursor
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag == _CHILD:
                self.take(cursor.start, position)
                rules.read(position - at)

    def _head(self, head: BytesWriter, envelope: MessageTable, message: MessageTable, start: i64, end: i64) -> i64:
        """Write an envelope's resource or scope, in normal form, and its schema URL. Return 0 or a reason to reject its items.

        A field that is larger than any item may be is refused before it is copied.
        """
        cursor = self.cursor
        seen: i64 = 0
        reason: i64 = 0
        position: i64 = start
        while position < end:
            if self.skip(_CHILD, position, end):
                position = cursor.position
                continue
            tag: i64 = cursor.field(end)
            position = cursor.position
            first: i64 = cursor.start
            if tag == _BODY:
                if seen & 1:
                    raise NonCanonical(first)
                seen |= 1
                found: i64 = self._normal(head, message, first, position)
                if found:
                    reason = found
            elif tag == _SCHEMA_URL:
                if seen & 2 or not is_utf8(self.buffer, first, position, self.rules):
                    raise NonCanonical(first)
                seen |= 2
                if position - first <= self.builder.item_bytes_max:
                    put_bytes(head, _SCHEMA_URL, self.buffer[first:position])
                elif reason == 0:
                    reason = RECORD_TOO_LARGE
            elif tag != _CHILD and tag < 256 and envelope.actions[tag] == 0:
                raise NonCanonical(first)
            self.rules.read(0)
        return reason

    def skip(self, tag: i64, start: i64, end: i64) -> i64:
        """Move the cursor from `start` past the fields of that tag that are short and plain. Return how many there were."""
        cursor = self.cursor
        cursor.position = start
        fields: i64 = 0
        while True:
            more: i64 = cursor.skip_fields(tag, min(end, cursor.position + _SKIPPED_BYTES))
            if more == 0:
                return fields
            fields += more
            self.rules.read(more * _SKIP_WORK_BYTES)

    def _normal(self, head: BytesWriter, message: MessageTable, start: i64, end: i64) -> i64:
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(message, start, end)
        if state <= REWRITE and (scanner.patches.is_full or self._is_too_large(state, end - start)):
            state = RECORD_TOO_LARGE
        if state > REWRITE:
            if message is RESOURCE:
                self.service_id = self._service_of_refused(start, end)
            return state
        normal = self.buffer[start:end] if state == CLEAN else scanner.normal(message, start, end)
        self.rules.read(len(normal))
        put_bytes(head, _BODY, normal)
        self.rules.read(len(normal))
        if message is RESOURCE:
            self.service_id = _service_of(normal)
        return 0

    def _is_too_large(self, state: i64, size_bytes: i64) -> bool:
        """Return whether the message scanned last, sent as `size_bytes`, is known to be larger than any item may be."""
        scanner = self.scanner
        if state == REWRITE:
            if scanner.duplicate_keys:
                return False
            size_bytes += scanner.patches.delta
        return size_bytes > self.builder.item_bytes_max

    def _service_of_refused(self, start: i64, end: i64) -> bytes:
        """Return service.name of a Resource that was scanned and refused, if it is a string; the last if it is repeated."""
        cursor = self.cursor
        attribute = self.scanner.attribute
        service_id = UNKNOWN_SERVICE
        position: i64 = start
        while position < end:
            cursor.position = position
            tag: i64 = cursor.field(end)
            position = cursor.position
            # An attribute that is not clean may be nested too deep, and has not been read to its end then.
            if tag == 0x0A and attribute.locate(cursor.start, position) == CLEAN:
                if self.buffer[attribute.key_start : attribute.key_end] == _SERVICE_NAME:
                    service_id = text_of(cursor, attribute.value_start, attribute.value_end, self.rules) or UNKNOWN_SERVICE
        return service_id


def _service_of(resource: bytes) -> bytes:
    """Return service.name of a Resource in normal form."""
    at = resource.find(_SERVICE_NAME)
    if at < 0:
        return UNKNOWN_SERVICE
    cursor = Cursor(resource)
    end: i64 = len(resource)
    position: i64 = 0
    while position < end:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == 0x0A and position > at:  # an attribute that ends before has another key
            cursor.position = cursor.start
            cursor.field(position)
            if resource[cursor.start : cursor.position] == _SERVICE_NAME:
                cursor.field(position)  # AnyValue
                cursor.position = cursor.start
                cursor.field(position)  # its string
                return resource[cursor.start : cursor.position] or UNKNOWN_SERVICE
    return UNKNOWN_SERVICE
