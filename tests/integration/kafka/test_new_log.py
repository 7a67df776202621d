"""A topic, or a whole Kafka, that begins anew under the same names, beside a store that stays: offsets repeat, and nothing that
is acknowledged is lost. Against a real broker."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka.errors import KafkaError
from support.fakes.brokers import MIB
from support.fakes.stores import batch
from support.processes.kafka import Kafka, libraries, shared_bootstrap
from support.rewritten_logs import World
from support.waiting import eventually

from collector.broker.contract import BrokerDown, Message, Range
from collector.broker.kafka import KafkaConsumer, KafkaProducer, KafkaProgress
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.identity import METADATA_API, Committed, identity_of


@pytest.fixture
def world() -> World:
    return World(shared_bootstrap())


@pytest.mark.parametrize("later", [1, 3, 5], ids=["fewer than before", "as many", "more"])
async def test_a_topic_made_anew_while_the_writer_runs_loses_nothing(world: World, later: int) -> None:
    """All of it is stored, with one warning, whether its offsets are below, at or beyond what was committed."""
    await world.append(*(f"old-{n}" for n in range(3)))
    with structlog.testing.capture_logs() as logs:
        async with world.writing():
            await world.stored()
            await world.make_anew()
            await world.append(*(f"new-{n}" for n in range(later)))
            await world.stored()
    told = [line for line in logs if "created again" in line["event"] and line["log_level"] == "warning"]
    assert [world.topic] == [line["topic"] for line in told if "former_log" in line]


@pytest.mark.parametrize("later", [1, 3, 5], ids=["fewer than before", "as many", "more"])
async def test_a_topic_made_anew_while_the_writer_is_stopped_loses_nothing(world: World, later: int) -> None:
    """It loses nothing also if the group's offsets outlived it, with the identity of the former log."""
    await world.append(*(f"old-{n}" for n in range(3)))
    await world.drain()
    await world.make_anew()
    await world.append(*(f"new-{n}" for n in range(later)))
    await world.set_offset(3, Committed("former.00000000-0000-0000-0000-000000000000.0", None, 0).metadata())
    progress = KafkaProgress(world.options, [world.topic])
    assert later == await progress.caught_up(0)
    await world.drain()
    assert 0 == await progress.caught_up(0)
    await progress.close()


async def test_an_intent_of_another_log_is_not_repeated(world: World) -> None:
    """A range was in doubt when its topic was deleted: the messages at its offsets are others now, and are in no doubt."""
    await world.append("new-0", "new-1", "new-2")
    await world.set_offset(1, Committed("former.00000000-0000-0000-0000-000000000000.0", 3, 0).metadata())
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        messages = await consumer.poll(MIB, 30)
    assert messages is not None
    assert (0, 3, False) == (messages.start, messages.end, messages.in_doubt)


async def test_an_offset_without_an_identity_is_used(world: World) -> None:
    """It was committed by a version that knew none, or set by an operator."""
    await world.append("a", "b", "c")
    await world.set_offset(2, "")
    world.names = ["c"]
    await world.drain()


async def test_an_old_intent_has_no_identity(world: World) -> None:
    """A version that knew none intended this range: it comes back with none, so that its token is as that version's; however
    often it is intended again."""
    await world.append("a", "b", "c")
    await world.set_offset(0, "2")
    for _ in range(2):
        async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
            messages = await consumer.poll(1, 30)
            assert messages is not None
            assert ("", 0, 2, True) == (messages.log, messages.start, messages.end, messages.in_doubt)
            await consumer.intend(messages)
    await world.drain()
    tokens = {token for token, _ in world.store.blocks}
    assert f"{world.topic}/0/0-2" in tokens
    assert {f"{world.topic}/0/0-2", f"{world.topic}/0/2-3"} == {token[token.index(world.topic) :] for token in tokens}


async def test_a_range_of_a_log_that_is_gone_is_not_intended(world: World) -> None:
    """It was read just before its topic was made anew."""
    await world.append("old")
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        held = await consumer.poll(1, 30)
        assert held is not None
        await world.make_anew()
        await world.append("new")

        async def refused() -> bool:
            try:
                await consumer.intend(held)
            except BrokerDown as error:
                return "created again" in str(error)
            raise AssertionError("intended")

        while not await refused():  # as long as its leader knows of none
            await asyncio.sleep(0.05)


