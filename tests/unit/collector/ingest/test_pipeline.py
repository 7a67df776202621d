"""`ingest`: what it returns is durable, and every item has one outcome."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_LOGS, DeadLetterBatch
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP as SOURCE
from infrasage.v1.telemetry_pb2 import Receipt
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.fakes.receiving import NOW_UNIX_NANO, PROCESS_ID, Receivers, otlp_logs, receivers
from support.records import flat

import adapters.otlp.logs
from adapters.codec.json_parts import JsonPartsCount
from adapters.errors import (
    EXCEEDS_PLAN,
    INVALID_PROTOBUF,
    MISSING_TIMESTAMP,
    PAYLOAD_TOO_LARGE,
    TIMESTAMP_TOO_OLD,
    Malformed,
    RequestRefused,
)
from adapters.record import LOGS, METRICS, SOURCE_OTLP, TYPE_LOG, TYPE_METRIC, TYPE_TRACE, Adapted, Header, Part
from adapters.rules import Rules
from collector.broker.contract import (
    DEAD_LETTERS_TOPIC,
    LOGS_TOPIC,
    METRICS_TOPIC,
    TRACES_TOPIC,
    BrokerDown,
    BrokerError,
    BrokerFull,
)
from collector.ingest.large_bodies import DIRECT_BYTES_MAX
from collector.ingest.pipeline import Defect, Outcome
from collector.ingest.produce import Overloaded, ShareExceeded
from collector.ingest.reading import Adapt, Input
from collector.rate_limit.contract import Limited
from collector.rate_limit.local import LocalLimiter
from collector.receivers.responses import OtlpProtobufDialect
from collector.records.dead_letter import Caps, DeadLettersFull
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED, Plan, Rate
from collector.tenancy.scopes import Scope

ACME = Caller("acme", Scope.INGEST, UNLIMITED, "k1")
SMALL = Plan("Small", requests=Rate(1, 3), items=Rate(1, 10), size_bytes=Rate(1, 20_000))


def gives(adapted: Adapted) -> Adapt:
    def adapt(_body: bytes, _header: Header, _rules: Rules, _message_bytes_max: int) -> Adapted:
        return adapted

    return adapt


def raises(error: Exception) -> Adapt:
    def adapt(_body: bytes, _header: Header, _rules: Rules, _message_bytes_max: int) -> Adapted:
        raise error

    return adapt


def adapted(accepted: dict[int, int], rejected: dict[tuple[int, int], int]) -> Adapted:
    out = Adapted()
    for type_, items in accepted.items():
        out.accepted[type_] = items
        if items:
            out.parts.append(Part(METRICS if type_ == TYPE_METRIC else LOGS, b"p", items, 1))
    out.rejected = dict(rejected)
    return out


def hold_nothing(_size_bytes: int) -> None:
    """Of a budget without a limit."""


async def ingest(
    made: Receivers,
    adapt: Adapt,
    body: bytes = b"",
    caller: Caller = ACME,
    hold: Callable[[int], None] = hold_nothing,
) -> Outcome:
    input_ = Input(adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
    return await made.pipeline.ingest(input_, body, caller, hold)


async def test_a_request_costs_the_bytes_of_its_rows() -> None:
    """If its rows have more bytes than its body, memory and plan count them."""
    body = otlp_logs(good=100)
    held: list[int] = []
    rows = (await ingest(receivers(), adapters.otlp.logs.adapt, body, hold=held.append)).adapted.row_bytes
    assert rows > len(body)
    assert [rows - len(body)] == held
    for burst, passes in ((rows, True), (rows - 1, False)):
        plan = Plan("Small", None, None, Rate(1, burst))
        caller = Caller("acme", Scope.INGEST, plan, "")
        with contextlib.nullcontext() if passes else pytest.raises(RequestRefused):
            await ingest(receivers(), adapters.otlp.logs.adapt, body, caller)


@pytest.mark.parametrize(
    ("counted_bytes", "is_sure", "expected"), [(100, True, True), (99, True, False), (100, False, False), (None, True, False)]
)
async def test_a_body_is_counted_once(counted_bytes: int | None, is_sure: bool, expected: bool) -> None:
    """The rules tell the adapter that its body was counted while it was decompressed; not where a part of it was not."""
    body = b"x" * 100
    found: list[bool] = []

    def adapt(given: bytes, _header: Header, rules: Rules, _message_bytes_max: int) -> Adapted:
        found.append(rules.counted_body is given)
        return adapted({TYPE_LOG: 1}, {})

    count = None
    if counted_bytes is not None:
        count = JsonPartsCount(1_000)
        count.take(body[:counted_bytes])
        count.is_sure = is_sure
    input_ = Input(adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
    await receivers().pipeline.ingest(input_, body, ACME, hold_nothing, count=count)
    assert [expected] == found


async def test_a_request_that_can_not_be_held_is_not_kept() -> None:
    """It may be sent again, and its tenant's plan is not charged for it."""

    def refuse(_size_bytes: int) -> None:
        raise Overloaded("full")

    made = receivers()
    with pytest.raises(Overloaded):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=100), hold=refuse)
    assert [] == made.producer.messages


