"""Every reason has its codes, and nothing that a sender wrote gets out as it came."""

import json

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from support.fakes.receiving import EXPLAIN
from uuid_utils import uuid7

from adapters.errors import (
    DEAD_LETTERS_FULL,
    INTERNAL,
    INVALID_JSON,
    INVALID_VALUE,
    MISSING_TIMESTAMP,
    PAYLOAD_TOO_LARGE,
    RATE_LIMIT_EXCEEDED,
    REASONS,
    TIMESTAMP_TOO_OLD,
    Malformed,
    RequestRefused,
)
from adapters.record import LOGS, METRICS, TRACES, TYPE_METRIC, Adapted, Rejection
from collector.broker.contract import BrokerDown, BrokerError, BrokerFull
from collector.ingest.pipeline import Defect, Outcome
from collector.ingest.produce import Overloaded
from collector.rate_limit.contract import Limited
from collector.receivers.refusals import CODES, ShuttingDown, codes_of, explain, printable
from collector.receivers.responses import (
    NATIVE,
    NATIVE_BATCH,
    REMOTE_WRITE_V1,
    REMOTE_WRITE_V2,
    Dialect,
    OtlpJsonDialect,
    OtlpProtobufDialect,
    rpc_status,
    summarize,
)
from collector.tenancy.plans import FREE, Dimension

DIALECTS: tuple[Dialect, ...] = (
    NATIVE,
    NATIVE_BATCH,
    REMOTE_WRITE_V1,
    REMOTE_WRITE_V2,
    *[dialect(signal) for dialect in (OtlpProtobufDialect, OtlpJsonDialect) for signal in (METRICS, LOGS, TRACES)],
)
EACH_DIALECT = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)


def outcome(accepted: int, rejected: list[tuple[int, str]]) -> Outcome:
    """Of so many accepted points, and others rejected for these reasons in these words."""
    adapted = Adapted()
    adapted.accepted[TYPE_METRIC] = accepted
    for index, (reason, message) in enumerate(rejected):
        key = (TYPE_METRIC, reason)
        adapted.rejected[key] = adapted.rejected.get(key, 0) + 1
        adapted.rejections.append(Rejection(index, TYPE_METRIC, reason, message))
    return Outcome(uuid7(), adapted)


@pytest.mark.parametrize(
    ("error", "name", "http", "grpc", "retryable"),
    [
        (Malformed(INVALID_JSON, "m"), "invalid_json", 400, 3, False),
        (RequestRefused(PAYLOAD_TOO_LARGE, "m"), "payload_too_large", 413, 8, False),
        (RequestRefused(INVALID_VALUE, "m"), "invalid_value", 400, 3, False),
        (RequestRefused(RATE_LIMIT_EXCEEDED, "m"), "rate_limit_exceeded", 429, 8, True),
        (BrokerFull("m"), "storage_full", 503, 14, True),
        (BrokerDown("m"), "storage_unavailable", 503, 14, True),
        (BrokerError("m"), "storage_unavailable", 503, 14, True),
        (Overloaded("m"), "overloaded", 503, 14, True),
        (ShuttingDown("m"), "shutting_down", 503, 14, True),
        (Defect(uuid7(), ValueError("x")), "internal", 500, 13, False),
        (KeyError("m"), "internal", 500, 13, False),
    ],
)
def test_what_an_error_is(error: Exception, name: str, http: int, grpc: int, retryable: bool) -> None:
    """A permanent error never looks retryable, nor a retryable one permanent."""
    refusal = explain(error, retry_after_s=2.5, upgrade_url="/billing/plans")
    assert (refusal.name, refusal.codes.http, refusal.codes.grpc) == (name, http, grpc)
    assert refusal.retry_after_s == (2.5 if retryable else None)
    details = Status.FromString(rpc_status(refusal)).details
    assert [detail.Is(RetryInfo.DESCRIPTOR) for detail in details] == ([True] if retryable else [])


