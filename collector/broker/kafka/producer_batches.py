"""The state of a session of the producer: appends, their batches, and the partitions and topics that these are for."""

import asyncio
from collections import deque
from typing import Final

from collector.broker.contract import BrokerDown
from collector.broker.kafka.protocol.produce import BATCH_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES

# The partition of ordered messages, which every topic has.
ORDERED_PARTITION: Final = 0


class Append:
    """One call to `append`. It is done when all of its batches are, or at its deadline (the loop's time)."""

    def __init__(self, done: "asyncio.Future[None]", deadline: float, topic: str, is_placed: bool, follows: bool) -> None:
        """`topic` is the topic of the first message. `is_placed`: all messages have fingerprints. `follows`: other messages of
        the same call are kept already."""
        self.done: Final = done
        self.deadline: Final = deadline
        self.topic: Final = topic
        self.batches = 0
        self.is_placed: Final = is_placed
        self.may_be_kept = False  # whether a batch of it was sent, or will be: then it is not known whether Kafka has it
        self.follows: Final = follows

    def outcome(self) -> str:
        """Return, for an error message, whether an append that was not acknowledged may have been kept."""
        if self.may_be_kept or self.follows:
            return "it is not known whether it was kept"
        return "nothing of it was kept"


class PendingBatch:
    """Messages of one topic that Kafka takes or refuses together."""

    def __init__(self, size_max: int, began: float, ordered: bool) -> None:
        self.size_max: Final = size_max
        self.ordered: Final = ordered
        self.began: Final = began
        self.appends: Final[list[Append]] = []
        self.payloads: Final[list[bytes]] = []
        self.size = 0  # of the payloads
        self.full = False

    def add(self, payload: bytes, append: Append) -> bool:
        """Add a message if it fits; the first always does. Return whether it was added."""
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
    """The state of a partition in a session. Only batches with fingerprints wait here: others go to any free partition."""

    def __init__(self, topic: str, index: int) -> None:
        self.topic: Final = topic
        self.index: Final = index
        self.leader = -1  # the broker that leads it; below 0: none
        self.group = -1  # its index in TopicState.groups; below 0: it is in none of them
        self.is_busy = False  # whether a batch is in flight
        self.sequence = 0  # the sequence number of the next message
        self.waiting: Final[deque[PendingBatch]] = deque()  # the last one is being filled


class TopicState:
    """The state of a topic in a session."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.waiting: Final[deque[PendingBatch]] = deque()  # messages without fingerprints; the last one is being filled
        self.partitions: Final[list[PartitionState]] = []
        self.number = 0  # the number of partitions by the newest answer; `partitions` may have more
        self.groups: list[list[PartitionState]] = []
        """The partitions that can be written, in one group for each leader."""
        self._turn = 0

    def set_leaders(self, leaders: list[int]) -> None:
        """Note the leader of each partition, or -1. A partition that no longer exists has none."""
        self.number = len(leaders)
        for index in range(len(self.partitions), self.number):
            self.partitions.append(PartitionState(self.name, index))
        for partition in self.partitions:
            partition.leader = leaders[partition.index] if partition.index < self.number else -1

    def set_groups(self, groups: list[list[PartitionState]]) -> None:
        """Write only to the partitions in `groups` from now on."""
        self.groups = groups
        for partition in self.partitions:
            partition.group = -1
        for index, group in enumerate(groups):
            for partition in group:
                partition.group = index

    def free(self, lane: int) -> PartitionState | None:
        """Return the next free partition of the lane's leader; None if each has a batch in flight."""
        group = self.groups[lane % len(self.groups)]
        for _ in group:
            self._turn += 1
            partition = group[self._turn % len(group)]
            if not partition.is_busy:
                return partition
        return None


class Sending:
    """A batch in flight to a partition. The bytes are the same however often they are sent."""

    def __init__(self, partition: PartitionState, batch: PendingBatch, pieces: list[bytes]) -> None:
        self.partition: Final = partition
        self.batch: Final = batch
        self.pieces: Final = pieces