async def test_what_is_accepted_is_in_the_broker_under_its_header() -> None:
    """Tenant, source, time of arrival and the batch id that the outcome has: a UUID of version 7 of that time."""
    made = receivers()
    outcome = await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=2, late=1))
    (message,) = made.producer.messages
    assert message.topic == LOGS_TOPIC
    record, receipt = flat(message.payload).records
    assert record.tenant_id == "acme"
    assert record.source == SOURCE
    assert record.received_time_unix_nano == NOW_UNIX_NANO
    assert record.batch_id == outcome.batch_id.bytes
    assert outcome.batch_id.version == 7
    assert outcome.batch_id.int >> 80 == NOW_UNIX_NANO // 1_000_000
    assert (receipt.tenant_id, receipt.source, receipt.batch_id) == (record.tenant_id, record.source, record.batch_id)
    assert receipt.receipt.received == 3
    assert outcome.adapted.accepted_count() == 2
    assert outcome.adapted.rejected == {(TYPE_LOG, TIMESTAMP_TOO_OLD): 1}


async def test_it_returns_only_when_the_broker_has_it() -> None:
    made = receivers()
    made.producer.gate.clear()
    ingesting = asyncio.create_task(ingest(made, adapters.otlp.logs.adapt, otlp_logs()))
    await made.producer.waiting.wait()
    assert made.counted("infrasage_ingestion_events_total") == 0
    assert not ingesting.done()
    made.producer.gate.set()
    await ingesting
    assert made.counted("infrasage_ingestion_events_total", type="log", status="accepted") == 1


async def test_messages_are_as_large_as_they_may_be() -> None:
    made = receivers(message_bytes_max=20_000)
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10, padding=5000))
    assert len(made.producer.messages) > 1
    assert all(len(message.payload) <= 20_000 for message in made.producer.messages)
    assert made.producer.appends == 1


async def test_a_refused_request_counts_no_items() -> None:
    """They are not known."""
    made = receivers()
    with pytest.raises(Malformed):
        await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")))
    assert made.counted("infrasage_ingestion_events_total") == 0


@pytest.mark.parametrize("error", [BrokerDown("x"), BrokerFull("x"), BrokerError("x")])
async def test_when_the_broker_fails_all_items_have_failed(error: BrokerError) -> None:
    """Those that would have been rejected too: their sender hears of them when it sends all of it again."""
    made = receivers()
    made.producer.error = error
    with pytest.raises(type(error)):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=2, late=3))
    assert made.counted("infrasage_ingestion_events_total", type="log", status="failed") == 5
    assert made.counted("infrasage_ingestion_events_total") == 5
    assert made.counted("infrasage_validation_failures_total") == 0


