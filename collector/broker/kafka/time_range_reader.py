"""Read Kafka's messages of a span of time, stored or not. It uses no group, so no writer notices.

Reading ends at the offsets where the partitions ended when it began, so it always terminates.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown
from collector.broker.kafka.client import Client
from collector.broker.kafka.options import KafkaOptions, connection, text

_FETCH_BYTES: Final = 8 * 1024 * 1024
_WAIT_MS: Final = 1000
_MS_NS: Final = 10**6
# A message of a producer whose clock is ahead is followed by earlier messages of others. By so much may it be ahead.
_AHEAD_NS: Final = 900 * 10**9


class HistoricMessage(NamedTuple):
    """A message of Kafka. `appended` is in nanoseconds since the Unix epoch, by its producer's clock."""

    topic: str
    appended: int
    payload: bytes


class Beginnings(NamedTuple):
    """The times at which Kafka's messages begin, in nanoseconds since the Unix epoch.

    `begins` is the latest beginning among partitions from which messages were deleted; 0 if there are none. `first` is, by
    topic, when the first of its remaining messages was appended. It has no entry for an empty topic.
    """

    begins: int
    first: Mapping[str, int]


class History:
    """Reads messages by time. Call `open`, and use the result as a context."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], timeout_s: float) -> None:
        self._consumer: Final = consumer
        self._partitions: Final = partitions
        self._timeout_s: Final = timeout_s

    @classmethod
    async def open(cls, options: KafkaOptions, topics: Collection[str]) -> Self:
        """Connect to Kafka. Raises BrokerDown, KafkaUnusable."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=list(options.bootstrap),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=_FETCH_BYTES,
            **connection(options),
        )
        consumer._client = Client(options)  # asks another broker if one is away
        consumer._client.set_topics(topics)
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await consumer.stop()
            raise BrokerDown(f"cannot use Kafka at {', '.join(options.bootstrap)}: {text(error)}") from error
        # A topic that does not exist has no partitions here, and so no messages.
        partitions = [
            TopicPartition(topic, index)
            for topic in sorted(topics)
            for index in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        consumer.unsubscribe()
        return cls(consumer, partitions, options.request_timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def beginnings(self) -> Beginnings:
        """Return when the messages begin. Raises BrokerDown."""
        begins = 0
        first: dict[str, int] = {}
        try:
            offsets = await self._consumer.beginning_offsets(self._partitions)
            for partition, found in (await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, 0))).items():
                if found is not None:
                    at = found.timestamp * _MS_NS
                    first[partition.topic] = min(at, first.get(partition.topic, at))
                    if offsets[partition]:
                        begins = max(begins, at)
        except (KafkaError, OSError) as error:
            raise BrokerDown(f"cannot ask Kafka where its topics begin: {text(error)}") from error
        return Beginnings(begins, first)

    async def read(self, start: int, end: int) -> AsyncIterator[HistoricMessage]:
        """Yield the messages that were appended from `start` to `end` (nanoseconds, to the millisecond), by partition. The
        clocks of their producers may differ by a quarter of an hour.

        Raises BrokerDown.
        """
        consumer = self._consumer
        try:
            ends = await consumer.end_offsets(self._partitions)
            found = await consumer.offsets_for_times(dict.fromkeys(self._partitions, max(0, start // _MS_NS)))
            for partition in self._partitions:
                first = found[partition]
                if first is None:
                    continue
                consumer.assign([partition])
                consumer.seek(partition, first.offset)
                async for message in self._until(partition, ends[partition]):
                    if message.appended >= end + _AHEAD_NS:
                        break
                    if message.appended < end + _MS_NS:
                        yield message
        except (KafkaError, OSError) as error:
            raise BrokerDown(f"cannot read what Kafka holds: {text(error)}") from error

    async def _until(self, partition: TopicPartition, end: int) -> AsyncIterator[HistoricMessage]:
        silent_s = 0.0
        while (position := await self._consumer.position(partition)) < end:
            records = (await self._consumer.getmany(partition, timeout_ms=_WAIT_MS)).get(partition, [])
            for record in records:
                if record.offset < end:
                    yield HistoricMessage(partition.topic, record.timestamp * _MS_NS, record.value or b"")
            silent_s = 0.0 if records or await self._consumer.position(partition) > position else silent_s + _WAIT_MS / 1000
            if silent_s > self._timeout_s:
                raise BrokerDown(f"Kafka sends nothing of {partition.topic}/{partition.partition} after offset {position}")
