"""What Kafka promises beyond the contract: its start, its failures, and partitions that move. Against a real broker."""

import asyncio
import itertools
import logging
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.commit import OffsetFetchResponse_v1
from aiokafka.protocol.metadata import MetadataRequest
from support.fakes.brokers import MIB, kafka_options
from support.fakes.stores import FakeStore, batch
from support.ports import free_port
from support.processes.commands import command, environment, pause, resume
from support.processes.holding import HoldingProxy
from support.processes.kafka import Kafka, libraries, shared_bootstrap, unique
from support.waiting import eventually

from collector.broker.contract import BrokerDown, Consumer, Message, Partition, Range
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer, KafkaProgress, KafkaUnavailable, KafkaUnusable
from collector.broker.kafka.client import Client
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.protocol.offsets import COMMITTED_API
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of this module's own, which tests may kill; a test that does so starts it again."""
    libraries()
    kafka = Kafka(tmp_path_factory.mktemp("kafka") / "own")
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()


@pytest.fixture
def shared() -> str:
    """The address of a broker that nobody kills."""
    return shared_bootstrap()


def fresh(bootstrap: str, **changes: Any) -> tuple[KafkaOptions, list[str]]:
    """Options with a group of their own, and one topic."""
    return kafka_options(bootstrap, **{"group_id": unique("group"), "topic_partitions": 1, **changes}), [unique("topic")]


async def take(consumer: Consumer, bytes_max: int = 64 * MIB) -> Range:
    messages = await poll(consumer, bytes_max)
    await consumer.intend(messages)
    await consumer.commit(messages)
    return messages


async def poll(consumer: Consumer, bytes_max: int = 64 * MIB) -> Range:
    messages = await consumer.poll(bytes_max, 30)
    assert messages is not None
    return messages


async def take_all(consumer: Consumer) -> list[bytes]:
    taken: list[bytes] = []
    while any((await consumer.lag()).values()):
        taken += map(bytes, (await take(consumer)).payloads)
    return taken


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


# The start.