async def test_a_defect_before_the_broker_names_its_batch() -> None:
    made = receivers()
    with pytest.raises(Defect) as info:
        await ingest(made, raises(ZeroDivisionError("x")))
    assert str(info.value.batch_id) in str(info.value)
    assert isinstance(info.value.__cause__, ZeroDivisionError)


async def test_a_defect_of_the_broker_leaves_its_items_failed() -> None:
    made = receivers()
    made.producer.error = ZeroDivisionError("x")
    with pytest.raises(Defect):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs())
    assert made.counted("infrasage_ingestion_events_total", status="failed") == 1


async def test_being_cancelled_leaves_its_items_failed() -> None:
    """No sender got the answer that they are durable."""
    made = receivers()
    made.producer.gate.clear()
    ingesting = asyncio.create_task(ingest(made, adapters.otlp.logs.adapt, otlp_logs()))
    await made.producer.waiting.wait()
    ingesting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ingesting
    assert made.counted("infrasage_ingestion_events_total", status="failed") == 1


# Receipts and dead letters.


def receipts(made: Receivers) -> list[Receipt]:
    return [
        record.receipt
        for message in made.producer.messages
        if message.topic != DEAD_LETTERS_TOPIC
        for record in flat(message.payload).records
        if record.HasField("receipt")
    ]


async def test_a_receipt_is_in_the_last_message() -> None:
    """It costs no message of its own, and says what became of every item."""
    made = receivers(message_bytes_max=20_000)
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10, late=3, padding=5000))
    *others, last = (flat(message.payload).records for message in made.producer.messages)
    assert len(others) == 3
    assert not any(record.HasField("receipt") for records in others for record in records)
    receipt = last[-1].receipt
    assert (receipt.route, receipt.received, receipt.parts) == ("/v1/logs", 13, 4)
    assert [(TYPE_LOG, 10)] == [(each.type, each.items) for each in receipt.accepted]
    assert [(TYPE_LOG, "timestamp_too_old", 3)] == [(each.type, each.reason, each.items) for each in receipt.rejected]
    assert (receipt.process_id, receipt.sequence, receipt.settled) == (PROCESS_ID, 1, 1)
    assert sum(record.item_count for records in (*others, last) for record in records) == 10


async def test_a_receipt_that_does_not_fit_has_a_message_of_its_own() -> None:
    """It has the same topic, and no message is larger than it may be."""
    full = Adapted()
    full.accepted[TYPE_METRIC] = 1
    full.parts.append(Part(METRICS, b"p" * (20_000 - 10), 1, 20_000))
    made = receivers(message_bytes_max=20_000)
    await ingest(made, gives(full))
    assert [METRICS_TOPIC, METRICS_TOPIC] == [message.topic for message in made.producer.messages]
    (record,) = flat(made.producer.messages[1].payload).records
    assert (record.receipt.received, record.receipt.parts) == (1, 1)
    assert made.producer.appends == 1


async def test_a_receipt_never_makes_the_rows_of_a_message_too_many() -> None:
    """It is a row too: where it would exceed the limit it has a message of its own."""
    made = receivers(message_row_bytes_max=20_000)
    for row_bytes_left in (10, 10_000):
        full = Adapted()
        full.accepted[TYPE_METRIC] = 1
        full.parts.append(Part(METRICS, b"", 1, 20_000 - row_bytes_left))
        await ingest(made, gives(full))
    assert [False, True, True] == [bool(message.payload) for message in made.producer.messages]
    assert made.producer.appends == 2


@pytest.mark.parametrize(("type_", "topic"), [(TYPE_METRIC, METRICS_TOPIC), (TYPE_LOG, LOGS_TOPIC), (TYPE_TRACE, TRACES_TOPIC)])
async def test_where_nothing_is_accepted_a_receipt_says_so(type_: int, topic: str) -> None:
    made = receivers()
    await ingest(made, gives(adapted({}, {(type_, MISSING_TIMESTAMP): 2})))
    (message,) = made.producer.messages
    assert message.topic == topic
    (receipt,) = receipts(made)
    assert (receipt.received, receipt.parts, len(receipt.accepted)) == (2, 0, 0)


