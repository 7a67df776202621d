"""Reading from Kafka, range by range.

aiokafka's coordinator keeps the membership (group.py); the rest is done here, request by request, over connections of our
own (connection_pool.py). Its consumer would commit under whatever generation it has by the time it sends, which need not be the
one in which the range was read, and would fetch ahead of what is asked for. Here a poll asks each leader where its partitions
end, takes the next partition in turn, and reads it from its committed offset.

The metadata of a committed offset has the identity of the log that the offset belongs to, and the intent (identity.py). A log
that began anew is read from its first message, whatever the group has committed.

Invariants:
1. A broker that does not answer delays the partitions of the others by at most _GRACE_S, once: its request stays under way,
   and until it ends a poll asks nothing else of it. (test_a_broker_that_does_not_answer_holds_up_only_its_own_partitions)
2. A poll fails only where none of the partitions can be read. (the same)
3. A partition that was never committed is read from its beginning, whenever it was added.
   (test_partitions_that_are_added_are_read_from_their_beginning)
4. A range is intended only while its leader knows its partition by the identity that it was read under
   (test_a_topic_made_anew_while_the_writer_runs_loses_nothing).
5. An offset that was committed for another log is not used (test_a_topic_made_anew_while_the_writer_is_stopped_loses_nothing).
6. Before anything is read under a leader, what is committed is compared with what this leader has. Where Kafka has lost the end
   of the log, reading goes back to where it ended (test_an_end_lost_while_the_writer_is_stopped).
7. Where a partition that was never committed begins is asked after its log's identity
   (test_a_beginning_of_another_log_is_not_used).
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from collector.broker.contract import BrokerDown, Partition, Payload, Position, Range
from collector.broker.kafka.connection_pool import Brokers, NotAsked
from collector.broker.kafka.group import Fenced, GroupHead, Member, Ownership
from collector.broker.kafka.identity import Committed, TopicLog, epoch_of, identity_of, log_of, topic_logs
from collector.broker.kafka.options import KafkaOptions, text, until_started
from collector.broker.kafka.protocol.fetch import (
    FETCH_API,
    Arriving,
    Batch,
    WrongChecksum,
    batches,
    fetch_answer,
    fetch_request,
)
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
from collector.broker.kafka.topics import ready_topics
from collector.broker.left_out import after, parse_log, with_left_out

# One answer to a fetch. The broker sends a whole batch even where it is larger.
_FETCH_BYTES: Final = 16 * 1024 * 1024
# How long the broker may hold a request that waits for something to arrive; the longest that `poll` notices nothing else.
_ARRIVAL_WAIT_MS: Final = 500
# How often partitions that have nothing to read are looked at, whether their logs began anew.
_IDENTITIES_INTERVAL_S: Final = 1.0
# Such a request holds up its connection, so it has one of its own. Any value that aiokafka does not use.
_ARRIVALS: Final = 100
# How long a poll waits for one broker before it goes on with the others.
_GRACE_S: Final = 0.25
# How often metadata is read while a partition can't be.
_REFRESH_S: Final = 0.5
# A partition that can't be read for so long is logged: not each change of its leader. And how often, at most.
_LOGGED_AFTER_S: Final = 2.0
_LOGGED_EVERY_S: Final = 30.0


class _Ends(NamedTuple):
    """Where partitions end, and where those begin that were asked about that, too."""

    ends: dict[Partition, int]
    begins: dict[Partition, int]
    errors: dict[Partition, Exception]


@dataclass(frozen=True)
class _Question:
    """What a broker is being asked."""

    ownership: Ownership
    partitions: Collection[Partition]
    task: "asyncio.Task[_Ends] | asyncio.Task[Range | None]"
    is_of_reading: bool


class _Trouble(NamedTuple):
    """Why a partition can't be read, and since when, by the loop's clock."""

    error: str
    since_s: float
    is_of_reading: bool  # its leader says where it ends


class KafkaConsumer:
    """Consumer (collector.broker.contract) over Kafka. Belongs to the event loop that opened it."""

    def __init__(self, options: KafkaOptions, topics: Collection[str], brokers: Brokers, member: Member) -> None:
        """Use `open`."""
        self._failure: str | None = None  # of the last attempt at anything
        self._options: Final = options
        self._topics: Final = topics
        self._logger: Final = structlog.get_logger(__name__)
        self._loop: Final = asyncio.get_running_loop()
        self._brokers: Final = brokers
        self._member = member
        self._turns: Final[deque[Partition]] = deque()  # round-robin: the next to be read is first
        self._reading: Final = asyncio.Lock()
        self._closed: Final = asyncio.Event()
        self._identities_read: Final[dict[int, float]] = {}  # by broker, when, by the loop's clock
        self._seen: Final[dict[str, str]] = {}  # by topic, the identity of its log as it was last seen
        self._never_committed: Final[set[Partition]] = set()  # of those whose heads have no identity yet
        self._compared: Final[dict[Partition, int]] = {}  # the epoch of the leader that has all that is committed
        self._read_under: Final[dict[Partition, int | None]] = {}  # the epoch of the leader when the range in hand was read
        self._settled = self._loop.time()  # when it was last known what is ours
        self._questions: Final[dict[int, _Question]] = {}  # by broker
        self._troubles: Final[dict[Partition, _Trouble]] = {}
        self._ends: Final[dict[Partition, int]] = {}  # where partitions ended when that was last known
        self._refreshed = self._logged = -math.inf  # when, by the loop's clock

    @classmethod
    async def open(cls, options: KafkaOptions, topics: Collection[str]) -> Self:
        """Join the group and return when partitions are assigned (possibly none). The topics are checked, or created.
        Raises KafkaUnusable."""
        await ready_topics(options, topics)

        async def attempt() -> Self:
            brokers = Brokers(options)
            member = Member(options, topics, brokers)
            consumer = cls(options, topics, brokers, member)
            try:
                await member.start()
                while (await consumer._owned(math.inf)) is None:
                    pass
            except BaseException:
                await member.close()
                raise
            return consumer

        return await until_started(options, attempt)

    @property
    def failure(self) -> str | None:
        """Return why Kafka, or some partition that is ours, could not be read at the last attempt; None: all could."""
        if self._failure is not None or not self._troubles:
            return self._failure
        partition, trouble = next(iter(self._troubles.items()))
        return f"cannot read {partition.topic}/{partition.index}: {trouble.error}"

    async def close(self) -> None:
        """Leave the group. A poll under way ends (BrokerDown)."""
        self._closed.set()
        self._brokers.close()
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._member.close()

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
            with self._guarded("read from Kafka"):
                owned = await self._owned(deadline)
                if owned is not None:
                    ownership, heads = owned
                    arriving, messages = await self._ask_ends(ownership, heads)
                    if messages is None:
                        messages = await self._next(ownership, heads, arriving, bytes_max)
                    if messages is not None:
                        return messages
                    self._check(ownership)
                left_s = deadline - self._loop.time()
                if left_s <= 0:
                    return None
                await self._arrival(arriving, min(left_s, _ARRIVAL_WAIT_MS / 1000))

    async def intend(self, messages: Range) -> None:
        ownership, heads = self._held(messages)
        head = heads[messages.partition]
        if not ownership.active or messages.start != head.committed or head.intent not in (None, messages.end):
            raise BrokerDown(f"cannot intend {_name(messages)}: the partition stands at {head}, or is being taken away")
        with self._guarded(f"intend {_name(messages)}"):
            async with asyncio.timeout(self._options.request_timeout_s):
                log = await self._log(messages.partition)
        if messages.log and log.identity != identity_of(messages.log):
            self._identities_read.clear()
            raise BrokerDown(f"cannot intend {_name(messages)}: the topic was made anew since it was read")
        if log.leader_epochs.get(messages.partition.index) != self._read_under.get(messages.partition):
            raise BrokerDown(f"cannot intend {_name(messages)}: its leader has changed since it was read")
        intent = GroupHead(messages.start, messages.end, messages.log, messages.depth, messages.left_out)
        await self._commit(ownership, messages.partition, intent)

    async def commit(self, messages: Range) -> None:
        """Commit, as the contract says. Kafka keeps the messages: its retention deletes them."""
        ownership, heads = self._held(messages)
        head = heads[messages.partition]
        if messages.end <= head.committed:
            return
        if messages.start != head.committed or messages.end != head.intent:
            raise BrokerDown(f"cannot commit {_name(messages)}: the partition stands at {head}")
        await self._commit(ownership, messages.partition, GroupHead(messages.end, None, messages.log))

    async def positions(self) -> dict[Partition, Position]:
        with self._guarded("ask Kafka for positions"):
            _, heads, failures = await self._ask_all_ends()
            for failure in failures.values():
                raise failure
            return {partition: Position(head.committed, self._ends[partition]) for partition, head in heads.items()}

    async def lag(self) -> dict[Partition, int]:
        """Return the lag, as the contract says. Kafka's own markers among the messages count too."""
        return {partition: max(0, at.end - at.committed) for partition, at in (await self.progress()).items()}

    async def progress(self) -> dict[Partition, Position]:
        with self._guarded("ask Kafka for positions"):
            ownership, heads, failures = await self._ask_all_ends()
            if failures.keys() >= set(ownership.partitions):
                for failure in failures.values():
                    raise failure
            known = {partition: head for partition, head in heads.items() if partition in self._ends}
            return {partition: Position(head.committed, self._ends[partition]) for partition, head in known.items()}

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        if self._closed.is_set():
            raise BrokerDown(f"cannot {what}: closed")
        try:
            yield
        except BrokerDown as error:
            self._failure = str(error)
            raise
        except (KafkaError, OSError) as error:  # TimeoutError is an OSError
            self._failure = text(error)
            self._member.client.force_metadata_update()
            raise BrokerDown(f"cannot {what}: {self._failure}") from error
        self._failure = None

    async def _owned(self, deadline: float) -> tuple[Ownership, dict[Partition, GroupHead]] | None:
        """Return the partitions that are ours and their heads; None: not settled in time. Raises KafkaError, OSError,
        BrokerDown."""
        while True:
            member = self._member
            try:
                member.check()
            except KafkaError:
                await self._replace(member)
                raise
            changed = member.changed
            ownership = member.ownership
            if ownership is not None and ownership.active:
                if ownership.heads is None:
                    async with self._reading:
                        if ownership.heads is None:
                            async with asyncio.timeout(self._options.request_timeout_s):
                                ownership.heads = await self._read_heads(ownership)
                            self._turns.clear()
                            self._turns.extend(ownership.partitions)
                            self._troubles.clear()
                            self._ends.clear()
                            self._never_committed.clear()
                            self._compared.clear()
                if ownership is member.ownership and ownership.active:
                    self._settled = self._loop.time()
                    return ownership, ownership.heads
                continue
            try:
                async with asyncio.timeout(min(1.0, max(0.0, deadline - self._loop.time()))):
                    await changed.wait()
            except TimeoutError:
                if self._loop.time() - self._settled > self._options.request_timeout_s + self._options.session_timeout_s:
                    raise BrokerDown("Kafka assigns no partitions: it is away, or the group is being rebalanced") from None
                if self._loop.time() >= deadline or self._closed.is_set():
                    return None

    async def _replace(self, member: Member) -> None:
        """Replace a membership that ended by itself with a new one."""
        await member.close()
        self._member = Member(self._options, self._topics, self._brokers)
        await self._member.start()

    async def _read_heads(self, ownership: Ownership) -> dict[Partition, GroupHead]:
        """Read the heads of partitions with a commit. The beginnings of the others are read together with their ends."""
        heads: dict[Partition, GroupHead] = {}
        committed = await self._member.committed(ownership)
        for partition, (offset, metadata) in committed.items():
            said = Committed.read(metadata)
            if said is None:
                self._logger.warning("not our commit: its metadata is ignored", **_labels(partition), metadata=metadata[:100])
                said = Committed("", None, 0)
            log, left_out = parse_log(said.log)
            if said.intent is not None and said.intent > offset:
                heads[partition] = GroupHead(offset, said.intent, log, said.depth, left_out)
            else:
                heads[partition] = GroupHead(offset, None, log)
        return heads

    async def _look_for_new_logs(self, ownership: Ownership, node: int, ends: Mapping[Partition, int]) -> None:
        """Partitions with nothing to read, as it seems: where their logs began anew, read them from the first message on."""
        now_s = self._loop.time()
        heads = ownership.heads
        if heads is None or now_s - self._identities_read.get(node, -math.inf) < _IDENTITIES_INTERVAL_S:
            return
        self._identities_read[node] = now_s
        idle = [partition for partition, end in ends.items() if partition in heads and end <= heads[partition].committed]
        if not idle:
            return
        try:
            known = await topic_logs(self._brokers, self._member.client, node, sorted({partition.topic for partition in idle}))
        except (KafkaError, OSError):
            return  # its partitions are looked at when it answers again
        for partition in idle:
            if partition.topic in known:
                with suppress(KafkaError, OSError, ValueError, BrokerDown):  # it is looked at again
                    await self._fit(heads, partition, known[partition.topic])

    async def _fit(self, heads: dict[Partition, GroupHead], partition: Partition, log: TopicLog) -> None:
        """Make the head one of the log that is there now. Raises KafkaError, OSError, ValueError, BrokerDown."""
        await self._begin_if_new(heads, partition, log.identity)
        leader_epoch = log.leader_epochs.get(partition.index)
        if leader_epoch is not None and leader_epoch != self._compared.get(partition):
            await self._go_back_if_lost(heads, partition, log.identity, leader_epoch)
            self._compared[partition] = leader_epoch

    async def _go_back_if_lost(
        self, heads: dict[Partition, GroupHead], partition: Partition, identity: str, leader_epoch: int
    ) -> None:
        """Go back to the end of the leader's log if the leader does not have everything that is committed."""
        head = heads[partition]
        epoch = epoch_of(head.log)
        if epoch < 0 or epoch == leader_epoch:
            return
        if epoch > leader_epoch:
            raise BrokerDown(f"the leader of {partition.topic}/{partition.index} is of epoch {leader_epoch}, not yet {epoch}")
        request = epoch_end_request(partition, leader_epoch, epoch)
        try:
            answer = await self._brokers.ask(self._member.client, self._leader(partition), EPOCH_END_API, [request])
        except IncompatibleBrokerVersion:
            return
        code, last_epoch, end = epoch_end_answer(answer)
        error = for_code(code)
        if error is not NoError:
            raise error
        goal = head.committed if head.intent is None else head.intent
        if not 0 <= end < goal:  # below 0: the leader does not know
            return
        self._logger.error(
            "Kafka lost the end of a partition: what it had not given to the writer is lost. What is there now is read from"
            " there on; check unclean.leader.election.enable, the replicas and the disks",
            **_labels(partition),
            end=end,
            read_to=goal,
            leader_epoch=leader_epoch,
        )
        intent = end if head.intent is not None and end > head.committed else None
        log = log_of(identity, last_epoch)
        heads[partition] = GroupHead(min(end, head.committed), intent, log, head.depth, head.left_out)

    async def _begin_if_new(self, heads: dict[Partition, GroupHead], partition: Partition, identity: str) -> None:
        """Start at the first message of the current log if the head belongs to another log."""
        head = heads[partition]
        former = self._seen.get(partition.topic) or identity_of(head.log)
        if former not in ("", identity):
            self._logger.warning(
                "a topic was made anew, or Kafka was replaced: its committed offsets are of another log, so it is read from its"
                " first message on; what the former log still held is not stored",
                topic=partition.topic,
                log=identity,
                former_log=former,
            )
        self._seen[partition.topic] = identity
        if partition in self._never_committed or (head.log and identity_of(head.log) != identity):
            earliest = await self._earliest(partition)
            self._never_committed.discard(partition)
            heads[partition] = GroupHead(earliest, None, log_of(identity, -1))
        elif not head.log and head.intent is None:
            heads[partition] = head._replace(log=log_of(identity, -1))

    async def _log(self, partition: Partition) -> TopicLog:
        """Return the log of a partition as its leader knows it. Raises KafkaError, OSError, BrokerDown."""
        known = await topic_logs(self._brokers, self._member.client, self._leader(partition), [partition.topic])
        if partition.topic not in known:
            self._member.client.force_metadata_update()
            raise BrokerDown(f"{partition.topic} is not known to the leader of {partition.topic}/{partition.index}")
        return known[partition.topic]

    def _held(self, messages: Range) -> tuple[Ownership, dict[Partition, GroupHead]]:
        ownership = self._member.ownership
        if self._closed.is_set() or ownership is None or ownership.heads is None or messages.partition not in ownership.heads:
            raise BrokerDown(f"cannot commit {_name(messages)}: the partition is no longer ours")
        return ownership, ownership.heads

    async def _commit(self, ownership: Ownership, partition: Partition, head: GroupHead) -> None:
        settled = False
        try:
            with self._guarded(f"commit {partition.topic}/{partition.index} at {head}"):
                try:
                    metadata = Committed(with_left_out(head.log, head.left_out), head.intent, head.depth).metadata()
                    await self._member.commit(ownership, partition, head.committed, metadata)
                except NotAsked:
                    settled = True
                    raise
            settled = True
        except Fenced as error:
            settled = True
            raise BrokerDown(f"cannot commit {partition.topic}/{partition.index}: no longer ours ({error})") from error
        finally:
            # Cancelled, too: whether it is committed, or will be, is not known, and is settled by a new generation.
            if not settled:
                self._member.rejoin(ownership)
        assert ownership.heads is not None
        ownership.heads[partition] = head
        if self._compared.get(partition) != self._read_under.get(partition):  # a later leader, with the head before
            self._compared.pop(partition, None)

    # Questions to brokers.

    async def _ask_ends(
        self, ownership: Ownership, heads: dict[Partition, GroupHead]
    ) -> tuple[dict[Partition, int], Range | None]:
        """Where the partitions end whose leaders answer soon; or a range, where one has come since the last poll."""
        new: list[_Question] = []
        for node, partitions in self._by_leader(ownership).items():
            if node not in self._questions:
                begins = [partition for partition in partitions if partition not in heads]
                task = asyncio.create_task(self._ends_and_logs(ownership, node, partitions, begins))
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
        """None: there is none, or it is of no use any more."""
        error = None if question.task.cancelled() else question.task.exception()
        ownership = question.ownership
        if question.task.cancelled() or ownership is not self._member.ownership or not ownership.active:
            return None
        if isinstance(error, KafkaError | OSError | BrokerDown | ValueError):
            self._troubled(question.partitions, error, is_of_reading=question.is_of_reading)
            return None
        answer = question.task.result()  # raises what nobody has thought of
        if isinstance(answer, _Ends):
            self._learn(ownership, answer)
            if is_late:  # a broker that was away, and does not know yet that it leads no more, knows less than we do
                return {
                    partition: end for partition, end in answer.ends.items() if not self._is_behind(ownership, partition, end)
                }
            return answer.ends
        if answer is None:
            return None
        head = (ownership.heads or {}).get(answer.partition)
        if head is None or head.committed != answer.start or (head.intent is not None) != answer.in_doubt:
            return None
        self._troubles.pop(answer.partition, None)
        return answer if answer.payloads else None

    @staticmethod
    def _is_behind(ownership: Ownership, partition: Partition, end: int) -> bool:
        return ownership.heads is not None and partition in ownership.heads and end < ownership.heads[partition].committed

    def _learn(self, ownership: Ownership, answer: _Ends) -> None:
        """Raises nothing: what went wrong is a trouble of its partition."""
        assert ownership.heads is not None
        for partition, begin in answer.begins.items():
            if partition not in ownership.heads:
                ownership.heads[partition] = GroupHead(begin, None)
                self._never_committed.add(partition)
        for partition, end in answer.ends.items():
            self._ends[partition] = end
            trouble = self._troubles.get(partition)
            if trouble is not None and not trouble.is_of_reading:
                del self._troubles[partition]
        for partition, error in answer.errors.items():
            self._troubled([partition], error)

    def _troubled(self, partitions: Iterable[Partition], error: BaseException, *, is_of_reading: bool = False) -> None:
        """They can't be read now."""
        now_s = self._loop.time()
        for partition in partitions:
            before = self._troubles.get(partition)
            self._troubles[partition] = _Trouble(text(error), now_s if before is None else before.since_s, is_of_reading)
        if now_s - self._refreshed > _REFRESH_S:
            self._refreshed = now_s
            self._member.client.force_metadata_update()

    def _check(self, ownership: Ownership) -> None:
        """Raises BrokerDown where none of the partitions can be read; logs where some can't for a while."""
        troubles = self._troubles
        if not troubles:
            return
        partition, trouble = next(iter(troubles.items()))
        now_s = self._loop.time()
        if troubles.keys() >= set(ownership.partitions):
            raise BrokerDown(f"cannot read {partition.topic}/{partition.index}: {trouble.error}")
        if now_s - trouble.since_s > _LOGGED_AFTER_S and now_s - self._logged > _LOGGED_EVERY_S:
            self._logged = now_s
            self._logger.warning(
                "some partitions cannot be read, the others go on",
                **_labels(partition),
                partitions=len(troubles),
                seconds=round(now_s - trouble.since_s, 1),
                error=trouble.error,
            )

    async def _ask_all_ends(self) -> tuple[Ownership, dict[Partition, GroupHead], dict[Partition, Exception]]:
        """Ask every leader where its partitions end, and wait for all; of those that can't be known, the reason. Raises
        KafkaError, OSError, BrokerDown."""
        owned = await self._owned(self._loop.time() + self._options.request_timeout_s)
        if owned is None:
            raise BrokerDown("the consumer group is being rebalanced")
        ownership, heads = owned
        failures: dict[Partition, Exception] = {}

        async def ask(node: int, partitions: Sequence[Partition]) -> None:
            try:
                answer = await self._ends_of(node, partitions, [each for each in partitions if each not in heads])
            except (KafkaError, OSError, ValueError) as error:
                failures.update(dict.fromkeys(partitions, error))
            else:
                failures.update(answer.errors)
                if ownership is self._member.ownership:
                    self._learn(ownership, answer)

        by_leader = self._by_leader(ownership)
        await asyncio.gather(*(ask(node, partitions) for node, partitions in by_leader.items()))
        led = {partition for partitions in by_leader.values() for partition in partitions}
        leaderless = [partition for partition in ownership.partitions if partition not in led]
        failures |= {each: BrokerDown(f"{each.topic}/{each.index} has no leader now") for each in leaderless}
        return ownership, heads, failures

    async def _ends_and_logs(
        self, ownership: Ownership, node: int, partitions: Collection[Partition], begins: Collection[Partition]
    ) -> _Ends:
        """As `_ends_of`; and of those with nothing to read, whether their logs began anew."""
        answer = await self._ends_of(node, partitions, begins)
        await self._look_for_new_logs(ownership, node, answer.ends)
        return answer

    async def _ends_of(self, node: int, partitions: Collection[Partition], begins: Collection[Partition]) -> _Ends:
        """Return the ends of partitions that this broker leads, and the beginnings of some. Raises KafkaError, OSError,
        ValueError."""
        first: dict[Partition, int] = {}
        errors: dict[Partition, Exception] = {}
        if begins:
            first, errors = await self._offsets(node, begins, EARLIEST)
        last, more_errors = await self._offsets(node, partitions, LATEST)
        return _Ends(last, first, errors | more_errors)

    async def _offsets(
        self, node: int, partitions: Collection[Partition], time: int
    ) -> tuple[dict[Partition, int], dict[Partition, Exception]]:
        """By `time`: the first one there is (EARLIEST), or the next one there will be (LATEST); and where that is not known,
        why. Raises KafkaError, OSError, ValueError."""
        indexes: defaultdict[str, list[int]] = defaultdict(list)
        for partition in partitions:
            indexes[partition.topic].append(partition.index)
        request = list_request(list(indexes.items()), time)
        found = list_answer(await self._brokers.ask(self._member.client, node, LIST_API, [request]))
        errors: dict[Partition, Exception] = {
            partition: for_code(code)() for partition, (code, _) in found.items() if for_code(code) is not NoError
        }
        return {partition: offset for partition, (_, offset) in found.items() if partition not in errors}, errors

    async def _earliest(self, partition: Partition) -> int:
        """Return the partition's first offset. Raises KafkaError, OSError, ValueError, BrokerDown."""
        found, errors = await self._offsets(self._leader(partition), [partition], EARLIEST)
        for error in errors.values():
            raise error
        return found[partition]

    def _by_leader(self, ownership: Ownership) -> dict[int, list[Partition]]:
        """Those that have a leader; the others are a trouble."""
        by_leader: defaultdict[int, list[Partition]] = defaultdict(list)
        for partition in ownership.partitions:
            leader = self._leader_or_none(partition)
            if leader is None:
                self._troubled([partition], BrokerDown("it has no leader now"))
            else:
                by_leader[leader].append(partition)
        return dict(by_leader)

    def _leader(self, partition: Partition) -> int:
        leader = self._leader_or_none(partition)
        if leader is None:
            self._member.client.force_metadata_update()
            raise BrokerDown(f"{partition.topic}/{partition.index} has no leader now")
        return leader

    def _leader_or_none(self, partition: Partition) -> int | None:
        leader: int | None = self._member.client.cluster.leader_for_partition(TopicPartition(partition.topic, partition.index))
        return None if leader is None or leader < 0 else leader

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
            if end == head.committed:  # as far as is known: _look_for_new_logs
                self._troubles.pop(partition, None)
                continue
            messages = await self._asked(ownership, heads, partition, end, bytes_max)
            if not ownership.active:
                return None
            if messages is None:
                continue
            if messages.payloads:
                return messages
            # Only markers of transactions, or what compaction has left: nothing to store.
            await self._commit(ownership, partition, GroupHead(messages.end, None, messages.log))
        return None

    async def _asked(
        self, ownership: Ownership, heads: dict[Partition, GroupHead], partition: Partition, end: int, bytes_max: int
    ) -> Range | None:
        """None: it can't be read now, or its broker takes long; then a later poll has it."""
        node = self._leader_or_none(partition)
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
            self._troubled([partition], error, is_of_reading=True)
            return None
        self._troubles.pop(partition, None)
        return messages

    def _anew(self, partition: Partition, head: GroupHead, end: int) -> str:
        return (
            f"it ends at {end}, and {head.committed} is committed."
            " It was made anew, or Kafka has lost messages. Stop every writer, and then run:\n"
            f"  kafka-consumer-groups.sh --bootstrap-server {self._options.bootstrap[0]}"
            f" --group {self._options.group_id} --reset-offsets --to-earliest --execute"
            f" --topic {partition.topic}:{partition.index}"
        )

    async def _read_log(
        self, heads: dict[Partition, GroupHead], partition: Partition, end: int, bytes_max: int
    ) -> Range | None:
        """From the log that is there now, which may have begun anew. None: there is nothing in it. Raises KafkaError, OSError,
        ValueError, BrokerDown."""
        log = await self._log(partition)
        await self._fit(heads, partition, log)
        self._read_under[partition] = log.leader_epochs.get(partition.index)
        head = heads[partition]
        if end < head.committed:
            raise BrokerDown(self._anew(partition, head, end))
        return None if end == head.committed else await self._read(partition, head, end, bytes_max, log.identity)

    async def _read(self, partition: Partition, head: GroupHead, end: int, bytes_max: int, identity: str) -> Range:
        """Read from the committed offset; exactly up to the intent if there is one, else up to `end` or as many as fit."""
        in_doubt = head.intent is not None
        goal = end if head.intent is None else head.intent
        start = offset = head.committed
        payloads: list[Payload] = []
        size = 0
        largest = 1
        epoch = -1
        # Not for less than a batch: the broker would send a whole one, for nothing.
        while offset < goal and (in_doubt or size + largest <= bytes_max):
            room = _FETCH_BYTES if in_doubt else max(1, min(_FETCH_BYTES, bytes_max - size))
            fetched = await self._fetch(partition, offset, room)
            if fetched is None:
                start = offset = await self._skip_deleted(partition, offset)
                continue
            before = offset
            try:
                for batch in fetched:
                    largest = max(largest, batch.size_bytes)
                    for at, payload in batch.messages:
                        if offset <= at < goal:
                            if payloads and not in_doubt and size + len(payload) > bytes_max:
                                return Range(partition, start, offset, payloads, log=log_of(identity, epoch))
                            epoch = batch.leader_epoch
                            payloads.append(payload)
                            size += len(payload)
                            offset = at + 1
                    offset = max(offset, min(batch.next_offset, goal))
                    if offset >= goal:
                        break
            except WrongChecksum:
                raise BrokerDown(
                    f"cannot read {partition.topic}/{partition.index} at offset {offset}: wrong checksum"
                ) from None
            if offset == before:
                raise BrokerDown(f"cannot read {partition.topic}/{partition.index} at offset {offset}: Kafka sent nothing")
        if in_doubt:
            left_out = after(head.left_out, start - head.committed)
            return Range(partition, start, max(offset, goal), payloads, in_doubt, head.log, head.depth, left_out)
        return Range(partition, start, offset, payloads, log=log_of(identity, epoch))

    async def _skip_deleted(self, partition: Partition, offset: int) -> int:
        earliest = await self._earliest(partition)
        if earliest <= offset:
            raise BrokerDown(f"cannot read {partition.topic}/{partition.index} at offset {offset}: Kafka says it has none such")
        self._logger.error(
            "Kafka deleted messages before they were stored: its retention is shorter than the writer was away",
            **_labels(partition),
            messages=earliest - offset,
            first_offset=offset,
        )
        ownership = self._member.ownership
        if ownership is not None and ownership.heads is not None and partition in ownership.heads:
            intent = ownership.heads[partition].intent
            head = ownership.heads[partition]
            standing = intent is not None and intent > earliest
            ownership.heads[partition] = head._replace(committed=earliest, intent=intent if standing else None)
        raise BrokerDown(f"Kafka deleted {earliest - offset} messages of {partition.topic}/{partition.index}")

    async def _fetch(self, partition: Partition, offset: int, bytes_max: int) -> Iterator[Batch] | None:
        """Batches from there on, which raises WrongChecksum; None where the offset is out of Kafka's range."""
        request = fetch_request(partition.topic, partition.index, offset, bytes_max)
        arriving = Arriving()
        answer = await self._brokers.ask(self._member.client, self._leader(partition), FETCH_API, [request], arriving.came)
        code, records = fetch_answer(answer)
        error = for_code(code)
        if error is OffsetOutOfRangeError:
            return None
        if error is not NoError:
            raise error
        return batches(records, arriving.checksums)

    async def _arrival(self, ends: Mapping[Partition, int], wait_s: float) -> None:
        """Return when there is more than up to `ends`, when partitions come or go, when a broker has answered that took long,
        or when the time is up."""
        member = self._member
        until = self._loop.time() + wait_s + 0.1
        others: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(member.changed.wait()),
            asyncio.ensure_future(self._closed.wait()),
        }
        late = {question.task for question in self._questions.values()}
        asking: set[asyncio.Future[Any]] = set()
        by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for partition, end in ends.items():
            leader = self._leader_or_none(partition)
            if leader is not None and leader not in self._questions:
                by_leader[leader][partition.topic].append((partition.index, end, 1))
        for node, topics in by_leader.items():
            request = FetchRequest(int(wait_s * 1000), 1, 1, 0, list(topics.items()))
            asking.add(asyncio.ensure_future(member.client.send(node, request, group=_ARRIVALS)))
        try:
            left = {*others, *late, *asking}
            while (left_s := until - self._loop.time()) > 0:
                done, left = await asyncio.wait(left, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                # A broker that is gone answers at once, with an error: the others are waited for all the same.
                if any(each not in asking or each.exception() is None for each in done):
                    return
        finally:
            for each in (*others, *asking):
                each.cancel()
            await asyncio.gather(*others, *asking, return_exceptions=True)


def _name(messages: Range) -> str:
    return f"{messages.partition.topic}/{messages.partition.index} {messages.start} to {messages.end}"


def _labels(partition: Partition) -> dict[str, object]:
    return {"topic": partition.topic, "partition": partition.index}
