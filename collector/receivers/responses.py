"""The answers to senders, in every protocol: the only place where an outcome or a refusal becomes an answer.

Sources: docs/use/api.md, OTLP 1.11.0, remote write 1.0 and 2.0.

Invariants:
1. Text that came from a sender is escaped (test_no_text_from_a_sender_breaks_an_answer).
"""

import math
from collections import Counter
from typing import Any, Final

import orjson
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from adapters.errors import (
    DEAD_LETTERS_FULL,
    INSUFFICIENT_SCOPE,
    INVALID_API_KEY,
    METHOD_NOT_ALLOWED,
    MISSING_API_KEY,
    ORIGIN_NOT_ALLOWED,
    REASON,
)
from adapters.record import LOGS, METRICS, TRACES, Adapted
from adapters.repairs import REPAIR
from collector.ingest.pipeline import Outcome
from collector.receivers.refusals import Codes, Refusal, codes_of, printable
from collector.receivers.rpc_codes import (
    RPC_UNAVAILABLE,
    RPC_UNIMPLEMENTED,
)


def summarize(outcome: Outcome, noun: str) -> str:
    """Return the counts by reason: `3 of 10 spans rejected: 2 timestamp_too_old (Timestamp is more than 24h in …), 1 …`."""
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
    """Return the counts by kind: `repaired: 2 invalid_text (a text is not UTF-8, …)`; empty if nothing was repaired."""
    repaired = outcome.adapted.repaired
    if not repaired:
        return ""
    kinds = ", ".join(f"{count} {REPAIR[kind].name} ({REPAIR[kind].meaning})" for kind, count in repaired.items())
    return f"repaired: {kinds}"


def warning(outcome: Outcome, noun: str) -> str:
    """Return the message of a partial success: the rejected items, the repairs, and the unknown fields."""
    rejected = summarize(outcome, noun) if outcome.adapted.rejected else ""
    return "; ".join(filter(None, (rejected, repairs(outcome), nothing_taken(outcome))))


def nothing_taken(outcome: Outcome) -> str:
    """Return the text about a body's unknown fields: all if nothing was taken, else those with items for another route."""
    adapted = outcome.adapted
    if not adapted.unknown_fields:
        return ""
    part = "a part of the request was not taken" if adapted.parts or adapted.rejected else "nothing was taken of the request"
    return f"{part}: {'; '.join(adapted.unknown_fields)}"


def has_warning(adapted: Adapted) -> bool:
    """Return whether the answer must say more than that the request was taken."""
    return bool(adapted.rejected or adapted.repaired or adapted.unknown_fields)


# HTTP