async def test_a_broker_that_is_not_there_is_named(shared: str) -> None:
    """open fails when its time is up, with the address and the reason; with start_timeout_s = 0, after one attempt."""
    address = f"127.0.0.1:{free_port()}"
    options, topics = fresh(address, start_timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(KafkaUnavailable, match=rf"{address}.*Connect call failed"):
        await KafkaProducer.open(options, topics)
    with pytest.raises(KafkaUnavailable, match=rf"{address}.*Connect call failed"):
        await KafkaConsumer.open(replace(options, start_timeout_s=0), topics)
    assert time.monotonic() - began < 5


async def test_what_is_no_kafka_is_away() -> None:
    """A port that takes connections and never answers does not hold up the start."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    options, topics = fresh(f"{host}:{port}", start_timeout_s=0, request_timeout_s=0.3, session_timeout_s=0.3)
    with pytest.raises(KafkaUnavailable, match="no answer in time"):
        await KafkaProducer.open(options, topics)
    server.close()


async def test_missing_topics_are_named_with_the_command_that_creates_them(shared: str) -> None:
    options, topics = fresh(shared, create_topics=False, topic_partitions=7)
    for open_ in (KafkaProducer.open, KafkaConsumer.open):
        with pytest.raises(KafkaUnusable) as caught:
            await open_(options, topics)
        assert not isinstance(caught.value, KafkaUnavailable)
        command = f"kafka-topics.sh --bootstrap-server {shared.partition(',')[0]} --create --topic {topics[0]} --partitions 7"
        assert command in str(caught.value)


async def test_topics_are_created_as_the_settings_say(shared: str) -> None:
    """Partitions, and room for the largest message; several that start at once do not get in each other's way."""
    options, topics = fresh(shared, topic_partitions=3, message_bytes_max=2 * MIB)
    opened = await asyncio.gather(*(KafkaProducer.open(options, topics) for _ in range(4)))
    for producer in opened:
        await producer.append([Message(topics[0], os.urandom(2 * MIB))])
        await producer.close()
    async with await KafkaConsumer.open(options, topics) as consumer:
        assert {0, 1, 2} == {partition.index for partition in await consumer.positions()}
        assert 4 == len(await take_all(consumer))


async def test_a_topic_with_too_little_room_is_refused(shared: str) -> None:
    options, topics = fresh(shared)
    async with admin(shared) as client:
        await client.create_topics([NewTopic(topics[0], 1, 1, topic_configs={"max.message.bytes": "100000"})])
    with pytest.raises(KafkaUnusable, match=r"100000 bytes .*\n  kafka-configs.sh .* --add-config max.message.bytes=524416"):
        await KafkaProducer.open(options, topics)
    async with await KafkaProducer.open(replace(options, message_bytes_max=99_000), topics) as producer:
        await producer.append([Message(topics[0], os.urandom(99_000)) for _ in range(5)])


async def test_a_compacted_topic_is_refused(shared: str) -> None:
    options, topics = fresh(shared)
    async with admin(shared) as client:
        await client.create_topics([NewTopic(topics[0], 1, 1, topic_configs={"cleanup.policy": "compact"})])
    with pytest.raises(KafkaUnusable, match="compacted"):
        await KafkaProducer.open(options, topics)


# Appending.


async def test_messages_are_spread_over_partitions_in_few_batches(shared: str) -> None:
    """Under load many appends share a batch, and every partition gets its part."""
    options, topics = fresh(shared, topic_partitions=4)
    batches: list[int] = []

    class Observer:
        def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
            assert (topic, messages * 500) == (topics[0], size_bytes)
            assert 0 < seconds < 10
            batches.append(messages)

        def produce_failed(self, topic: str, kind: str) -> None:
            raise AssertionError(kind)

        def partitions_added(self, topic: str, before: int, now: int) -> None:
            raise AssertionError(now)

    async with await KafkaProducer.open(options, topics, Observer()) as producer:

        async def send() -> None:
            for _ in range(50):
                await producer.append([Message(topics[0], bytes(500))])

        await asyncio.gather(*(send() for _ in range(100)))
        assert 0 == producer.waiting_bytes
    assert 5000 == sum(batches)
    assert len(batches) < 500
    async with await KafkaConsumer.open(options, topics) as consumer:
        depths = sorted((await consumer.lag()).values())
    assert 5000 == sum(depths)
    assert depths[0] > 500


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_messages_come_out_as_they_went_in(shared: str, compression: str) -> None:
    options, topics = fresh(shared, compression=compression, linger_ms=5)
    payloads = [bytes([n]) * n * 100 for n in range(100)]
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        await producer.append([Message(topics[0], payload) for payload in payloads])
        assert payloads[:30] == list((await take(consumer, sum(map(len, payloads[:30])))).payloads)
        assert payloads[30:] == await take_all(consumer)


async def test_kafka_away_refuses_in_time_and_comes_back_by_itself(own: Kafka) -> None:
    """The first appends wait append_timeout_s and no longer, later ones are refused at once, memory stays bounded, and when the
    broker is back so is the producer, without any append."""
    options, topics = fresh(own.bootstrap, append_timeout_s=1.0, waiting_bytes_max=4 * MIB)
    payload = os.urandom(100_000)
    async with await KafkaProducer.open(options, topics) as producer:
        await producer.ping()
        own.pause()
        try:
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(producer.append([Message(topics[0], payload)]) for _ in range(200)), return_exceptions=True
            )
            assert time.monotonic() - began < 5
            assert {BrokerDown} == {type(outcome) for outcome in outcomes}
            assert 0 < sum("wait already" in str(outcome) for outcome in outcomes)
            assert producer.failure is not None
            assert "not acknowledged within 1 s" == producer.unproven
            for refuse in (producer.ping(), *(producer.append([Message(topics[0], payload)]) for _ in range(100))):
                with pytest.raises(BrokerDown):
                    await asyncio.wait_for(refuse, 0.5)
            await eventually(lambda: producer.waiting_bytes == 0)
        finally:
            own.resume()
        await eventually(lambda: producer.failure is None)
        again = await append_through(producer, topics[0])
        assert producer.unproven is None
        async with await KafkaConsumer.open(options, topics) as consumer:
            taken = await take_all(consumer)
    assert 1 == taken.count(again)
    assert sum(len(each) == len(payload) for each in taken) <= 4 * MIB // len(payload)


async def append_through(producer: KafkaProducer, topic: str) -> bytes:
    """As a sender does: failures are waited out. Return the message that was acknowledged.

    A pause can outlast the broker's session with its controller. For a moment it then leads nothing.
    """
    async with asyncio.timeout(60):
        for attempt in itertools.count():
            message = b"again %d" % attempt
            try:
                await producer.append([Message(topic, message)])
                break
            except BrokerDown:
                await asyncio.sleep(0.1)
    return message


@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_request_that_takes_long_holds_nobody_up(lanes: int, tmp_path: Path) -> None:
    """As long as another may be under way beside it. Each is in Kafka once."""
    port = free_port()
    kafka = Kafka(tmp_path / "kafka", advertised__listeners=f"PLAINTEXT://127.0.0.1:{port}", is_killed=False)
    proxy = HoldingProxy(port, kafka.ports["PLAINTEXT"])
    await proxy.start()
    await asyncio.to_thread(kafka.start)
    try:
        options, topics = fresh(f"127.0.0.1:{port}", requests_in_flight_max=lanes, topic_partitions=4, append_timeout_s=10.0)
        async with await KafkaProducer.open(options, topics) as producer:
            await producer.append([Message(topics[0], b"first of all")])
            proxy.hold()
            slow = asyncio.create_task(producer.append([Message(topics[0], b"slow")]))
            await proxy.held.wait()
            others = [asyncio.create_task(producer.append([Message(topics[0], b"%d" % number)])) for number in range(5)]
            done, _ = await asyncio.wait(others, timeout=0.5 if lanes == 1 else 5.0)
            assert len(done) == (0 if lanes == 1 else 5)
            assert not slow.done()
            proxy.release()
            await asyncio.gather(slow, *others)
        async with await KafkaConsumer.open(options, topics) as consumer:
            taken = await take_all(consumer)
        assert sorted([b"first of all", b"slow", *(b"%d" % number for number in range(5))]) == sorted(taken)
    finally:
        kafka.close()
        proxy.close()


