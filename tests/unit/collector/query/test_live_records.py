"""Live records: a sample for clients that watch, bounded, of the right tenant, and gone when nobody asks."""

from typing import Any

import pytest
from infrasage.v1 import telemetry_pb2, telemetry_v1_pb2
from support.batches import NOW
from support.records import encoded

from adapters.errors import INVALID_VALUE
from adapters.record import LOGS, METRICS, TRACES, Adapted, Part, Rejection
from collector.query.live_records import (
    TENANT_WATCHES_MAX,
    TENANTS_WATCHES_MAX,
    WATCHES_MAX,
    LiveAnswer,
    LiveRecords,
    Selection,
    TooManyWatches,
    Watching,
    combined,
    question_of,
)

ALL = Selection(None, None, None, is_rejected=False)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def logs(*bodies: str, service: str = "payment-api") -> Adapted:
    """A request of log records that were accepted, one a message."""
    adapted = Adapted()
    for body in bodies:
        record = telemetry_v1_pb2.TelemetryRecordV1(type=telemetry_pb2.TYPE_LOG, service_id=service, item_count=1)
        record.log_records.add(time_unix_nano=NOW, severity_text="INFO").body.string_value = body
        payload = encoded(telemetry_v1_pb2.TelemetryBatchV1(records=[record]))
        adapted.parts.append(Part(LOGS, payload, 1, len(payload)))
    adapted.accepted[telemetry_pb2.TYPE_LOG] = len(bodies)
    return adapted


def rejected_metric() -> Adapted:
    """A request of one item, which was rejected."""
    adapted = Adapted()
    adapted.rejected = {(telemetry_pb2.TYPE_METRIC, INVALID_VALUE): 1}
    adapted.rejections.append(Rejection(0, telemetry_pb2.TYPE_METRIC, INVALID_VALUE, "value must be a number", b"s", b"", 0))
    return adapted


async def records(live: LiveRecords, selection: Selection = ALL, name: str = "w") -> list[dict[str, Any]]:
    return (await live.answer(Watching(name, selection))).records


async def test_records_are_shown_from_the_first_question_on() -> None:
    """Each once, with what a person looks for."""
    live = LiveRecords(Clock())
    assert not live.is_watched
    assert [] == await records(live)
    assert live.is_watched
    live.note("acme", NOW, logs("card declined"))
    [shown] = await records(live)
    assert {
        "received": "2026-04-10T12:00:00.123456789Z",
        "tenant": "acme",
        "type": "log",
        "service": "payment-api",
        "time": "2026-04-10T12:00:00.123456789Z",
        "severity": "INFO",
        "body": "card declined",
        "trace_id": "",
        "attributes": {},
    } == shown
    assert [] == await records(live)


async def test_a_watch_holds_its_tenants_records_only() -> None:
    live = LiveRecords(Clock())
    selection = Selection("acme", None, None, is_rejected=False)
    await records(live, selection)
    live.note("other", NOW, logs("theirs"))
    live.note("acme", NOW, logs("ours"))
    assert ["ours"] == [record["body"] for record in await records(live, selection)]


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        (Selection(None, "payment-api", None, is_rejected=False), ["one", "two"]),
        (Selection(None, "payment", None, is_rejected=False), []),
        (Selection(None, None, "log", is_rejected=False), ["one", "two", "three"]),
        (Selection(None, None, "metric", is_rejected=False), []),
    ],
)
async def test_a_service_and_a_type_select(selection: Selection, shown: list[str]) -> None:
    """They select by the whole name, though a payload is searched for a part of it."""
    live = LiveRecords(Clock())
    await records(live, selection)
    live.note("acme", NOW, logs("one", "two"))
    live.note("acme", NOW, logs("three", service="checkout"))
    assert shown == [record["body"] for record in await records(live, selection)]


