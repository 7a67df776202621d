"""One idempotent session of the producer: its id, its batches, and its requests in flight to leaders."""

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

# After a request of the first lane has been in flight for so long, the other lanes send too.
_LATE_S: Final = 0.003
# How long to wait before a batch is sent again, after its leader has moved or is away.
_RESEND_S: Final = 0.1
# How long to wait before the producer id is asked for again. A broker that has just started answers that it is loading ids.
_IDENTITY_S: Final = 0.05
# How often the cluster's metadata is read, while a partition has no leader that answers.
_LEADERLESS_S: Final = 0.25
# How long a new session waits until its leaders answer. Leaders that do not answer in this time get no batches.
_REACHED_S: Final = 0.5


class PartRefused(Exception):
    """Kafka has refused a batch for good."""

    def __init__(self, sending: Sending, reason: str) -> None:
        super().__init__(reason)
        self.sending: Final = sending


class ProducerSession:
    """One idempotent producer. It ends when Kafka refuses a batch, or a batch fails."""

    def __init__(
        self, options: KafkaOptions, topics: Mapping[str, Topic], partitions: dict[str, int], observer: ProduceObserver
    ) -> None:
        """`partitions` is the number of partitions of each topic, as earlier sessions knew it. This session updates it."""
        self.failed: Callable[[str], None] | None = None
        """Called, with the reason, when a batch has failed."""
        self.succeeded: Callable[[], None] | None = None
        """Called when a batch is durable."""
        self.overdue: Final[deque[Append]] = deque()  # appends that have a deadline, in the order of their deadlines
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
        self._avoided: Final = asyncio.Event()  # set if a leader was lost since the metadata was last read
        self._producer_id = -1
        self._epoch = -1
        self._idle: Final = asyncio.Event()  # set while no append waits
        self._idle.set()
        self._helping: Final = self.queue.filled  # set while the lanes beyond the first send too
        self._late: Final[set[int]] = set()  # the first lanes whose request is in flight for longer than _LATE_S
        self._appends = 0
        self._tasks: Final[list[asyncio.Task[None]]] = []  # the tasks of the lanes, and of `_refresh_regularly`
        self._frames: Final[dict[tuple[int, str, int], Frames]] = {}  # the connections of each lane, by host and port
        self._leaders_max = 0  # how many brokers may lead partitions of a topic
        self._client: Final = Client(options)

    async def start(self) -> None:
        """Connect, get a producer id, and start the lanes. Raises KafkaError, OSError, BrokerDown."""
        await self._client.bootstrap()
        self._producer_id, self._epoch = await self._identity()
        await self.refresh()
        leaders = {partition.leader for state in self._states.values() for partition in state.partitions}
        leaders.discard(-1)
        await asyncio.gather(*(self._connect(lane, leader) for lane, leader in enumerate(sorted(leaders))))
        first = self.queue.first_lanes = self._leaders_max
        lanes = range(first * self._options.requests_in_flight_max)
        self._tasks.extend(asyncio.create_task(self._run(lane, helps=lane >= first), name=f"kafka-{lane}") for lane in lanes)
        self._tasks.append(asyncio.create_task(self._refresh_regularly(), name="kafka-metadata"))

    async def _refresh_regularly(self) -> None:
        """Read the metadata from time to time, to find new partitions, new leaders, and brokers that are back."""
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

    async def _connect(self, lane: int, leader: int) -> None:
        """Connect a lane to a leader. If that fails, avoid the leader, since a batch that is not acknowledged in time ends
        the session."""
        try:
            async with asyncio.timeout(_REACHED_S):
                await self._frames_to(lane, leader)
        except (KafkaError, OSError):  # TimeoutError is an OSError
            self._avoid(leader)

    async def refresh(self) -> None:
        """Find out which partitions can be written. Raises BrokerDown if a topic has none, or is missing; KafkaError,
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
            present = {leader: led for leader, led in by_leader.items() if not self._client.is_unreachable(leader)}
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
                    "a topic has more partitions: a request repeated before its first copy is stored may be stored twice",
                    topic=name,
                    before=before,
                    now=number,
                )
        self.queue.arrived.set()  # batches that waited for a leader can be sent
        self._leaders_max = leaders_max

    def _avoid(self, leader: int) -> None:
        """Send later batches to other leaders, if a topic has any, until `refresh` finds that this leader answers again."""
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
        """Return the id and the epoch of a new producer. Raises KafkaError."""
        while True:
            answer = await self._client.ask_any(InitProducerIdRequest(None, 0))
            error = for_code(answer.error_code)
            if error is NoError:
                return answer.producer_id, answer.producer_epoch
            if error is not GroupLoadInProgressError:
                raise error
            await asyncio.sleep(_IDENTITY_S)

    def put(self, messages: Sequence[Message], append: Append) -> None:
        """Queue messages. Their append waits from now until `leave`."""
        self._appends += 1
        self._idle.clear()
        self.queue.put(messages, append)

    def leave(self) -> None:
        self._appends -= 1
        if self._appends == 0:
            self._idle.set()

    async def _run(self, lane: int, *, helps: bool) -> None:
        """Send batches, one request at a time. `helps`: this is not the first lane to its leader."""
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
            timer = self._loop.call_later(_LATE_S, self._start_helpers, lane) if has_helpers else None
            try:
                await self._deliver(lane, sendings)
            except Exception as error:  # noqa: BLE001 - the waiting callers must get every error
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
                self.queue.arrived.set()  # batches that waited for one of these partitions can be sent
                if timer is not None:
                    timer.cancel()
                    self._late.discard(lane)
                    if not self._late:
                        self._helping.clear()

    def _start_helpers(self, lane: int) -> None:
        self._late.add(lane)
        self._helping.set()

    async def _more(self, linger_s: float) -> None:
        """Return when there may be a batch to take."""
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
            append.may_be_kept = True
        now_ms = int(time.time() * 1000)
        pieces = partition_batch(
            partition.index, batch.payloads, now_ms, self._producer_id, self._epoch, sequence, self._options.compression
        )
        return Sending(partition, batch, pieces)

    async def _deliver(self, lane: int, sendings: Sequence[Sending]) -> None:
        """Send batches until all of them are durable. Raises PartRefused."""
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
                    left += (
                        together  # if the leader has appended them already, it answers that the sequence number is a duplicate
                    )
                    self._avoid(leader)
            if left:
                await asyncio.sleep(_RESEND_S)
                with suppress(KafkaError, OSError, BrokerDown):
                    await self.refresh()

    async def _send(self, lane: int, leader: int, sendings: Sequence[Sending]) -> list[Sending]:
        """Send batches to one leader. Return those that have to be sent again. Raises PartRefused, KafkaError, OSError,
        TimeoutError, ValueError."""
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
        """Return the lane's own connection to a broker, at the broker's current address. Raises KafkaError, OSError."""
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
        """Return when no append waits, or after `append_timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.append_timeout_s):
                await self._idle.wait()

    async def abandon(self) -> None:
        """Close the connections, and drop the batches that Kafka has not acknowledged."""
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
    """Start a session, and return it. A session that cannot start is abandoned. Raises the errors of `start`."""
    failure: BaseException | None = None
    try:
        await session.start()
    except BaseException as error:  # noqa: BLE001 - raised again below: compiled code must not await in a handler
        failure = error
    if failure is not None:
        await session.abandon()
        raise failure
    return session