async def test_no_items_leave_nothing() -> None:
    """An empty request is answered without the broker, and has no number."""
    made = receivers()
    made.producer.error = BrokerDown("x")
    await ingest(made, gives(Adapted()))
    assert made.producer.appends == 0
    made.producer.error = None
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs())
    assert [1] == [receipt.sequence for receipt in receipts(made)]


async def test_a_request_that_failed_is_reported_by_the_next() -> None:
    """So its missing receipt is not taken for a lost one. A refused request has none that could be missed."""
    made = receivers()
    made.producer.error = BrokerDown("x")
    for _ in range(2):
        with pytest.raises(BrokerDown):
            await ingest(made, adapters.otlp.logs.adapt, otlp_logs())
    with pytest.raises(Malformed):
        await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")))
    made.producer.error = None
    for _ in range(2):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs())
    first, second = receipts(made)
    assert (first.sequence, first.settled, [(each.first, each.last) for each in first.failed]) == (3, 3, [(1, 2)])
    assert (second.sequence, second.settled, len(second.failed)) == (4, 4, 0)


async def test_dead_letters_come_before_the_receipt_that_counts_them() -> None:
    """They are in one append: so the receipt, which is last, is kept only with them."""
    made = receivers(caps=Caps(100, 100_000))
    outcome = await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=1, late=3))
    assert [DEAD_LETTERS_TOPIC, LOGS_TOPIC] == [message.topic for message in made.producer.messages]
    assert made.producer.appends == 1
    letters = [record.letter for record in DeadLetterBatch.FromString(made.producer.messages[0].payload).records]
    assert [1, 2, 3] == [letter.item_index for letter in letters]
    assert {(outcome.batch_id.bytes, "acme", "/v1/logs", "timestamp_too_old", PAYLOAD_FORM_OTLP_LOGS)} == {
        (letter.batch_id, letter.tenant_id, letter.route, letter.reason, letter.payload_form) for letter in letters
    }
    assert [3] == [receipt.dead_letters for receipt in receipts(made)]
    assert made.counted("infrasage_dlq_not_kept_total") == 0


async def test_past_the_cap_a_request_is_refused_until_the_next_minute() -> None:
    """This holds for one tenant, over all its requests. Nothing is kept, and its sender gets the time to come again."""
    made = receivers(caps=Caps(5, 100_000))
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=1, late=3))
    with pytest.raises(DeadLettersFull) as refused:
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=1, late=3))
    assert 60.0 == refused.value.retry_after_s  # the clock here is at the beginning of a minute
    assert "1 of 3 items would be rejected" in str(refused.value)
    assert str(refused.value).endswith(
        " The first of the rejected is timestamp_too_old: Timestamp is more than 24h in the past"
    )
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=1, late=2))
    assert [3, 2] == [receipt.dead_letters for receipt in receipts(made)]
    assert [3, 2] == [receipt.rejected[0].items for receipt in receipts(made)]
    assert 4 == made.counted("infrasage_ingestion_events_total", status="failed")
    assert 0 == made.counted("infrasage_dlq_not_kept_total")


async def test_what_no_minute_has_room_for_is_taken_with_a_word() -> None:
    """A request with more rejected items than the whole cap would be refused for ever."""
    made = receivers(caps=Caps(5, 100_000))
    outcome = await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=1, late=9))
    assert (9, 4, 5) == (outcome.adapted.rejected_count(), outcome.adapted.not_kept, receipts(made)[0].dead_letters)
    assert 4 == made.counted("infrasage_dlq_not_kept_total", reason="timestamp_too_old")
    assert (b"x-infrasage-rejected-not-kept", b"4") in OtlpProtobufDialect(LOGS).accepted(outcome).headers


