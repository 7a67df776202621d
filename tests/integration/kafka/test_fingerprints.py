"""Where messages with fingerprints are in Kafka: copies of a message in one partition, in the order of their appends."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from structlog.testing import capture_logs
from support.fakes.brokers import kafka_options
from support.processes.kafka import shared_bootstrap, unique
from support.waiting import eventually

from adapters.fingerprint import partition_of
from collector.broker.contract import BrokerDown, Message
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from collector.broker.kafka.producer_batches import PartitionState, TopicState
from collector.broker.kafka.producer_session import ProducerSession
from collector.telemetry.metrics import Metrics

PRINTS = [(number * 0x9E3779B97F4A7C15 % 2**128).to_bytes(16, "big") for number in range(1, 61)]


def fresh(**changes: Any) -> tuple[KafkaOptions, str]:
    options = kafka_options(shared_bootstrap(), group_id=unique("group"), topic_partitions=3, **changes)
    return options, unique("topic")


async def append(options: KafkaOptions, topic: str, turn: bytes) -> None:
    """Each fingerprint, at once, beside messages that have none; by a producer of its own."""
    async with await KafkaProducer.open(options, [topic]) as producer:
        await append_by(producer, topic, turn)


async def append_by(producer: KafkaProducer, topic: str, turn: bytes) -> None:
    await asyncio.gather(
        *(producer.append([Message(topic, b"none"), Message(topic, print_ + turn, fingerprint=print_)]) for print_ in PRINTS)
    )


async def has_more(consumer: KafkaConsumer) -> bool:
    """Whether something is left; asked again where a new partition's leader does not know yet that it is."""
    while True:
        with suppress(BrokerDown):
            return any((await consumer.lag()).values())
        await asyncio.sleep(0.1)


async def read(options: KafkaOptions, topic: str) -> tuple[dict[bytes, list[int]], list[bytes]]:
    """In which partitions each fingerprint is, and all payloads, in their order."""
    partitions: dict[bytes, list[int]] = defaultdict(list)
    payloads: list[bytes] = []
    async with await KafkaConsumer.open(options, [topic]) as consumer:
        while await has_more(consumer):
            messages = await consumer.poll(1 << 24, 30)
            assert messages is not None
            await consumer.intend(messages)
            await consumer.commit(messages)
            for payload in map(bytes, messages.payloads):
                if payload != b"none":
                    partitions[payload[:16]].append(messages.partition.index)
                    payloads.append(payload)
    return partitions, payloads


def assert_in_order(payloads: Sequence[bytes], turns: Sequence[bytes]) -> None:
    for print_ in PRINTS:
        assert [print_ + turn for turn in turns] == [payload for payload in payloads if payload[:16] == print_]


async def test_messages_with_the_same_fingerprint_are_in_one_partition() -> None:
    """The fingerprint decides the partition, whichever gateway appends them."""
    options, topic = fresh()
    for turn in (b"first", b"second"):
        await append(options, topic, turn)
    partitions, payloads = await read(options, topic)
    assert {print_: [partition_of(print_, 3)] * 2 for print_ in PRINTS} == partitions
    assert_in_order(payloads, [b"first", b"second"])


async def test_a_producer_learns_of_partitions_that_are_added() -> None:
    """It needs no restart: what moves, moves to the new ones. It is counted and logged once, also by later sessions."""
    options, topic = fresh(metadata_refresh_s=0.1)
    metrics = Metrics()
    with capture_logs() as logged:
        await append_around_a_new_partition(options, topic, metrics)
    added = {"topic": topic, "before": 3, "now": 4}
    assert [added] == [{name: line[name] for name in added} for line in logged if "more partitions" in line["event"]]
    assert f'infrasage_kafka_partitions_added_total{{topic="{topic}"}} 1' in metrics.expose("")[0].decode()
    partitions, _ = await read(options, topic)
    assert {print_: [partition_of(print_, 3), partition_of(print_, 4)] for print_ in PRINTS} == {
        print_: sorted(found, key=lambda index: index == 3) for print_, found in partitions.items()
    }


