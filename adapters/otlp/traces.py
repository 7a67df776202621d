"""OTLP traces: convert an ExportTraceServiceRequest to records of spans.

A span without valid ids or without a start is rejected. Its time is when it ended, so that a long span is not late
(test_a_long_span_is_as_late_as_its_end), or its start if that is later (test_an_end_before_the_start_makes_no_span_late).
"""

from mypy_extensions import i64
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.canonical import adapt_or_canonicalize
from adapters.errors import INVALID_SPAN_ID, INVALID_TRACE_ID, MISSING_TIMESTAMP, TIMESTAMP_IN_FUTURE, TIMESTAMP_TOO_OLD
from adapters.otlp.attributes import REWRITE
from adapters.otlp.export_request import Envelope
from adapters.otlp.field_tables import SPAN, UNFIT_TAG
from adapters.record import TRACES, TYPE_TRACE, Adapted, Header
from adapters.rules import Rules


class TracesEnvelope(Envelope):
    """A `TracesEnvelope` adapts the spans of an export request."""

    def take(self, start: i64, end: i64) -> None:
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(SPAN, start, end)
        reason: i64 = self.group_reason
        if reason == 0:
            reason = self._reason(state)
        self.settle(SPAN, state, reason, start, end)

    def _reason(self, state: i64) -> i64:
        """Return the reason to reject the span scanned last, or 0."""
        scanner = self.scanner
        if state > REWRITE:
            return state
        if not scanner.valid_trace_id:
            return INVALID_TRACE_ID
        if not scanner.valid_span_id:
            return INVALID_SPAN_ID
        if scanner.time == 0:
            return MISSING_TIMESTAMP
        start: i64 = self.rules.check_time(scanner.time)
        if start == TIMESTAMP_IN_FUTURE:
            return start
        # An end before the start is from another clock or in another unit, and does not show how late the span is.
        latest: i64 = scanner.time if 0 <= scanner.other_time < scanner.time else scanner.other_time
        reason: i64 = self.rules.check_time(latest)
        if reason == 0 and start == TIMESTAMP_TOO_OLD:
            reason = self.rules.check_own_time(scanner.time)
        return reason


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt `body`, a serialized ExportTraceServiceRequest. Raises Malformed, RequestRefused."""
    return adapt_or_canonicalize(
        lambda plain: TracesEnvelope(plain, header, rules, message_bytes_max, TRACES, TYPE_TRACE).run(),
        body,
        ExportTraceServiceRequest,
        rules,
        UNFIT_TAG,
    )
