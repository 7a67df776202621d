"""Ask the brokers that lead partitions for their beginnings and ends, their logs, and their messages."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from collector.broker.contract import BrokerDown, Partition
from collector.broker.kafka.client import Client
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.identity import TopicLog, topic_logs
from collector.broker.kafka.protocol.fetch import FETCH_API, Arriving, Batch, batches, fetch_answer, fetch_request
from collector.broker.kafka.protocol.foreign_records import ForeignRecordLimits
from collector.broker.kafka.protocol.offsets import (
    EARLIEST,
    EPOCH_END_API,
    LATEST,
    LIST_API,
    epoch_end_answer,
    epoch_end_request,
    list_answer,
    list_request,
)

# A request that waits for messages holds up its connection, so it has one of its own. The value is any that aiokafka does not
# use.
_ARRIVALS: Final = 100


class Ends(NamedTuple):
    """The ends of partitions, the beginnings of those for which they were asked, and errors."""

    ends: dict[Partition, int]
    begins: dict[Partition, int]
    errors: dict[Partition, Exception]


class EpochEnd(NamedTuple):
    """The end of an epoch in a leader's log."""

    epoch: int  # the last epoch of the log up to the requested one
    offset: int  # below 0: the leader does not know


class Leaders:
    """Sends requests to the leaders of partitions. Used by the event loop that `brokers` belongs to."""

    def __init__(self, brokers: Brokers, client: Callable[[], Client]) -> None:
        """`client` returns the client that has the cluster's metadata now."""
        self._brokers: Final = brokers
        self._client: Final = client

    def of(self, partition: Partition) -> int:
        """Return the broker that leads the partition. Raises BrokerDown if there is none."""
        leader = self.known(partition)
        if leader is None:
            self.refresh()
            raise BrokerDown(f"{partition.topic}/{partition.index} has no leader now")
        return leader

    def known(self, partition: Partition) -> int | None:
        """Return the broker that leads the partition; None if that is not known."""
        leader: int | None = self._client().cluster.leader_for_partition(TopicPartition(partition.topic, partition.index))
        return None if leader is None or leader < 0 else leader

    def refresh(self) -> None:
        """Let the client read the metadata again, soon."""
        self._client().force_metadata_update()

    async def ends(self, node: int, partitions: Collection[Partition], begins: Collection[Partition]) -> Ends:
        """Return the ends of partitions that this broker leads, and the beginnings of some. Raises KafkaError, OSError,
        ValueError."""
        first: dict[Partition, int] = {}
        errors: dict[Partition, Exception] = {}
        if begins:
            first, errors = await self._offsets(node, begins, EARLIEST)
        last, more_errors = await self._offsets(node, partitions, LATEST)
        return Ends(last, first, errors | more_errors)

    async def earliest(self, partition: Partition) -> int:
        """Return the partition's first offset. Raises KafkaError, OSError, ValueError, BrokerDown."""
        found, errors = await self._offsets(self.of(partition), [partition], EARLIEST)
        for error in errors.values():
            raise error
        return found[partition]

    async def log(self, partition: Partition) -> TopicLog:
        """Return the log of a partition as its leader knows it. Raises KafkaError, OSError, BrokerDown."""
        known = await self.logs(self.of(partition), [partition.topic])
        if partition.topic not in known:
            self.refresh()
            raise BrokerDown(f"{partition.topic} is not known to the leader of {partition.topic}/{partition.index}")
        return known[partition.topic]

    async def logs(self, node: int, topics: Sequence[str]) -> dict[str, TopicLog]:
        """Return the logs of those topics that the broker knows. Raises KafkaError, OSError."""
        return await topic_logs(self._brokers, self._client(), node, topics)

    async def epoch_end(self, partition: Partition, leader_epoch: int, epoch: int) -> EpochEnd | None:
        """Return where `epoch` ends in the log of the leader of `leader_epoch`; None if that broker's version is too old for
        the request. Raises KafkaError, OSError, ValueError, BrokerDown."""
        request = epoch_end_request(partition, leader_epoch, epoch)
        try:
            answer = await self._brokers.ask(self._client(), self.of(partition), EPOCH_END_API, [request])
        except IncompatibleBrokerVersion:
            return None
        code, last_epoch, end = epoch_end_answer(answer)
        error = for_code(code)
        if error is not NoError:
            raise error
        return EpochEnd(last_epoch, end)

    async def fetch(
        self, partition: Partition, offset: int, bytes_max: int, value_bytes_max: int | None = None
    ) -> Iterator[Batch] | None:
        """Return batches from `offset` on, whose iteration raises WrongChecksum and ValueError; None if Kafka does not have the
        offset. `value_bytes_max` limits the values of messages that others write; None means that the messages are ours. Raises
        KafkaError, OSError, ValueError, BrokerDown."""
        request = fetch_request(partition.topic, partition.index, offset, bytes_max)
        arriving = Arriving()
        answer = await self._brokers.ask(self._client(), self.of(partition), FETCH_API, [request], arriving.received)
        code, records = fetch_answer(answer)
        error = for_code(code)
        if error is OffsetOutOfRangeError:
            return None
        if error is not NoError:
            raise error
        limits = None if value_bytes_max is None else ForeignRecordLimits(offset, bytes_max, value_bytes_max)
        return batches(records, arriving.checksums, limits)

    def arrivals(self, ends: Mapping[Partition, int], wait_s: float, without: Collection[int]) -> set[asyncio.Future[Any]]:
        """Ask each leader to answer when it has messages beyond `ends`, or when the time is up. Do not ask the brokers
        `without`."""
        by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for partition, end in ends.items():
            leader = self.known(partition)
            if leader is not None and leader not in without:
                by_leader[leader][partition.topic].append((partition.index, end, 1))
        asked: set[asyncio.Future[Any]] = set()
        for node, topics in by_leader.items():
            request = FetchRequest(int(wait_s * 1000), 1, 1, 0, list(topics.items()))
            asked.add(asyncio.ensure_future(self._client().send(node, request, group=_ARRIVALS)))
        return asked

    async def _offsets(
        self, node: int, partitions: Collection[Partition], time: int
    ) -> tuple[dict[Partition, int], dict[Partition, Exception]]:
        """Return the first offset of each partition (`time` is EARLIEST) or the next one to be written (LATEST), and errors for
        partitions whose offset is not known. Raises KafkaError, OSError, ValueError."""
        indexes: defaultdict[str, list[int]] = defaultdict(list)
        for partition in partitions:
            indexes[partition.topic].append(partition.index)
        request = list_request(list(indexes.items()), time)
        found = list_answer(await self._brokers.ask(self._client(), node, LIST_API, [request]))
        errors: dict[Partition, Exception] = {
            partition: for_code(code)() for partition, (code, _) in found.items() if for_code(code) is not NoError
        }
        return {partition: offset for partition, (_, offset) in found.items() if partition not in errors}, errors