@pytest.mark.parametrize(
    ("settings", "plan_past_max_s", "days", "accepted"),
    [
        ({"otlp_logs_past_max_s": 604_800}, None, 6, True),
        ({"otlp_logs_past_max_s": 604_800}, None, 8, False),
        ({"otlp_traces_past_max_s": 604_800}, None, 6, False),
        ({"past_max_s": 10 * 86_400}, None, 8, True),
        ({"otlp_logs_past_max_s": 604_800}, 86_400, 2, False),
        ({}, 30 * 86_400, 29, True),
        ({}, 30 * 86_400, 31, False),
    ],
)
async def test_the_window_is_of_signal_source_and_plan(
    settings: dict[str, int], plan_past_max_s: int | None, days: int, accepted: bool
) -> None:
    """The plan's comes before all; else it is the source's for the signal, and at least the general one."""
    made = receivers(validation=settings)
    request = ExportLogsServiceRequest()
    time = NOW_UNIX_NANO - days * 86_400 * 10**9
    request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=time)
    caller = Caller("acme", Scope.INGEST, replace(UNLIMITED, past_max_s=plan_past_max_s), "")
    outcome = await ingest(made, adapters.otlp.logs.adapt, request.SerializeToString(), caller)
    assert int(accepted) == outcome.adapted.accepted_count()


@pytest.mark.parametrize(
    ("settings", "plan_past_max_s", "days", "accepted"),
    [
        ({}, None, 13, True),
        ({}, None, 15, False),
        ({"own_time_past_max_s": 0}, None, 2, False),
        ({"own_time_past_max_s": 20 * 86_400}, None, 19, True),
        ({"past_max_s": 30 * 86_400}, None, 29, True),
        ({}, 30 * 86_400, 29, True),
        ({}, 3600, 13, True),
    ],
)
@pytest.mark.parametrize("signal", ["logs", "traces"])
async def test_a_newer_time_beside_it_does_not_lift_every_limit(
    signal: str, settings: dict[str, int], plan_past_max_s: int | None, days: int, accepted: bool
) -> None:
    """Each day of own times is a partition in the store: 20,000 of them in one request took it ten minutes, and 2 GB."""
    made = receivers(validation=settings)
    own, newer = NOW_UNIX_NANO - days * 86_400 * 10**9, NOW_UNIX_NANO - 10**9
    if signal == "logs":
        logs = ExportLogsServiceRequest()
        logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=own, observed_time_unix_nano=newer)
        adapt, body = adapters.otlp.logs.adapt, logs.SerializeToString()
    else:
        spans = ExportTraceServiceRequest()
        ids = {"trace_id": bytes(range(16)), "span_id": bytes(range(8))}
        spans.resource_spans.add().scope_spans.add().spans.add(**ids, start_time_unix_nano=own, end_time_unix_nano=newer)
        adapt, body = adapters.otlp.traces.adapt, spans.SerializeToString()
    caller = Caller("acme", Scope.INGEST, replace(UNLIMITED, past_max_s=plan_past_max_s), "")
    outcome = await ingest(made, adapt, body, caller)
    assert int(accepted) == outcome.adapted.accepted_count()


COUNTS = st.integers(0, 5)


