"""The writer and a topic that others write, over a real local log in place of Kafka: stored once, whatever happens."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.brokers import LIMITS, TOPICS
from support.fakes.receiving import NOW_UNIX_NANO, otlp_logs
from support.fakes.stores import Crash, FakeStore
from support.fakes.writing import CRASHES, CrashingConsumer, Observed, World

from adapters.record import LOGS
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, Message, MessageContext, Range
from collector.broker.local_log import LocalLog
from collector.ingest.foreign_topics import ForeignTopic, ForeignTopics, TopicLimits
from collector.ingest.validate import Limits
from collector.records.dead_letter import Caps
from collector.writer.writer import Writer, WriterLimits

THEIRS = "otlp_logs"
NOW_MS = NOW_UNIX_NANO // 1_000_000
RULES = Limits(
    past_max_s=86_400,
    future_max_s=600,
    attributes_max=64,
    attribute_key_bytes_max=256,
    attribute_value_bytes_max=1024,
    name_bytes_max=256,
)


class WithContexts(CrashingConsumer):
    """Polls their topic as Kafka's consumer does."""

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        messages = await super().poll(bytes_max, wait_s)
        if messages is None or messages.partition.topic != THEIRS:
            return messages
        contexts = [MessageContext(messages.start + index, 0, NOW_MS, ()) for index in range(len(messages.payloads))]
        return messages._replace(contexts=contexts)


class Counting(Observed):
    """Also of what others wrote."""

    accepted = 0

    def ingested(self, adapted: object, dead_letters: object) -> None:
        self.accepted += adapted.accepted_count()  # type: ignore[attr-defined]


class TheirWorld(World):
    """Their topic beside ours."""

    observed: Counting

    def __init__(self, log: LocalLog, store: FakeStore) -> None:
        super().__init__(log, store)
        self.observed = Counting()
        self.ids: list[bytes] = []

    def their_writer(self, crash_at: str | None = None, row_bytes_max: int = 1 << 27) -> Writer:
        limits = WriterLimits(
            bytes_max=1_000_000, row_bytes_max=row_bytes_max, refusals_max=1000, linger_ms=0, retry_min_s=0.1, retry_max_s=30
        )
        given = TopicLimits(RULES, Caps(1000, 1 << 20), 1 << 19, 1 << 26, 1 << 19, 1 << 16)
        topics = ForeignTopics(
            [ForeignTopic(THEIRS, "otlp_proto", LOGS, "acme")],
            given,
            self.append_letters,
            self.observed,
            now_unix_nano=lambda: NOW_UNIX_NANO,
            pause=lambda: None,
        )
        return Writer(
            WithContexts(self.log, crash_at),
            self.store,
            self.keep,
            limits,
            self.observed,
            of_others=topics,
            clock=self.time.clock,
            sleep=self.time.sleep,
            jitter=lambda: 1.0,
        )

    async def append_letters(self, messages: Sequence[Message]) -> None:
        assert {DEAD_LETTERS_TOPIC} == {message.topic for message in messages}
        for message in messages:
            self.ids += [record.letter.id for record in DeadLetterBatch.FromString(message.payload).records]

    async def write_theirs(self, *bodies: bytes) -> None:
        for body in bodies:
            await self.log.append([Message(THEIRS, body)])


async def their_world(directory: Path, store: FakeStore) -> TheirWorld:
    return TheirWorld(await LocalLog.open(directory, LIMITS, (*TOPICS, THEIRS)), store)


def body(service: str, late: int = 0) -> bytes:
    request = ExportLogsServiceRequest.FromString(otlp_logs(good=2, late=late))
    request.resource_logs[0].resource.attributes.add(key="service.name").value.string_value = service
    return request.SerializeToString()


@pytest.mark.parametrize("crash_at", CRASHES)
async def test_a_crash_anywhere_loses_and_repeats_nothing(tmp_path: Path, crash_at: str) -> None:
    """The writer dies at one step; another goes on: every message is there once, and the ids of dead letters are the same."""
    store = FakeStore(crash_at=crash_at)
    w = await their_world(tmp_path, store)
    await w.write_theirs(body("a"), b"\xff\xff", body("b", late=1), b"", body("c"))
    await w.append(LOGS_TOPIC, "ours")
    with pytest.raises(Crash):
        await asyncio.wait_for(w.their_writer(crash_at).run(), 30)
    died_with = list(w.ids)
    await w.log.close()
    again = await their_world(tmp_path, store)
    await again.drain(again.their_writer())
    await again.log.close()
    assert {"a": 1, "b": 1, "c": 1, "ours": 1, "": 3} == store.rows, "the receipts have no service"
    assert not died_with or not again.ids or died_with == again.ids
    assert 2 == len(set(died_with + again.ids))


async def test_nothing_but_bad_messages_is_no_standstill(tmp_path: Path) -> None:
    """A range of which nothing is left is committed, and what comes behind it is stored."""
    store = FakeStore()
    w = await their_world(tmp_path, store)
    await w.write_theirs(b"\xff", b"", b"\xfe")
    await w.drain(w.their_writer())
    assert (0, 2) == (store.inserts, len(w.ids))
    await w.write_theirs(body("a"))
    await w.drain(w.their_writer())
    assert {"a": 1, "": 1} == store.rows
    assert (2, 0) == (w.observed.accepted, w.log.depth(THEIRS))
    await w.log.close()


async def test_a_dead_letter_is_durable_before_the_commit(tmp_path: Path) -> None:
    store = FakeStore()
    w = await their_world(tmp_path, store)
    failures = 2

    async def fails(messages: Sequence[Message]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("away")
        assert w.log.depth(THEIRS), "it was committed before"
        await TheirWorld.append_letters(w, messages)

    w.append_letters = fails  # type: ignore[method-assign]
    await w.write_theirs(b"\xff", body("a"))
    await w.drain(w.their_writer())
    assert ({"a": 1, "": 1}, 1, 0) == (store.rows, len(w.ids), failures)
    await w.log.close()


async def test_what_the_store_refuses_of_theirs_can_be_replayed(tmp_path: Path) -> None:
    """Its dead letter names the topic of ours, by which a replay is stored, and where it came from."""
    store = FakeStore()
    w = await their_world(tmp_path, store)
    await w.write_theirs(body("bad"), body("a"))
    await w.drain(w.their_writer())
    assert {"a": 1, "": 2} == store.rows
    letters = [letter for letter in w.entries if letter.service_id == "bad"]
    assert {(LOGS_TOPIC, f"kafka:{THEIRS}", 0)} == {(letter.topic, letter.route, letter.offset) for letter in letters}
    assert 2 == sum(letter.item_count for letter in letters)
    await w.log.close()


async def test_a_range_that_is_too_large_is_cut_between_messages(tmp_path: Path) -> None:
    """It is cut by the bytes of its rows, as ours are, and each message is counted once."""
    store = FakeStore()
    w = await their_world(tmp_path, store)
    names = [f"service {number}" for number in range(20)]
    await w.write_theirs(*[body(name, late=1) for name in names])
    await w.drain(w.their_writer(row_bytes_max=2000))
    assert {**dict.fromkeys(names, 1), "": 20} == store.rows
    assert (40, 20, 20) == (w.observed.accepted, len(w.ids), len(set(w.ids)))
    assert len(store.asked) > 1
    await w.log.close()
