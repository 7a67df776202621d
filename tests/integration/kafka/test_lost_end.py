"""Kafka that lost the end of a partition's log: after a power cut took what was not on disk, or after a leader was elected that
was not in sync. Its offsets repeat within one log. Against a real broker."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from support.processes.kafka import Kafka, libraries
from support.rewritten_logs import World

from collector.broker.contract import Message, Partition
from collector.broker.kafka import KafkaConsumer, KafkaProducer, KafkaProgress
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.protocol.offsets import EPOCH_END_API

BATCH_HEAD = struct.Struct(">qi")  # its first offset, and the length of what follows


def lose_end(kafka: Kafka, topic: str, left: int) -> None:
    """Kill the broker, leave so many messages of partition 0, each a batch of its own, and start it again."""
    kafka.kill()
    segment = kafka.directory / "data" / f"{topic}-0" / f"{0:020}.log"
    written = segment.read_bytes()
    at = 0
    for _ in range(left):
        _, length = BATCH_HEAD.unpack_from(written, at)
        at += BATCH_HEAD.size + length
    assert at < len(written.rstrip(b"\0"))
    with segment.open("r+b") as file:
        file.truncate(at)
    kafka.start()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One for all tests, each with a topic of its own."""
    libraries()
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.mark.parametrize("later", [1, 3, 5], ids=["fewer than lost", "as many", "more"])
async def test_an_end_lost_while_the_writer_is_stopped(kafka: Kafka, later: int) -> None:
    """What is written at its offsets is stored, whether it ends below, at or beyond what was committed; nothing that Kafka
    still has is stored again, and one line says what happened."""
    world = World(kafka.bootstrap)
    await world.append(*(f"old-{n}" for n in range(5)))
    await world.drain()
    lose_end(kafka, world.topic, 2)
    await world.append(*(f"new-{n}" for n in range(later)))
    with structlog.testing.capture_logs() as logs:
        await world.drain()
    assert [(2, 5)] == [(line["end"], line["read_to"]) for line in logs if "lost the end" in line["event"]]
    progress = KafkaProgress(world.options, [world.topic])
    assert 0 == await progress.caught_up(0)
    await progress.close()


async def test_an_end_lost_while_the_writer_runs(kafka: Kafka) -> None:
    """The same without a restart, which would read the committed offsets anew; with as many messages as were lost, so that
    nothing tells but the leader."""
    world = World(kafka.bootstrap)
    async with world.writing():
        await world.append(*(f"old-{n}" for n in range(5)))
        await world.stored()
        lose_end(kafka, world.topic, 2)
        await world.append(*(f"new-{n}" for n in range(3)))
        await world.stored()


@pytest.mark.parametrize("left", [0, 1, 2], ids=["all of the range", "up to its first message", "a part of it"])
async def test_a_range_in_doubt_ends_where_its_log_now_ends(kafka: Kafka, left: int) -> None:
    """What is left of the range is still in doubt. What was written in the place of the rest is in no doubt."""
    world = World(kafka.bootstrap)
    await world.append(*(f"old-{n}" for n in range(4)))
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        first = await consumer.poll(1, 30)
        assert first is not None
        await consumer.intend(first)
        await consumer.commit(first)
        rest = await consumer.poll(1 << 20, 30)
        assert rest is not None
        assert (1, 4) == (rest.start, rest.end)
        await consumer.intend(rest)
    lose_end(kafka, world.topic, left)
    await world.append(*(f"new-{n}" for n in range(4)))
    seen: list[tuple[int, int, bool]] = []
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        while sum(end for _, end, _ in seen[-1:]) < left + 4:
            messages = await consumer.poll(1 << 20, 30)
            assert messages is not None
            await consumer.intend(messages)
            await consumer.commit(messages)
            seen.append((messages.start, messages.end, messages.in_doubt))
    in_doubt = [(1, left, True)] if left > 1 else []
    assert [*in_doubt, (left, left + 4, False)] == seen


async def test_a_leader_that_has_everything_is_read_on(kafka: Kafka) -> None:
    """A broker that was killed and lost nothing: nothing is read twice, and nothing is said."""
    world = World(kafka.bootstrap)
    with structlog.testing.capture_logs() as logs:
        async with world.writing():
            await world.append("a", "b")
            await world.stored()
            kafka.kill()
            kafka.start()
            await world.append("c")
            await world.stored()
    await world.drain()
    assert [] == [line for line in logs if line["log_level"] == "error"]


async def test_a_broker_that_is_not_asked_where_an_epoch_ends_is_read_on(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that speak Kafka's protocol may not know this question."""
    ask = Brokers.ask

    async def knows_less(self: Brokers, client: Any, node: int, api: tuple[int, int], *rest: Any) -> memoryview:
        return await ask(self, client, node, (api[0], 99) if api == EPOCH_END_API else api, *rest)

    monkeypatch.setattr(Brokers, "ask", knows_less)
    world = World(kafka.bootstrap)
    await world.append("a")
    await world.drain()
    kafka.kill()
    kafka.start()
    await world.append("b")
    await world.drain()


async def test_a_beginning_of_another_log_is_not_used(kafka: Kafka) -> None:
    """A partition that was never committed began at 3, since its retention has deleted what was before. Made anew, it begins
    at 0."""
    world = World(kafka.bootstrap)
    await world.append("deleted-0", "deleted-1", "deleted-2")
    await world.delete_all()
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        assert {Partition(world.topic, 0): 0} == await consumer.lag()  # so where it begins is known
        await world.make_anew()
        async with await KafkaProducer.open(world.options, [world.topic]) as producer:
            for _ in range(5):
                await producer.append([Message(world.topic, b"x")])
        messages = None
        async with asyncio.timeout(60):
            while messages is None:
                messages = await consumer.poll(1 << 20, 1)
        assert (0, 5) == (messages.start, messages.end)