async def test_rejected_items_are_shown_with_their_reasons() -> None:
    """Only those who ask for them get them."""
    live = LiveRecords(Clock())
    rejected = Selection(None, None, None, is_rejected=True)
    await records(live)
    await records(live, rejected, "r")
    live.note("acme", NOW, rejected_metric())
    assert [] == await records(live)
    [shown] = await records(live, rejected, "r")
    assert ("s", "metric", "invalid_value", 0) == tuple(shown[name] for name in ("service", "type", "reason", "index"))
    assert "value must be a number" == shown["message"]
    other = Selection(None, "t", None, is_rejected=True)
    await records(live, other, "o")
    live.note("acme", NOW, rejected_metric())
    assert LiveAnswer([], 0) == await live.answer(Watching("o", other))


async def test_a_watch_is_bounded() -> None:
    """Requests, bytes and records are bounded, and the rest is counted."""
    live = LiveRecords(Clock())
    for adapted, times in ((logs("x"), 1_000), (logs("y" * 300_000), 10), (logs(*"z" * 500), 1)):
        await records(live)
        for _ in range(times):
            live.note("acme", NOW, adapted)
        answer = await live.answer(Watching("w", ALL))
        assert 0 < len(answer.records) <= 200
        assert times * len(adapted.parts) == len(answer.records) + answer.left_out
        assert all(len(record["body"]) <= 1_000 for record in answer.records)


async def test_a_watch_of_rejected_items_is_bounded() -> None:
    """It is, however many are rejected in whichever request. The rest is counted, also what no request has kept."""
    everything = Selection(None, None, None, is_rejected=True)
    metrics = Selection(None, None, "metric", is_rejected=True)
    one_service = Selection(None, "late", None, is_rejected=True)
    live = LiveRecords(Clock())
    for name, selection in (("all", everything), ("metrics", metrics), ("late", one_service)):
        await records(live, selection, name)
    adapted = Adapted()
    # 150 of each are kept with their messages, and the last service's come after many others.
    for type_, service, items in ((telemetry_pb2.TYPE_METRIC, b"early", 1_000), (telemetry_pb2.TYPE_LOG, b"late", 500)):
        adapted.rejected[type_, INVALID_VALUE] = items
        adapted.rejections += [Rejection(i, type_, INVALID_VALUE, "m" * 5_000, service, b"", 0) for i in range(150)]
    for _ in range(100):
        live.note("acme", NOW, adapted)
    for name, selection, items in (("all", everything, 1_500), ("metrics", metrics, 1_000), ("late", one_service, 150)):
        answer = await live.answer(Watching(name, selection))
        assert (200, 100 * items - 200) == (len(answer.records), answer.left_out)
        assert {1_000} == {len(record["message"]) for record in answer.records}
    live.note("acme", NOW, adapted)
    assert 150 == len(await records(live, one_service, "late"))


async def test_what_is_not_shown_is_only_counted() -> None:
    """The number is the one that a record has. A payload that is not needed is not even kept."""
    record = telemetry_v1_pb2.TelemetryRecordV1(type=telemetry_pb2.TYPE_LOG, service_id="s", item_count=5_000)
    for _ in range(300):
        record.log_records.add(time_unix_nano=NOW)
    payload = encoded(telemetry_v1_pb2.TelemetryBatchV1(records=[record, record]))
    adapted = Adapted()
    adapted.parts += [Part(LOGS, payload, 10_000, len(payload)), Part(LOGS, b"is not read" + payload, 7, 0)]
    live = LiveRecords(Clock())
    await records(live)
    live.note("acme", NOW, adapted)
    answer = await live.answer(Watching("w", ALL))
    assert (200, 10_007 - 200) == (len(answer.records), answer.left_out)


async def test_a_watch_that_nobody_asks_for_ends() -> None:
    """After the last of them, requests are not looked at any more."""
    clock = Clock()
    live = LiveRecords(clock)
    await records(live)
    clock.now_s = 9.0
    live.note("acme", NOW, logs("x"))
    assert 1 == len(await records(live))
    clock.now_s = 20.0
    live.note("acme", NOW, logs("x"))
    assert not live.is_watched
    assert [] == await records(live)