async def test_an_append_in_two_parts_has_one_deadline(own: Kafka) -> None:
    """Its last message, which waits for the others, expires when the append does, not when a later one is."""
    options, topics = fresh(own.bootstrap, append_timeout_s=2.0)
    loop = asyncio.get_running_loop()
    async with await KafkaProducer.open(options, topics) as producer:
        ended: dict[str, float] = {}

        async def append(name: str, *payloads: bytes) -> None:
            with pytest.raises(BrokerDown):
                await producer.append([Message(topics[0], payload) for payload in payloads])
            ended[name] = loop.time()

        own.pause()
        try:
            two = asyncio.create_task(append("two parts", b"a", b"b"))
            await asyncio.sleep(1.0)
            session = producer._session
            assert session is not None
            later_deadline = loop.time() + options.append_timeout_s
            later = asyncio.create_task(append("later", b"c"))
            await asyncio.sleep(0.2)
            # As if Kafka had taken the first part just before it stopped: its last part is put behind the later append.
            first = session.overdue[0]
            first.done.set_result(None)
            await asyncio.gather(two, later)
        finally:
            own.resume()
        assert ended["two parts"] < later_deadline


async def test_a_ping_finds_out_that_kafka_is_away(own: Kafka) -> None:
    """A ping finds it out also if nothing is appended."""
    options, topics = fresh(own.bootstrap, append_timeout_s=0.5)
    async with await KafkaProducer.open(options, topics) as producer:
        own.pause()
        try:
            with pytest.raises(BrokerDown):
                await producer.ping()
            assert producer.failure is not None
        finally:
            own.resume()
        await eventually(lambda: producer.failure is None)
        await append_through(producer, topics[0])
        await producer.ping()


