"""The identity of a log, as Kafka's answers tell it."""

import struct
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest

from collector.broker.kafka.identity import TopicLog, epoch_of, log_of, metadata_answer

NO_TAGS = b"\0"
SOME_TAGS = b"\x02\x05\x03abc\x07\x00"  # two tagged fields: number 5, of three bytes, and number 7, of none


def text(said: str) -> bytes:
    return bytes([len(said) + 1]) + said.encode()


def answer(topics: Mapping[str, tuple[int, UUID, Sequence[Sequence[int]]]], tags: bytes = NO_TAGS) -> bytes:
    """Metadata version 10, behind the request's id. `topics`: an error, the topic's id, and of each partition the replicas."""
    out = [tags, struct.pack(">i", 0), bytes([3])]
    out += [struct.pack(">i", node) + text("broker") + struct.pack(">i", 9092) + text("rack") + tags for node in (1, 2)]
    out += [text("the cluster"), struct.pack(">i", 1), bytes([len(topics) + 1])]
    for name, (error, id_, partitions) in topics.items():
        out += [struct.pack(">h", error), text(name), id_.bytes, b"\0", bytes([len(partitions) + 1])]
        for number, replicas in enumerate(partitions):
            nodes = bytes([len(replicas) + 1]) + struct.pack(f">{len(replicas)}i", *replicas)
            out += [struct.pack(">hiii", 0, number, replicas[0], number + 7), nodes, nodes, b"\1", tags]
        out += [struct.pack(">i", 0), tags]
    return b"".join([*out, struct.pack(">i", 0), tags])


@pytest.mark.parametrize("replicas", [[1], [1, 2], [3, 1, 2]])
@pytest.mark.parametrize("partitions", [1, 6, 100])
@pytest.mark.parametrize("tags", [NO_TAGS, SOME_TAGS])
def test_each_topic_of_an_answer_has_its_identity(partitions: int, replicas: Sequence[int], tags: bytes) -> None:
    """This holds however many partitions the topics before it have. Each partition has its leader's epoch."""
    ids = {f"topic.{number}": UUID(int=number) for number in range(1, 5)}
    said = answer({name: (0, id_, [replicas] * partitions) for name, id_ in ids.items()}, tags)
    epochs = {number: number + 7 for number in range(partitions)}
    logs = {name: TopicLog(f"the%20cluster.{id_}", epochs) for name, id_ in ids.items()}
    assert logs == metadata_answer(memoryview(said))


def test_a_topic_that_is_not_there_has_none() -> None:
    said = answer({"gone": (3, UUID(int=1), []), "there": (0, UUID(int=2), [[1]])})
    assert {"there": TopicLog(f"the%20cluster.{UUID(int=2)}", {0: 7})} == metadata_answer(memoryview(said))


@pytest.mark.parametrize(("log", "epoch"), [(log_of("cluster.topic", 12), 12), (log_of("cluster.-", -1), -1), ("", -1)])
def test_the_epoch_of_a_log_is_known_or_not(log: str, epoch: int) -> None:
    assert epoch == epoch_of(log)
