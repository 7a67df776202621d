"""The identity of a partition's log: the cluster's id and the topic's id.

It differs after a topic was deleted and created again, and after Kafka was replaced under the same address. Offsets then begin
again, and do not show what was stored before. The committed offset's metadata keeps the identity, so that a reader of the
offset knows to which log it belongs. Topic ids are in Metadata version 10 and later (Kafka 2.8). An older broker has
cluster ids only. Source: kafka.apache.org, "Metadata API" version 10.

Invariants:
1. Metadata that any version of this program wrote is read as it was written (test_metadata_comes_back_as_it_was_written).
2. Metadata of a version without identities has none, and its intent stays as it was (test_an_old_intent_has_no_identity).
"""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote
from uuid import UUID

from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.metadata import MetadataRequest_v5, MetadataResponse_v5

from collector.broker.kafka.connection_pool import Brokers
from collector.broker.range_digest import without_digest

METADATA_API: Final = (3, 10)
_OLD_METADATA_API: Final = (3, 5)
_INT16: Final = struct.Struct(">h")
_METADATA_PARTITION: Final = struct.Struct(">hiii")  # an error, the partition's number, its leader, and the leader's epoch
_NO_TAGS: Final = b"\0"
_NO_TOPIC_ID: Final = bytes(16)
_METADATA_VERSION: Final = "2"


class Committed(NamedTuple):
    """The content of a committed offset's metadata."""

    log: str  # the identity of the log that the offset belongs to; empty: not known
    intent: int | None  # the end of the range that is about to be written
    depth: int  # the depth of that range, as in Range

    @classmethod
    def read(cls, metadata: str) -> Self | None:
        """Return the content of metadata; None if it is not ours."""
        version, *rest = metadata.split(" ")
        if not metadata:
            return cls("", None, 0)
        if not rest and _is_number(metadata):
            return cls("", int(metadata), 0)  # written by a version without identities
        if (
            version != _METADATA_VERSION
            or len(rest) not in (1, 3)
            or not rest[0]
            or not all(_is_number(each) for each in rest[1:])
        ):
            return None
        log = "" if rest[0] == "-" else rest[0]
        return cls(log, int(rest[1]), int(rest[2])) if len(rest) > 1 else cls(log, None, 0)

    def metadata(self) -> str:
        if not self.log and not self.depth:
            return "" if self.intent is None else str(self.intent)
        fields = [_METADATA_VERSION, self.log or "-"]
        return " ".join(fields if self.intent is None else [*fields, str(self.intent), str(self.depth)])


class TopicLog(NamedTuple):
    """A topic as a broker knows it."""

    identity: str
    leader_epochs: Mapping[int, int]
    """The epoch of each partition's leader, which grows with every new leader. Empty if the broker does not report epochs."""


def log_of(identity: str, leader_epoch: int) -> str:
    """Return the identity of a log for a range's `log`. Messages of one partition with the same offset and epoch are the same:
    if Kafka lost the end of a log, the messages written there next have another epoch."""
    return f"{identity}.{leader_epoch}"


def epoch_of(log: str) -> int:
    """Return the epoch of the leader that wrote a range's last message; below 0 if it is not known."""
    epoch = without_digest(log).rpartition(".")[2]
    return int(epoch) if _is_number(epoch) else -1


def identity_of(log: str) -> str:
    """Return the identity in a range's `log`, without the epoch."""
    return log.rpartition(".")[0]


async def topic_logs(brokers: Brokers, client: Any, node: int, topics: Sequence[str]) -> dict[str, TopicLog]:
    """Return the logs of those topics that the broker knows. Raises KafkaError, OSError."""
    try:
        answer = await brokers.ask(client, node, METADATA_API, [metadata_request(topics)])
    except IncompatibleBrokerVersion:
        request: bytes = MetadataRequest_v5(list(topics), False).encode()
        old = MetadataResponse_v5.decode(io.BytesIO(await brokers.ask(client, node, _OLD_METADATA_API, [request])))
        return {topic: TopicLog(f"{quote(old.cluster_id or '', safe='')}.-", {}) for _, topic, *_ in old.topics}
    try:
        return metadata_answer(answer)
    except (ValueError, IndexError, struct.error) as error:
        raise KafkaError(f"{len(answer)} bytes are not an answer about topics") from error


def metadata_request(topics: Sequence[str]) -> bytes:
    """Return a request about these topics that creates none. It begins with the end of the request's header, which has tags."""
    out = [_NO_TAGS, _compact(len(topics))]
    for topic in topics:
        name = topic.encode()
        out += [_NO_TOPIC_ID, _compact(len(name)), name, _NO_TAGS]
    # No creation; neither the cluster's nor the topics' authorized operations.
    out += [bytes(3), _NO_TAGS]
    return b"".join(out)


def metadata_answer(answer: memoryview) -> dict[str, TopicLog]:
    """Return the topics that the broker knows, by name. Raises ValueError, IndexError, struct.error."""
    reader = _Reader(bytes(answer))
    reader.tags()
    reader.at += 4  # the time that the broker has held it back
    for _ in range(reader.count()):
        reader.at += 4
        reader.text()
        reader.at += 4
        reader.text()
        reader.tags()
    cluster = quote(reader.text(), safe="")
    reader.at += 4  # the controller
    found: dict[str, TopicLog] = {}
    for _ in range(reader.count()):
        (code,) = _INT16.unpack_from(reader.buffer, reader.at)
        reader.at += 2
        topic = reader.text()
        id_ = reader.buffer[reader.at : reader.at + 16]
        reader.at += 17  # whether it is internal
        leader_epochs: dict[int, int] = {}
        for _ in range(reader.count()):
            _, index, _, leader_epochs[index] = _METADATA_PARTITION.unpack_from(reader.buffer, reader.at)
            reader.at += _METADATA_PARTITION.size
            for _ in range(3):
                nodes = reader.count()  # in its own statement: it moves `at`, which `+=` would have read before
                reader.at += 4 * nodes
            reader.tags()
        reader.at += 4
        reader.tags()
        if code == 0:
            identity = f"{cluster}.{UUID(bytes=id_) if id_ != _NO_TOPIC_ID else '-'}"
            found[topic] = TopicLog(identity, leader_epochs)
    return found


class _Reader:
    """Reads Kafka's compact types: a length is a varint of one more than the length, and 0 means null."""

    def __init__(self, buffer: bytes) -> None:
        self.buffer: Final = buffer
        self.at = 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.buffer[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def count(self) -> int:
        return max(0, self.varint() - 1)

    def text(self) -> str:
        size = self.count()
        self.at += size
        return str(self.buffer[self.at - size : self.at], "utf-8")

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            size = self.varint()
            self.at += size


def _compact(count: int) -> bytes:
    value = count + 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
