"""Append messages to Kafka.

Messages wait in the batch of their topic while other batches are in flight. A *lane* has one request at a time in flight to a
leader. The request has a batch of each topic, and batches of several partitions of a topic if more than one is full. Each
leader has few lanes, and each partition at most one batch in flight. So batches grow with the load, and no message waits for
others to join it. The lanes beyond a leader's first are used only if a batch is full or a request has been in flight for long.

aiokafka (client.py) finds the brokers, their topics and a producer's id. Requests are written here (protocol/produce.py) and
sent over a connection of our own (transport.py), because aiokafka's producer costs more than all the rest of a small request.

A leader that does not answer gets no batches while a topic has partitions elsewhere. Batches that it was sent before are not
sent to another leader, since nobody knows whether it has them.

A message with a fingerprint goes to the partition that the fingerprint determines, and waits there for its leader: copies of a
message that its sender repeats must be in one order.

Invariants:
1. All batches of one *session* (an idempotent producer, with its id and sequence numbers) continue together or not at all. A
   batch whose leader moved or cannot be reached is sent again unchanged, so Kafka recognizes it if it has it already
   (test_a_kafka_that_is_killed_loses_nothing_that_was_acknowledged).
2. A batch that was rejected, or was not acknowledged in time, ends the session. Messages that Kafka had not taken by then are
   dropped and never sent later, because their senders were asked to send them again
   (test_a_batch_that_kafka_refuses_does_not_spoil_the_next).
3. A new session begins by itself as soon as Kafka accepts writes. Until then every append fails at once
   (test_kafka_away_refuses_in_time_and_comes_back_by_itself).
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown, Message
from collector.broker.kafka.options import KafkaOptions, KafkaUnusable, text, until_started
from collector.broker.kafka.producer_batches import ORDERED_PARTITION, Append
from collector.broker.kafka.producer_observer import NoObserver, ProduceObserver
from collector.broker.kafka.producer_session import ProducerSession, started
from collector.broker.kafka.topics import Topic, TopicsMissing, ready_topics
from collector.runtime.reminders import Reminder

_RETRY_MIN_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
# An append that was not acknowledged in time is reported by `unproven` for so long, plus the time that an append may take. Then
# another may try: a balancer sends nothing to a gateway that reports that it can't write.
_UNPROVEN_S: Final = 10.0


class KafkaProducer:
    """Producer (collector.broker.contract) over Kafka. Belongs to the event loop that opened it."""

    def __init__(
        self,
        options: KafkaOptions,
        topics: Mapping[str, Topic],
        partitions: dict[str, int],
        session: ProducerSession,
        observer: ProduceObserver,
    ) -> None:
        """Use `open`."""
        self.failure: str | None = None
        """Why Kafka can't be written now; None if it can."""
        self._options: Final = options
        self._topics = topics
        self._partitions: Final = partitions  # the number of partitions by topic; sessions update it
        self._observer: Final = observer
        self._loop: Final = asyncio.get_running_loop()
        self._logger: Final = structlog.get_logger(__name__)
        self._session: ProducerSession | None = None
        self._outage: Final = Reminder(self._loop.time)
        self._outage_since_s = -1.0  # by the loop's clock; below 0: Kafka acknowledges what is sent
        self._timed_out_at_s = -1.0  # when an append was last not acknowledged in time; below 0: Kafka was back since
        self._timeout_reason = ""
        self._retired_bytes = 0
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._in_turn: Final[set[asyncio.Task[None]]] = set()  # appends that have a message to send after the others
        self._closing = False
        self._begin(session)

    @classmethod
    async def open(cls, options: KafkaOptions, topics: Collection[str], observer: ProduceObserver | None = None) -> Self:
        """Check or create the topics to append to, and start a session. Raises KafkaUnusable."""
        observer = observer or NoObserver()
        described = await ready_topics(options, topics)
        partitions: dict[str, int] = {}

        async def attempt() -> ProducerSession:
            return await started(ProducerSession(options, described, partitions, observer))

        return cls(options, described, partitions, await until_started(options, attempt), observer)

    async def close(self) -> None:
        """Finish the waiting appends, for as long as an append may take. Refuse new ones (BrokerDown)."""
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
    def unproven(self) -> str | None:
        """Return why appends failed, while Kafka has acknowledged none since. Return None if it has, or if no append was tried
        for some time. Brokers that answer may still take no messages, and only an append shows it."""
        if self._timed_out_at_s < 0 or self._loop.time() - self._timed_out_at_s > self._options.append_timeout_s + _UNPROVEN_S:
            return None
        return self._timeout_reason

    @property
    def waiting_bytes(self) -> int:
        """Return the number of bytes that Kafka has not acknowledged yet."""
        return self._retired_bytes + (self._session.queue.waiting_bytes if self._session else 0)

    async def append(self, messages: Sequence[Message]) -> None:
        """Return when all of them are durable. Raises BrokerDown, at once while Kafka is known to be away, and after
        `append_timeout_s` at the latest.

        Unlike the local log's, an append of several messages is not atomic: if Kafka or this process dies in the middle of it,
        some may be kept. So the last message is sent once all others are durable. If the caller of such an append is cancelled,
        all of its messages are still sent, as long as this process lives.
        """
        if not messages:
            return
        if self._closing:
            raise BrokerDown("cannot append to Kafka: closed")
        size = sum(len(message.payload) for message in messages)
        waiting = self.waiting_bytes
        if waiting and waiting + size > self._options.waiting_bytes_max:
            raise BrokerDown(
                f"cannot append {size} bytes to Kafka: {waiting} of at most {self._options.waiting_bytes_max} bytes wait"
                " already (kafka.waiting_bytes_max)"
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
        await self._append(messages[-1:], deadline, follows=True)

    def _appended_in_turn(self, task: asyncio.Task[None]) -> None:
        self._in_turn.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, since its caller may have been cancelled

    async def _append(self, messages: Sequence[Message], deadline: float, *, follows: bool = False) -> None:
        session = self._session
        if session is None:
            raise BrokerDown(f"cannot append to Kafka: {self.failure}")
        for message in messages:
            if message.ordered and not session.takes_ordered(message.topic):
                raise BrokerDown(f"cannot append to Kafka: {message.topic}/{ORDERED_PARTITION} can't be written now")
        is_placed = not any(not message.fingerprint for message in messages)
        append = Append(self._loop.create_future(), deadline, messages[0].topic, is_placed, follows)
        session.put(messages, append)
        self._watch(session, append)
        try:
            await append.done
        finally:
            session.leave()

    def _watch(self, session: ProducerSession, append: Append) -> None:
        """Let an append expire at its deadline. Deadlines come in order, so one timer serves all appends, except for the last
        part of an append in turn, which began before."""
        overdue = session.overdue
        while overdue and overdue[0].done.done():
            overdue.popleft()
        if overdue and overdue[-1].deadline > append.deadline:
            self._loop.call_at(append.deadline, self._expire_one, session, append)
            return
        overdue.append(append)
        if session.timer is None:
            session.timer = self._loop.call_at(append.deadline, self._expire, session)

    def _expire(self, session: ProducerSession) -> None:
        session.timer = None
        overdue = session.overdue
        while overdue and (overdue[0].done.done() or overdue[0].deadline <= self._loop.time()):
            self._expire_one(session, overdue.popleft())
        if overdue:
            session.timer = self._loop.call_at(overdue[0].deadline, self._expire, session)

    def _expire_one(self, session: ProducerSession, append: Append) -> None:
        if not append.done.done():
            self._observer.produce_failed(append.topic, "timeout")
            if append.is_placed and not append.may_be_kept:
                # Its partition has no leader that answers. The others go on.
                append.may_be_kept = session.queue.forget(append)
                reason = f"its partition had no leader within {self._options.append_timeout_s:g} s"
                append.done.set_exception(BrokerDown(f"cannot append to Kafka: {reason}; {append.outcome()}"))
                return
            reason = f"not acknowledged within {self._options.append_timeout_s:g} s"
            append.done.set_exception(BrokerDown(f"cannot append to Kafka: {reason}; {append.outcome()}"))
            self._timed_out_at_s = self._loop.time()
            self._timeout_reason = reason
            self._retire(session, reason)

    async def ping(self) -> None:
        """Ask Kafka whether it can be written. Raises BrokerDown if not."""
        session = self._session
        if session is None:
            raise BrokerDown(f"Kafka can't be written: {'closed' if self._closing else self.failure}")
        try:
            async with asyncio.timeout(self._options.append_timeout_s):
                await session.refresh()
        except (KafkaError, OSError, TimeoutError, BrokerDown) as error:
            self._retire(session, text(error))
            raise BrokerDown(f"Kafka can't be written: {text(error)}") from error

    def _begin(self, session: ProducerSession) -> None:
        session.failed = lambda reason: self._retire(session, reason)
        self._session = session
        self.failure = None

    def _retire(self, session: ProducerSession, reason: str) -> None:
        """Send no more appends to a session, and begin another. Appends that it has sent may still succeed."""
        if self._session is session:
            self._session = None
            self.failure = reason
            session.queue.refuse(reason)
            if self._outage_since_s < 0:
                self._outage_since_s = self._loop.time()
            self._remind(reason)
            self._spawn(self._drain_session(session))
            self._spawn(self._recover())

    def _remind(self, reason: str) -> None:
        if self._outage.due():
            self._logger.warning("cannot write to Kafka, trying again", reason=reason)

    def _note_acknowledged(self) -> None:
        """Note that Kafka has acknowledged a batch. Another answer proves nothing: below min.insync.replicas it takes none."""
        if self._session is None:  # the session of the batch was retired
            return
        self._session.succeeded = None
        seconds = round(self._loop.time() - self._outage_since_s, 1)
        self._outage_since_s = -1.0
        self._timed_out_at_s = -1.0
        self._outage.over()
        self._logger.info("Kafka can be written again", seconds=seconds)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain_session(self, session: ProducerSession) -> None:
        held = session.queue.waiting_bytes
        self._retired_bytes += held
        failure: BaseException | None = None
        try:
            await session.flush()
        except BaseException as error:  # noqa: BLE001 - raised again below: compiled code must not await in a handler
            failure = error
        await session.abandon()
        self._retired_bytes -= held
        if failure is not None:
            raise failure

    async def _recover(self) -> None:
        delay_s = _RETRY_MIN_S
        defects = Reminder(self._loop.time)
        while True:
            is_empty = False
            try:
                async with asyncio.timeout(self._options.request_timeout_s):
                    session = await started(ProducerSession(self._options, self._topics, self._partitions, self._observer))
                break
            except (KafkaError, OSError, TimeoutError, BrokerDown) as error:
                is_empty = isinstance(error, TopicsMissing) and len(error.names) == len(self._topics)
                self.failure = text(error)
                self._remind(self.failure)
            except Exception as defect:  # every error: a producer that stopped here could not write until a restart
                self.failure = text(defect)
                if defects.due():
                    self._logger.exception("unexpected error while Kafka is unavailable, trying again")
            if is_empty:
                await self._create_topics()
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_MAX_S, delay_s * 2)
        if self._closing:
            await session.abandon()
            return
        session.succeeded = self._note_acknowledged
        self._begin(session)

    async def _create_topics(self) -> None:
        """Create the topics, as a start does, since another Kafka has replaced the former one. Not called for a single missing
        topic: somebody deleted it, and may be about to create it with other settings."""
        try:
            self._topics = await ready_topics(self._options, list(self._topics))
        except KafkaUnusable as error:
            self.failure = str(error)
            self._remind(self.failure)
