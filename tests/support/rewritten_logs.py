"""A topic that begins anew, or loses its end, while a writer stores it: its appends, and what of them is stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import OffsetAndMetadata
from support.fakes.brokers import kafka_options
from support.fakes.stores import FakeStore, batch
from support.processes.kafka import unique
from support.waiting import eventually

from collector.broker.contract import Message
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

LIMITS = WriterLimits(bytes_max=1, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.02, retry_max_s=0.2)


class Unobserved:
    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None: ...
    def write_failed(self, topic: str, kind: str) -> None: ...
    def dead_lettered(self, topic: str, records: int) -> None: ...
    def store_refused(self, source: str, items: int) -> None: ...
    def dropped(self, records: int) -> None: ...
    def completed(self, topic: str, rows: int, in_part: int) -> None: ...


async def keep(refused: Sequence[RefusedItem]) -> dict[str, int]:
    raise AssertionError(refused)


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


class World:
    """One topic of one partition, a group, and a store. Ranges are of one message, so that a repeated offset is a repeated
    range."""

    def __init__(self, bootstrap: str) -> None:
        self.topic = unique("topic")
        self.options: KafkaOptions = kafka_options(bootstrap, group_id=unique("group"), topic_partitions=1)
        self.store = FakeStore()
        self.names: list[str] = []

    async def append(self, *names: str) -> None:
        async with await KafkaProducer.open(self.options, [self.topic]) as producer:
            for name in names:
                await producer.append([Message(self.topic, batch(name))])
                self.names.append(name)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[KafkaConsumer]:
        async with await KafkaConsumer.open(self.options, [self.topic]) as consumer:
            writer = Writer(consumer, self.store, keep, LIMITS, Unobserved())
            running = asyncio.create_task(writer.run())
            try:
                yield consumer
            finally:
                writer.stop()
                await running

    async def stored(self) -> None:
        """Wait until all that was appended is; each of it once."""
        await eventually(lambda: len(self.store.rows) == len(self.names), 60)
        assert dict.fromkeys(self.names, 1) == self.store.rows

    async def drain(self) -> None:
        async with self.writing():
            await self.stored()

    async def make_anew(self) -> None:
        """Delete the topic and wait until it is gone. The next append creates it."""
        async with admin(self.options.bootstrap[0]) as client:
            await client.delete_topics([self.topic])

            async def is_gone() -> bool:
                return self.topic not in await client.list_topics()

            while not await is_gone():
                await asyncio.sleep(0.02)

    async def delete_all(self) -> None:
        """As retention does: the messages go, the offsets stay."""
        async with admin(self.options.bootstrap[0]) as client:
            await client.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(-1)})

    async def set_offset(self, offset: int, metadata: str) -> None:
        """As a group's offset that was copied, or of another version."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self.options.bootstrap), group_id=self.options.group_id, enable_auto_commit=False
        )
        await consumer.start()
        try:
            partition = TopicPartition(self.topic, 0)
            consumer.assign([partition])
            await consumer.commit({partition: OffsetAndMetadata(offset, metadata)})
        finally:
            await consumer.stop()
