"""Parts become messages of their topics, in one append; and the budget of bytes in flight holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes.receiving import MemoryProducer

from adapters.record import LOGS, METRICS, TRACES, Part
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, BrokerDown, Message
from collector.ingest.produce import InFlight, Overloaded, Produce


async def test_all_parts_go_in_one_append() -> None:
    """Each to its signal's topic: a request is kept as a whole or not at all."""
    producer = MemoryProducer()
    parts = [(METRICS, b"a", 1), (METRICS, b"b", 2), (LOGS, b"c", 3), (TRACES, b"d", 4)]
    await Produce(producer)([Part(*part, 300) for part in parts])
    assert producer.appends == 1
    assert producer.messages == [
        Message(METRICS_TOPIC, b"a"),
        Message(METRICS_TOPIC, b"b"),
        Message(LOGS_TOPIC, b"c"),
        Message(TRACES_TOPIC, b"d"),
    ]


async def test_what_comes_before_is_in_the_same_append() -> None:
    producer = MemoryProducer()
    letter = Message(DEAD_LETTERS_TOPIC, b"d")
    await Produce(producer)([Part(LOGS, b"c", 1, 300)], [letter])
    assert (1, [letter, Message(LOGS_TOPIC, b"c")]) == (producer.appends, producer.messages)


async def test_nothing_is_not_appended() -> None:
    producer = MemoryProducer()
    producer.error = BrokerDown("x")
    await Produce(producer)([])
    assert producer.appends == 0


async def test_the_brokers_error_is_passed_on() -> None:
    producer = MemoryProducer()
    producer.error = BrokerDown("x")
    with pytest.raises(BrokerDown):
        await Produce(producer)([Part(LOGS, b"c", 1, 300)])


def test_the_budget_can_be_filled_to_the_byte() -> None:
    in_flight = InFlight(10, 11)
    share = in_flight.share("acme")
    share.reserve(4)
    share.reserve(6)
    with pytest.raises(Overloaded, match=r"10 bytes are in flight, 1 more would exceed 10 \(broker.in_flight_bytes_max\)"):
        share.reserve(1)
    share.release(6)
    share.check(6)
    assert in_flight.bytes_held == 4


def test_one_tenant_leaves_room_for_others() -> None:
    """Its share is all it can hold, however little the others do."""
    in_flight = InFlight(10, 6)
    acme = in_flight.share("acme")
    acme.reserve(6)
    with pytest.raises(Overloaded, match=r"6 bytes of tenant acme .* exceed its share, 6 \(tenants.in_flight_share_max\)"):
        acme.reserve(1)
    in_flight.share("other").reserve(4)
    with pytest.raises(Overloaded, match=r"10 bytes are in flight, 1 more would exceed 10 \(broker.in_flight_bytes_max\)"):
        in_flight.share("third").reserve(1)
    assert in_flight.share("acme") is acme


def test_the_largest_request_can_pass_alone() -> None:
    """Its cost beyond its body is held up to its tenant's share. Beside others it is refused."""
    in_flight = InFlight(100, 60)
    share = in_flight.share("acme")
    share.reserve(20)
    assert 40 == share.reserve_all_that_fits(20, 1_000)
    assert 60 == in_flight.bytes_held
    share.release(60)
    share.reserve(30)
    with pytest.raises(Overloaded):
        share.reserve_all_that_fits(20, 1_000)
    assert 5 == share.reserve_all_that_fits(20, 5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100))))
def test_the_budget_is_never_exceeded(sizes: list[tuple[str, int]]) -> None:
    """When all is released, nothing is held: what was refused was not."""
    in_flight = InFlight(200, 120)
    held: list[tuple[str, int]] = []
    for tenant, size in sizes:
        own = sum(size for other, size in held if other == tenant)
        try:
            in_flight.share(tenant).reserve(size)
        except Overloaded:
            assert in_flight.bytes_held + size > 200 or own + size > 120
        else:
            held.append((tenant, size))
            own += size
        assert in_flight.bytes_held == sum(size for _, size in held) <= 200
        assert in_flight.share(tenant).bytes_held == own <= 120
    for tenant, size in held:
        in_flight.share(tenant).release(size)
    assert in_flight.bytes_held == 0