async def append_around_a_new_partition(options: KafkaOptions, topic: str, metrics: Metrics) -> None:
    """Append each fingerprint before and after the topic's fourth partition. The last append is by a new session."""
    async with await KafkaProducer.open(options, [topic], metrics) as producer:
        await append_by(producer, topic, b"first")
        admin = AIOKafkaAdminClient(bootstrap_servers=options.bootstrap)
        await admin.start()
        try:
            await admin.create_partitions({topic: NewPartitions(4)})
        finally:
            await admin.close()
        session = producer._session
        assert session is not None
        async with asyncio.timeout(30):
            while session._partitions[topic] != 4:
                await asyncio.sleep(0.05)
        assert session.failed is not None
        session.failed("as when a batch has failed: another session follows")
        await eventually(lambda: producer._session not in (None, session))
        await append_by(producer, topic, b"second")


async def test_a_message_waits_for_the_leader_of_its_partition() -> None:
    """It goes as soon as there is a leader. What waits longer than an append may is refused, and the others go on."""
    options, topic = fresh(append_timeout_s=30.0)
    async with await KafkaProducer.open(options, [topic]) as producer:
        session = producer._session
        assert session is not None
        await append_by(producer, topic, b"first")
        state = session.queue.states[topic]
        groups = state.groups
        state.set_groups([[]])  # as if all leaders were lost
        waiting = [
            asyncio.create_task(producer.append([Message(topic, print_ + b"second", fingerprint=print_)])) for print_ in PRINTS
        ]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        assert session.queue.placed
        session._avoided.set()  # metadata is read again, and there is a leader
        await asyncio.gather(*waiting)
        assert groups == state.groups
        assert not session.queue.placed
        assert session is producer._session
    partitions, payloads = await read(options, topic)
    assert {print_: [partition_of(print_, 3)] * 2 for print_ in PRINTS} == partitions
    assert_in_order(payloads, [b"first", b"second"])


def without_leaders(producer: KafkaProducer, topic: str) -> tuple[ProducerSession, TopicState, list[list[PartitionState]]]:
    """Take the leaders of a topic from a producer. Return its session, the topic's state, and the groups to set again."""
    session = producer._session
    assert session is not None
    session._tasks[-1].cancel()  # nobody asks for leaders meanwhile
    state = session.queue.states[topic]
    groups = state.groups
    state.set_groups([[]])
    return session, state, groups


async def test_what_waits_too_long_for_a_leader_is_refused_alone() -> None:
    """Nothing of it was sent, and the message of the error says so; the producer goes on with its session."""
    options, topic = fresh(append_timeout_s=0.5, metadata_refresh_s=60)
    async with await KafkaProducer.open(options, [topic]) as producer:
        session, state, groups = without_leaders(producer, topic)
        with pytest.raises(BrokerDown, match="nothing of it was kept"):
            await producer.append([Message(topic, b"late", fingerprint=PRINTS[0])])
        assert (0, []) == (session.queue.waiting_bytes, session.queue.placed)
        state.set_groups(groups)
        assert session is producer._session
        await append_by(producer, topic, b"on time")
    _, payloads = await read(options, topic)
    assert_in_order(payloads, [b"on time"])


async def test_what_is_sent_for_others_may_be_kept() -> None:
    """A message that waited too long for a leader, in a batch whose other caller still waits, is sent all the same: the error
    does not deny it."""
    options, topic = fresh(append_timeout_s=3.0, metadata_refresh_s=60)
    async with await KafkaProducer.open(options, [topic]) as producer:
        session, state, groups = without_leaders(producer, topic)
        early = asyncio.create_task(producer.append([Message(topic, PRINTS[0] + b"early", fingerprint=PRINTS[0])]))
        await eventually(lambda: session.queue.waiting_bytes > 0)
        await asyncio.sleep(1.0)
        later = asyncio.create_task(producer.append([Message(topic, PRINTS[0] + b"later", fingerprint=PRINTS[0])]))
        with pytest.raises(BrokerDown, match="it is not known whether it was kept"):
            await early
        assert not later.done()
        state.set_groups(groups)
        session.queue.arrived.set()
        await later
    _, payloads = await read(options, topic)
    assert [PRINTS[0] + b"early", PRINTS[0] + b"later"] == payloads
