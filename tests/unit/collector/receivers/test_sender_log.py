"""The lines about senders: how many, and what is in them."""

from typing import Any

from structlog.testing import capture_logs

from adapters.errors import (
    INVALID_API_KEY,
    INVALID_TIMESTAMP,
    RATE_LIMIT_EXCEEDED,
    TIMESTAMP_TOO_OLD,
    UNSUPPORTED_MEDIA_TYPE,
)
from adapters.record import Adapted, Rejection
from adapters.repairs import INVALID_TEXT
from collector.receivers.refusals import Refusal, codes_of
from collector.receivers.sender_log import SenderLog


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def refusal(reason: int, message: str = "why") -> Refusal:
    return Refusal(reason, message, codes_of(reason), None)


def adapted(rejected: dict[int, int], repaired: dict[int, int] | None = None) -> Adapted:
    made = Adapted()
    made.rejected = {(1, reason): items for reason, items in rejected.items()}
    made.rejections = [Rejection(0, 1, reason, "a message", b"s", b"") for reason in rejected]
    made.repaired = repaired
    return made


def written(log: SenderLog, *, is_last: bool = False) -> list[Any]:
    with capture_logs() as lines:
        log.write(is_last=is_last)
    return lines


def test_a_line_says_what_and_why() -> None:
    """Items, repairs, refused and limited requests are counted apart, by reason, with the last message."""
    log = SenderLog(10, Clock())
    log.taken("acme", adapted({TIMESTAMP_TOO_OLD: 3, INVALID_TIMESTAMP: 1}, {INVALID_TEXT: 2}))
    log.taken("acme", adapted({TIMESTAMP_TOO_OLD: 1}))
    log.refused("acme", refusal(UNSUPPORTED_MEDIA_TYPE))
    log.refused("acme", refusal(RATE_LIMIT_EXCEEDED, "Tenant quota exceeded"))
    (line,) = written(log)
    assert line == {
        "event": "telemetry of a sender was rejected or refused",
        "log_level": "warning",
        "tenant": "acme",
        "rejected_items": {"timestamp_too_old": 4, "invalid_timestamp": 1},
        "repaired": {"invalid_text": 2},
        "refused_requests": {"unsupported_media_type": 1},
        "limited_requests": {"rate_limit_exceeded": 1},
        "example": "rate_limit_exceeded: Tenant quota exceeded",
    }


def test_what_was_only_repaired_is_no_warning() -> None:
    """All of it was taken."""
    log = SenderLog(10, Clock())
    log.taken("acme", adapted({}, {INVALID_TEXT: 2}))
    log.taken("acme", adapted({}))
    (line,) = written(log)
    assert ("info", {"invalid_text": 2}) == (line["log_level"], line["repaired"])
    assert [] == written(log)


def test_requests_of_which_nothing_was_taken_are_counted() -> None:
    """They are a success to their sender, who may not look at the warning in it."""
    log = SenderLog(10, Clock())
    unread = adapted({})
    unread.unknown_fields = ['ExportTraceServiceRequest has no field "resourceLogs", which is for /v1/logs']
    log.taken("acme", unread)
    log.taken("acme", unread)
    in_part = adapted({TIMESTAMP_TOO_OLD: 1})
    in_part.unknown_fields = ["a field"]
    in_part.rejections = []
    log.taken("acme", in_part)
    log.taken("globex", adapted({}))
    (line,) = written(log)
    assert line == {
        "event": "telemetry of a sender was rejected or refused",
        "log_level": "warning",
        "tenant": "acme",
        "rejected_items": {"timestamp_too_old": 1},
        "unread_requests": {"all": 2, "part": 1},
        "example": "a field",
    }


def test_a_tenant_has_one_line_in_an_interval() -> None:
    """The first at once; what comes within ten seconds is counted in the next. Tenants do not hold up each other."""
    clock = Clock()
    log = SenderLog(10, clock)
    log.taken("acme", adapted({TIMESTAMP_TOO_OLD: 1}))
    assert ["acme"] == [line["tenant"] for line in written(log)]
    for _ in range(9):
        clock.s += 1
        log.taken("acme", adapted({TIMESTAMP_TOO_OLD: 1}))
        log.refused("globex", refusal(UNSUPPORTED_MEDIA_TYPE))
        assert "acme" not in [line["tenant"] for line in written(log)]
    clock.s += 1
    lines = {line["tenant"]: line for line in written(log)}
    assert {"timestamp_too_old": 9} == lines["acme"]["rejected_items"]
    log.taken("acme", adapted({TIMESTAMP_TOO_OLD: 5}))
    assert [] == written(log)
    assert [{"timestamp_too_old": 5}] == [
        line["rejected_items"] for line in written(log, is_last=True) if line["tenant"] == "acme"
    ]


def test_senders_without_a_known_key_are_one_tenant() -> None:
    """They are, however many keys they try."""
    log = SenderLog(10, Clock())
    for _ in range(1000):
        log.refused(None, refusal(INVALID_API_KEY))
    (line,) = written(log)
    assert ("(unknown)", {"invalid_api_key": 1000}) == (line["tenant"], line["refused_requests"])


def test_many_tenants_are_one_line() -> None:
    """Those beyond fifty in an interval are, with their counts."""
    log = SenderLog(10, Clock())
    for n in range(200):
        log.taken(f"t{n}", adapted({TIMESTAMP_TOO_OLD: 2}))
    lines = written(log)
    assert 51 == len(lines)
    assert (150, {"timestamp_too_old": 300}) == (lines[-1]["tenants"], lines[-1]["rejected_items"])
    assert [] == written(log)