@EACH_DIALECT
@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_every_reason_can_be_answered(dialect: Dialect, reason: object) -> None:
    """Each is in every protocol, with Retry-After only if the request may be sent again: over HTTP 429 and 503."""
    code = reason.code  # type: ignore[attr-defined]
    refusal = EXPLAIN(RequestRefused(code, "with 3 numbers"))
    answer = dialect.refused(refusal)
    if code == DEAD_LETTERS_FULL and dialect in (REMOTE_WRITE_V1, REMOTE_WRITE_V2):
        assert answer.status == 503  # Prometheus drops what is answered 429
    else:
        assert answer.status == codes_of(code).http
    assert 400 <= answer.status <= 503
    assert b"with 3 numbers" in answer.body or code == INTERNAL
    assert dict(answer.headers).get(b"retry-after") == (b"3" if answer.status in (429, 503) else None)
    assert (b"www-authenticate" in dict(answer.headers)) == (answer.status in (401, 403))
    assert (b"allow" in dict(answer.headers)) == (answer.status == 405)
    assert answer.status != 500 or code == INTERNAL


@pytest.mark.parametrize(
    ("dimension", "retry_after_s", "plan", "seconds"),
    [
        ("requests", 0.1, "Free (10 RPS)", b"1"),
        ("items", 2.000001, "Free (10,000 items/s)", b"3"),
        ("bytes", 3.0, "Free (16 MiB/s)", b"3"),
    ],
)
def test_a_tenant_over_its_plan_hears_which_and_when(
    dimension: Dimension, retry_after_s: float, plan: str, seconds: bytes
) -> None:
    """The words are the API's, to the letter. The time is never one before it can pass."""
    refusal = EXPLAIN(Limited(FREE, dimension, retry_after_s))
    message = f"Tenant quota exceeded. Current plan: {plan}. Upgrade at /billing/plans."
    answer = NATIVE.refused(refusal)
    assert answer.status == 429
    assert json.loads(answer.body) == {"status": "error", "error": "rate_limit_exceeded", "message": message}
    assert dict(answer.headers)[b"retry-after"] == seconds
    status = Status.FromString(rpc_status(refusal))
    assert (status.code, status.message) == (8, message)
    retry_info = RetryInfo()
    assert status.details[0].Unpack(retry_info)
    assert retry_info.retry_delay.ToNanoseconds() == pytest.approx(retry_after_s * 1e9, abs=1)


def test_only_what_passes_is_retryable() -> None:
    """OTLP knows no other retryable answers over HTTP than 429, 502, 503 and 504; 500 means never again."""
    for codes in CODES.values():
        assert codes.retryable == (codes.http in (429, 503))
        assert codes.retryable == (codes.grpc == 14 or codes.http == 429)


def test_the_summary_counts_by_reason() -> None:
    """The most frequent first, each in the words of its first rejection."""
    late = (TIMESTAMP_TOO_OLD, "Timestamp is more than 24h in the past")
    rejected = [(MISSING_TIMESTAMP, "timestamp is required"), late, late]
    assert summarize(outcome(7, rejected), "spans") == (
        "3 of 10 spans rejected: 2 timestamp_too_old (Timestamp is more than 24h in the past), "
        "1 missing_timestamp (timestamp is required)"
    )


def test_a_reason_that_was_only_counted_is_reported_with_its_meaning() -> None:
    """Rejections beyond the first 10,000 are not kept one by one."""
    result = outcome(0, [])
    result.adapted.rejected[TYPE_METRIC, MISSING_TIMESTAMP] = 20_000
    assert summarize(result, "spans") == "20000 of 20000 spans rejected: 20000 missing_timestamp (timestamp is required)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é and 漢字", "plain, é and 漢字"),
        ("a\nb\r\x00", "a\\nb\\r\\x00"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("lone \ud800", "lone \\ud800"),
        ("line\u2028separator, \u202eoverride", "line\\u2028separator, \\u202eoverride"),
        ("x" * 1001, "x" * 999 + "…"),
    ],
)
def test_text_is_made_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@EACH_DIALECT
@given(text=st.text(max_size=30).map(lambda text: text + "\n\ud800"))
def test_no_text_from_a_sender_breaks_an_answer(dialect: Dialect, text: str) -> None:
    """It can be encoded, and has no line of its own."""
    for answer in (
        dialect.refused(EXPLAIN(RequestRefused(INVALID_VALUE, text))),
        dialect.accepted(outcome(0, [(INVALID_VALUE, text)])),
    ):
        if answer.content_type == b"application/x-protobuf":
            Status.FromString(answer.body)
        else:
            assert "\n" not in answer.body.decode().removesuffix("\n")
        if answer.content_type == b"application/json":
            json.loads(answer.body)
        for _, value in answer.headers:
            assert value.decode().isprintable()
