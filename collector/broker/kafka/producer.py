"""Appending to Kafka.

Messages wait in the batch of their topic while another is under way; one batch a topic and leader is under way at a time, since
aiokafka sends one request at a time to a broker. So batches grow with the load, and no message waits for company.

The law: all batches of one *session* (an idempotent producer, with its id and sequence numbers) go on together or not at all.
One that failed, or was not acknowledged in time, ends the session, and what Kafka had not taken by then is forgotten, not sent
later: its senders were told to send it again. A new session begins by itself as soon as Kafka can be written; until then every
append is refused at once.
"""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from collector.broker.contract import BrokerDown, Message
from collector.broker.kafka.connection import KafkaOptions, connection, text, until_started
from collector.broker.kafka.topics import BATCH_BYTES_MAX, Topic, ready_topics

_RETRY_MIN_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
# Where ordered messages go: the one that every topic has.
_ORDERED_PARTITION: Final = 0


class ProduceObserver(Protocol):
    """Told what becomes of batches; collector.metrics.Metrics is one."""

    def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """One batch is durable. `seconds`: since its first message came."""

    def produce_failed(self, topic: str, kind: str) -> None:
        """One batch failed, or was given up. `kind`: timeout or refused (by Kafka, or on the way)."""


class _NoObserver:
    def produced(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        pass

    def produce_failed(self, topic: str, kind: str) -> None:
        pass


class _Append:
    """One call to `append`: done when all of its batches are."""

    __slots__ = ("batches", "done")

    def __init__(self, done: "asyncio.Future[None]") -> None:
        self.done: Final = done
        self.batches = 0


class _Batch:
    """Messages of one topic that Kafka takes, or refuses, as a whole."""

    __slots__ = ("appends", "began", "builder", "full", "messages", "ordered", "size")

    def __init__(self, builder: Any, began: float, ordered: bool) -> None:
        self.builder: Final = builder
        self.ordered: Final = ordered
        self.began: Final = began
        self.appends: Final[list[_Append]] = []
        self.messages = 0
        self.size = 0
        self.full = False

    def add(self, payload: bytes, append: _Append) -> bool:
        """Whether it still fitted. The first always does."""
        if self.builder.append(timestamp=None, key=None, value=payload) is None:
            self.full = True
            return False
        self.messages += 1
        self.size += len(payload)
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
                append.done.set_exception(BrokerDown(f"cannot append to Kafka: {reason}"))


class _Queue:
    """Batches of one topic that wait; the last one is being filled."""

    __slots__ = ("arrived", "batches")

    def __init__(self) -> None:
        self.batches: Final[deque[_Batch]] = deque()
        self.arrived: Final = asyncio.Event()


class _Session:
    """One idempotent producer, for as long as nothing goes wrong."""

    def __init__(self, options: KafkaOptions, topics: Mapping[str, Topic], observer: ProduceObserver) -> None:
        self.waiting_bytes = 0  # not acknowledged
        self.failed: Callable[[str], None] | None = None
        """Called, with the reason, when a batch has failed."""
        self._options: Final = options
        self._topics: Final = topics
        self._observer: Final = observer
        self._loop: Final = asyncio.get_running_loop()
        self._queues: Final = {name: _Queue() for name in topics}
        self._layout: dict[str, list[list[int]]] = {}  # of each topic, the partitions of each leader
        self._turns: Final[defaultdict[str, int]] = defaultdict(int)
        self._idle: Final = asyncio.Event()  # no append waits
        self._idle.set()
        self._appends = 0
        self._pumps: Final[list[asyncio.Task[None]]] = []
        self._producer: Final = AIOKafkaProducer(
            bootstrap_servers=list(options.bootstrap),
            acks="all",
            enable_idempotence=True,
            compression_type=None if options.compression == "none" else options.compression,
            max_batch_size=min(BATCH_BYTES_MAX, *(topic.message_bytes_max for topic in topics.values())),
            **connection(options),
        )

    async def start(self) -> None:
        """Raises KafkaError, OSError, BrokerDown."""
        await self._producer.start()
        await self.refresh()
        for name, leaders in self._layout.items():
            await self._producer.partitions_for(name)
            self._pumps.extend(
                asyncio.create_task(self._pump(name, slot), name=f"kafka-{name}") for slot in range(len(leaders))
            )

    async def refresh(self) -> None:
        """Find out which partitions can be written. Raises BrokerDown where a topic has none; KafkaError, OSError."""
        answer = await self._metadata()
        layout: dict[str, list[list[int]]] = {}
        for described in answer.to_object()["topics"]:
            name = described["topic"]
            by_leader: defaultdict[int, list[int]] = defaultdict(list)
            for partition in described["partitions"]:
                if partition["leader"] >= 0 and len(partition["isr"]) >= self._topics[name].in_sync_min:
                    by_leader[partition["leader"]].append(partition["partition"])
            if not by_leader:
                raise BrokerDown(f"no partition of {name} has a leader and min.insync.replicas")
            layout[name] = [sorted(partitions) for _, partitions in sorted(by_leader.items())]
        self._layout = layout

    def takes_ordered(self, name: str) -> bool:
        """Whether the partition of a topic's ordered messages can be written."""
        return any(_ORDERED_PARTITION in partitions for partitions in self._layout[name])

    async def _metadata(self) -> Any:
        """From whichever broker answers. Raises KafkaError."""
        client = self._producer.client
        brokers = [broker.nodeId for broker in client.cluster.brokers()]
        random.shuffle(brokers)
        for node in brokers[:-1]:
            with suppress(KafkaError):
                return await client.send(node, MetadataRequest(list(self._topics)))
        return await client.send(brokers[-1], MetadataRequest(list(self._topics)))

    def put(self, messages: Sequence[Message], append: _Append) -> None:
        """All of them wait from here on, until `leave`."""
        self._appends += 1
        self._idle.clear()
        for message in messages:
            queue = self._queues[message.topic]
            batches = queue.batches
            fits = bool(batches) and not batches[-1].full and batches[-1].ordered == message.ordered
            if not fits or not batches[-1].add(message.payload, append):
                batch = _Batch(self._producer.create_batch(), self._loop.time(), message.ordered)
                batch.add(message.payload, append)
                batches.append(batch)
                queue.arrived.set()
            self.waiting_bytes += len(message.payload)

    def leave(self) -> None:
        self._appends -= 1
        if self._appends == 0:
            self._idle.set()

    async def _pump(self, name: str, slot: int) -> None:
        queue = self._queues[name]
        linger_s = self._options.linger_ms / 1000
        while True:
            while not queue.batches:
                queue.arrived.clear()
                await queue.arrived.wait()
            if linger_s and not queue.batches[0].full:
                await asyncio.sleep(max(0.0, queue.batches[0].began + linger_s - self._loop.time()))
                if not queue.batches:
                    continue
            batch = queue.batches.popleft()
            batch.builder.close()
            try:
                partition = _ORDERED_PARTITION if batch.ordered else self._next(name, slot)
                await (await self._producer.send_batch(batch.builder, name, partition=partition))
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                reason = text(error)
                self._observer.produce_failed(name, "refused")
                batch.fail(f"{name}: {reason}")
                if self.failed is not None:
                    self.failed(reason)
                return
            self.waiting_bytes -= batch.size
            self._observer.produced(name, batch.messages, batch.size, self._loop.time() - batch.began)
            batch.succeed()

    def _next(self, name: str, slot: int) -> int:
        leaders = self._layout[name]
        partitions = leaders[slot % len(leaders)]
        self._turns[name] += 1
        return partitions[self._turns[name] % len(partitions)]

    def refuse(self, reason: str) -> None:
        """Whatever was not sent yet is not sent any more."""
        for queue in self._queues.values():
            while queue.batches:
                queue.batches.popleft().fail(reason)

    async def flush(self) -> None:
        """Return when nothing waits, or after the time that an append has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.append_timeout_s):
                await self._idle.wait()

    async def abandon(self) -> None:
        """Close the connections, and forget what Kafka has not taken."""
        for pump in self._pumps:
            pump.cancel()
        # Not only `stop`: that would wait until all is sent, for as long as Kafka is away. A sender that is cancelled waits
        # for its requests, and passes a second cancellation on to them.
        sender = self._producer._sender.sender_task
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.wait({sender}, timeout=0.05)
        self._producer._message_accumulator._batches.clear()
        self._producer._message_accumulator._pending_batches.clear()
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._options.request_timeout_s):
                await self._producer.stop()


class KafkaProducer:
    """Producer (collector.broker.contract) over Kafka. Belongs to the event loop that opened it."""

    def __init__(
        self, options: KafkaOptions, topics: Mapping[str, Topic], session: _Session, observer: ProduceObserver
    ) -> None:
        """Use `open`."""
        self.failure: str | None = None
        """Why Kafka can't be written now; None: it can."""
        self._options: Final = options
        self._topics: Final = topics
        self._observer: Final = observer
        self._loop: Final = asyncio.get_running_loop()
        self._logger: Final = structlog.get_logger(__name__)
        self._session: _Session | None = None
        self._retired_bytes = 0
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._in_turn: Final[set[asyncio.Task[None]]] = set()  # appends that have a message to send after the others
        self._closing = False
        self._begin(session)

    @classmethod
    async def open(cls, options: KafkaOptions, topics: Collection[str], observer: ProduceObserver | None = None) -> Self:
        """`topics`: those that may be appended to; they are checked, or created. Raises KafkaUnusable."""
        observer = observer or _NoObserver()
        described = await ready_topics(options, topics)

        async def attempt() -> _Session:
            return await _started(_Session(options, described, observer))

        return cls(options, described, await until_started(options, attempt), observer)

    async def close(self) -> None:
        """Finish what waits, as long as an append may take; refuse what comes (BrokerDown)."""
        self._closing = True
        if self._in_turn:
            await asyncio.wait(self._in_turn)
        session, self._session = self._session, None
        if session is not None:
            await session.flush()
            await session.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that Kafka has not acknowledged yet."""
        return self._retired_bytes + (self._session.waiting_bytes if self._session else 0)

    async def append(self, messages: Sequence[Message]) -> None:
        """Return when all of them are durable. Raises BrokerDown, at once while Kafka is known to be away, and after
        `append_timeout_s` at the latest.

        Unlike the local log's, an append of several messages is not atomic: where Kafka or this process dies in the middle of
        it, some may be kept. So the last of them is sent once all others are durable. A caller that is cancelled leaves all of
        them, as long as this process lives.
        """
        if not messages:
            return
        if self._closing:
            raise BrokerDown("cannot append to Kafka: closed")
        size = sum(len(message.payload) for message in messages)
        waiting = self.waiting_bytes
        if waiting and waiting + size > self._options.waiting_bytes_max:
            raise BrokerDown(
                f"cannot append {size} bytes to Kafka: {waiting} of {self._options.waiting_bytes_max} bytes wait already"
            )
        deadline = self._loop.time() + self._options.append_timeout_s
        if len(messages) == 1:
            await self._append(messages, deadline)
        else:
            task = asyncio.create_task(self._append_in_turn(messages, deadline))
            self._in_turn.add(task)
            task.add_done_callback(self._appended_in_turn)
            await asyncio.shield(task)

    async def _append_in_turn(self, messages: Sequence[Message], deadline: float) -> None:
        await self._append(messages[:-1], deadline)
        await self._append(messages[-1:], deadline)

    def _appended_in_turn(self, task: asyncio.Task[None]) -> None:
        self._in_turn.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have been cancelled: nobody else looks at it then

    async def _append(self, messages: Sequence[Message], deadline: float) -> None:
        session = self._session
        if session is None:
            raise BrokerDown(f"cannot append to Kafka: {self.failure}")
        for message in messages:
            if message.ordered and not session.takes_ordered(message.topic):
                raise BrokerDown(f"cannot append to Kafka: {message.topic}/{_ORDERED_PARTITION} can't be written now")
        append = _Append(self._loop.create_future())
        session.put(messages, append)
        timer = self._loop.call_at(deadline, self._expire, session, append, messages)
        try:
            await append.done
        finally:
            timer.cancel()
            session.leave()

    def _expire(self, session: _Session, append: _Append, messages: Sequence[Message]) -> None:
        if not append.done.done():
            reason = f"not acknowledged within {self._options.append_timeout_s:g} s"
            self._observer.produce_failed(messages[0].topic, "timeout")
            append.done.set_exception(BrokerDown(f"cannot append to Kafka: {reason}"))
            self._retire(session, reason)

    async def ping(self) -> None:
        """Raises BrokerDown where Kafka can't be written, by asking it."""
        session = self._session
        if session is None:
            raise BrokerDown(f"Kafka can't be written: {'closed' if self._closing else self.failure}")
        try:
            async with asyncio.timeout(self._options.append_timeout_s):
                await session.refresh()
        except (KafkaError, OSError, TimeoutError, BrokerDown) as error:
            self._retire(session, text(error))
            raise BrokerDown(f"Kafka can't be written: {text(error)}") from error

    def _begin(self, session: _Session) -> None:
        session.failed = lambda reason: self._retire(session, reason)
        self._session = session
        self.failure = None

    def _retire(self, session: _Session, reason: str) -> None:
        """No append goes to it any more. Those that wait in it may still succeed."""
        if self._session is session:
            self._session = None
            self.failure = reason
            session.refuse(reason)
            self._logger.warning("cannot write to Kafka, trying again", reason=reason)
            self._spawn(self._bury(session))
            self._spawn(self._recover())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, session: _Session) -> None:
        held = session.waiting_bytes
        self._retired_bytes += held
        try:
            await session.flush()
        finally:
            await session.abandon()
            self._retired_bytes -= held

    async def _recover(self) -> None:
        began = self._loop.time()
        delay_s = _RETRY_MIN_S
        while True:
            try:
                async with asyncio.timeout(self._options.request_timeout_s):
                    session = await _started(_Session(self._options, self._topics, self._observer))
                break
            except (KafkaError, OSError, TimeoutError, BrokerDown) as error:
                self.failure = text(error)
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_MAX_S, delay_s * 2)
        if self._closing:
            await session.abandon()
            return
        self._begin(session)
        self._logger.info("Kafka can be written again", seconds=round(self._loop.time() - began, 1))


async def _started(session: _Session) -> _Session:
    try:
        await session.start()
    except BaseException:
        await session.abandon()
        raise
    return session
