"""The contract of a broker, for the pipeline and the writer. Kafka and the local log both implement it.

Invariants, each held by tests/contracts/test_broker_contract.py for both brokers:
1. `append` returns only when every message survives a crash (test_kill_9_loses_nothing_that_was_acknowledged).
2. A range that was read under an intent can be read again, with the same bytes, until its end is committed
   (test_an_intent_fixes_the_range).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from collector.broker.message import Message

__all__ = [
    "DEAD_LETTERS_TOPIC",
    "LOGS_TOPIC",
    "METRICS_TOPIC",
    "SIGNAL_TOPICS",
    "TELEMETRY_TOPICS",
    "TOPICS",
    "TOPIC_ENCODINGS",
    "TRACES_TOPIC",
    "BrokerDown",
    "BrokerError",
    "BrokerFull",
    "Consumer",
    "Message",
    "MessageContext",
    "Partition",
    "Payload",
    "Position",
    "Producer",
    "Range",
    "Unread",
]

METRICS_TOPIC = "infrasage.metrics"
LOGS_TOPIC = "infrasage.logs"
TRACES_TOPIC = "infrasage.traces"
DEAD_LETTERS_TOPIC = "infrasage.dead_letters"

SIGNAL_TOPICS: Final = {"metrics": METRICS_TOPIC, "logs": LOGS_TOPIC, "traces": TRACES_TOPIC}
"""The topic of each signal, by the signal's name."""
TOPIC_ENCODINGS: Final = ("otlp_proto", "otlp_json")
"""The encodings of messages in topics that others write, by the OpenTelemetry Collector's names."""
TELEMETRY_TOPICS: Final = tuple(SIGNAL_TOPICS.values())
TOPICS: Final = (*TELEMETRY_TOPICS, DEAD_LETTERS_TOPIC)


# A message as it was read: its own bytes, or a part of a receive buffer.
Payload = bytes | memoryview


class BrokerError(Exception):
    """A call failed; the same call may succeed later."""


class BrokerFull(BrokerError):
    """The broker refuses messages until others have been removed. It kept none."""


class BrokerDown(BrokerError):
    """The broker can't be reached, or can't write. It may have kept the messages all the same: sending them again may store
    them twice."""


@dataclass(frozen=True, slots=True)  # not a NamedTuple: a tuple's own `index` is a method
class Partition:
    """One ordered sequence of messages."""

    topic: str
    index: int


class Unread(NamedTuple):
    """States why a payload is only the beginning of its message's value, or of its batch. `size_bytes` is the whole size."""

    why: str
    is_too_large: bool
    size_bytes: int


class MessageContext(NamedTuple):
    """The parts of a message that others wrote, except its value. `leader_epoch` is the epoch of the leader that wrote it, and
    `timestamp_ms` is in milliseconds since the Unix epoch; -1 means that the message has none."""

    offset: int
    leader_epoch: int
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes]]
    unread: Unread | None = None


class Range(NamedTuple):
    """Consecutive messages of one partition, from offset `start` up to but not including `end`.

    `in_doubt`: there was an intent for exactly this range when it was read, so it may have been written before.
    `log`: the identity of the log that the offsets belong to. Offsets repeat when a log is replaced (its file is removed, its
    topic is recreated, Kafka is replaced), and then `log` differs. Before the intent the writer adds a digest of the messages
    (collector/broker/range_digest.py). Each reader of this range sees the same `log` until its commit.
    It is empty for an intent of a version that knew no identities.
    `depth`: how often the range is halved before it is inserted. It is chosen before the intent, or by a later intent.
    `left_out`: which of the messages are repetitions and are not inserted, as a bitmap (collector/broker/left_out.py). It is
    chosen before the intent.
    `contexts`: the context of each message, if others write the topic.
    `topic`: the topic of ours that the messages are stored as; empty: the partition's own topic.
    """

    partition: Partition
    start: int
    end: int
    payloads: Sequence[Payload]
    in_doubt: bool = False
    log: str = ""
    depth: int = 0
    left_out: bytes = b""
    contexts: Sequence[MessageContext] = ()
    topic: str = ""

    @property
    def stored_as(self) -> str:
        """Return the topic, one of ours, that the messages are stored as."""
        return self.topic or self.partition.topic


class Position(NamedTuple):
    """The progress of a partition, at one moment."""

    committed: int  # the offset of the first message that is not committed
    end: int  # the offset after the last message that is durable


class Producer(Protocol):
    """The gateway's side of a broker."""

    async def append(self, messages: Sequence[Message]) -> None:
        """Return only when all of them are durable. Raises BrokerFull, BrokerDown: then the sender may send all again.

        The last message is never kept without all the others, whatever fails or dies meanwhile. So it may refer to them.
        """


class Consumer(Protocol):
    """The writer's side of a broker. One `Range` of a partition is in progress at a time: read, intent, (write), commit. A
    caller that abandons a range before its commit polls again: the range comes back, in doubt if it was intended. Every method
    raises BrokerDown."""

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        """Return the next uncommitted messages of some partition that is ours: at least one, and no more than `bytes_max`
        unless the first alone is larger. If there is an intent, return exactly its range. Return None if no message came
        within `wait_s`. Partitions take turns."""

    async def intend(self, messages: Range) -> None:
        """Commit that this range is about to be written, with its `log`, `depth` and `left_out`. Raises BrokerDown if the
        partition is no longer ours. May be repeated, also with another depth. A range that is not in doubt may be intended in
        part: up to any `end` between two of its messages."""

    async def commit(self, messages: Range) -> None:
        """Commit that this range is stored, and forget its intent. May be repeated."""

    async def positions(self) -> dict[Partition, Position]:
        """Return the position of every partition that is ours. Every message appended before the call is before `end`."""

    async def progress(self) -> dict[Partition, Position]:
        """Return the same as `positions`, but a partition whose broker does not answer keeps its last known end."""

    async def lag(self) -> dict[Partition, int]:
        """Return the number of messages that are not committed yet, by partition, from the positions of `progress`."""