@given(
    requests=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from([TYPE_METRIC, TYPE_LOG]), COUNTS),
            st.dictionaries(
                st.tuples(st.integers(0, 6), st.sampled_from([MISSING_TIMESTAMP, TIMESTAMP_TOO_OLD])), st.integers(1, 5)
            ),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_the_counters_add_up(requests: list[tuple[dict[int, int], dict[tuple[int, int], int], bool]]) -> None:
    """accepted + rejected + rate_limited + failed is what was received; and each is what was answered."""

    async def check() -> None:
        made = receivers()
        told = {"accepted": 0, "rejected": 0, "failed": 0}
        for accepted, rejected, works in requests:
            result = adapted(accepted, rejected)
            made.producer.error = None if works else BrokerDown("x")
            try:
                await ingest(made, gives(result))
            except BrokerDown:
                told["failed"] += result.accepted_count() + result.rejected_count()
            else:
                told["accepted"] += result.accepted_count()
                told["rejected"] += result.rejected_count()
        for status, items in told.items():
            assert made.counted("infrasage_ingestion_events_total", status=status) == items
        assert made.counted("infrasage_ingestion_events_total") == sum(told.values())
        assert made.counted("infrasage_ingestion_batch_size_sum") == sum(told.values())
        assert made.counted("infrasage_validation_failures_total") == told["rejected"]

    asyncio.run(check())


def stopped() -> LocalLimiter:
    """Nothing is refilled."""
    return LocalLimiter(lambda: 0)


def small() -> Caller:
    return ACME._replace(plan=SMALL)


async def test_a_limited_request_keeps_nothing() -> None:
    """Neither its good items nor its bad ones, and all of them are counted as rate limited."""
    made = receivers(limiter=stopped())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=4, late=2), small())
    kept = len(made.producer.messages)
    with pytest.raises(Limited) as info:
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=4, late=1), small())
    assert info.value.dimension == "items"
    assert info.value.retry_after_s == 1, "11 of 10: one more second"
    assert len(made.producer.messages) == kept
    assert made.counted("infrasage_ingestion_events_total", status="rate_limited") == 5
    assert made.counted("infrasage_ingestion_events_total") == 11
    assert made.counted("infrasage_tenant_items_total", tenant="acme", status="rate_limited") == 5
    assert made.counted("infrasage_tenant_requests_total", tenant="acme", status="limited_by_items") == 1
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=4), small())


async def test_what_is_over_in_requests_or_bytes_is_not_decoded() -> None:
    """Refusing is cheap: the body is not looked at."""
    made = receivers(limiter=stopped())
    for _ in range(3):
        await ingest(made, gives(adapted({}, {})), b"", small())
    with pytest.raises(Limited) as requests:
        await ingest(made, raises(AssertionError("decoded")), b"", small())
    assert requests.value.dimension == "requests"

    made = receivers(limiter=stopped())
    await ingest(made, gives(adapted({}, {})), b"x" * 19_500, small())
    with pytest.raises(Limited) as size:
        await ingest(made, raises(AssertionError("decoded")), b"x" * 501, small())
    assert (size.value.dimension, size.value.retry_after_s) == ("bytes", 1)
    assert made.counted("infrasage_tenant_requests_total", tenant="acme", status="limited_by_bytes") == 1


async def test_what_can_not_be_decoded_counts_for_the_plan() -> None:
    """It counts as a request and its bytes: otherwise a tenant could send rubbish without end."""
    made = receivers(limiter=stopped())
    for _ in range(3):
        with pytest.raises(Malformed):
            await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")), b"rubbish", small())
    with pytest.raises(Limited):
        await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")), b"rubbish", small())
    assert made.counted("infrasage_tenant_requests_total", status="refused") == 3


async def test_what_the_plan_never_allows_is_refused_for_good() -> None:
    """It is refused however long one waits: so its sender is not asked to come again."""
    made = receivers(limiter=stopped())
    with pytest.raises(RequestRefused) as info:
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=11), small())
    assert info.value.reason == EXCEEDS_PLAN
    assert not made.producer.messages
    assert made.counted("infrasage_ingestion_events_total", status="rate_limited") == 11


async def test_what_the_plan_never_allows_counts_for_it() -> None:
    """It counts as a request and the bytes of its body, since it has been decoded."""
    made = receivers(limiter=stopped())
    body = otlp_logs(good=11)
    for _ in range(3):
        with pytest.raises(RequestRefused):
            await ingest(made, adapters.otlp.logs.adapt, body, small())
    with pytest.raises(Limited) as info:
        await ingest(made, raises(AssertionError("decoded")), body, small())
    assert "requests" == info.value.dimension


