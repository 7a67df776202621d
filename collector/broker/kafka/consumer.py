"""Reading from Kafka, range by range.

aiokafka's coordinator keeps the membership (membership.py); the rest is done here, request by request, over connections of our
own (brokers.py). Its consumer would commit under whatever generation it has by the time it sends, which need not be the one in
which the range was read, and would fetch ahead of what is asked for. Here a poll asks where the partitions end, takes the next
in turn, and reads it from its committed offset. Nothing is kept between polls.

The metadata of a committed offset has the identity of the log that the offset belongs to, and the intent (identity.py). A log
that began anew is read from its first message, whatever the group has committed.

Invariants:
1. A range is intended only while its leader knows its partition by the identity that it was read under
   (test_a_topic_made_anew_while_the_writer_runs_loses_nothing).
2. An offset that was committed for another log is not used (test_a_topic_made_anew_while_the_writer_is_stopped_loses_nothing).
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from collector.broker.contract import BrokerDown, Partition, Payload, Position, Range
from collector.broker.kafka.brokers import Brokers
from collector.broker.kafka.connection import KafkaOptions, text, until_started
from collector.broker.kafka.fetching import FETCH_API, Arriving, Batch, WrongChecksum, batches, fetch_answer, fetch_request
from collector.broker.kafka.identity import Committed, identities, identity_of, log_of
from collector.broker.kafka.membership import Fenced, Head, Member, Ownership
from collector.broker.kafka.offsets import EARLIEST, LATEST, LIST_API, list_answer, list_request
from collector.broker.kafka.topics import ready_topics

# One answer to a fetch. The broker sends a whole batch even where it is larger.
_FETCH_BYTES: Final = 16 * 1024 * 1024
# How long the broker may hold a request that waits for something to arrive; the longest that `poll` notices nothing else.
_ARRIVAL_WAIT_MS: Final = 500
# How often partitions that have nothing to read are looked at, whether their logs began anew.
_IDENTITIES_INTERVAL_S: Final = 1.0
# Such a request holds up its connection, so it has one of its own. Any value that aiokafka does not use.
_ARRIVALS: Final = 100


class KafkaConsumer:
    """Consumer (collector.broker.contract) over Kafka. Belongs to the event loop that opened it."""

    def __init__(self, options: KafkaOptions, topics: Collection[str], brokers: Brokers, member: Member) -> None:
        """Use `open`."""
        self.failure: str | None = None
        """Why Kafka could not be read at the last attempt; None: it could."""
        self._options: Final = options
        self._topics: Final = topics
        self._logger: Final = structlog.get_logger(__name__)
        self._loop: Final = asyncio.get_running_loop()
        self._brokers: Final = brokers
        self._member = member
        self._turns: Final[deque[Partition]] = deque()  # round-robin: the next to be read stands first
        self._reading: Final = asyncio.Lock()
        self._closed: Final = asyncio.Event()
        self._identities_read = -math.inf  # when, by the loop's clock
        self._seen: Final[dict[str, str]] = {}  # by topic, the identity of its log as it was last seen
        self._settled = self._loop.time()  # when it was last known what is ours

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

    async def close(self) -> None:
        """Leave the group. A poll under way ends (BrokerDown)."""
        self._closed.set()
        self._brokers.close()
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
            ends: dict[Partition, int] = {}
            with self._guarded("read from Kafka"):
                owned = await self._owned(deadline)
                if owned is not None:
                    ownership, heads = owned
                    async with asyncio.timeout(self._options.request_timeout_s):
                        ends = await self._offsets(ownership.partitions, LATEST, skip_leaderless=True)
                        await self._look_for_new_logs(heads, ends)
                    messages = await self._next(ownership, heads, ends, bytes_max)
                    if messages is not None:
                        return messages
                left_s = deadline - self._loop.time()
                if left_s <= 0:
                    return None
                await self._arrival(ends, min(left_s, _ARRIVAL_WAIT_MS / 1000))

    async def intend(self, messages: Range) -> None:
        ownership, heads = self._held(messages)
        head = heads[messages.partition]
        if not ownership.active or messages.start != head.committed or head.intent not in (None, messages.end):
            raise BrokerDown(f"cannot intend {_name(messages)}: the partition stands at {head}, or is being taken away")
        with self._guarded(f"intend {_name(messages)}"):
            async with asyncio.timeout(self._options.request_timeout_s):
                identity = await self._identity(messages.partition)
        if messages.log and identity != identity_of(messages.log):
            self._identities_read = -math.inf
            raise BrokerDown(f"cannot intend {_name(messages)}: the topic was made anew since it was read")
        intent = Head(messages.start, messages.end, messages.log, messages.depth)
        await self._commit(ownership, messages.partition, intent)

    async def commit(self, messages: Range) -> None:
        """As the contract has it. Kafka keeps the messages: its retention deletes them."""
        ownership, heads = self._held(messages)
        head = heads[messages.partition]
        if messages.end <= head.committed:
            return
        if messages.start != head.committed or messages.end != head.intent:
            raise BrokerDown(f"cannot commit {_name(messages)}: the partition stands at {head}")
        await self._commit(ownership, messages.partition, Head(messages.end, None, messages.log))

    async def positions(self) -> dict[Partition, Position]:
        with self._guarded("ask Kafka for positions"):
            owned = await self._owned(self._loop.time() + self._options.request_timeout_s)
            if owned is None:
                raise BrokerDown("cannot ask Kafka for positions: the consumer group is being rebalanced")
            ownership, heads = owned
            async with asyncio.timeout(self._options.request_timeout_s):
                ends = await self._offsets(ownership.partitions, LATEST)
            return {partition: Position(head.committed, ends[partition]) for partition, head in heads.items()}

    async def lag(self) -> dict[Partition, int]:
        """As the contract has it; Kafka's own markers among the messages count too."""
        return {partition: position.end - position.committed for partition, position in (await self.positions()).items()}

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        if self._closed.is_set():
            raise BrokerDown(f"cannot {what}: closed")
        try:
            yield
        except BrokerDown as error:
            self.failure = str(error)
            raise
        except (KafkaError, OSError, TimeoutError) as error:
            self.failure = text(error)
            if getattr(error, "invalid_metadata", False):
                self._member.client.force_metadata_update()
            raise BrokerDown(f"cannot {what}: {self.failure}") from error
        self.failure = None

    async def _owned(self, deadline: float) -> tuple[Ownership, dict[Partition, Head]] | None:
        """What is ours, and where it stands; None: not settled in time. Raises KafkaError, OSError, BrokerDown."""
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
        """A membership that came to an end by itself, by a new one."""
        await member.close()
        self._member = Member(self._options, self._topics, self._brokers)
        await self._member.start()

    async def _read_heads(self, ownership: Ownership) -> dict[Partition, Head]:
        committed = await self._member.committed(ownership)
        new = [partition for partition in ownership.partitions if partition not in committed]
        heads = {partition: Head(offset, None) for partition, offset in (await self._offsets(new, EARLIEST)).items()}
        for partition, (offset, metadata) in committed.items():
            said = Committed.read(metadata)
            if said is None:
                self._logger.warning("not our commit: its metadata is ignored", **_labels(partition), metadata=metadata[:100])
                said = Committed("", None, 0)
            intended = said.intent is not None and said.intent > offset
            heads[partition] = Head(offset, said.intent, said.log, said.depth) if intended else Head(offset, None, said.log)
        return heads

    async def _look_for_new_logs(self, heads: dict[Partition, Head], ends: Mapping[Partition, int]) -> None:
        """Partitions with nothing to read, as it seems: where their logs began anew, read them from the first message on."""
        now_s = self._loop.time()
        if now_s - self._identities_read < _IDENTITIES_INTERVAL_S:
            return
        self._identities_read = now_s
        client = self._member.client
        if any(client.cluster.partitions_for_topic(topic) is None for topic in self._topics):
            client.force_metadata_update()  # a topic was deleted, and may be made anew: else it is noticed minutes later
        idle = [partition for partition, end in ends.items() if partition in heads and end <= heads[partition].committed]
        by_leader = self._by_leader(partition for partition in idle if self._leader_or_none(partition) is not None)
        for node, topics in by_leader.items():
            try:
                known = await identities(self._brokers, client, node, [topic for topic, _ in topics])
            except (KafkaError, OSError):
                continue  # its partitions are looked at when it answers again
            for topic, indexes in topics:
                for index in indexes:
                    if topic in known:
                        await self._begin_if_new(heads, Partition(topic, index), known[topic])

    async def _begin_if_new(self, heads: dict[Partition, Head], partition: Partition, identity: str) -> None:
        """Where the head is of another log than the one that is there now, start at the first message of that one."""
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
        if not head.log and head.intent is None:
            heads[partition] = head._replace(log=log_of(identity, -1))
        elif head.log and identity_of(head.log) != identity:
            earliest = (await self._offsets([partition], EARLIEST))[partition]
            heads[partition] = Head(earliest, None, log_of(identity, -1))

    async def _identity(self, partition: Partition) -> str:
        """Of its log, as its leader knows it. Raises KafkaError, OSError, BrokerDown."""
        known = await identities(self._brokers, self._member.client, self._leader(partition), [partition.topic])
        if partition.topic not in known:
            self._member.client.force_metadata_update()
            raise BrokerDown(f"{partition.topic} is not known to the leader of {partition.topic}/{partition.index}")
        return known[partition.topic]

    def _held(self, messages: Range) -> tuple[Ownership, dict[Partition, Head]]:
        ownership = self._member.ownership
        if self._closed.is_set() or ownership is None or ownership.heads is None or messages.partition not in ownership.heads:
            raise BrokerDown(f"cannot commit {_name(messages)}: the partition is no longer ours")
        return ownership, ownership.heads

    async def _commit(self, ownership: Ownership, partition: Partition, head: Head) -> None:
        settled = False
        try:
            with self._guarded(f"commit {partition.topic}/{partition.index} at {head}"):
                async with asyncio.timeout(self._options.request_timeout_s):
                    await self._member.commit(
                        ownership, partition, head.committed, Committed(head.log, head.intent, head.depth).metadata()
                    )
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

    async def _next(
        self, ownership: Ownership, heads: dict[Partition, Head], ends: Mapping[Partition, int], bytes_max: int
    ) -> Range | None:
        for _ in range(len(self._turns)):
            partition = self._turns[0]
            self._turns.rotate(-1)
            head, end = heads.get(partition), ends.get(partition)
            if head is None or end is None:
                continue
            if end == head.committed:
                continue  # as far as is known: _look_for_new_logs
            async with asyncio.timeout(self._options.request_timeout_s):
                identity = await self._identity(partition)
                await self._begin_if_new(heads, partition, identity)
            head = heads[partition]
            if end == head.committed:
                continue
            if end < head.committed:
                raise BrokerDown(
                    f"cannot read {partition.topic}/{partition.index}: it ends at {end}, and {head.committed} is committed."
                    " It was made anew, or Kafka has lost messages. Stop every writer, and then run:\n"
                    f"  kafka-consumer-groups.sh --bootstrap-server {self._options.bootstrap[0]}"
                    f" --group {self._options.group_id} --reset-offsets --to-earliest --execute"
                    f" --topic {partition.topic}:{partition.index}"
                )
            messages = await self._read(partition, head, end, bytes_max, identity)
            if not ownership.active:
                return None
            if messages.payloads:
                return messages
            # Only markers of transactions, or what compaction has left: nothing to store.
            await self._commit(ownership, partition, Head(messages.end, None, messages.log))
        return None

    async def _read(self, partition: Partition, head: Head, end: int, bytes_max: int, identity: str) -> Range:
        """From what is committed on; exactly up to the intent where one stands, else up to `end` or as many as fit."""
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
            async with asyncio.timeout(self._options.request_timeout_s):
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
            return Range(partition, start, max(offset, goal), payloads, in_doubt, head.log, head.depth)
        return Range(partition, start, offset, payloads, log=log_of(identity, epoch))

    async def _skip_deleted(self, partition: Partition, offset: int) -> int:
        async with asyncio.timeout(self._options.request_timeout_s):
            earliest = (await self._offsets([partition], EARLIEST))[partition]
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
        """Return when there is more than up to `ends`, when partitions come or go, or when the time is up."""
        member = self._member
        waiting = [asyncio.ensure_future(member.changed.wait()), asyncio.ensure_future(self._closed.wait())]
        for node, topics in self._by_leader(ends).items():
            asked = [(topic, [(index, ends[Partition(topic, index)], 1) for index in indexes]) for topic, indexes in topics]
            request = FetchRequest(int(wait_s * 1000), 1, 1, 0, asked)
            waiting.append(asyncio.ensure_future(member.client.send(node, request, group=_ARRIVALS)))
        try:
            done, _ = await asyncio.wait(waiting, timeout=wait_s + 0.1, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _offsets(self, partitions: Iterable[Partition], time: int, skip_leaderless: bool = False) -> dict[Partition, int]:
        """By `time`: the first one there is (EARLIEST), or the next one there will be (LATEST)."""

        async def ask(node: int, topics: list[tuple[str, list[int]]]) -> dict[Partition, int]:
            request = list_request(topics, time)
            found = list_answer(await self._brokers.ask(self._member.client, node, LIST_API, [request]))
            for code, _ in found.values():
                if for_code(code) is not NoError:
                    raise for_code(code)
            return {partition: offset for partition, (_, offset) in found.items()}

        wanted = list(partitions)
        if skip_leaderless:
            led = [partition for partition in wanted if self._leader_or_none(partition) is not None]
            wanted = led or wanted
        found: dict[Partition, int] = {}
        for each in await asyncio.gather(*(ask(node, topics) for node, topics in self._by_leader(wanted).items())):
            found |= each
        return found

    def _by_leader(self, partitions: Iterable[Partition]) -> dict[int, list[tuple[str, list[int]]]]:
        by_leader: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for partition in partitions:
            by_leader[self._leader(partition)][partition.topic].append(partition.index)
        return {node: list(topics.items()) for node, topics in by_leader.items()}

    def _leader(self, partition: Partition) -> int:
        leader = self._leader_or_none(partition)
        if leader is None:
            self._member.client.force_metadata_update()
            raise BrokerDown(f"{partition.topic}/{partition.index} has no leader now")
        return leader

    def _leader_or_none(self, partition: Partition) -> int | None:
        leader: int | None = self._member.client.cluster.leader_for_partition(TopicPartition(partition.topic, partition.index))
        return None if leader is None or leader < 0 else leader


def _name(messages: Range) -> str:
    return f"{messages.partition.topic}/{messages.partition.index} {messages.start} to {messages.end}"


def _labels(partition: Partition) -> dict[str, object]:
    return {"topic": partition.topic, "partition": partition.index}
