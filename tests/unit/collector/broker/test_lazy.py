"""A broker that may be away at the start."""

import asyncio
from collections.abc import Sequence

import pytest
from support.waiting import eventually

from collector.broker.contract import METRICS_TOPIC, BrokerDown, Message, Partition, Position, Range
from collector.broker.lazy import LazyBroker

MESSAGE = Message(METRICS_TOPIC, b"x")
PARTITION = Partition(METRICS_TOPIC, 0)


class Both:
    """Both sides of a broker; away for so many attempts to open it."""

    def __init__(self, away: int = 0, error: Exception | None = None) -> None:
        self.failure: str | None = None
        self.unproven: str | None = None
        self.messages: list[Message] = []
        self.closed = 0
        self._away = away
        self._error = error

    async def open(self) -> "Both":
        if self._error is not None:
            raise self._error
        self._away -= 1
        if self._away >= 0:
            raise BrokerDown("connection refused")
        return self

    async def append(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    async def ping(self) -> None:
        pass

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        return Range(PARTITION, 0, 1, [b"x"])

    async def intend(self, messages: Range) -> None:
        pass

    async def commit(self, messages: Range) -> None:
        pass

    async def positions(self) -> dict[Partition, Position]:
        return {PARTITION: Position(0, 1)}

    async def progress(self) -> dict[Partition, Position]:
        return await self.positions()

    async def lag(self) -> dict[Partition, int]:
        return {PARTITION: 1}

    async def close(self) -> None:
        self.closed += 1


async def test_until_it_is_there_every_call_fails_and_then_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says why; nothing waits; and it is opened by itself."""
    monkeypatch.setattr("collector.broker.lazy._RETRY_S", 0.05)
    broken = Both(away=2)
    broker = LazyBroker(broken.open, broken.open)
    messages = Range(PARTITION, 0, 1, [b"x"])
    assert broker.failure is not None
    opening = asyncio.create_task(broker.run())
    await broker.wait_until_tried(5)
    assert broker.failure == "connection refused"
    for call in (
        broker.append([MESSAGE]),
        broker.ping(),
        broker.poll(1, 1),
        broker.intend(messages),
        broker.commit(messages),
        broker.positions(),
        broker.progress(),
        broker.lag(),
    ):
        with pytest.raises(BrokerDown, match="not available yet: "):
            await call
    await eventually(lambda: broker.failure is None)
    await broker.append([MESSAGE])
    assert broken.messages == [MESSAGE]
    assert await broker.poll(1, 1) == messages
    assert await broker.lag() == {PARTITION: 1}
    assert await broker.progress() == {PARTITION: Position(0, 1)}
    await broker.intend(messages)
    await broker.commit(messages)
    await broker.ping()
    assert not opening.done()
    broken.failure = "gone again"
    assert broker.failure == "gone again"
    opening.cancel()
    await broker.close()
    assert broken.closed == 2


async def test_what_waiting_does_not_change_ends_it() -> None:
    """The task ends with the reason, at once."""
    broken = Both(error=ValueError("no such topic"))
    broker = LazyBroker(broken.open, None)
    with pytest.raises(ValueError, match="no such topic"):
        await asyncio.wait_for(broker.run(), 5)
    await broker.close()
    assert broken.closed == 0


async def test_a_gateway_needs_no_consumer() -> None:
    """Without one it is whole as soon as it can be written."""
    there = Both()
    broker = LazyBroker(there.open, None)
    opening = asyncio.create_task(broker.run())
    await broker.wait_until_tried(5)
    assert broker.failure is None
    opening.cancel()
    await broker.close()
    assert there.closed == 1
