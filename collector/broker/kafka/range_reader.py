"""Read the messages of one range from the leader of its partition."""

import asyncio
from collections.abc import Iterator
from typing import Final

from collector.broker.contract import BrokerDown, MessageContext, Partition, Payload, Range
from collector.broker.kafka.group import GroupHead
from collector.broker.kafka.identity import log_of
from collector.broker.kafka.leaders import Leaders
from collector.broker.kafka.protocol.fetch import Batch, WrongChecksum

# The most bytes of one answer to a fetch. The broker sends a whole batch even if it is larger.
_FETCH_BYTES: Final = 16 * 1024 * 1024


class MessagesDeleted(BrokerDown):
    """Kafka has deleted the messages that were to be read."""

    def __init__(self, partition: Partition, offset: int, earliest: int) -> None:
        super().__init__(f"Kafka deleted {earliest - offset} messages of {partition.topic}/{partition.index}")
        self.offset: Final = offset
        self.earliest: Final = earliest


async def read_range(
    leaders: Leaders,
    partition: Partition,
    head: GroupHead,
    end: int,
    bytes_max: int,
    identity: str,
    value_bytes_max: int | None = None,
) -> Range:
    """Read from the committed offset: exactly up to the intent if there is one, else up to `end` or `bytes_max`.

    `identity` is the identity of the partition's log. `value_bytes_max` limits the values of a topic that others write; None
    means that the topic is ours. Raises KafkaError, OSError, ValueError, BrokerDown, and MessagesDeleted.
    """
    in_doubt = head.intent is not None
    goal = end if head.intent is None else head.intent
    reading = _Reading(head.committed, goal, bytes_max, in_doubt)
    while reading.has_room():
        fetched = await leaders.fetch(partition, reading.offset, reading.room(), value_bytes_max)
        if fetched is None and reading.payloads and not in_doubt:
            break  # deleted meanwhile: the messages that were read before are returned
        if fetched is None:
            raise await _out_of_range(leaders, partition, reading.offset)
        before = reading.offset
        try:
            if value_bytes_max is None:
                reading.take(fetched)
            else:
                await asyncio.to_thread(reading.take, fetched)  # in a thread, since it decompresses large batches
        except WrongChecksum:
            raise _unreadable(partition, reading.offset, "wrong checksum") from None
        if reading.offset == before and not reading.is_full:
            raise _unreadable(partition, before, "Kafka sent nothing")
    payloads, contexts = reading.payloads, reading.contexts
    if in_doubt:
        end = max(reading.offset, goal)
        return Range(partition, head.committed, end, payloads, in_doubt, head.log, head.depth, head.left_out, contexts)
    log = log_of(identity, reading.epoch)
    return Range(partition, head.committed, reading.offset, payloads, log=log, contexts=contexts)


class _Reading:
    """Collects the messages of a range while it is read."""

    def __init__(self, start: int, goal: int, bytes_max: int, in_doubt: bool) -> None:
        self.offset = start
        self.payloads: Final[list[Payload]] = []
        self.contexts: Final[list[MessageContext]] = []
        self.epoch = -1
        self._goal: Final = goal
        self._bytes_max: Final = bytes_max
        self._in_doubt: Final = in_doubt
        self._size = 0
        self._largest = 1  # bytes of the largest batch
        self.is_full = False  # whether the next message does not fit

    def has_room(self) -> bool:
        """Return whether to read more. If less than a batch fits, do not: the broker would send a whole batch in vain."""
        if self.offset >= self._goal or self.is_full:
            return False
        return self._in_doubt or self._size + self._largest <= self._bytes_max

    def room(self) -> int:
        """Return how many bytes to read at once."""
        return _FETCH_BYTES if self._in_doubt else max(1, min(_FETCH_BYTES, self._bytes_max - self._size))

    def take(self, fetched: Iterator[Batch]) -> None:
        """Add the messages that belong to the range. Raises WrongChecksum, ValueError."""
        for batch in fetched:
            self._largest = max(self._largest, batch.size_bytes)
            for index, (at, payload) in enumerate(batch.messages):
                if self.offset <= at < self._goal:
                    if self.payloads and not self._in_doubt and self._size + len(payload) > self._bytes_max:
                        self.is_full = True
                        return
                    self.epoch = batch.leader_epoch
                    self.payloads.append(payload)
                    if batch.contexts:
                        self.contexts.append(batch.contexts[index])
                    self._size += len(payload)
                    self.offset = at + 1
            self.offset = max(self.offset, min(batch.next_offset, self._goal))
            if self.offset >= self._goal:
                return
            if not batch.is_whole:
                self.is_full = not self._in_doubt
                return


async def _out_of_range(leaders: Leaders, partition: Partition, offset: int) -> BrokerDown:
    earliest = await leaders.earliest(partition)
    if earliest <= offset:
        return _unreadable(partition, offset, "Kafka reports that it has no such offset")
    return MessagesDeleted(partition, offset, earliest)


def _unreadable(partition: Partition, offset: int, why: str) -> BrokerDown:
    return BrokerDown(f"cannot read {partition.topic}/{partition.index} at offset {offset}: {why}")
