"""Queue the batches of a session of the producer: one queue for each topic, and for each partition that fingerprints chose."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from adapters.fingerprint import partition_of
from collector.broker.contract import Message
from collector.broker.kafka.producer_batches import ORDERED_PARTITION, Append, PartitionState, PendingBatch, TopicState


class TakenBatch:
    """A batch, and the partition that it goes to, which is busy until the batch is done."""

    def __init__(self, partition: PartitionState, batch: PendingBatch) -> None:
        self.partition: Final = partition
        self.batch: Final = batch


class ProducerQueue:
    """Keeps messages in batches until a lane takes them. Used by one event loop."""

    def __init__(self, topics: Sequence[str], batch_bytes_max: int) -> None:
        self.states: Final[dict[str, TopicState]] = {name: TopicState(name) for name in topics}
        self.waiting_bytes: int = 0
        """The bytes that are not acknowledged, sent or not. The taker of a batch subtracts the batch's bytes."""

        self.placed: list[PartitionState] = []
        """The partitions for which batches wait."""

        self.arrived: Final = asyncio.Event()
        """Set when there may be another batch to take."""

        self.filled: Final = asyncio.Event()
        """Set when a batch is full."""

        self.first_lanes: int = 0
        """The number of first lanes, each for one leader of every topic."""

        self._batch_bytes_max: Final = batch_bytes_max
        self._loop: Final = asyncio.get_running_loop()

    def put(self, messages: Sequence[Message], append: Append) -> None:
        """Add messages to the queues."""
        for message in messages:
            state = self.states[message.topic]
            queue = state.waiting
            fingerprint = message.fingerprint
            if fingerprint:
                partition = state.partitions[partition_of(fingerprint, state.number)]
                queue = partition.waiting
                if not queue:
                    self.placed.append(partition)
            batch = queue[-1] if queue else None
            if batch is None or batch.full or batch.ordered != message.ordered or not batch.add(message.payload, append):
                if batch is not None and batch.full:
                    self.filled.set()
                batch = PendingBatch(self._batch_bytes_max, self._loop.time(), message.ordered)
                batch.add(message.payload, append)
                queue.append(batch)
                self.arrived.set()
            self.waiting_bytes += len(message.payload)

    def take(self, lane: int, began_max: float) -> list[TakenBatch]:
        """Return the batches that can be sent now: for each topic, one for each partition without a batch in flight. Batches
        that began after `began_max` wait, unless they are full."""
        taken: list[TakenBatch] = []
        if self.placed:
            left: list[PartitionState] = []
            for placed in self.placed:
                waiting = placed.waiting
                first = waiting[0]
                if not placed.is_busy and (first.full or first.began <= began_max) and self._is_led(lane, placed):
                    placed.is_busy = True
                    taken.append(TakenBatch(placed, waiting.popleft()))
                    if not waiting:
                        continue
                left.append(placed)
            self.placed = left
        for state in self.states.values():
            queue = state.waiting
            while queue and (queue[0].full or queue[0].began <= began_max):
                partition = state.partitions[ORDERED_PARTITION] if queue[0].ordered else state.free(lane)
                if partition is None or partition.is_busy:
                    break
                partition.is_busy = True
                taken.append(TakenBatch(partition, queue.popleft()))
        return taken

    def first_that_lingers(self, began_min: float) -> float | None:
        """Return when the first batch that began after `began_min` and waits began; None if there is none."""
        lingering = [queue[0].began for queue in self._waiting() if queue and queue[0].began > began_min]
        return min(lingering) if lingering else None

    def is_leaderless(self) -> bool:
        """Return whether messages wait for a partition without a leader that answers."""
        return any(partition.group < 0 for partition in self.placed)

    def refuse(self, reason: str) -> None:
        """Refuse every message that was not taken; it will not be sent."""
        for queue in self._waiting():
            while queue:
                queue.popleft().fail(reason)
        self.placed = []

    def forget(self, expired: Append) -> bool:
        """Forget batches that wait for their leader and whose callers have all gone, the caller of `expired` among them. Return
        whether another batch of `expired` waits: if a caller still waits for a batch, all of its messages are sent, since a
        repetition of any has the same fingerprint."""
        for placed in self.placed:
            waiting = placed.waiting
            while waiting and all(append is expired or append.done.done() for append in waiting[0].appends):
                self.waiting_bytes -= waiting.popleft().size
        self.placed = [placed for placed in self.placed if placed.waiting]
        return any(expired in batch.appends for placed in self.placed for batch in placed.waiting)

    def _waiting(self) -> list[deque[PendingBatch]]:
        """Return the queues of batches that were not taken. Some may be empty."""
        return [*[state.waiting for state in self.states.values()], *[placed.waiting for placed in self.placed]]

    def _is_led(self, lane: int, partition: PartitionState) -> bool:
        """Return whether this lane sends to a partition's leader."""
        # There may be more leaders by now than lanes.
        lanes = min(len(self.states[partition.topic].groups), max(1, self.first_lanes))
        return partition.group >= 0 and partition.group % lanes == lane % lanes
