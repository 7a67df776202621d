"""One idempotent session of the producer: its id, its batches, and its requests under way to leaders."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiokafka.errors import (
    DuplicateSequenceNumber,
    GroupLoadInProgressError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from collector.broker.contract import BrokerDown, Message
from collector.broker.kafka.client import Client
from collector.broker.kafka.options import KafkaOptions, text
from collector.broker.kafka.producer_batches import (
    ORDERED_PARTITION,
    Append,
    PartitionState,
    PendingBatch,
    Sending,
)
from collector.broker.kafka.producer_observer import ProduceObserver
from collector.broker.kafka.producer_queue import ProducerQueue
from collector.broker.kafka.protocol.produce import (
    PRODUCE_API,
    next_sequence,
    partition_batch,
    produce_answer,
    produce_request,
)
from collector.broker.kafka.topics import BATCH_BYTES_MAX, Topic, TopicsMissing
from collector.broker.kafka.transport import Frames

# How long a request may be under way before others go beside it.
_LATE_S: Final = 0.003
# Before a batch is sent again, whose leader has moved or is away.
_RESEND_S: Final = 0.1
# A broker that has started asks its controller for ids of producers when it is first asked for one, and answers that it loads.
_IDENTITY_S: Final = 0.05
# How often leaders are asked for, while a partition has none that answers.
_LEADERLESS_S: Final = 0.25
# How long a new session waits until its leaders answer. Those that do not take no batches.
_REACHED_S: Final = 0.5


class PartRefused(Exception):
    """Kafka does not take a batch, and never will."""

    def __init__(self, sending: Sending, reason: str) -> None:
        super().__init__(reason)
        self.sending: Final = sending


class ProducerSession:
    """One idempotent producer, for as long as nothing goes wrong."""

    def __init__(
        self, options: KafkaOptions, topics: Mapping[str, Topic], partitions: dict[str, int], observer: ProduceObserver
    ) -> None:
        """`partitions`: how many each topic has, as far as sessions before this one knew. This session updates it."""
        self.failed: Callable[[str], None] | None = None
        """Called, with the reason, when a batch has failed."""
        self.succeeded: Callable[[], None] | None = None
        """Called when a batch is durable."""
        self.overdue: Final[deque[Append]] = deque()  # appends whose deadline comes, the first first
        self.timer: asyncio.TimerHandle | None = None
        self._options: Final = options
        self._topics: Final = topics
        self._observer: Final = observer
        self._logger: Final = structlog.get_logger(__name__)
        self._loop: Final = asyncio.get_running_loop()
        self.queue: Final = ProducerQueue(
            list(topics), min(BATCH_BYTES_MAX, *(topic.message_bytes_max for topic in topics.values()))
        )
        self._states: Final = self.queue.states
        self._partitions: Final = partitions
        self._avoided: Final = asyncio.Event()  # a leader was lost since leaders were last asked for
        self._producer_id = -1
        self._epoch = -1
        self._idle: Final = asyncio.Event()  # no append waits
        self._idle.set()
        self._helping: Final = self.queue.filled  # the lanes beyond the first take part
        self._late: Final[set[int]] = set()  # the first lanes whose request has been under way for long
        self._appends = 0
        self._tasks: Final[list[asyncio.Task[None]]] = []  # the lanes, and what keeps up with the cluster
        self._frames: Final[dict[tuple[int, str, int], Frames]] = {}  # of each lane, to the brokers that it has sent to
        self._leaders_max = 0  # how many brokers may lead partitions of a topic
        self._client: Final = Client(options)

    async def start(self) -> None:
        """Raises KafkaError, OSError, BrokerDown."""
        await self._client.bootstrap()
        self._producer_id, self._epoch = await self._identity()
        await self.refresh()
        leaders = {partition.leader for state in self._states.values() for partition in state.partitions}
        leaders.discard(-1)
        await asyncio.gather(*(self._reach(lane, leader) for lane, leader in enumerate(sorted(leaders))))
        first = self.queue.first_lanes = self._leaders_max
        lanes = range(first * self._options.requests_in_flight_max)
        self._tasks.extend(asyncio.create_task(self._run(lane, helps=lane >= first), name=f"kafka-{lane}") for lane in lanes)
        self._tasks.append(asyncio.create_task(self._keep_up(), name="kafka-metadata"))

    async def _keep_up(self) -> None:
        """With partitions that are added, leaders that move, and brokers that come back."""
        while True:
            wait_s = _LEADERLESS_S if self.queue.is_leaderless() else self._options.metadata_refresh_s
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._avoided.wait()
            if self._avoided.is_set():
                self._avoided.clear()
                await asyncio.sleep(_LEADERLESS_S)
            with suppress(KafkaError, OSError, BrokerDown):
                await self.refresh()

    async def _reach(self, lane: int, leader: int) -> None:
        """Connect to it, or let it take no batches: what it does not acknowledge in time ends the session."""
        try:
            async with asyncio.timeout(_REACHED_S):
                await self._frames_to(lane, leader)
        except (KafkaError, OSError):  # TimeoutError is an OSError
            self._avoid(leader)

    async def refresh(self) -> None:
        """Find out which partitions can be written. Raises BrokerDown where a topic has none, or is missing; KafkaError,
        OSError."""
        answer = await self._client.metadata(self._topics)
        groups: dict[str, dict[int, list[int]]] = {}
        leaders: dict[str, dict[int, int]] = {}
        numbers: dict[str, int] = {}
        leaders_max = 0
        topics = answer.to_object()["topics"]
        missing = [each["topic"] for each in topics if each["error_code"] == UnknownTopicOrPartitionError.errno]
        if missing:
            raise TopicsMissing(missing)
        for described in topics:
            name = described["topic"]
            by_leader: defaultdict[int, list[int]] = defaultdict(list)
            replicas: set[int] = set()
            leaders[name] = {}
            for partition in described["partitions"]:
                replicas.update(partition["replicas"])
                if partition["leader"] >= 0:
                    leaders[name][partition["partition"]] = partition["leader"]
                    if len(partition["isr"]) >= self._topics[name].in_sync_min:
                        by_leader[partition["leader"]].append(partition["partition"])
            if not by_leader:
                raise BrokerDown(f"no partition of {name} has a leader and min.insync.replicas")
            present = {leader: led for leader, led in by_leader.items() if not self._client.is_away(leader)}
            # A broker may not know all partitions of a topic that is being created, and they have no gaps once it does.
            numbers[name] = 1 + max(partition["partition"] for partition in described["partitions"])
            groups[name] = present or by_leader
            leaders_max = max(leaders_max, min(len(replicas), numbers[name]))
        for name, number in numbers.items():
            state = self._states[name]
            state.set_leaders([leaders[name].get(index, -1) for index in range(number)])
            by_broker = sorted(groups[name].items())
            state.set_groups([[state.partitions[index] for index in sorted(indexes)] for _, indexes in by_broker])
            before = self._partitions.get(name, number)
            self._partitions[name] = number
            if number > before:
                self._observer.partitions_added(name, before, number)
                self._logger.warning(
                    "a topic has more partitions: what is sent again before its first copy is stored may be stored twice",
                    topic=name,
                    before=before,
                    now=number,
                )
        self.queue.arrived.set()  # what waited for a leader
        self._leaders_max = leaders_max

    def _avoid(self, leader: int) -> None:
        """It was lost: batches to come go to other leaders, where a topic has any, until `refresh` finds that it answers."""
        self._client.lost(leader)
        self._avoided.set()
        for state in self._states.values():
            others = [group for group in state.groups if group[0].leader != leader]
            if others:
                state.set_groups(others)

    def takes_ordered(self, name: str) -> bool:
        """Return whether the partition of a topic's ordered messages can be written."""
        return self._states[name].partitions[ORDERED_PARTITION].group >= 0

    async def _identity(self) -> tuple[int, int]:
        """The id and epoch of a new producer. Raises KafkaError."""
        while True:
            answer = await self._client.ask_any(InitProducerIdRequest(None, 0))
            error = for_code(answer.error_code)
            if error is NoError:
                return answer.producer_id, answer.producer_epoch
            if error is not GroupLoadInProgressError:
                raise error
            await asyncio.sleep(_IDENTITY_S)

    def put(self, messages: Sequence[Message], append: Append) -> None:
        """All of them wait from here on, until `leave`."""
        self._appends += 1
        self._idle.clear()
        self.queue.put(messages, append)

    def leave(self) -> None:
        self._appends -= 1
        if self._appends == 0:
            self._idle.set()

    async def _run(self, lane: int, *, helps: bool) -> None:
        """`helps`: it is beyond its leader's first."""
        linger_s = self._options.linger_ms / 1000
        has_helpers = not helps and self._options.requests_in_flight_max > 1
        while True:
            if helps:
                await self._helping.wait()
            sendings = [
                self._sending(taken.partition, taken.batch) for taken in self.queue.take(lane, self._loop.time() - linger_s)
            ]
            if not sendings:
                await self._more(linger_s)
                continue
            timer = self._loop.call_later(_LATE_S, self._call_for_help, lane) if has_helpers else None
            try:
                await self._deliver(lane, sendings)
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers that wait must get it
                reason = text(error)
                refused = error.sending if isinstance(error, PartRefused) else sendings[0]
                self._observer.produce_failed(refused.partition.topic, "refused")
                for sending in sendings:
                    sending.batch.fail(f"{sending.partition.topic}: {reason}")
                if self.failed is not None:
                    self.failed(reason)
                return
            finally:
                for sending in sendings:
                    sending.partition.is_busy = False
                self.queue.arrived.set()  # what waited for one of these partitions
                if timer is not None:
                    timer.cancel()
                    self._late.discard(lane)
                    if not self._late:
                        self._helping.clear()

    def _call_for_help(self, lane: int) -> None:
        self._late.add(lane)
        self._helping.set()

    async def _more(self, linger_s: float) -> None:
        """Return when there may be something to take."""
        self.queue.arrived.clear()
        began = self.queue.first_that_lingers(self._loop.time() - linger_s) if linger_s else None
        if began is None:
            await self.queue.arrived.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(began + linger_s):
                await self.queue.arrived.wait()

    def _sending(self, partition: PartitionState, batch: PendingBatch) -> Sending:
        sequence = partition.sequence
        partition.sequence = next_sequence(sequence, len(batch.payloads))
        for append in batch.appends:
            append.is_sent = True
        now_ms = int(time.time() * 1000)
        pieces = partition_batch(
            partition.index, batch.payloads, now_ms, self._producer_id, self._epoch, sequence, self._options.compression
        )
        return Sending(partition, batch, pieces)

    async def _deliver(self, lane: int, sendings: Sequence[Sending]) -> None:
        """Return when all are durable. Raises PartRefused."""
        left = list(sendings)
        while left:
            by_leader: defaultdict[int, list[Sending]] = defaultdict(list)
            for sending in left:
                by_leader[sending.partition.leader].append(sending)
            left = []
            for leader, together in by_leader.items():
                try:
                    left += await self._send(lane, leader, together)
                except (KafkaError, OSError, TimeoutError, ValueError):
                    left += together  # whether it has them is not known; if it has, it will say so
                    self._avoid(leader)
            if left:
                await asyncio.sleep(_RESEND_S)
                with suppress(KafkaError, OSError, BrokerDown):
                    await self.refresh()

    async def _send(self, lane: int, leader: int, sendings: Sequence[Sending]) -> list[Sending]:
        """Those that have to be sent again. Raises KafkaError, OSError, TimeoutError, ValueError; and PartRefused."""
        frames = await self._frames_to(lane, leader)
        batches: dict[str, list[list[bytes]]] = {}
        for sending in sendings:
            batches.setdefault(sending.partition.topic, []).append(sending.pieces)
        timeout_s = self._options.request_timeout_s
        async with asyncio.timeout(timeout_s):
            answer = await frames.ask(PRODUCE_API, produce_request(batches, int(timeout_s * 1000)))
        codes = produce_answer(answer)
        again: list[Sending] = []
        for sending in sendings:
            code = codes[sending.partition.topic, sending.partition.index]
            if code == NoError.errno:
                self._durable(sending)
                continue
            error = for_code(code)
            if error is DuplicateSequenceNumber:
                self._durable(sending)
            elif error.retriable:
                again.append(sending)
            else:
                raise PartRefused(sending, text(error()))
        return again

    def _durable(self, sending: Sending) -> None:
        batch = sending.batch
        self.queue.waiting_bytes -= batch.size
        self._observer.produced(sending.partition.topic, len(batch.payloads), batch.size, self._loop.time() - batch.began)
        batch.succeed()
        if self.succeeded is not None:
            self.succeeded()

    async def _frames_to(self, lane: int, leader: int) -> Frames:
        """The lane's own connection to that broker, where it is now. Raises KafkaError, OSError."""
        broker = self._client.cluster.broker_metadata(leader)
        if broker is None:
            raise NodeNotReadyError(f"broker {leader} is not known")
        where = (lane, broker.host, broker.port)
        frames = self._frames.get(where)
        if frames is None or not frames.is_open:
            async with asyncio.timeout(self._options.answer_timeout_s):
                frames = self._frames[where] = await Frames.open(self._options, broker.host, broker.port)
        return frames

    async def flush(self) -> None:
        """Return when nothing waits, or after the time that an append has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.append_timeout_s):
                await self._idle.wait()

    async def abandon(self) -> None:
        """Close the connections, and forget what Kafka has not taken."""
        if self.timer is not None:
            self.timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for frames in self._frames.values():
            frames.close()
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._options.request_timeout_s):
                await self._client.close()


async def started(session: ProducerSession) -> ProducerSession:
    """Start a session, and return it; one that cannot start is abandoned. Raises what its start raises."""
    failure: BaseException | None = None
    try:
        await session.start()
    except BaseException as error:  # noqa: BLE001 - raised again below: compiled code must not await in a handler
        failure = error
    if failure is not None:
        await session.abandon()
        raise failure
    return session
