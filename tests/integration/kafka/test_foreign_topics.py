"""Topics that others write, on a real broker: read with their contexts, and stored once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.brokers import MIB, kafka_options
from support.fakes.receiving import NOW_UNIX_NANO, otlp_logs
from support.fakes.stores import Crash, FakeStore
from support.fakes.writing import CrashingConsumer, Observed
from support.processes.kafka import shared_bootstrap, unique
from support.waiting import eventually

from adapters.record import LOGS, Adapted
from collector.broker.contract import Message, MessageContext, Range
from collector.broker.kafka import KafkaConsumer
from collector.ingest.foreign_topics import ForeignTopic, ForeignTopics, TopicLimits
from collector.ingest.validate import Limits
from collector.records.dead_letter import Caps
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

NOW_MS = NOW_UNIX_NANO // 1_000_000
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
RULES = Limits(
    past_max_s=86_400,
    future_max_s=600,
    attributes_max=64,
    attribute_key_bytes_max=256,
    attribute_value_bytes_max=2 * MIB,
    name_bytes_max=256,
)


class Counting(Observed):
    """Also of what others wrote."""

    def ingested(self, adapted: Adapted, dead_letters: Mapping[int, int]) -> None:
        """It is not used."""


class Theirs:
    """A topic of others, compacted and for large messages; and a group that reads it beside a topic of ours."""

    def __init__(self) -> None:
        self.name = unique("theirs")
        self.ours = unique("ours")
        self.options = kafka_options(shared_bootstrap(), group_id=unique("group"), topic_partitions=1)
        self.letters: Counter[bytes] = Counter()

    async def create(self) -> None:
        """As no topic of ours may be."""
        admin = AIOKafkaAdminClient(bootstrap_servers=shared_bootstrap())
        await admin.start()
        configs = {"cleanup.policy": "compact", "max.message.bytes": str(4 * MIB)}
        await admin.create_topics([NewTopic(self.name, 1, 1, topic_configs=configs)])
        await admin.close()

    async def write(self, *values: bytes | None, codec: str | None = None, **more: Any) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=shared_bootstrap(), compression_type=codec, max_request_size=200 * MIB, acks="all"
        )
        await producer.start()
        try:
            for index, value in enumerate(values):
                key = unique(f"key-{index}").encode()
                await producer.send_and_wait(self.name, value, key=key, timestamp_ms=NOW_MS, **more)
        finally:
            await producer.stop()

    async def consumer(self, group: str | None = None) -> KafkaConsumer:
        options = self.options if group is None else kafka_options(shared_bootstrap(), group_id=group, topic_partitions=1)
        return await KafkaConsumer.open(options, [self.ours], [self.name])

    def topics(self) -> ForeignTopics:
        limits = TopicLimits(RULES, Caps(1000, MIB), MIB // 2, 64 * MIB, MIB // 2, MIB // 16)
        topic = ForeignTopic(self.name, "otlp_proto", LOGS, "acme")
        return ForeignTopics([topic], limits, self.append, Counting(), now_unix_nano=lambda: NOW_UNIX_NANO, pause=lambda: None)

    async def append(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.letters.update(record.letter.id for record in DeadLetterBatch.FromString(message.payload).records)

    def writer(self, consumer: Any, store: FakeStore, bytes_max: int = MIB) -> Writer:
        async def keep(refused: Sequence[RefusedItem]) -> Mapping[str, int]:
            raise AssertionError(refused)

        limits = WriterLimits(
            bytes_max=bytes_max, row_bytes_max=1 << 27, refusals_max=10, linger_ms=0, retry_min_s=0.05, retry_max_s=0.1
        )
        return Writer(consumer, store, keep, limits, Counting(), of_others=self.topics())


def body(service: str, padding: int = 0, late: int = 0) -> bytes:
    request = ExportLogsServiceRequest.FromString(otlp_logs(good=1, late=late, padding=padding))
    request.resource_logs[0].resource.attributes.add(key="service.name").value.string_value = service
    return request.SerializeToString()


async def polled(consumer: KafkaConsumer) -> list[Range]:
    """All of it, in ranges of a message or so."""
    found: list[Range] = []
    while any((await consumer.lag()).values()):
        messages = await consumer.poll(1000, 30)
        assert messages is not None
        await consumer.intend(messages)
        await consumer.commit(messages)
        found.append(messages)
    return found


async def test_messages_are_read_with_what_is_beside_them() -> None:
    """Offset, timestamp and headers, of each compression; a tombstone; a message of more than 1 MiB, from a compacted topic."""
    theirs = Theirs()
    await theirs.create()
    large = body("large", padding=MIB + 100_000)
    for codec in CODECS:
        await theirs.write(body(f"{codec}"), None, large, codec=codec, headers=[("tenant", b"globex"), ("h", b"")])
    consumer = await theirs.consumer()
    ranges = await polled(consumer)
    await consumer.close()
    payloads = [bytes(payload) for each in ranges for payload in each.payloads]
    assert [each for codec in CODECS for each in (body(f"{codec}"), b"", large)] == payloads
    contexts = [context for each in ranges for context in each.contexts]
    epoch = contexts[0].leader_epoch
    assert epoch >= 0
    headers = [("tenant", b"globex"), ("h", b"")]
    assert [MessageContext(offset, epoch, NOW_MS, headers) for offset in range(15)] == contexts


async def test_a_message_is_read_as_far_as_it_may_be_large() -> None:
    """Of one of a hundred megabytes in a few kilobytes the beginning, and what is behind it: it stops nothing."""
    theirs = Theirs()
    await theirs.create()
    before, large, after = body("before"), body("large", padding=100 * MIB), body("after")
    for codec in ("gzip", "lz4", "zstd"):
        await theirs.write(before, large, after, codec=codec)
    theirs.options = replace(theirs.options, value_bytes_max=20 * MIB)
    consumer = await theirs.consumer()
    ranges = await polled(consumer)
    await consumer.close()
    payloads = [bytes(payload) for each in ranges for payload in each.payloads]
    assert [before, large[:MIB], after] * 3 == payloads
    unread = [context.unread for each in ranges for context in each.contexts]
    assert [False, True, False] * 3 == [each is not None and each.size_bytes == len(large) for each in unread]


async def test_another_group_gives_the_same_messages_and_letters() -> None:
    """Whatever the ranges are that it reads: so when a reader repeats a part of the topic, the rows are the same."""
    theirs = Theirs()
    await theirs.create()
    await theirs.write(*[body(f"s{number}", late=number % 2) for number in range(8)], b"\xff\xff", codec="zstd")
    found = []
    for bytes_max in (200, 10 * MIB):
        consumer = await theirs.consumer(unique("group"))
        messages: list[bytes] = []
        while any((await consumer.lag()).values()):
            one = await consumer.poll(bytes_max, 30)
            assert one is not None
            adapted = theirs.topics().adapt(one)
            await adapted.keep(len(one.payloads))
            messages += map(bytes, adapted.messages.payloads)
            await consumer.intend(one)
            await consumer.commit(one)
        await consumer.close()
        found.append(messages)
    assert found[0] == found[1]
    assert {2} == set(theirs.letters.values())
    assert 5 == len(theirs.letters)


@pytest.mark.parametrize(
    "crash_at",
    ["after the intent", "insert half done", "token without rows", "rows without token", "inserted", "before the commit"],
)
async def test_a_writer_that_dies_loses_and_repeats_nothing(crash_at: str) -> None:
    theirs = Theirs()
    await theirs.create()
    names = [f"s{number}" for number in range(12)]
    await theirs.write(*[body(name, late=1) for name in names], b"\xff", codec="gzip")
    store = FakeStore(crash_at=crash_at)
    consumer = await theirs.consumer()
    with pytest.raises(Crash):
        await asyncio.wait_for(theirs.writer(CrashingConsumer(consumer, crash_at), store).run(), 60)  # type: ignore[arg-type]
    await consumer.close()
    consumer = await theirs.consumer()
    writer = theirs.writer(consumer, store)
    running = asyncio.create_task(writer.run())
    await eventually(lambda: set(names) <= set(store.rows))
    assert await writer.drained(60)
    writer.stop()
    await running
    await consumer.close()
    assert dict.fromkeys(names, 1) == {name: store.rows[name] for name in store.rows if name}, "a receipt has no service"
    assert 13 == len(theirs.letters)


async def test_a_writer_that_does_not_know_the_topic_is_no_trouble() -> None:
    """A writer in the same group gets no partition of it."""
    theirs = Theirs()
    await theirs.create()
    await theirs.write(body("a"))
    without = await KafkaConsumer.open(theirs.options, [theirs.ours])
    consumer = await theirs.consumer()

    async def read() -> list[Range]:
        return await polled(consumer)

    polling = asyncio.create_task(without.poll(1000, 20))
    ranges = await read()
    assert [[body("a")]] == [[bytes(payload) for payload in each.payloads] for each in ranges]
    await consumer.close()
    await without.close()
    await asyncio.gather(polling, return_exceptions=True)
