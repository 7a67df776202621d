"""What waits in a session of the producer: appends, their batches, and the partitions and topics that these are for."""

import asyncio
from collections import deque
from typing import Final

from collector.broker.contract import BrokerDown
from collector.broker.kafka.protocol.produce import BATCH_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES

# Where ordered messages go: the one that every topic has.
ORDERED_PARTITION: Final = 0


class Append:
    """One call to `append`: done when all of its batches are, or at its deadline (the loop's time)."""

    def __init__(self, done: "asyncio.Future[None]", deadline: float, topic: str, is_placed: bool, follows: bool) -> None:
        """`topic`: of its first message. `is_placed`: all of its messages have fingerprints. `follows`: other messages of the
        same call are kept already."""
        self.done: Final = done
        self.deadline: Final = deadline
        self.topic: Final = topic
        self.batches = 0
        self.is_placed: Final = is_placed
        self.is_sent = False  # some of it was: whether Kafka has it is not known
        self.follows: Final = follows

    def outcome(self) -> str:
        """Say what is known of an append that was not acknowledged."""
        if self.is_sent or self.follows:
            return "it is not known whether it was kept"
        return "nothing of it was kept"


class PendingBatch:
    """Messages of one topic that Kafka takes, or refuses, as a whole."""

    def __init__(self, size_max: int, began: float, ordered: bool) -> None:
        self.size_max: Final = size_max
        self.ordered: Final = ordered
        self.began: Final = began
        self.appends: Final[list[Append]] = []
        self.payloads: Final[list[bytes]] = []
        self.size = 0  # of the payloads
        self.full = False

    def add(self, payload: bytes, append: Append) -> bool:
        """Return whether it still fitted. The first always does."""
        messages = len(self.payloads) + 1
        size = self.size + len(payload)
        if messages > 1 and size + messages * MESSAGE_OVERHEAD_BYTES + BATCH_OVERHEAD_BYTES > self.size_max:
            self.full = True
            return False
        self.payloads.append(payload)
        self.size = size
        if not self.appends or self.appends[-1] is not append:
            self.appends.append(append)
            append.batches += 1
        return True

    def succeed(self) -> None:
        for append in self.appends:
            append.batches -= 1
            if append.batches == 0 and not append.done.done():
                append.done.set_result(None)

    def fail(self, reason: str) -> None:
        for append in self.appends:
            if not append.done.done():
                append.done.set_exception(BrokerDown(f"cannot append to Kafka: {reason}; {append.outcome()}"))


class PartitionState:
    """A partition, for a session. Only batches with fingerprints wait here: others go to any partition that is free."""

    def __init__(self, topic: str, index: int) -> None:
        self.topic: Final = topic
        self.index: Final = index
        self.leader = -1  # the broker; below 0: it has none
        self.group = -1  # of TopicState.groups; below 0: in none of them
        self.is_busy = False  # a batch is on its way
        self.sequence = 0  # of the next message
        self.waiting: Final[deque[PendingBatch]] = deque()  # the last one is being filled


class TopicState:
    """A topic, for a session."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.waiting: Final[deque[PendingBatch]] = deque()  # messages without fingerprints; the last one is being filled
        self.partitions: Final[list[PartitionState]] = []
        self.number = 0  # how many of `partitions` there are by the newest answer
        self.groups: list[list[PartitionState]] = []
        """By leader, the partitions that can be written."""
        self._turn = 0

    def set_leaders(self, leaders: list[int]) -> None:
        """Note of each partition its leader, or -1. What is no longer there has none."""
        self.number = len(leaders)
        for index in range(len(self.partitions), self.number):
            self.partitions.append(PartitionState(self.name, index))
        for partition in self.partitions:
            partition.leader = leaders[partition.index] if partition.index < self.number else -1

    def set_groups(self, groups: list[list[PartitionState]]) -> None:
        """Write to these alone from here on."""
        self.groups = groups
        for partition in self.partitions:
            partition.group = -1
        for index, group in enumerate(groups):
            for partition in group:
                partition.group = index

    def free(self, lane: int) -> PartitionState | None:
        """Return the partition whose turn it is, of those that the lane's leader has; None: each has a batch on its way."""
        group = self.groups[lane % len(self.groups)]
        for _ in group:
            self._turn += 1
            partition = group[self._turn % len(group)]
            if not partition.is_busy:
                return partition
        return None


class Sending:
    """A batch on its way to a partition: the bytes are the same however often they are sent."""

    def __init__(self, partition: PartitionState, batch: PendingBatch, pieces: list[bytes]) -> None:
        self.partition: Final = partition
        self.batch: Final = batch
        self.pieces: Final = pieces
