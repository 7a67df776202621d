"""Turn an error into a reason, codes and a message. This is the only place where that happens.

Invariants:
1. A permanent error never looks retryable, nor a retryable one permanent (test_only_what_passes_is_retryable).
2. Only a defect of ours is a 500 (test_what_an_error_is).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

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
from collector.broker.contract import BrokerError, BrokerFull
from collector.ingest.pipeline import Defect
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
    """The codes of a reason in HTTP and in gRPC. If it is `retryable`, the same bytes may be sent again later."""

    http: int
    grpc: int
    retryable: bool = False


# The reason of an item refuses a request only if the request is that item alone. It is 400, as all reasons that are not here.
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
    """Return the codes of a request that is refused for this reason."""
    return CODES.get(reason, _OF_AN_ITEM)


class ShuttingDown(Exception):
    """The collector stops before the request is done."""


class Refusal(NamedTuple):
    """A refusal before it is written in a protocol. `retry_after_s` is None if sending the same bytes again is useless."""

    reason: int
    message: str
    codes: Codes
    retry_after_s: float | None

    @property
    def name(self) -> str:
        return REASON[self.reason].name


Explain = Callable[[BaseException], Refusal]


def explain(error: BaseException, *, retry_after_s: float, upgrade_url: str) -> Refusal:
    """Return the refusal for an error. An error that is not known here is a defect of ours.

    `retry_after_s` is for errors that have no time of their own. `upgrade_url` is the address for larger plans.
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
    """Log the error if it is a defect of ours, with its traceback and the batch id in the answer."""
    if refusal.reason != INTERNAL:
        return
    batch_id = str(error.batch_id) if isinstance(error, Defect) else None
    log.error("request failed by a defect", endpoint=endpoint, batch_id=batch_id, exc_info=error.__cause__ or error)


def printable(text: str) -> str:
    """Return text that can't end a line, control a terminal or fail to be encoded, of at most _TEXT_CHARS_MAX characters."""
    if len(text) > _TEXT_CHARS_MAX:
        text = text[: _TEXT_CHARS_MAX - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