async def test_so_many_may_watch() -> None:
    """One more is refused; when one has ended, it may."""
    clock = Clock()
    live = LiveRecords(clock)
    for number in range(WATCHES_MAX):
        await records(live, name=str(number))
    with pytest.raises(TooManyWatches, match=f"too many are watching: .+ and {WATCHES_MAX} in all; "):
        await records(live, name="more")
    await records(live, name="0")
    clock.now_s = 20.0
    await records(live, name="more")


async def test_one_tenant_does_not_take_all_watches() -> None:
    """It has some; all tenants together leave some to those who read everything; and what has begun goes on."""
    live = LiveRecords(Clock())

    async def watch(tenant: str | None, number: int) -> None:
        selection = Selection(tenant, None, None, is_rejected=False)
        await live.answer(Watching(f"{tenant}/{number}", selection, tenant))

    for tenant in ("a", "b", "c"):
        for number in range(TENANT_WATCHES_MAX):
            await watch(tenant, number)
        with pytest.raises(TooManyWatches):
            await watch(tenant, TENANT_WATCHES_MAX)
    with pytest.raises(TooManyWatches):
        await watch("d", 0)
    for number in range(WATCHES_MAX - TENANTS_WATCHES_MAX):
        await watch(None, number)
    with pytest.raises(TooManyWatches):
        await watch(None, WATCHES_MAX)
    await watch("a", 0)


async def test_every_kind_of_item_is_shown() -> None:
    """A span with its duration, and each kind of metric, whatever its number is; a message without items shows nothing."""
    record = telemetry_v1_pb2.TelemetryRecordV1(type=telemetry_pb2.TYPE_TRACE, service_id="s")
    record.spans.add(name="GET /", start_time_unix_nano=NOW, end_time_unix_nano=NOW + 5, trace_id=b"\1" * 16)
    metrics = telemetry_v1_pb2.TelemetryRecordV1(type=telemetry_pb2.TYPE_METRIC, service_id="s")
    metrics.metrics.add(name="g").gauge.data_points.add(time_unix_nano=NOW, as_double=float("nan"))
    metrics.metrics.add(name="i").sum.data_points.add(time_unix_nano=NOW, as_int=3)
    metrics.metrics.add(name="h").histogram.data_points.add(count=2, sum=1.5)
    metrics.metrics.add(name="empty")
    receipt = telemetry_v1_pb2.TelemetryRecordV1(receipt=telemetry_pb2.Receipt(received=1))
    adapted = Adapted()
    for signal, one in ((TRACES, [record]), (METRICS, [metrics, receipt])):
        payload = encoded(telemetry_v1_pb2.TelemetryBatchV1(records=one))
        adapted.parts.append(Part(signal, payload, 4, len(payload)))
    live = LiveRecords(Clock())
    await records(live)
    live.note("acme", NOW, adapted)
    span, gauge, sum_, histogram = await records(live)
    assert ("GET /", 5, "01" * 16) == (span["name"], span["duration_ns"], span["trace_id"])
    assert ("g", "nan") == (gauge["name"], gauge["value"])
    assert ("i", 3) == (sum_["name"], sum_["value"])
    assert ("h", 2, "1.5", "") == tuple(histogram[name] for name in ("name", "count", "sum", "time"))


def test_answers_of_processes_are_one() -> None:
    early, late = {"received": "2026-04-10T12:00:00Z"}, {"received": "2026-04-10T12:00:01Z"}
    assert LiveAnswer([early, late], 3) == combined([LiveAnswer([late], 1), LiveAnswer([early], 2)])


@pytest.mark.parametrize(("watch", "type_"), [("", None), ("x" * 65, None), ("a/b", None), ("w", "logs"), ("w", "unspecified")])
def test_a_wrong_question_is_named(watch: str, type_: str | None) -> None:
    with pytest.raises(ValueError, match=r"^(watch|type) must be "):
        question_of(None, None, type_, watch, is_rejected=False)