async def test_a_cluster_that_names_no_broker_is_asked_again(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is starting answers so, and one that its controller has taken for dead for a while."""
    options, topics = fresh(shared)
    asked = AIOKafkaConnection.send
    named = False

    async def send(connection: AIOKafkaConnection, request: Any, **options: Any) -> Any:
        answer = await asked(connection, request, **options)
        if isinstance(request, MetadataRequest) and not named:
            answer.brokers = []
        return answer

    monkeypatch.setattr(AIOKafkaConnection, "send", send)
    with pytest.raises(KafkaUnavailable):
        await KafkaProducer.open(replace(options, start_timeout_s=0), topics)
    named = True
    async with await KafkaProducer.open(options, topics) as producer:
        named = False
        with pytest.raises(BrokerDown, match="no broker is ready yet"):
            await producer.ping()
        await eventually(lambda: "no broker is ready yet" in str(producer.failure))
        named = True
        await eventually(lambda: producer.failure is None)
        await producer.append([Message(topics[0], b"again")])


async def test_a_kafka_that_answers_and_takes_nothing_is_logged_once(shared: str) -> None:
    """Too few replicas in sync are such a case: each attempt begins well, and ends with the first batch. That it can be written
    again is logged when it has acknowledged one."""
    options, topics = fresh(shared)
    message = Message(topics[0], b"x")
    admin = AIOKafkaAdminClient(bootstrap_servers=shared)
    await admin.start()
    await admin._client.force_metadata_update()

    async def takes(bytes_max: int) -> None:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics[0], {"max.message.bytes": bytes_max})])

    try:
        async with await KafkaProducer.open(options, topics) as producer:
            with structlog.testing.capture_logs() as logs:
                await takes(1)
                await eventually(partial(is_refused, producer, message))
                for _ in range(2):
                    await eventually(lambda: producer.failure is None)
                    assert await is_refused(producer, message)
                assert ["cannot write to Kafka, trying again"] == [entry["event"] for entry in logs]
                await takes(MIB)
                await eventually(lambda: producer.failure is None)
                while await is_refused(producer, message):
                    await asyncio.sleep(0.05)
            assert ["Kafka can be written again"] == [entry["event"] for entry in logs[1:]]
    finally:
        await admin.close()


async def is_refused(producer: KafkaProducer, message: Message) -> bool:
    try:
        await producer.append([message])
    except BrokerDown:
        return True
    return False


async def test_whatever_happens_while_kafka_is_away_it_is_tried_again(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that nobody has thought of are logged, and do not end it."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer:
        with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:
            broken.setattr(Client, "bootstrap", Mock(side_effect=ZeroDivisionError("a defect")))
            broken.setattr(Client, "ask_any", Mock(side_effect=OSError("gone")))
            with pytest.raises(BrokerDown):
                await producer.ping()
            await eventually(lambda: producer.failure == "a defect")
        await eventually(lambda: producer.failure is None)
        await producer.append([Message(topics[0], b"again")])
    assert "unexpected error while Kafka is unavailable, trying again" in [entry["event"] for entry in logs]


async def test_producers_that_fail_at_once_each_recover(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that could not start is closed, which suspends, while others fail too (ADR 0021)."""

    async def close(_client: Client) -> None:
        await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        pairs = []
        for _ in range(3):
            options, topics = fresh(shared)
            pairs.append((await stack.enter_async_context(await KafkaProducer.open(options, topics)), topics[0]))
        with monkeypatch.context() as broken:
            attempts = Mock(side_effect=OSError("cut"))
            broken.setattr(Client, "bootstrap", attempts)
            broken.setattr(Client, "ask_any", Mock(side_effect=OSError("gone")))
            broken.setattr(Client, "close", close)
            for producer, _ in pairs:
                with pytest.raises(BrokerDown):
                    await producer.ping()
            await eventually(lambda: attempts.call_count >= 6 and all(producer.failure == "cut" for producer, _ in pairs))
        for producer, topic in pairs:
            await eventually(lambda producer=producer: producer.failure is None)
            await producer.append([Message(topic, b"again")])


async def test_a_batch_that_kafka_refuses_does_not_spoil_the_next(shared: str) -> None:
    """Its sequence numbers are gone with it; a new session goes on with new ones."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer:
        await producer.append([Message(topics[0], b"before")])
        with pytest.raises(BrokerDown, match="MessageSizeTooLarge"):
            await producer.append([Message(topics[0], os.urandom(3 * MIB))])
        await eventually(lambda: producer.failure is None)
        for _ in range(3):
            await producer.append([Message(topics[0], b"after")])
        async with await KafkaConsumer.open(options, topics) as consumer:
            assert [b"before", *[b"after"] * 3] == await take_all(consumer)


async def test_ordered_messages_are_in_one_partition(shared: str) -> None:
    """The first, in the order of their appends, however many others go elsewhere between them."""
    options, topics = fresh(shared, topic_partitions=3)
    async with await KafkaProducer.open(options, topics) as producer:
        for n in range(20):
            plain = [Message(topics[0], b"plain %d" % (3 * n + k)) for k in range(3)]
            await producer.append([plain[0], Message(topics[0], b"%d" % n, ordered=True), *plain[1:]])
    by_partition: dict[int, list[bytes]] = {}
    async with await KafkaConsumer.open(options, topics) as consumer:
        while sum(map(len, by_partition.values())) < 80:
            messages = await take(consumer)
            by_partition.setdefault(messages.partition.index, []).extend(map(bytes, messages.payloads))
    ordered = {index: [payload for payload in payloads if b"plain" not in payload] for index, payloads in by_partition.items()}
    assert [b"%d" % n for n in range(20)] == ordered.pop(0)
    assert not any(ordered.values())
    assert len(by_partition) == 3


async def test_the_last_message_waits_for_the_others(shared: str) -> None:
    """If one of them is refused, the last is never sent: so it may say that they are there."""
    options, topics = fresh(shared)
    topics = [*topics, unique("infrasage.logs")]
    async with await KafkaProducer.open(options, topics) as producer:
        with pytest.raises(BrokerDown, match="MessageSizeTooLarge"):
            await producer.append([Message(topics[0], os.urandom(3 * MIB)), Message(topics[1], b"last")])
        await eventually(lambda: producer.failure is None)
        await producer.append([Message(topics[0], b"first"), Message(topics[1], b"after")])
    async with await KafkaConsumer.open(options, topics) as consumer:
        assert [b"after", b"first"] == sorted(await take_all(consumer))


async def test_closing_finishes_what_waits(shared: str) -> None:
    """It finishes also the last message of an append of several, which waits for its turn."""
    options, topics = fresh(shared, linger_ms=100)
    producer = await KafkaProducer.open(options, topics)
    appends = [asyncio.create_task(producer.append([Message(topics[0], b"%d" % n)] * (1 + n % 2))) for n in range(50)]
    await asyncio.sleep(0)
    await producer.close()
    await asyncio.gather(*appends)
    with pytest.raises(BrokerDown, match="closed"):
        await producer.append([Message(topics[0], b"late")])


async def test_a_kafka_that_is_killed_loses_nothing_that_was_acknowledged(own: Kafka) -> None:
    """kill -9 in the middle of appends and of reading, twice, and a pause between them; appends that fail are said again, as
    senders do."""
    # Short: a reader whose commit had no answer joins anew once Kafka, back again, has removed its former member.
    options, topics = fresh(own.bootstrap, append_timeout_s=2.0, session_timeout_s=3.0, topic_partitions=2)
    acknowledged: set[bytes] = set()
    stored: dict[tuple[Partition, int, int], list[bytes]] = {}  # by what makes an insert's token: said twice, it is there once
    stopping = False
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:

        async def send(sender: int) -> None:
            number = 0
            while not stopping:
                name = b"%d-%d" % (sender, number)
                try:
                    await producer.append([Message(topics[0], name)])
                    acknowledged.add(name)
                    number += 1
                except BrokerDown:
                    await asyncio.sleep(0.1)

        async def read() -> None:
            while not (stopping and acknowledged <= {name for names in stored.values() for name in names}):
                try:
                    messages = await consumer.poll(10_000, 0.5)
                    if messages is not None:
                        await consumer.intend(messages)
                        stored[messages.partition, messages.start, messages.end] = list(map(bytes, messages.payloads))
                        await consumer.commit(messages)
                except BrokerDown:
                    await asyncio.sleep(0.1)

        working = [asyncio.create_task(send(sender)) for sender in range(8)]
        reading = asyncio.create_task(read())
        for ends in ("killed", "given up", "killed"):
            before = len(acknowledged)
            await eventually(lambda before=before: len(acknowledged) > before + 300)
            if ends == "killed":
                own.kill()
                await asyncio.sleep(0.5)
                await asyncio.to_thread(own.start)
            else:
                own.pause()
                await asyncio.sleep(2.5)  # its own session: for a while it names no broker
                own.resume()
        before = len(acknowledged)
        await eventually(lambda: len(acknowledged) > before + 300)
        stopping = True
        await asyncio.gather(*working)
        async with asyncio.timeout(60):
            await reading
    for index in range(2):
        spans = sorted((start, end) for partition, start, end in stored if partition.index == index)
        assert [0, *(end for _, end in spans[:-1])] == [start for start, _ in spans], "each offset once, and without a gap"


# Reading.


async def test_a_partition_that_went_to_another_is_neither_intended_nor_committed(shared: str) -> None:
    """A range that was polled, or intended, before its partition moved: its holder gets an error, and the new owner reads the
    intended one exactly, in doubt."""
    options, topics = fresh(shared, topic_partitions=2)
    async with await KafkaProducer.open(options, topics) as producer:
        for n in range(100):  # in turn to the one and the other
            await producer.append([Message(topics[0], b"%d" % n)])
        async with await KafkaConsumer.open(options, topics) as first:
            held: dict[Partition, Range] = {}
            for _ in range(2):
                messages = await poll(first, 50)
                await first.intend(messages)
                held[messages.partition] = messages
            assert 2 == len(held)
            async with await KafkaConsumer.open(options, topics) as second:
                await eventually_owns(first, 1)
                (moved,) = await second.positions()
                (kept,) = await first.positions()
                assert {moved, kept} == set(held)
                for call in (first.intend, first.commit):
                    with pytest.raises(BrokerDown, match="no longer ours"):
                        await call(held[moved])
                assert held[moved]._replace(in_doubt=True) == await poll(second)
                await second.commit(held[moved])
                await first.commit(held[kept])
                later = await poll(second)
                assert (held[moved].end, False) == (later.start, later.in_doubt)


@pytest.mark.parametrize("code", [14, 15, 16], ids=["loads", "not available", "not here"])
async def test_a_group_that_is_not_loaded_yet_is_not_a_new_one(shared: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its coordinator starts, or moves, nobody knows what is committed: it is waited for, and nothing is read anew."""
    options, topics = fresh(shared)
    ask = Brokers.ask
    loaded = False

    async def asked(brokers: Brokers, client: Any, node: int, api: tuple[int, int], *more: Any) -> memoryview:
        if api == COMMITTED_API and not loaded:
            return memoryview(OffsetFetchResponse_v1([(topics[0], [(0, -1, "", code)])]).encode())
        return await ask(brokers, client, node, api, *more)

    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
        taken = await take(consumer, 5)
        monkeypatch.setattr(Brokers, "ask", asked)
        consumer._group.member.rejoin(consumer._group.ownership)  # type: ignore[arg-type]  # as after a commit without an answer
        for _ in range(3):
            with pytest.raises(BrokerDown):
                await poll(consumer)
            with pytest.raises(BrokerDown):
                await consumer.positions()
        loaded = True
        following = await poll_through(consumer)
        assert (following.start, following.in_doubt) == (taken.end, False)


async def test_a_paused_writer_that_comes_back_can_do_nothing(shared: str) -> None:
    """A process stops between its intent and its insert for longer than its session. Another repeats exactly that range, under
    the same token, and goes on; when the first wakes up it can neither intend, nor commit anything that changes."""
    # Long enough for the other one on a busy machine.
    options, topics = fresh(shared, session_timeout_s=3.0)
    async with await KafkaProducer.open(options, topics) as producer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
    paused = await asyncio.create_subprocess_exec(
        *command("support.processes.kafka_holder", shared, options.group_id, topics[0]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert paused.stdin is not None
    assert paused.stdout is not None
    try:
        intended = (await paused.stdout.readline()).split()
        assert [b"0", b"3"] == intended
        pause(paused.pid)
        async with await KafkaConsumer.open(options, topics) as other:
            repeated = await poll(other)
            assert (0, 3, [b"0", b"1", b"2"], True) == (
                repeated.start,
                repeated.end,
                list(repeated.payloads),
                repeated.in_doubt,
            )
            await other.intend(repeated)
            await other.commit(repeated)
            following = await poll(other, 4)
            await other.intend(following)
            resume(paused.pid)
            paused.stdin.write(b"go on\n")
            assert b"intend refused, commit refused\n" == await paused.stdout.readline()
            # Its coming back moves the partition, or does not: the range that is intended now is the same for each owner.
            with suppress(BrokerDown):
                await other.commit(following)
        await paused.wait()
        async with await KafkaConsumer.open(options, topics) as other:
            rest = await poll(other)
            assert rest == following._replace(in_doubt=True) or rest.start == following.end
    finally:
        with suppress(ProcessLookupError):
            paused.kill()


async def eventually_owns(consumer: KafkaConsumer, partitions: int) -> None:
    async def owns() -> bool:
        return len(await consumer.positions()) == partitions

    await eventually(owns)


async def test_a_stale_range_is_refused_though_its_partition_came_back(shared: str) -> None:
    """It moved to another, who committed, and back again: the range as it was read before is no longer what is there."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
        async with await KafkaConsumer.open(options, topics) as first:
            stale = await poll(first, 3)
            first._group.member.rejoin(first._group.ownership)  # type: ignore[arg-type]  # as after a commit without an answer
            async with await KafkaConsumer.open(options, topics) as second:
                while not await second.positions():
                    await asyncio.sleep(0.05)
                    if await first.positions():
                        first._group.member.rejoin(first._group.ownership)  # type: ignore[arg-type]
                taken = await take(second, 5)
            await eventually_owns(first, 1)
            with pytest.raises(BrokerDown):
                await first.intend(stale)
            await first.commit(stale)  # as a repeated one: changes nothing
            assert taken.end == (await poll(first)).start


async def test_a_commit_without_an_answer_is_settled_by_a_new_generation(own: Kafka) -> None:
    """Kafka stops in the middle of an intent, or a commit: what became of it is read anew, and nothing repeats or is lost."""
    options, topics = fresh(own.bootstrap, request_timeout_s=1.0)
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
        messages = await poll(consumer, 3)
        for call in (consumer.intend, consumer.commit):
            await producer.append([Message(topics[0], b"for who has committed all that there was")])
            own.pause()
            try:
                with pytest.raises(BrokerDown):
                    await call(messages)
            finally:
                own.resume()
            again = await poll_through(consumer)
            if call == consumer.intend:
                # Kafka may have found the request when it woke up, or not.
                assert (messages.start, messages.payloads) == (again.start, list(again.payloads)[: len(messages.payloads)])
                assert not again.in_doubt or again.end == messages.end
                messages = await intend_through(consumer, again)
            else:
                assert again.start == messages.end or again == messages._replace(in_doubt=True)


async def intend_through(consumer: Consumer, messages: Range) -> Range:
    """Intend a range as a writer does, and return the range intended: after a failure, it is read again.

    A pause can outlast the broker's session with its controller. The partition then gets a new leader epoch, and a range that
    was read before it is refused.
    """
    async with asyncio.timeout(60):
        while True:
            try:
                await consumer.intend(messages)
                return messages
            except BrokerDown:
                messages = await poll_through(consumer)


async def poll_through(consumer: Consumer) -> Range:
    """As a writer does: failures are waited out."""
    async with asyncio.timeout(60):
        while True:
            try:
                messages = await consumer.poll(MIB, 1)
                if messages is not None:
                    return messages
            except BrokerDown:
                await asyncio.sleep(0.1)


async def test_two_writers_with_partitions_that_move_store_everything_once(shared: str) -> None:
    """Writers come, go, and are cancelled wherever they are, under load: rows stored = records appended."""
    options, topics = fresh(shared, topic_partitions=4, session_timeout_s=1.0)
    lot = random.Random(5)
    store = FakeStore()
    letters: list[bytes] = []
    names: set[str] = set()
    stopping = False

    class Unobserved:
        def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None: ...
        def write_failed(self, topic: str, kind: str) -> None: ...
        def dead_lettered(self, topic: str, records: int) -> None: ...

        def store_refused(self, source: str, items: int) -> None: ...
        def dropped(self, records: int) -> None: ...
        def completed(self, topic: str, rows: int, in_part: int) -> None: ...

    async def keep(refused: Sequence[RefusedItem]) -> dict[str, int]:
        letters.extend(letter.payload for letter in refused)
        return {}

    limits = WriterLimits(
        bytes_max=2000, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.02, retry_max_s=0.2
    )
    async with await KafkaProducer.open(options, topics) as producer:

        async def send(sender: int) -> None:
            number = 0
            while not stopping:
                name = f"{sender}-{number}"
                await producer.append([Message(topics[0], batch(name))])
                names.add(name)
                number += 1
                await asyncio.sleep(0.002)

        async def live(seconds: float) -> None:
            consumer = await KafkaConsumer.open(options, topics)
            writer = Writer(consumer, store, keep, limits, Unobserved())
            running = asyncio.create_task(writer.run())
            await asyncio.sleep(seconds)
            if lot.random() < 0.5:
                running.cancel()  # wherever it is: between the intent and the commit, too
            else:
                writer.stop()
            await asyncio.wait({running})
            await consumer.close()

        async def lives() -> None:
            while not stopping:
                await live(0.2 + lot.random())

        sending = [asyncio.create_task(send(sender)) for sender in range(6)]
        writing = [asyncio.create_task(lives()) for _ in range(2)]
        await producer.append([Message(topics[0], b"\xff not a batch"), Message(topics[0], b"")])
        await asyncio.sleep(8)
        stopping = True
        await asyncio.gather(*sending)
        async with asyncio.timeout(60):
            await asyncio.gather(*writing)
            async with await KafkaConsumer.open(options, topics) as consumer:
                writer = Writer(consumer, store, keep, limits, Unobserved())
                running = asyncio.create_task(writer.run())
                assert await writer.drained(60)
                writer.stop()
                await running
    assert len(names) > 1000
    assert dict.fromkeys(names, 1) == store.rows


async def test_bytes_that_are_no_batch_go_through(shared: str) -> None:
    """Whatever is on the topic is read: keys and headers are not ours, a message without a value is empty."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as ours, await KafkaConsumer.open(options, topics) as consumer:
        await ours.append([Message(topics[0], b"ours")])
        other = AIOKafkaProducer(bootstrap_servers=shared)
        await other.start()
        await other.send_and_wait(topics[0], b"{\xff", key=b"k", headers=[("h", b"v")])
        await other.send_and_wait(topics[0], None, key=b"tombstone")
        await other.stop()
        assert [b"ours", b"{\xff", b""] == await take_all(consumer)


async def test_transactions_of_others_leave_no_gap_that_stops_us(shared: str) -> None:
    """Their markers take offsets without being messages: ranges go over them, and nothing stays behind."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as ours, await KafkaConsumer.open(options, topics) as consumer:
        other = AIOKafkaProducer(bootstrap_servers=shared, transactional_id=unique("transaction"))
        await other.start()
        expected: list[bytes] = []
        for number in range(3):
            async with other.transaction():
                await other.send_and_wait(topics[0], b"theirs %d" % number)
            await ours.append([Message(topics[0], b"ours %d" % number)])
            expected += [b"theirs %d" % number, b"ours %d" % number]
        async with other.transaction():
            await other.send_and_wait(topics[0], b"last")
        await other.stop()
        first = await poll(consumer, 15)
        await consumer.intend(first)
        assert first._replace(in_doubt=True) == await poll(consumer)
        await consumer.commit(first)
        taken = list(first.payloads) + await take_all(consumer)
        assert [*expected, b"last"] == taken
        assert await consumer.poll(MIB, 0) is None
        assert {0} == set((await consumer.lag()).values())


async def test_messages_that_retention_deleted_are_missed_aloud(shared: str) -> None:
    """The writer was away for too long: it says how many are gone, and goes on with the first that is there."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
        assert 2 == (await take(consumer, 2)).end
        from aiokafka import TopicPartition
        from aiokafka.admin.records_to_delete import RecordsToDelete

        async with admin(shared) as client:
            await client.delete_records({TopicPartition(topics[0], 0): RecordsToDelete(before_offset=7)})
        with structlog.testing.capture_logs() as logs, pytest.raises(BrokerDown, match="deleted 5 messages"):
            await poll(consumer)
        assert [(5, 2)] == [(line["messages"], line["first_offset"]) for line in logs if line["log_level"] == "error"]
        assert [b"7", b"8", b"9"] == await take_all(consumer)


async def delete_up_to(bootstrap: str, topic: str, offset: int) -> None:
    """As retention does. -1: all of it."""
    from aiokafka import TopicPartition
    from aiokafka.admin.records_to_delete import RecordsToDelete

    async with admin(bootstrap) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})


def deleted(logs: list[Any]) -> list[int]:
    """How many messages each line says were deleted."""
    return [line["messages"] for line in logs if line["log_level"] == "error" and "Kafka deleted messages" in line["event"]]


@pytest.mark.parametrize("kept", [0, 4])
async def test_what_was_deleted_before_the_first_commit_is_missed_aloud(shared: str, kept: int) -> None:
    """Gateways came before the first writer, by more than the retention. It is said once, whatever comes behind it."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(10)])
    await delete_up_to(shared, topics[0], 10 - kept or -1)
    with structlog.testing.capture_logs() as logs:
        for n in range(2):
            async with await KafkaConsumer.open(options, topics) as consumer:
                if n == 0 and kept:
                    assert [b"6", b"7", b"8", b"9"] == await take_all(consumer)
                until = time.monotonic() + 60
                while not deleted(logs):
                    assert time.monotonic() < until
                    assert await consumer.poll(MIB, 0.1) is None
                assert await consumer.poll(MIB, 0) is None
    assert [10 - kept] == deleted(logs)


async def test_what_was_deleted_to_the_end_is_reported_once(shared: str) -> None:
    """Nothing comes behind it; a writer that starts anew says nothing of it, and nobody waits for it."""
    options, topics = fresh(shared)
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        await producer.append([Message(topics[0], b"%d" % n) for n in range(5)])
        await take(consumer, 2)
        await delete_up_to(shared, topics[0], -1)
    progress = KafkaProgress(options, topics)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            async with await KafkaConsumer.open(options, topics) as consumer:
                for _ in range(3):
                    with suppress(BrokerDown):
                        assert await consumer.poll(MIB, 0.1) is None
                assert {0} == set((await consumer.lag()).values())
            assert 0 == await progress.caught_up(0)
    await progress.close()
    assert [3] == deleted(logs)


async def test_more_writers_than_partitions_wait(shared: str) -> None:
    options, topics = fresh(shared)
    async with await KafkaConsumer.open(options, topics) as first, await KafkaConsumer.open(options, topics) as second:
        await eventually_settled(first, second)
        idle = first if not await first.positions() else second
        assert {} == await idle.lag()
        assert await idle.poll(MIB, 0.2) is None
        assert idle.failure is None


async def eventually_settled(*consumers: KafkaConsumer) -> None:
    async def settled() -> bool:
        return 1 == sum([len(await consumer.positions()) for consumer in consumers])

    await eventually(settled)


# Security.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority (ca.pem), the broker's key and certificate (broker.pem) and a client's, each in one file."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("broker", "client"):
        openssl(
            *new,
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy")
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")
        (directory / f"{name}.pem").write_text(
            (directory / f"{name}.key").read_text() + (directory / f"{name}.crt").read_text()
        )
    return directory


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Kafka]:
    """A broker with a listener for each way in."""
    libraries()
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {"ssl__client__auth": "requested", "listener__name__mutual__ssl__client__auth": "required"}
    for listener in ("tls", "mutual", "sasltls"):
        settings |= {
            f"listener__name__{listener}__ssl__keystore__type": "PEM",
            f"listener__name__{listener}__ssl__keystore__location": str(certificates / "broker.pem"),
            f"listener__name__{listener}__ssl__truststore__type": "PEM",
            f"listener__name__{listener}__ssl__truststore__location": str(certificates / "ca.pem"),
        }
    for listener in ("sasl", "sasltls"):
        prefix = f"listener__name__{listener}__"
        settings |= {
            f"{prefix}sasl__enabled__mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{prefix}plain__sasl__jaas__config": f'{plain} user_alice="{PASSWORD}";',
            f"{prefix}scram-sha-256__sasl__jaas__config": scram,
            f"{prefix}scram-sha-512__sasl__jaas__config": scram,
        }
    listeners = {"TLS": "SSL", "MUTUAL": "SSL", "SASL": "SASL_PLAINTEXT", "SASLTLS": "SASL_SSL"}
    kafka = Kafka(tmp_path_factory.mktemp("kafka") / "secured", listeners, {"alice": PASSWORD}, is_killed=False, **settings)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()


WAYS: dict[str, dict[str, Any]] = {
    "TLS": {"security": "SSL"},
    "MUTUAL": {"security": "SSL", "cert_file": "client.pem"},
    "SASL": {"security": "SASL_PLAINTEXT", "username": "alice", "password": PASSWORD},
    "SASLTLS": {"security": "SASL_SSL", "username": "alice", "password": PASSWORD},
}


def secure(kafka: Kafka, certificates: Path, listener: str, **changes: Any) -> tuple[KafkaOptions, list[str]]:
    way = {**WAYS[listener], **changes}
    if way["security"].endswith("SSL"):
        way.setdefault("ca_file", "ca.pem")
    for name in ("ca_file", "cert_file", "key_file"):
        if way.get(name):
            way[name] = certificates / way[name]
    return fresh(kafka.address(listener), **way)


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("TLS", None),
        ("MUTUAL", None),
        *((listener, f"{name}") for listener in ("SASL", "SASLTLS") for name in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
    ],
)
async def test_every_way_in(secured: Kafka, certificates: Path, listener: str, mechanism: str | None) -> None:
    """TLS, mutual TLS, and SASL with and without TLS: append, read, commit; and nothing that is logged has the password in it,
    however much is."""
    options, topics = secure(secured, certificates, listener, **({"sasl_mechanism": mechanism} if mechanism else {}))
    lines = Lines()
    logging.getLogger().addHandler(lines)
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
            await producer.append([Message(topics[0], b"secret")])
            assert [b"secret"] == await take_all(consumer)
            assert PASSWORD not in repr(options) + repr(producer) + repr(consumer)
    finally:
        logging.getLogger().setLevel(before)
        logging.getLogger().removeHandler(lines)
    assert not [line for line in lines.seen if PASSWORD in line]


class Lines(logging.Handler):
    """Remembers what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


@pytest.mark.parametrize(
    ("listener", "changes", "reason"),
    [
        ("SASL", {"password": "not it"}, "Authentication failed"),
        ("SASL", {"password": "not it", "sasl_mechanism": "PLAIN"}, "Authentication failed"),
        ("SASLTLS", {"username": "bob"}, "Authentication failed"),
        ("TLS", {"ca_file": "client.crt"}, "certificate verify failed"),
        ("MUTUAL", {"cert_file": None}, "127.0.0.1"),
        ("TLS", {"ca_file": "none.pem"}, "none.pem.*No such file"),
        ("MUTUAL", {"cert_file": "client.key"}, "client.key"),
    ],
)
async def test_a_way_in_that_is_shut_is_named(
    secured: Kafka, certificates: Path, listener: str, changes: dict[str, Any], reason: str
) -> None:
    """Files that can't be used, for good; that we are not let in, in case that changes. Without the password."""
    options, topics = secure(secured, certificates, listener, start_timeout_s=0, **changes)
    with pytest.raises(KafkaUnusable, match=reason) as caught:
        await KafkaProducer.open(options, topics)
    assert isinstance(caught.value, KafkaUnavailable) == ("pem" not in reason and "key" not in reason)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert not any(secret in repr(cause) for secret in (PASSWORD, "not it"))
        cause = cause.__cause__ or cause.__context__
