"""Parts become messages of their topics, in one append; and the budget of bytes in flight holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.receiving import MemoryProducer

from adapters.record import LOGS, METRICS, TRACES, Part
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, BrokerDown, Message
from collector.produce import InFlight, Overloaded, Produce


async def test_all_parts_go_in_one_append() -> None:
    """Each to its signal's topic: a request is kept as a whole or not at all."""
    producer = MemoryProducer()
    await Produce(producer)([Part(METRICS, b"a", 1), Part(METRICS, b"b", 2), Part(LOGS, b"c", 3), Part(TRACES, b"d", 4)])
    assert producer.appends == 1
    assert producer.messages == [
        Message(METRICS_TOPIC, b"a"),
        Message(METRICS_TOPIC, b"b"),
        Message(LOGS_TOPIC, b"c"),
        Message(TRACES_TOPIC, b"d"),
    ]


async def test_nothing_is_not_appended() -> None:
    """A request whose items were all rejected costs no commit."""
    producer = MemoryProducer()
    producer.error = BrokerDown("x")
    await Produce(producer)([])
    assert producer.appends == 0


async def test_the_brokers_error_is_passed_on() -> None:
    producer = MemoryProducer()
    producer.error = BrokerDown("x")
    with pytest.raises(BrokerDown):
        await Produce(producer)([Part(LOGS, b"c", 1)])


def test_the_budget_can_be_filled_to_the_byte() -> None:
    in_flight = InFlight(10)
    in_flight.reserve(4)
    in_flight.reserve(6)
    with pytest.raises(Overloaded, match="10 bytes are in flight, 1 more would exceed 10"):
        in_flight.reserve(1)
    in_flight.release(6)
    in_flight.check(6)
    assert in_flight.bytes_held == 4


@given(st.lists(st.integers(0, 100)))
def test_the_budget_is_never_exceeded(sizes: list[int]) -> None:
    """And when all is released, nothing is held: what was refused was not."""
    in_flight = InFlight(200)
    held: list[int] = []
    for size in sizes:
        try:
            in_flight.reserve(size)
        except Overloaded:
            assert sum(held) + size > 200
        else:
            held.append(size)
        assert in_flight.bytes_held == sum(held) <= 200
    for size in held:
        in_flight.release(size)
    assert in_flight.bytes_held == 0