class Answer:
    """One HTTP response. Without a body it has no `content_type`, unless the protocol needs one."""

    def __init__(self, status: int, content_type: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status: Final = status
        self.content_type: Final = content_type
        self.body: Final = body
        self.headers: Final = headers

    def with_headers(self, headers: tuple[tuple[bytes, bytes], ...]) -> "Answer":
        """Return the same answer with further headers."""
        return Answer(self.status, self.content_type, self.body, self.headers + headers)


def grpc_elsewhere(places: str) -> Answer:
    """Return the answer to a gRPC call on an HTTP port: in gRPC, since its client reads nothing else. `places` are the ports
    for gRPC."""
    message = f"this port takes OTLP over HTTP; OTLP over gRPC is taken on {places}: change the endpoint, or the protocol"
    trailers_only = ((b"grpc-status", b"%d" % RPC_UNIMPLEMENTED), (b"grpc-message", message.encode()))
    return Answer(200, b"application/grpc", b"", trailers_only)


class Dialect:
    """Writes the answers of one protocol over HTTP."""

    def accepted(self, outcome: Outcome) -> Answer:
        """Return the answer to a request that was taken. Some of its items may have been rejected."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> Answer:
        """Return the answer to a request that was refused as a whole."""
        raise NotImplementedError


# The headers of an answer for this reason.
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


def receipt_headers(outcome: Outcome) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers (over gRPC, the trailers) with the batch id of the receipt, the repairs, and the items not kept."""
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
    """Writes the JSON API's errors, and the answer to a single record."""

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        if adapted.rejections:
            rejection = adapted.rejections[0]
            return self._error(
                codes_of(rejection.reason).http,
                REASON[rejection.reason].name,
                printable(rejection.message),
                receipt_headers(outcome),
            )
        return Answer(200, _JSON, b'{"status":"ok","queued":1}', receipt_headers(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        return self._error(refusal.codes.http, refusal.name, refusal.message, _headers(refusal))

    def _error(self, status: int, error: str, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
        return Answer(status, _JSON, orjson.dumps({"status": "error", "error": error, "message": message}), headers)


class NativeBatchDialect(NativeDialect):
    """Writes the answer to an array of records. It names the first 10,000 that failed."""

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
        return Answer(200, _JSON, orjson.dumps(body), receipt_headers(outcome))


_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


def rpc_status(refusal: Refusal) -> bytes:
    """Return a google.rpc.Status: OTLP's answer over HTTP, and over gRPC the trailer grpc-status-details-bin.

    It has RetryInfo if and only if the request may be sent again.
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


# The names of a signal's items: in sentences, and in the JSON of a partial success.
_NOUNS: Final = {METRICS: "data points", LOGS: "log records", TRACES: "spans"}
_REJECTED_FIELDS: Final = {METRICS: "rejectedDataPoints", LOGS: "rejectedLogRecords", TRACES: "rejectedSpans"}


class OtlpProtobufDialect(Dialect):
    """Writes OTLP answers in protobuf, over HTTP and (the bodies) over gRPC."""

    def __init__(self, signal: int) -> None:
        self._noun: Final = _NOUNS[signal]

    def accepted(self, outcome: Outcome) -> Answer:
        return Answer(200, _PROTOBUF, self.body(outcome), receipt_headers(outcome))

    def body(self, outcome: Outcome) -> bytes:
        """Return an encoded Export…ServiceResponse."""
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
    """Writes OTLP answers in JSON, also to an unknown media type."""

    def __init__(self, signal: int) -> None:
        self._noun: Final = _NOUNS[signal]
        self._rejected_field: Final = _REJECTED_FIELDS[signal]

    def accepted(self, outcome: Outcome) -> Answer:
        adapted = outcome.adapted
        if not has_warning(adapted):
            return Answer(200, _JSON, b"{}", receipt_headers(outcome))
        partial_success = {
            self._rejected_field: str(adapted.rejected_count()),
            "errorMessage": warning(outcome, self._noun),
        }
        return Answer(200, _JSON, orjson.dumps({"partialSuccess": partial_success}), receipt_headers(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        status: dict[str, Any] = {"code": refusal.codes.grpc, "message": refusal.message}
        if refusal.retry_after_s is not None:
            seconds, nanoseconds = divmod(_nanoseconds(refusal.retry_after_s), 10**9)
            status["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{seconds}.{nanoseconds:09}s"}]
        return Answer(refusal.codes.http, _JSON, orjson.dumps(status), _headers(refusal))


class RemoteWriteDialect(Dialect):
    """Answers remote write 1.0: no body, or text for the sender's log. 2.0's headers are left out: senders would use them."""

    def accepted(self, outcome: Outcome) -> Answer:
        if not outcome.adapted.rejected:
            return Answer(204, b"", b"", receipt_headers(outcome))
        # Not 2xx, since not all items were accepted. The accepted items are kept, and Prometheus does not send again after 400.
        return self._text(400, summarize(outcome, "samples"), receipt_headers(outcome))

    def refused(self, refusal: Refusal) -> Answer:
        if refusal.reason == DEAD_LETTERS_FULL:
            # Prometheus drops all samples of a request that is answered 429.
            refusal = refusal._replace(codes=Codes(503, RPC_UNAVAILABLE, retryable=True))
        return self._text(refusal.codes.http, f"{refusal.name}: {refusal.message}", _headers(refusal))

    def _text(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
        return Answer(
            status, b"text/plain; charset=utf-8", text.encode() + b"\n", ((b"x-content-type-options", b"nosniff"), *headers)
        )


class RemoteWriteV2Dialect(RemoteWriteDialect):
    """Answers remote write 2.0 like 1.0, with the written counts, since senders take an answer without them for a failure."""

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
        return answer.with_headers(written)


NATIVE: Final = NativeDialect()
NATIVE_BATCH: Final = NativeBatchDialect()
REMOTE_WRITE_V1: Final = RemoteWriteDialect()
REMOTE_WRITE_V2: Final = RemoteWriteV2Dialect()
