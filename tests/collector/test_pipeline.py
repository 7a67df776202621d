"""`ingest`: what it returns is durable, and every item has one outcome."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP as SOURCE
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support.receiving import NOW_UNIX_NANO, Receivers, otlp_logs, receivers

import adapters.otlp.logs
from adapters.errors import EXCEEDS_PLAN, INVALID_PROTOBUF, MISSING_TIMESTAMP, TIMESTAMP_TOO_OLD, Malformed, RequestRefused
from adapters.record import LOGS, METRICS, SOURCE_OTLP, TYPE_LOG, TYPE_METRIC, Adapted, Header, Part, Rules
from collector.broker.contract import LOGS_TOPIC, BrokerDown, BrokerError, BrokerFull
from collector.limit.contract import Limited
from collector.limit.local import LocalLimiter
from collector.pipeline import Adapt, Defect, Outcome
from collector.tenancy.callers import Caller
from collector.tenancy.plans import UNLIMITED, Plan, Rate
from collector.tenancy.scopes import Scope

ACME = Caller("acme", Scope.INGEST, UNLIMITED, "k1")
SMALL = Plan("Small", requests=Rate(1, 3), items=Rate(1, 10), size_bytes=Rate(1, 2_000))


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
            out.parts.append(Part(METRICS if type_ == TYPE_METRIC else LOGS, b"p", items))
    out.rejected = dict(rejected)
    return out


async def ingest(made: Receivers, adapt: Adapt, body: bytes = b"", caller: Caller = ACME) -> Outcome:
    return await made.pipeline.ingest(adapt, body, caller, SOURCE_OTLP)


async def test_what_is_accepted_is_in_the_broker_under_its_header() -> None:
    """Tenant, source, time of arrival and the batch id that the outcome has: a UUID of version 7 of that time."""
    made = receivers()
    outcome = await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=2, late=1))
    (message,) = made.producer.messages
    assert message.topic == LOGS_TOPIC
    (record,) = TelemetryBatch.FromString(message.payload).records
    assert record.tenant_id == "acme"
    assert record.source == SOURCE
    assert record.received_time_unix_nano == NOW_UNIX_NANO
    assert record.batch_id == outcome.batch_id.bytes
    assert outcome.batch_id.version == 7
    assert outcome.batch_id.int >> 80 == NOW_UNIX_NANO // 1_000_000
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
    """Nobody was told that they are durable."""
    made = receivers()
    made.producer.gate.clear()
    ingesting = asyncio.create_task(ingest(made, adapters.otlp.logs.adapt, otlp_logs()))
    await made.producer.waiting.wait()
    ingesting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ingesting
    assert made.counted("infrasage_ingestion_events_total", status="failed") == 1


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
    """accepted + rejected + rate_limited + failed is what was received; and each is what was told."""

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
    await ingest(made, gives(adapted({}, {})), b"x" * 1500, small())
    with pytest.raises(Limited) as size:
        await ingest(made, raises(AssertionError("decoded")), b"x" * 501, small())
    assert (size.value.dimension, size.value.retry_after_s) == ("bytes", 1)
    assert made.counted("infrasage_tenant_requests_total", tenant="acme", status="limited_by_bytes") == 1


async def test_what_can_not_be_decoded_counts_for_the_plan() -> None:
    """As a request and its bytes: else a tenant could send rubbish without end."""
    made = receivers(limiter=stopped())
    for _ in range(3):
        with pytest.raises(Malformed):
            await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")), b"rubbish", small())
    with pytest.raises(Limited):
        await ingest(made, raises(Malformed(INVALID_PROTOBUF, "m")), b"rubbish", small())
    assert made.counted("infrasage_tenant_requests_total", status="refused") == 3


async def test_what_the_plan_never_allows_is_refused_for_good() -> None:
    """However long one waits: so it is not told to come again."""
    made = receivers(limiter=stopped())
    with pytest.raises(RequestRefused) as info:
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=11), small())
    assert info.value.reason == EXCEEDS_PLAN
    assert not made.producer.messages
    assert made.counted("infrasage_ingestion_events_total", status="rate_limited") == 11


async def test_what_could_not_be_kept_does_not_count_for_the_plan() -> None:
    """The fault was ours, and its sender sends it again."""
    made = receivers(limiter=stopped())
    made.producer.error = BrokerDown("x")
    for _ in range(20):
        with pytest.raises(BrokerDown):
            await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=9), small())
    made.producer.error = None
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=9), small())


async def test_tenants_have_limits_of_their_own() -> None:
    """One at its limit takes nothing of another's."""
    made = receivers(limiter=stopped())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10), small())
    with pytest.raises(Limited):
        await ingest(made, adapters.otlp.logs.adapt, otlp_logs(), small())
    await ingest(made, adapters.otlp.logs.adapt, otlp_logs(good=10), small()._replace(tenant="other"))
    (first, second) = (TelemetryBatch.FromString(message.payload).records[0] for message in made.producer.messages)
    assert (first.tenant_id, second.tenant_id) == ("acme", "other")