async def test_a_kafka_that_was_replaced_loses_nothing(tmp_path: Path) -> None:
    """Another cluster at the same address, while gateway and writer run: it has neither the topics, nor the group and its
    offsets."""
    libraries()
    former, other = Kafka(tmp_path / "former"), Kafka(tmp_path / "other")
    other.ports = former.ports
    try:
        former.start()
        world = World(former.bootstrap)
        await world.append("old-0", "old-1", "old-2")
        async with world.writing(), await KafkaProducer.open(world.options, [world.topic]) as producer:
            await world.stored()
            former.kill()
            other.start()
            for name in ("new-0", "new-1", "new-2", "new-3"):
                await eventually(partial(is_appended, producer, Message(world.topic, batch(name))), 60)
                world.names.append(name)
            await world.stored()
    finally:
        former.close()
        other.close()


async def is_appended(producer: KafkaProducer, message: Message) -> bool:
    try:
        await producer.append([message])
    except BrokerDown:
        return False
    return True


async def test_a_range_keeps_its_identity(world: World) -> None:
    """Every reader has it through the intent: cluster, topic, and the epoch of the leader that wrote its messages."""
    await world.append("a", "b")
    seen: list[Range] = []
    for _ in range(2):
        async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
            messages = await consumer.poll(1, 30)
            assert messages is not None
            seen.append(messages)
            await consumer.intend(messages._replace(depth=2))
    assert (seen[0].log, 2, True) == (seen[1].log, seen[1].depth, seen[1].in_doubt)
    cluster, topic_id, epoch = seen[0].log.split(".")
    assert (22, 36, "0") == (len(cluster), len(topic_id), epoch)


async def test_a_broker_without_topic_ids_is_known_by_its_cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions before 2.8 have none: then a topic that is made anew is not noticed, and a Kafka that is replaced is."""
    await world.append("a")
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        new = await consumer.poll(1, 30)
    ask = Brokers.ask

    async def old(self: Brokers, client: Any, node: int, api: tuple[int, int], *rest: Any) -> memoryview:
        return await ask(self, client, node, (3, 99) if api == METADATA_API else api, *rest)

    monkeypatch.setattr(Brokers, "ask", old)
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        messages = await consumer.poll(1, 30)
    assert new is not None
    assert messages is not None
    assert f"{new.log.split('.')[0]}.-" == identity_of(messages.log)


@pytest.mark.parametrize("failing", [KafkaError("x"), OSError("x")])
async def test_who_can_not_say_its_identity_is_not_read(
    world: World, failing: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the identity there would be a token without it."""
    await world.append("a")
    ask = Brokers.ask

    async def fails(self: Brokers, client: Any, node: int, api: tuple[int, int], *rest: Any) -> memoryview:
        if api == METADATA_API:
            raise failing
        return await ask(self, client, node, api, *rest)

    monkeypatch.setattr(Brokers, "ask", fails)
    async with await KafkaConsumer.open(world.options, [world.topic]) as consumer:
        with pytest.raises(BrokerDown):
            await consumer.poll(1, 5)


@pytest.mark.parametrize(
    "said",
    [
        Committed("cluster.topic.0", None, 0),
        Committed("cluster.topic.-1", 7, 0),
        Committed("cluster.-.12", 2**62, 9),
        Committed("", None, 0),
        Committed("", 7, 0),
        Committed("", 7, 3),
    ],
)
def test_metadata_comes_back_as_it_was_written(said: Committed) -> None:
    assert said == Committed.read(said.metadata())


@pytest.mark.parametrize("metadata", ["x", "2 ", "2 log 5", "2 log 5 x", "3 log 5 0", "2 log 5 0 0", "NO_METADATA", "-1"])
def test_what_others_commit_is_not_ours(metadata: str) -> None:
    """Its identity and its intent are not taken from there."""
    assert Committed.read(metadata) is None