async def test_what_is_decoded_and_does_not_fit_the_plan_is_bounded() -> None:
    """Three requests are, which is the plan's burst; the fourth is not decoded."""
    made = receivers(limiter=stopped())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=6), small())
    for _ in range(3):
        with pytest.raises(Limited) as info:
            await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=6), small())
        assert "items" == info.value.dimension
    with pytest.raises(Limited) as info:
        await ingest(made, raises(AssertionError("decoded")), otlp_logs(good=1), small())
    assert "requests" == info.value.dimension


async def test_what_is_decoded_and_does_not_fit_the_share_of_the_bytes_in_flight_is_bounded() -> None:
    """Its tenant holds the share, and sends it again. Where others hold the budget, it does not count."""

    def full(error: Exception) -> Callable[[int], None]:
        def hold(_: int) -> None:
            raise error

        return hold

    input_ = Input(adapters.otlp.logs.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
    made = receivers(limiter=stopped())
    for error in (*[Overloaded("others")] * 9, *[ShareExceeded("own")] * 3):
        with pytest.raises(type(error)):
            await made.pipeline.ingest(input_, otlp_logs(good=1), small(), full(error))
    with pytest.raises(Limited) as info:
        made.pipeline.charges.check(small(), 0)
    assert "requests" == info.value.dimension


def spin() -> None:
    """Take more CPU than bodies may have in one turn of the loop."""
    end = time.thread_time() + 0.012
    while time.thread_time() < end:
        pass


async def test_many_small_bodies_do_not_stop_the_loop() -> None:
    """It has its turn after each that takes as long as bodies may in one turn, and other tenants have theirs."""
    made = receivers()
    read: list[bytes] = []
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            before = len(read)
            await asyncio.sleep(0)
            most = max(most, len(read) - before)

    def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
        spin()
        read.append(body[:5])
        raise Malformed(INVALID_PROTOBUF, "m")

    input_ = Input(adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
    requests = [
        made.pipeline.ingest(input_, tenant.encode() + bytes(2_000), ACME._replace(tenant=tenant), hold_nothing)
        for tenant in (*["noisy"] * 20, "quiet")
    ]
    watching = asyncio.create_task(watch())
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    watching.cancel()
    assert [Malformed] * 21 == [type(outcome) for outcome in outcomes]
    assert 1 == most
    assert b"quiet" in read[:3]


@pytest.mark.parametrize("size_bytes", [2_000, DIRECT_BYTES_MAX + 1])
async def test_a_body_is_admitted_again_at_its_turn(size_bytes: int) -> None:
    """If many wait, those that the plan has no room for any more are not read."""
    made = receivers(limiter=stopped())
    read: list[bytes] = []

    def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
        spin()
        read.append(body)
        raise Malformed(INVALID_PROTOBUF, "m")

    caller = ACME._replace(plan=Plan("Three", requests=Rate(1, 3), items=None, size_bytes=None))
    input_ = Input(adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
    body = bytes(size_bytes)
    requests = [made.pipeline.ingest(input_, body, caller, hold_nothing) for _ in range(20)]
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    # One more may begin before the one that uses up the plan is counted.
    assert 3 <= len(read) <= 4
    assert len(read) == sum(isinstance(outcome, Malformed) for outcome in outcomes)
    assert 20 - len(read) == sum(isinstance(outcome, Limited) for outcome in outcomes)


async def test_what_can_not_be_decompressed_counts_for_the_plan() -> None:
    """What was decompressed counts, as far as the plan has so much; otherwise it counts as a request."""

    async def refused(error: Exception) -> bytes:
        raise error

    refusal = RequestRefused(PAYLOAD_TOO_LARGE, "m")
    made = receivers(limiter=stopped())
    for cost in (20_000, 20_001, 1):
        with pytest.raises(RequestRefused):
            await made.pipeline.charges.charge_if_refused(small(), refused(refusal), partial(int, cost))
    with pytest.raises(Limited) as info:
        made.pipeline.charges.check(small(), 0)
    assert "requests" == info.value.dimension
    assert 3 == made.counted("infrasage_tenant_requests_total", tenant="acme", status="refused")

    made = receivers(limiter=stopped())
    with pytest.raises(ShareExceeded):
        await made.pipeline.charges.charge_if_refused(small(), refused(ShareExceeded("own")), partial(int, 19_000))
    with pytest.raises(Limited) as info:
        made.pipeline.charges.check(small(), 1_001)
    assert "bytes" == info.value.dimension


async def test_what_could_not_be_kept_does_not_count_for_the_plan() -> None:
    """The fault was ours, and its sender sends it again."""
    made = receivers(limiter=stopped())
    made.producer.error = BrokerDown("x")
    for _ in range(20):
        with pytest.raises(BrokerDown):
            await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=9), small())
    made.producer.error = None
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=9), small())


