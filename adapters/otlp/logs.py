"""OTLP logs: convert an ExportLogsServiceRequest to records of log records.

A record whose ids are invalid is kept without them (test_an_id_that_is_none_is_left_out). Only its own time, sizes and
nesting can cause its rejection.
"""

from typing import Final

from mypy_extensions import i64
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from adapters.canonical import adapt_or_canonicalize
from adapters.errors import TIMESTAMP_TOO_OLD
from adapters.otlp.attributes import CLEAN, REWRITE
from adapters.otlp.export_request import Envelope
from adapters.otlp.field_tables import LOG_RECORD, UNFIT_TAG
from adapters.record import LOGS, TYPE_LOG, Adapted, Header
from adapters.repairs import ID_DROPPED
from adapters.rules import Rules

_MILLISECOND_NS: Final = 1_000_000


class LogsEnvelope(Envelope):
    """A `LogsEnvelope` adapts the log records of an export request."""

    def take(self, start: i64, end: i64) -> None:
        scanner = self.scanner
        scanner.begin()
        state: i64 = scanner.scan(LOG_RECORD, start, end)
        if scanner.invalid_id and state == CLEAN:
            state = REWRITE
        time: i64 = scanner.time or scanner.other_time
        if time % _MILLISECOND_NS == 0:
            self.rules.has_coarse_times = True
        reason: i64 = self.group_reason
        if reason == 0 and state > REWRITE:
            reason = state
        if reason == 0 and time != 0:
            reason = self.rules.check_time(time)  # a record without any time has the time of receipt
            # A backlog is sent late, so the time of observation counts too.
            if reason == TIMESTAMP_TOO_OLD and scanner.other_time != 0:
                reason = self.rules.check_time(scanner.other_time)
                if reason == 0:
                    reason = self.rules.check_own_time(time)
        if reason == 0 and scanner.odd_ids:
            self.rules.repair_pending(ID_DROPPED, int(scanner.odd_ids))
        self.settle(LOG_RECORD, state, reason, start, end)


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt `body`, a serialized ExportLogsServiceRequest. Raises Malformed, RequestRefused."""
    return adapt_or_canonicalize(
        lambda plain: LogsEnvelope(plain, header, rules, message_bytes_max, LOGS, TYPE_LOG).run(),
        body,
        ExportLogsServiceRequest,
        rules,
        UNFIT_TAG,
    )
