"""The answers to senders, in every protocol: the only place where an outcome or an error becomes a status code.

Sources: docs/use/api.md, OTLP 1.11.0, remote write 1.0 and 2.0.

Invariants:
1. A permanent error never looks retryable, nor a retryable one permanent (test_only_what_passes_is_retryable).
2. Only a defect of ours is a 500 (test_what_an_error_is).
3. Text that came from a sender is escaped (test_no_text_from_a_sender_breaks_an_answer).
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson
import structlog
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from adapters.errors import (
    BATCH_TOO_LARGE,
    DEAD_LETTERS_FULL,
    EXCEEDS_PLAN,
    IDEMPOTENCY_KEY_REUSED,
    INSUFFICIENT_SCOPE,
    INTERNAL,
    INVALID_API_KEY,
    INVALID_COMPRESSION,
    INVALID_JSON,
    INVALID_PARAMETER,
    INVALID_PROTOBUF,
    METHOD_NOT_ALLOWED,
    MISSING_API_KEY,
    NOT_FOUND,
    ORIGIN_NOT_ALLOWED,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    RATE_LIMIT_EXCEEDED,
    REASON,
    REQUEST_TIMEOUT,
    SHUTTING_DOWN,
    STORAGE_FULL,
    STORAGE_UNAVAILABLE,
    STORE_UNAVAILABLE,
    UNSUPPORTED_CONTENT_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    RequestRefused,
)
from adapters.record import LOGS, METRICS, TRACES, Adapted
from adapters.repairs import REPAIR
from collector.broker.contract import BrokerError, BrokerFull
from collector.ingest.pipeline import Defect, Outcome
from collector.ingest.produce import Overloaded
from collector.rate_limit.contract import Limited
from collector.receivers.rpc_codes import (
    RPC_DEADLINE_EXCEEDED,
    RPC_INTERNAL,
    RPC_INVALID_ARGUMENT,
    RPC_NOT_FOUND,
    RPC_PERMISSION_DENIED,
    RPC_RESOURCE_EXHAUSTED,
    RPC_UNAUTHENTICATED,
    RPC_UNAVAILABLE,
    RPC_UNIMPLEMENTED,
)
from collector.records.dead_letter import DeadLettersFull

log = structlog.get_logger(__name__)

_TEXT_CHARS_MAX: Final = 1000


class Codes(NamedTuple):
    """What a reason is in HTTP and in gRPC. `retryable`: the same bytes may be sent again, after a while."""

    http: int
    grpc: int
    retryable: bool = False


# Reasons of items refuse a request only where it is that item alone: they are 400, as whatever is not here.
CODES: Final = {
    INVALID_JSON: Codes(400, RPC_INVALID_ARGUMENT),
    INVALID_PROTOBUF: Codes(400, RPC_INVALID_ARGUMENT),
    INVALID_COMPRESSION: Codes(400, RPC_INVALID_ARGUMENT),
    INVALID_PARAMETER: Codes(400, RPC_INVALID_ARGUMENT),
    BATCH_TOO_LARGE: Codes(400, RPC_INVALID_ARGUMENT),
    MISSING_API_KEY: Codes(401, RPC_UNAUTHENTICATED),
    INVALID_API_KEY: Codes(401, RPC_UNAUTHENTICATED),
    INSUFFICIENT_SCOPE: Codes(403, RPC_PERMISSION_DENIED),
    ORIGIN_NOT_ALLOWED: Codes(403, RPC_PERMISSION_DENIED),
    NOT_FOUND: Codes(404, RPC_NOT_FOUND),
    METHOD_NOT_ALLOWED: Codes(405, RPC_UNIMPLEMENTED),
    REQUEST_TIMEOUT: Codes(408, RPC_DEADLINE_EXCEEDED),
    PAYLOAD_TOO_LARGE: Codes(413, RPC_RESOURCE_EXHAUSTED),
    # Not retryable: however long one waits, the plan never allows that much at once.
    EXCEEDS_PLAN: Codes(413, RPC_RESOURCE_EXHAUSTED),
    UNSUPPORTED_MEDIA_TYPE: Codes(415, RPC_INVALID_ARGUMENT),
    UNSUPPORTED_CONTENT_ENCODING: Codes(415, RPC_UNIMPLEMENTED),
    IDEMPOTENCY_KEY_REUSED: Codes(422, RPC_INVALID_ARGUMENT),
    # 429 is for a tenant's own quota and caps: several clients drop their data on it.
    RATE_LIMIT_EXCEEDED: Codes(429, RPC_RESOURCE_EXHAUSTED, retryable=True),
    DEAD_LETTERS_FULL: Codes(429, RPC_RESOURCE_EXHAUSTED, retryable=True),
    # Clients do not retry 500, so no transient error may map to it.
    INTERNAL: Codes(500, RPC_INTERNAL),
    OVERLOADED: Codes(503, RPC_UNAVAILABLE, retryable=True),
    STORAGE_FULL: Codes(503, RPC_UNAVAILABLE, retryable=True),
    STORAGE_UNAVAILABLE: Codes(503, RPC_UNAVAILABLE, retryable=True),
    SHUTTING_DOWN: Codes(503, RPC_UNAVAILABLE, retryable=True),
    STORE_UNAVAILABLE: Codes(503, RPC_UNAVAILABLE, retryable=True),
}
_OF_AN_ITEM: Final = Codes(400, RPC_INVALID_ARGUMENT)


def codes_of(reason: int) -> Codes:
    """The codes that a request is refused with for this reason."""
    return CODES.get(reason, _OF_AN_ITEM)


class ShuttingDown(Exception):
    """The collector stops before the request was done."""


class Refusal(NamedTuple):
    """An error in no protocol yet. `retry_after_s` is None where sending the same again is no use."""

    reason: int
    message: str
    codes: Codes
    retry_after_s: float | None

    @property
    def name(self) -> str:
        return REASON[self.reason].name


Explain = Callable[[BaseException], Refusal]


def explain(error: BaseException, *, retry_after_s: float, upgrade_url: str) -> Refusal:
    """The refusal that an error is; whatever it is, if not known here, it is a defect of ours.

    `retry_after_s`: for errors that do not know by themselves when to try again. `upgrade_url`: where there are larger plans.
    """
    message = str(error)
    if isinstance(error, RequestRefused):
        reason = error.reason
    elif isinstance(error, Limited):
        reason = RATE_LIMIT_EXCEEDED
        retry_after_s = error.retry_after_s
        message = f"Tenant quota exceeded. Current plan: {error.plan.summary(error.dimension)}. Upgrade at {upgrade_url}."
    elif isinstance(error, DeadLettersFull):
        reason = DEAD_LETTERS_FULL
        retry_after_s = error.retry_after_s
    elif isinstance(error, Overloaded):
        reason = OVERLOADED
    elif isinstance(error, BrokerError):
        reason = STORAGE_FULL if isinstance(error, BrokerFull) else STORAGE_UNAVAILABLE
    elif isinstance(error, ShuttingDown):
        reason = SHUTTING_DOWN
    else:
        reason = INTERNAL
        message = message if isinstance(error, Defect) else REASON[INTERNAL].meaning
    codes = codes_of(reason)
    return Refusal(
        reason, printable(message) or REASON[reason].meaning, codes, max(retry_after_s, 0.001) if codes.retryable else None
    )


def log_if_defect(error: BaseException, refusal: Refusal, endpoint: str) -> None:
    """Log a defect of ours, with its traceback and the batch id in the answer; log nothing else."""
    if refusal.reason != INTERNAL:
        return
    batch_id = str(error.batch_id) if isinstance(error, Defect) else None
    log.error("request failed by a defect", endpoint=endpoint, batch_id=batch_id, exc_info=error.__cause__ or error)


def printable(text: str) -> str:
    """Text that can't end a line, steer a terminal or fail to be encoded; cut to a length that is bearable."""
    if len(text) > _TEXT_CHARS_MAX:
        text = text[: _TEXT_CHARS_MAX - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def summarize(outcome: Outcome, noun: str) -> str:
    """Counts by reason: `3 of 10 spans rejected: 2 timestamp_too_old (Timestamp is more than 24h in the past), 1 …`."""
    adapted = outcome.adapted
    counts: Counter[int] = Counter()
    for (_type, reason), items in adapted.rejected.items():
        counts[reason] += items
    messages: dict[int, str] = {}
    for rejection in adapted.rejections:
        messages.setdefault(rejection.reason, rejection.message)
        if len(messages) == len(counts):
            break
    rejected = counts.total()
    reasons = ", ".join(
        f"{items} {REASON[reason].name} ({printable(messages.get(reason, REASON[reason].meaning))})"
        for reason, items in counts.most_common()
    )
    lost = f"; {adapted.not_kept} of them are not kept as dead letters" if adapted.not_kept else ""
    return f"{rejected} of {adapted.accepted_count() + rejected} {noun} rejected: {reasons}{lost}"


def repairs(outcome: Outcome) -> str:
    """Counts by kind: `repaired: 2 invalid_text (a text is not UTF-8, …)`; nothing where nothing was repaired."""
    repaired = outcome.adapted.repaired
    if not repaired:
        return ""
    kinds = ", ".join(f"{count} {REPAIR[kind].name} ({REPAIR[kind].meaning})" for kind, count in repaired.items())
    return f"repaired: {kinds}"


def warning(outcome: Outcome, noun: str) -> str:
    """Return the message of a partial success: what was rejected, and what was repaired."""
    rejected = summarize(outcome, noun) if outcome.adapted.rejected else ""
    return "; ".join(filter(None, (rejected, repairs(outcome), nothing_taken(outcome))))


def nothing_taken(outcome: Outcome) -> str:
    """Return the unknown fields of a body, where none of its items was accepted; else nothing."""
    unknown = outcome.adapted.unknown_fields
    return f"nothing was taken of the request: {'; '.join(unknown)}" if unknown else ""


def has_warning(adapted: Adapted) -> bool:
    """Return whether a sender is to hear more than that it was taken."""
    return bool(adapted.rejected or adapted.repaired or adapted.unknown_fields)


# HTTP


class Answer(NamedTuple):
    """One HTTP response. Without a body there is no `content_type`, but where the protocol wants one."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def grpc_elsewhere(places: str) -> Answer:
    """Return the answer to a gRPC call on a port of HTTP: in gRPC, since its client reads nothing else. `places`: where gRPC is
    spoken."""
    message = f"this port takes OTLP over HTTP; OTLP over gRPC is taken on {places}: change the endpoint, or the protocol"
    trailers_only = ((b"grpc-status", b"%d" % RPC_UNIMPLEMENTED), (b"grpc-message", message.encode()))
    return Answer(200, b"application/grpc", b"", trailers_only)


class Dialect:
    """How one protocol says it over HTTP."""

    def accepted(self, outcome: Outcome) -> Answer:
        """The request was taken; of its items, some may have been rejected."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> Answer:
        """The request as a whole was not."""
        raise NotImplementedError


# What an answer for this reason has beside its body.
_HEADERS: Final[dict[int, tuple[tuple[bytes, bytes], ...]]] = {
    METHOD_NOT_ALLOWED: ((b"allow", b"POST"),),
    MISSING_API_KEY: ((b"www-authenticate", b'Bearer realm="infrasage"'),),
    INVALID_API_KEY: ((b"www-authenticate", b'Bearer realm="infrasage", error="invalid_token"'),),
    INSUFFICIENT_SCOPE: ((b"www-authenticate", b'Bearer realm="infrasage", error="insufficient_scope"'),),
    ORIGIN_NOT_ALLOWED: ((b"www-authenticate", b'Bearer realm="infrasage", error="insufficient_scope"'),),
}


def _headers(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    if refusal.retry_after_s is not None:
        return ((b"retry-after", b"%d" % math.ceil(refusal.retry_after_s)),)
    return _HEADERS.get(refusal.reason, ())


def _receipt(outcome: Outcome) -> tuple[tuple[bytes, bytes], ...]:
    batch_id = (b"x-infrasage-batch-id", str(outcome.batch_id).encode())
    repaired, not_kept = outcome.adapted.repaired, outcome.adapted.not_kept
    if not repaired and not not_kept:
        return (batch_id,)
    # Some protocols have no place for a warning.
    headers = [batch_id]
    if repaired:
        counts = ", ".join(f"{REPAIR[kind].name}={count}" for kind, count in repaired.items())
        headers.append((b"x-infrasage-repaired", counts.encode()))
    if not_kept:
        headers.append((b"x-infrasage-rejected-not-kept", b"%d" % not_kept))
    return tuple(headers)


_JSON: Final = b"application/json"
_PROTOBUF: Final = b"application/x-protobuf"


class NativeDialect(Dialect):
    """The JSON API's errors, and the answer to a single record."""

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        if adapted.rejections:
            rejection = adapted.rejections[0]
            return self._error(_OF_AN_ITEM.http, REASON[rejection.reason].name, printable(rejection.message), _receipt(outcome))
        return Answer(200, _JSON, b'{"status":"ok","queued":1}', _receipt(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        return self._error(refusal.codes.http, refusal.name, refusal.message, _headers(refusal))

    def _error(self, status: int, error: str, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
        return Answer(status, _JSON, orjson.dumps({"status": "error", "error": error, "message": message}), headers)


class NativeBatchDialect(NativeDialect):
    """The answer to an array of records: those that failed are named, the first 10,000 of them."""

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        failures = [
            {"index": rejection.index, "error": REASON[rejection.reason].name, "message": printable(rejection.message)}
            for rejection in adapted.rejections
        ]
        body = {
            "status": "ok",
            "queued": adapted.accepted_count(),
            "failed": adapted.rejected_count(),
            "failures": failures,
        }
        return Answer(200, _JSON, orjson.dumps(body), _receipt(outcome))


_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


def rpc_status(refusal: Refusal) -> bytes:
    """A google.rpc.Status: OTLP's answer over HTTP, and over gRPC the trailer grpc-status-details-bin.

    With RetryInfo exactly where the request may be sent again.
    """
    status = Status(code=refusal.codes.grpc, message=refusal.message)
    if refusal.retry_after_s is not None:
        retry_info = RetryInfo()
        retry_info.retry_delay.FromNanoseconds(_nanoseconds(refusal.retry_after_s))
        status.details.add().Pack(retry_info)
    body: bytes = status.SerializeToString()
    return body


def _nanoseconds(seconds: float) -> int:
    return math.ceil(seconds * 1e9)


# What a signal's items are called: in sentences, and in the JSON of a partial success.
_NOUNS: Final = {METRICS: "data points", LOGS: "log records", TRACES: "spans"}
_REJECTED_FIELDS: Final = {METRICS: "rejectedDataPoints", LOGS: "rejectedLogRecords", TRACES: "rejectedSpans"}


class OtlpProtobufDialect(Dialect):
    """OTLP in protobuf, over HTTP and (the bodies) over gRPC."""

    def __init__(self, signal: int) -> None:
        self._noun: Final = _NOUNS[signal]

    def accepted(self, outcome: Outcome) -> Answer:
        return Answer(200, _PROTOBUF, self.body(outcome), _receipt(outcome))

    def body(self, outcome: Outcome) -> bytes:
        """An Export…ServiceResponse."""
        adapted = outcome.adapted
        if not has_warning(adapted):
            return b""
        # The three signals' responses have the same fields under the same numbers: one class writes all of them.
        response = ExportMetricsServiceResponse()
        response.partial_success.rejected_data_points = adapted.rejected_count()
        response.partial_success.error_message = warning(outcome, self._noun)
        return response.SerializeToString()

    def refused(self, refusal: Refusal) -> Answer:
        return Answer(refusal.codes.http, _PROTOBUF, rpc_status(refusal), _headers(refusal))


class OtlpJsonDialect(Dialect):
    """OTLP in JSON; and what an unknown media type is answered in."""

    def __init__(self, signal: int) -> None:
        self._noun: Final = _NOUNS[signal]
        self._rejected_field: Final = _REJECTED_FIELDS[signal]

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        if not has_warning(adapted):
            return Answer(200, _JSON, b"{}", _receipt(outcome))
        partial_success = {
            self._rejected_field: str(adapted.rejected_count()),
            "errorMessage": warning(outcome, self._noun),
        }
        return Answer(200, _JSON, orjson.dumps({"partialSuccess": partial_success}), _receipt(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        status: dict[str, Any] = {"code": refusal.codes.grpc, "message": refusal.message}
        if refusal.retry_after_s is not None:
            seconds, nanoseconds = divmod(_nanoseconds(refusal.retry_after_s), 10**9)
            status["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{seconds}.{nanoseconds:09}s"}]
        return Answer(refusal.codes.http, _JSON, orjson.dumps(status), _headers(refusal))


class RemoteWriteDialect(Dialect):
    """Prometheus remote write 1.0: no body, or text for the sender's log. Without 2.0's headers: senders would believe them."""

    def accepted(self, outcome: Outcome) -> Answer:
        if not outcome.adapted.rejected:
            return Answer(204, b"", b"", _receipt(outcome))
        # Not 2xx, since not all of it was written; the rest is kept, and Prometheus does not send a 400 again.
        return self._text(400, summarize(outcome, "samples"), _receipt(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        if refusal.reason == DEAD_LETTERS_FULL:
            # Prometheus drops what is answered 429, good samples too.
            refusal = refusal._replace(codes=Codes(503, RPC_UNAVAILABLE, retryable=True))
        return self._text(refusal.codes.http, f"{refusal.name}: {refusal.message}", _headers(refusal))

    def _text(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
        return Answer(
            status, b"text/plain; charset=utf-8", text.encode() + b"\n", ((b"x-content-type-options", b"nosniff"), *headers)
        )


class RemoteWriteV2Dialect(RemoteWriteDialect):
    """Remote write 2.0: the same, and always how much was written; senders take an answer without it for a failure."""

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        return self._with_written(super().accepted(outcome), adapted.samples, adapted.histograms, adapted.exemplars)

    def refused(self, refusal: Refusal) -> Answer:
        return self._with_written(super().refused(refusal), 0, 0, 0)

    def _with_written(self, answer: Answer, samples: int, histograms: int, exemplars: int) -> Answer:
        written = (
            (b"x-prometheus-remote-write-samples-written", b"%d" % samples),
            (b"x-prometheus-remote-write-histograms-written", b"%d" % histograms),
            (b"x-prometheus-remote-write-exemplars-written", b"%d" % exemplars),
        )
        return answer._replace(headers=answer.headers + written)


NATIVE: Final = NativeDialect()
NATIVE_BATCH: Final = NativeBatchDialect()
REMOTE_WRITE_V1: Final = RemoteWriteDialect()
REMOTE_WRITE_V2: Final = RemoteWriteV2Dialect()