class Remote(LocalLimiter):
    """Counts somewhere else, as Redis does: each call suspends."""

    async def take(self, caller: Caller, items: int, size_bytes: int) -> None:
        await asyncio.sleep(0)
        await super().take(caller, items, size_bytes)

    async def give_back(self, caller: Caller, items: int, size_bytes: int) -> None:
        await asyncio.sleep(0)
        await super().give_back(caller, items, size_bytes)


async def test_requests_that_fail_at_once_each_raise_their_own_error() -> None:
    """A failed request awaits a remote limiter, and other requests fail meanwhile (ADR 0021)."""
    made = receivers(limiter=Remote(lambda: 0))
    made.producer.error = BrokerDown("away")
    caller = ACME._replace(plan=Plan("Wide", requests=Rate(1, 1000), items=None, size_bytes=None))
    adapts = [*(raises(Malformed(INVALID_PROTOBUF, f"m{number}")) for number in range(4)), *[adapters.otlp.logs.adapt] * 4]
    inputs = [Input(adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS) for adapt in adapts]
    # Each as a task of its own, with no coroutine around it: one that is not compiled would hide the fault.
    requests = [made.pipeline.ingest(input_, otlp_logs(), caller, hold_nothing) for input_ in inputs]
    async with asyncio.timeout(10):
        errors = await asyncio.gather(*requests, return_exceptions=True)
    assert [*(f"m{number}" for number in range(4)), *["away"] * 4] == [str(error) for error in errors]
    assert [Malformed] * 4 + [BrokerDown] * 4 == [type(error) for error in errors]


async def test_tenants_have_limits_of_their_own() -> None:
    """One at its limit takes nothing of another's."""
    made = receivers(limiter=stopped())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10), small())
    with pytest.raises(Limited):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(), small())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10), small()._replace(tenant="other"))
    (first, second) = (flat(message.payload).records[0] for message in made.producer.messages)
    assert (first.tenant_id, second.tenant_id) == ("acme", "other")


async def test_a_refused_request_leaves_a_dead_letter() -> None:
    """It has the beginning of its body. A broker that is down does not change the answer."""
    made = receivers(caps=Caps(100, 100_000))
    made.producer.error = BrokerDown("x")
    with pytest.raises(Malformed):
        await ingest(made, adapters.otlp.logs.adapt, b"\xff not protobuf")
    made.producer.error = None
    with pytest.raises(Malformed):
        await ingest(made, adapters.otlp.logs.adapt, b"\xff not protobuf")
    [message] = made.producer.messages
    [record] = DeadLetterBatch.FromString(message.payload).records
    assert (DEAD_LETTERS_TOPIC, b"\xff not protobuf") == (message.topic, record.letter.payload)
    assert ("acme", "/v1/logs", "invalid_protobuf") == (record.letter.tenant_id, record.letter.route, record.letter.reason)
    assert "cannot decode" in record.letter.message
