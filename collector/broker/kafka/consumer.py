"""Read from Kafka, range by range.

aiokafka's coordinator keeps the membership (group.py); the rest is done here, request by request, over connections of our
own (connection_pool.py). Its consumer would commit under the generation that it has when it sends, which need not be the one in
which the range was read. It would also fetch ahead of the poll. Here a poll asks each leader where its partitions end, takes
the next partition in turn, and reads it from its committed offset (range_reader.py).

A log that replaced another is read from its first message, whatever the group has committed (log_changes.py).

Invariants:
1. A broker that does not answer delays the partitions of the others by at most _GRACE_S, once: its request stays in flight,
   and until it ends no poll sends it another. (test_a_broker_that_does_not_answer_holds_up_only_its_own_partitions)
2. A poll fails only if none of the partitions can be read. (the same)
3. A partition that was never committed is read from its beginning, whenever it was added.
   (test_partitions_that_are_added_are_read_from_their_beginning)
4. A range is intended only while its leader knows the partition by the identity under which the range was read
   (test_a_topic_made_anew_while_the_writer_runs_loses_nothing).
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown, Partition, Position, Range
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.group import GroupHead, Ownership
from collector.broker.kafka.group_partitions import GroupPartitions, range_name
from collector.broker.kafka.leaders import Ends, Leaders
from collector.broker.kafka.log_changes import LogChanges
from collector.broker.kafka.options import KafkaOptions, until_started
from collector.broker.kafka.partition_ends import PartitionEnds
from collector.broker.kafka.range_reader import MessagesDeleted, read_range
from collector.broker.kafka.read_failures import ReadFailures
from collector.broker.kafka.topics import ready_topics
from collector.broker.range_digest import without_digest

# How long the broker may hold a request that waits for messages. For so long, at most, `poll` notices nothing else.
_ARRIVAL_WAIT_MS: Final = 500
# How long a poll waits for one broker before it goes on with the others.
_GRACE_S: Final = 0.25


@dataclass(frozen=True)
class _Question:
    """A request that a broker has not answered yet, and the partitions that it is about."""

    ownership: Ownership
    partitions: Collection[Partition]
    task: "asyncio.Task[Ends] | asyncio.Task[Range | None]"
    is_of_reading: bool


class KafkaConsumer:
    """Consumer (collector.broker.contract) over Kafka. Belongs to the event loop that opened it."""

    def __init__(
        self, options: KafkaOptions, brokers: Brokers, group: GroupPartitions, of_others: Collection[str] = ()
    ) -> None:
        """Use `open`."""
        self._options: Final = options
        self._of_others: Final = of_others
        self._loop: Final = asyncio.get_running_loop()
        self._brokers: Final = brokers
        self._group: Final = group
        self._leaders: Final = Leaders(brokers, lambda: group.member.client)
        self._logs: Final = LogChanges(self._leaders, options.group_id)
        self._read_failures: Final = ReadFailures(self._leaders.refresh)
        self._turns: Final[deque[Partition]] = deque()  # round-robin: the next to be read is first
        self._questions: Final[dict[int, _Question]] = {}  # by broker
        self._ends: Final = PartitionEnds(group, self._leaders, self._logs, self._read_failures)
        group.on_assigned = self._assigned

    @classmethod
    async def open(cls, options: KafkaOptions, topics: Collection[str], of_others: Collection[str] = ()) -> Self:
        """Join the group and return when partitions are assigned (possibly none). The topics are checked, or created.
        `of_others` are topics that others write: their messages are read with their contexts. Raises KafkaUnusable."""
        await ready_topics(options, topics, of_others)
        topics = [*topics, *of_others]

        async def attempt() -> Self:
            brokers = Brokers(options)
            group = GroupPartitions(options, topics, brokers)
            consumer = cls(options, brokers, group, of_others)
            await group.start()
            return consumer

        return await until_started(options, attempt)

    @property
    def failure(self) -> str | None:
        """Return why Kafka, or a partition of ours, could not be read at the last attempt; None if all could be read."""
        return self._group.failure if self._group.failure is not None else self._read_failures.failure

    async def close(self) -> None:
        """Leave the group. A running poll ends (BrokerDown)."""
        self._group.closed.set()
        self._brokers.close()
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._group.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        deadline = self._loop.time() + wait_s
        while True:
            arriving: dict[Partition, int] = {}
            with self._group.guarded("read from Kafka"):
                owned = await self._group.owned(deadline)
                if owned is not None:
                    ownership, heads = owned
                    arriving, messages = await self._ask_ends(ownership)
                    if messages is None:
                        messages = await self._next(ownership, heads, arriving, bytes_max)
                    if messages is not None:
                        return messages
                    self._read_failures.check(ownership)
                left_s = deadline - self._loop.time()
                if left_s <= 0:
                    return None
                await self._arrival(arriving, min(left_s, _ARRIVAL_WAIT_MS / 1000))

    async def intend(self, messages: Range) -> None:
        ownership, heads = self._group.owned_heads(messages)
        head = heads[messages.partition]
        if not ownership.active or messages.start != head.committed or head.intent not in (None, messages.end):
            raise BrokerDown(f"cannot intend {range_name(messages)}: the partition is at {head}, or is being revoked")
        with self._group.guarded(f"intend {range_name(messages)}"):
            async with asyncio.timeout(self._options.request_timeout_s):
                change = await self._logs.change_since(messages)
        if change is not None:
            raise BrokerDown(f"cannot intend {range_name(messages)}: {change} since it was read")
        intent = GroupHead(messages.start, messages.end, messages.log, messages.depth, messages.left_out)
        await self._commit(ownership, messages.partition, intent)

    async def commit(self, messages: Range) -> None:
        """Commit, as the contract says. Kafka keeps the messages: its retention deletes them."""
        ownership, heads = self._group.owned_heads(messages)
        head = heads[messages.partition]
        if messages.end <= head.committed:
            return
        if messages.start != head.committed or messages.end != head.intent:
            raise BrokerDown(f"cannot commit {range_name(messages)}: the partition is at {head}")
        await self._commit(ownership, messages.partition, GroupHead(messages.end, None, without_digest(messages.log)))

    async def positions(self) -> dict[Partition, Position]:
        with self._group.guarded("ask Kafka for positions"):
            return await self._ends.positions(*await self._settled())

    async def lag(self) -> dict[Partition, int]:
        """Return the lag, as the contract says. Kafka's own markers among the messages count too."""
        return {partition: max(0, at.end - at.committed) for partition, at in (await self.progress()).items()}

    async def progress(self) -> dict[Partition, Position]:
        with self._group.guarded("ask Kafka for positions"):
            return await self._ends.progress(*await self._settled())

    async def _settled(self) -> tuple[Ownership, dict[Partition, GroupHead]]:
        """Return our partitions and their heads. Raises KafkaError, OSError, BrokerDown."""
        owned = await self._group.owned(self._loop.time() + self._options.request_timeout_s)
        if owned is None:
            raise BrokerDown("the consumer group is being rebalanced")
        return owned

    def _assigned(self, ownership: Ownership) -> None:
        """Begin with the partitions that are ours now, whose heads were read."""
        self._turns.clear()
        self._turns.extend(ownership.partitions)
        self._read_failures.clear()
        self._ends.clear()
        self._logs.clear()

    async def _commit(self, ownership: Ownership, partition: Partition, head: GroupHead) -> None:
        """Commit a head. Raises BrokerDown."""
        await self._group.commit(ownership, partition, head)
        self._logs.note_committed(partition)

    # Questions to brokers.

    async def _ask_ends(self, ownership: Ownership) -> tuple[dict[Partition, int], Range | None]:
        """Return the ends of the partitions whose leaders answer soon; or a range, if one has come since the last poll."""
        new: list[_Question] = []
        for node, partitions in self._ends.by_leader(ownership).items():
            if node not in self._questions:
                task = asyncio.create_task(self._ends.ask(ownership, node, partitions))
                new.append(_Question(ownership, partitions, task, is_of_reading=False))
                self._questions[node] = new[-1]
        if new:
            await asyncio.wait([question.task for question in new], timeout=_GRACE_S)
        ends: dict[Partition, int] = {}
        for node, question in list(self._questions.items()):
            if not question.task.done():
                continue
            del self._questions[node]
            answer = self._answer(question, is_late=question not in new)
            if isinstance(answer, Range):
                return {}, answer
            if answer is not None:
                ends |= answer
        return ends, None

    def _answer(self, question: _Question, *, is_late: bool) -> Mapping[Partition, int] | Range | None:
        """Return the answer to a question; None if there is none, or it is outdated."""
        error = None if question.task.cancelled() else question.task.exception()
        ownership = question.ownership
        if question.task.cancelled() or not self._group.is_current(ownership):
            return None
        if isinstance(error, KafkaError | OSError | BrokerDown | ValueError):
            self._read_failures.note(question.partitions, error, is_of_reading=question.is_of_reading)
            return None
        answer = question.task.result()  # raises unexpected errors
        if isinstance(answer, Ends):
            self._ends.learn(ownership, answer)
            if is_late:  # a broker that was away may not know yet that it is no longer the leader
                return {
                    partition: end for partition, end in answer.ends.items() if not self._is_behind(ownership, partition, end)
                }
            return answer.ends
        if answer is None:
            return None
        head = (ownership.heads or {}).get(answer.partition)
        if head is None or head.committed != answer.start or (head.intent is not None) != answer.in_doubt:
            return None
        self._read_failures.note_read(answer.partition)
        return answer if answer.payloads else None

    @staticmethod
    def _is_behind(ownership: Ownership, partition: Partition, end: int) -> bool:
        return ownership.heads is not None and partition in ownership.heads and end < ownership.heads[partition].committed

    # Messages.

    async def _next(
        self, ownership: Ownership, heads: dict[Partition, GroupHead], ends: Mapping[Partition, int], bytes_max: int
    ) -> Range | None:
        for _ in range(len(self._turns)):
            partition = self._turns[0]
            self._turns.rotate(-1)
            head, end = heads.get(partition), ends.get(partition)
            if head is None or end is None:
                continue
            if self._logs.has_passed_over(partition):
                await self._commit(ownership, partition, head)
            if end == head.committed:  # as far as is known: LogChanges.look
                self._read_failures.note_read(partition)
                continue
            messages = await self._asked(ownership, heads, partition, end, bytes_max)
            if not ownership.active:
                return None
            if messages is None:
                continue
            if messages.payloads:
                return messages
            # Only markers of transactions, or gaps that compaction has left: there is nothing to store.
            await self._commit(ownership, partition, GroupHead(messages.end, None, messages.log))
        return None

    async def _asked(
        self, ownership: Ownership, heads: dict[Partition, GroupHead], partition: Partition, end: int, bytes_max: int
    ) -> Range | None:
        """Read a partition. Return None if it can't be read now, or its broker takes long; a later poll returns that range."""
        node = self._leaders.known(partition)
        if node is None or node in self._questions:
            return None
        task = asyncio.create_task(self._read_log(heads, partition, end, bytes_max))
        self._questions[node] = _Question(ownership, [partition], task, is_of_reading=True)
        await asyncio.wait([task], timeout=_GRACE_S)
        if not task.done():
            return None
        del self._questions[node]
        try:
            messages = task.result()
        except (KafkaError, OSError, ValueError, BrokerDown) as error:
            self._read_failures.note([partition], error, is_of_reading=True)
            return None
        self._read_failures.note_read(partition)
        return messages

    def _log_change_text(self, partition: Partition, head: GroupHead, end: int) -> str:
        return (
            f"it ends at {end}, and {head.committed} is committed."
            " It was created again, or Kafka has lost messages. Stop every writer, and then run:\n"
            f"  kafka-consumer-groups.sh --bootstrap-server {self._options.bootstrap[0]}"
            f" --group {self._options.group_id} --reset-offsets --to-earliest --execute"
            f" --topic {partition.topic}:{partition.index}"
        )

    async def _read_log(
        self, heads: dict[Partition, GroupHead], partition: Partition, end: int, bytes_max: int
    ) -> Range | None:
        """Read a range from the current log of a partition, which may have replaced another. Return None if there is nothing to
        read. Raises KafkaError, OSError, ValueError, BrokerDown."""
        identity = await self._logs.begin_reading(heads, partition)
        head = heads[partition]
        if end < head.committed:
            raise BrokerDown(self._log_change_text(partition, head, end))
        if end == head.committed:
            return None
        try:
            value_bytes_max = self._options.value_bytes_max if partition.topic in self._of_others else None
            return await read_range(self._leaders, partition, head, end, bytes_max, identity, value_bytes_max)
        except MessagesDeleted as deleted:
            self._logs.pass_over(heads, partition, deleted.earliest)
            raise

    async def _arrival(self, ends: Mapping[Partition, int], wait_s: float) -> None:
        """Return when there are messages beyond `ends`, when partitions come or go, when a broker has answered that took long,
        or when the time is up."""
        until = self._loop.time() + wait_s + 0.1
        others: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(self._group.member.changed.wait()),
            asyncio.ensure_future(self._group.closed.wait()),
        }
        late = {question.task for question in self._questions.values()}
        asking = self._leaders.arrivals(ends, wait_s, self._questions)
        try:
            left = {*others, *late, *asking}
            while (left_s := until - self._loop.time()) > 0:
                done, left = await asyncio.wait(left, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                # The request to a broker that is gone fails at once: the others are waited for all the same.
                if any(each not in asking or each.exception() is None for each in done):
                    return
        finally:
            for each in (*others, *asking):
                each.cancel()
            await asyncio.gather(*others, *asking, return_exceptions=True)
