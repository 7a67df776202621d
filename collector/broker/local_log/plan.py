"""One transaction before it is executed: what each request changes, without I/O."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, assert_never

import google_crc32c

from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerDown, BrokerError, BrokerFull, Message, Range
from collector.broker.left_out import with_left_out
from collector.broker.local_log import schema
from collector.broker.local_log.chunks import chunk_key, chunks, pack_checksums, pack_lengths

# The bytes of a message in addition to its payload: its part of a row.
_MESSAGE_OVERHEAD_BYTES: Final = 20

Statement = tuple[str, tuple[object, ...]]


class PartitionHead(NamedTuple):
    """The offsets of a partition."""

    id: int
    committed: int  # the first offset that is not stored yet
    end: int  # the next message's offset
    intent: int | None  # the end of the range that is about to be written, which starts at `committed`
    intent_log: str = ""  # that range's `log` and `left_out`, in one text
    intent_depth: int = 0  # that range's `depth`
    floor: int = 0  # the least that `end` is, even if the last messages are lost

    def checksum(self, topic: str) -> int:
        """Return the checksum of the fields that the file keeps."""
        kept = (self.id, topic, self.committed, self.intent, self.intent_log, self.intent_depth, self.floor)
        return int(google_crc32c.value(repr(kept).encode()))


NO_HEAD: Final = PartitionHead(0, 0, 0, None)  # for a topic without any append


class LogAppend(NamedTuple):
    """Append messages."""

    messages: Sequence[Message]


class Intend(NamedTuple):
    """Note that messages are about to be inserted."""

    messages: Range


class Commit(NamedTuple):
    """Note that messages were inserted."""

    messages: Range


class Skip(NamedTuple):
    """Go on behind messages that can't be read. They are reported and kept elsewhere."""

    topic: str
    start: int
    end: int


class Probe(NamedTuple):
    """Write an unchanged value, durably, which shows whether the file can be written."""


Work = LogAppend | Intend | Commit | Skip | Probe


class LogPlan:
    """Collects the statements of one transaction, and the partitions' offsets after it. Does no I/O."""

    def __init__(
        self, heads: Mapping[str, PartitionHead], room_bytes: int, shortage: str | None = None, gone: str | None = None
    ) -> None:
        """`shortage` is why only dead letters are appended; `gone` is why nothing is. None: no such reason."""
        self._gone: Final = gone
        self._shortage: Final = shortage
        self.heads: Final = dict(heads)
        self._room_bytes = room_bytes
        self._statements: Final[list[Statement]] = []
        self._arriving: Final[dict[str, list[bytes]]] = {}

    def add(self, work: Work) -> BrokerError | None:
        """Add work to the transaction. If it is refused, return the error, and change nothing."""
        match work:
            case LogAppend(messages):
                return self._append(messages)
            case Intend(range_):
                return self._intend(range_)
            case Commit(range_):
                return self._commit(range_)
            case Skip():
                return self._skip(work)
            case Probe():
                self._statements.append((f"PRAGMA user_version = {schema.VERSION}", ()))
                return None
            case _:
                assert_never(work)

    def _append(self, messages: Sequence[Message]) -> BrokerError | None:
        need = sum(len(message.payload) + _MESSAGE_OVERHEAD_BYTES for message in messages)
        is_new = any(message.topic != DEAD_LETTERS_TOPIC for message in messages)
        if self._gone is not None:
            return BrokerDown(f"cannot append {need} bytes: {self._gone}")
        if is_new and self._shortage is not None:
            return BrokerFull(f"cannot append {need} bytes: {self._shortage}")
        if is_new and need > self._room_bytes:
            return BrokerFull(f"cannot append {need} bytes: the log is full but for {max(self._room_bytes, 0)}")
        self._room_bytes -= need
        for message in messages:
            self._arriving.setdefault(message.topic, []).append(message.payload)
        return None

    def _intend(self, range_: Range) -> BrokerError | None:
        topic, end = range_.partition.topic, range_.end
        head = self.heads.get(topic)
        if head is None or range_.start != head.committed or end > head.end or head.intent not in (None, end):
            return BrokerDown(f"cannot intend {text(range_)}: the partition is at {head}")
        log = with_left_out(range_.log, range_.left_out)
        self.heads[topic] = head = head._replace(intent=end, intent_log=log, intent_depth=range_.depth)
        values = (end, log or None, range_.depth, head.checksum(topic), head.id)
        self._statements.append((schema.INTEND, values))
        return None

    def _commit(self, range_: Range) -> BrokerError | None:
        topic, end = range_.partition.topic, range_.end
        head = self.heads.get(topic)
        if head is not None and end <= head.committed:
            return None
        if head is None or range_.start != head.committed or end != head.intent:
            return BrokerDown(f"cannot commit {text(range_)}: the partition is at {head}")
        self._take_out(topic, head, end)
        return None

    def _skip(self, skip: Skip) -> BrokerError | None:
        topic, start, end = skip
        head = self.heads.get(topic)
        if head is None or start != head.committed or end > head.end or head.intent not in (None, end):
            return BrokerDown(f"cannot skip {topic} {start} to {end}: the partition is at {head}")
        self._take_out(topic, head, end)
        return None

    def _take_out(self, topic: str, head: PartitionHead, end: int) -> None:
        self.heads[topic] = head = head._replace(committed=end, intent=None, intent_log="", intent_depth=0)
        self._statements.append((schema.COMMIT, (end, head.checksum(topic), head.id)))
        self._statements.append((schema.DELETE, (chunk_key(head.id, 0), chunk_key(head.id, end))))

    def statements(self) -> list[Statement]:
        """Return the statements, in the order in which to execute them. Call this once, at the end."""
        for topic, payloads in self._arriving.items():
            head = self.heads.get(topic)
            if head is None:
                head = PartitionHead(1 + max((other.id for other in self.heads.values()), default=0), 0, 0, None)
                self._statements.append((schema.ADD_HEAD, (head.id, topic, head.checksum(topic))))
            end = head.end
            for chunk in chunks(payloads):
                payload = chunk[0] if len(chunk) == 1 else b"".join(chunk)
                key = chunk_key(head.id, end)
                self._statements.append((schema.INSERT, (key, pack_lengths(chunk), payload, pack_checksums(topic, key, chunk))))
                end += len(chunk)
            self.heads[topic] = head._replace(end=end)
        return self._statements


def text(range_: Range) -> str:
    """Return the name of a range, for messages."""
    return f"{range_.partition.topic}/{range_.partition.index} {range_.start} to {range_.end}"
