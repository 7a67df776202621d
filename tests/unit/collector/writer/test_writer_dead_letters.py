"""The writer and infrasage.dead_letters, over a real local log: replays are stored once, whatever happens."""

import asyncio
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_REPLAYED,
    DeadLetter,
    DeadLetterEvent,
    DeadLetterRecord,
)
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.examples import examples
from support.fakes.brokers import LIMITS, TOPICS
from support.fakes.stores import Crash, FakeStore, batch, replayed

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, Message
from collector.broker.local_log import LocalLog
from collector.records.dead_letter import event_messages, item_id, messages, replay_batch_id
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits

MESSAGE_BYTES_MAX = 4096
REPLAYED = f"{DEAD_LETTER_ACTION_REPLAYED} "
REJECTED_AGAIN = f"{DEAD_LETTER_ACTION_REJECTED_AGAIN} "


class Observed:
    """A WriterObserver that remembers."""

    def __init__(self) -> None:
        self.lost = 0

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None: ...
    def write_failed(self, topic: str, kind: str) -> None: ...
    def dead_lettered(self, topic: str, records: int) -> None: ...

    def store_refused(self, source: str, items: int) -> None: ...

    def dropped(self, records: int) -> None:
        self.lost += records

    def completed(self, topic: str, rows: int, in_part: int) -> None: ...


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


class World:
    """A log, a store, and writers that come and go."""

    def __init__(self, log: LocalLog, store: FakeStore) -> None:
        self.log = log
        self.store = store
        self.observed = Observed()

    async def drain(self, bytes_max: int = 1_000_000) -> None:
        """Until all is stored; each crash is followed by another writer."""
        while True:
            limits = WriterLimits(
                bytes_max=bytes_max, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0, retry_max_s=0
            )
            keep = RefusedRecords(self.log, MESSAGE_BYTES_MAX, lambda: 1).keep
            writer = Writer(self.log, self.store, keep, limits, self.observed, sleep=no_sleep)
            running = asyncio.create_task(writer.run())
            draining = asyncio.create_task(writer.drained(60))
            await asyncio.wait({running, draining}, return_when=asyncio.FIRST_COMPLETED)
            writer.stop()
            try:
                await running
            except Crash:
                draining.cancel()
                continue
            assert await draining
            # What was refused meanwhile has become a dead letter, which is to be stored too.
            if not self.log.depth(DEAD_LETTERS_TOPIC):
                return


@asynccontextmanager
async def world(directory: Path, store: FakeStore | None = None) -> AsyncIterator[World]:
    async with await LocalLog.open(directory, LIMITS, (*TOPICS, DEAD_LETTERS_TOPIC)) as log:
        yield World(log, store or FakeStore())


def replay(letter: int, name: str, topic: str = METRICS_TOPIC, note: str = "") -> DeadLetterEvent:
    dead_letter_id = item_id(b"b" * 16, letter)
    batch_id = replay_batch_id(dead_letter_id)
    return DeadLetterEvent(
        id=item_id(b"e" * 16, zlib.crc32(name.encode())),
        dead_letter_id=dead_letter_id,
        action=DEAD_LETTER_ACTION_REPLAYED,
        note=note or name,
        batch_id=batch_id,
        topic=topic,
        payload=replayed(name, batch_id),
    )


async def test_replays_are_stored_with_their_events(tmp_path: Path) -> None:
    """The records as telemetry, with their receipts; and who did it."""
    async with world(tmp_path) as w:
        await w.log.append(event_messages([replay(1, "a"), replay(2, "b", LOGS_TOPIC)], MESSAGE_BYTES_MAX))
        await w.log.append(messages([DeadLetterRecord(letter=DeadLetter(id=b"i" * 16, message="entry"))], MESSAGE_BYTES_MAX))
        await w.drain()
        names = ["a", "b", "receipt of a", "receipt of b", REPLAYED + "a", REPLAYED + "b", "entry"]
        assert dict.fromkeys(names, 1) == w.store.rows


@pytest.mark.parametrize("bytes_max", [1, 1_000_000], ids=["two ranges", "one range"])
@pytest.mark.parametrize("topic", [METRICS_TOPIC, LOGS_TOPIC], ids=["same topic", "other topic"])
async def test_replayed_twice_stored_once(tmp_path: Path, bytes_max: int, topic: str) -> None:
    """This holds also if the second was edited differently, and after the store forgot its tokens. Both events are kept."""
    async with world(tmp_path, FakeStore(forgets=True)) as w:
        await w.log.append(event_messages([replay(1, "first")], MESSAGE_BYTES_MAX))
        await w.log.append(event_messages([replay(1, "second", topic)], MESSAGE_BYTES_MAX))
        await w.drain(bytes_max)
        names = ["first", "receipt of first", REPLAYED + "first", REPLAYED + "second"]
        assert dict.fromkeys(names, 1) == w.store.rows


@pytest.mark.parametrize(
    ("fault", "forgets"),
    [
        *((fault, False) for fault in ("insert begun", "insert half done", "half done, then down", "inserted", "answer lost")),
        *((fault, False) for fault in ("token without rows", "rows without token")),
        *((fault, True) for fault in ("insert begun", "inserted", "answer lost")),
    ],
)
async def test_a_replay_that_was_interrupted_is_completed(tmp_path: Path, fault: str, forgets: bool) -> None:
    """What of the range is there already came with the first attempt: it is not taken for an earlier replay, which would change
    what goes under the range's token."""
    async with world(tmp_path, FakeStore(faults=["", "", fault], forgets=forgets)) as w:
        await w.log.append(event_messages([replay(0, "before")], MESSAGE_BYTES_MAX))
        await w.drain()
        await w.log.append(event_messages([replay(n, f"{n}") for n in (1, 0, 2, 3)], MESSAGE_BYTES_MAX))
        await w.drain()
        names = [f"{receipt}{name}" for name in ("before", "1", "2", "3") for receipt in ("", "receipt of ", REPLAYED)]
        assert dict.fromkeys([*names, REPLAYED + "0"], 1) == w.store.rows


async def test_a_refused_replay_is_rejected_again(tmp_path: Path) -> None:
    """All of it is, with its receipt, and its repetitions are. Its neighbours are stored, without a new dead letter."""
    async with world(tmp_path) as w:
        events = [replay(1, "a"), replay(2, "bad"), replay(3, "b"), replay(2, "better", note="again")]
        await w.log.append(event_messages(events, MESSAGE_BYTES_MAX))
        await w.drain()
        stored = ["a", "b", "receipt of a", "receipt of b", REPLAYED + "a", REPLAYED + "b"]
        assert dict.fromkeys([*stored, REJECTED_AGAIN + "bad", REJECTED_AGAIN + "again"], 1) == w.store.rows
        assert w.observed.lost == 0


async def test_a_refused_replay_can_be_replayed_later(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in ("bad", "mended"):
            await w.log.append(event_messages([replay(1, name)], MESSAGE_BYTES_MAX))
            await w.drain()
        assert dict.fromkeys([REJECTED_AGAIN + "bad", "mended", "receipt of mended", REPLAYED + "mended"], 1) == w.store.rows


async def test_a_dead_letter_that_is_refused_comes_back_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, with its place, and counted; the others are stored."""
    async with world(tmp_path) as w:
        letters = [DeadLetterRecord(letter=DeadLetter(id=b"i" * 16, message=message)) for message in ("a", "bad one", "b")]
        await w.log.append(messages(letters, MESSAGE_BYTES_MAX))
        await w.drain()
        assert {"a": 1, "b": 1} == w.store.rows
        assert w.observed.lost == 1
    said = capsys.readouterr().out
    assert "the store refused a dead letter" in said
    assert "offset=0" in said
    assert "record=1" in said


async def test_what_the_store_refuses_becomes_an_entry(tmp_path: Path) -> None:
    """It goes through the log and the same writer."""
    async with world(tmp_path) as w:
        await w.log.append([Message(METRICS_TOPIC, batch("a", "bad", "b")), Message(METRICS_TOPIC, b"\x0a\xff")])
        await w.drain()
        meanings = Counter(name for name in w.store.rows if name not in ("a", "b"))
        assert {"a": 1, "b": 1}.items() <= w.store.rows.items()
        assert len(meanings) == 2  # one the store can't read, one nobody can
        assert all(w.store.rows[name] == 1 for name in meanings)


FAULTS = [
    *("", "", "down", "answer lost", "insert half done", "half done, then down", "inserted", "insert begun"),
    *("token without rows", "rows without token"),
]


@examples(60)
@given(
    replays=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(TOPICS), st.sampled_from(["good", "good", "bad"])), max_size=4),
        min_size=1,
        max_size=6,
    ),
    faults=st.lists(st.sampled_from(FAULTS), max_size=25),
    bytes_max=st.sampled_from([1, 400, 1_000_000]),
)
def test_whatever_fails_each_dead_letter_is_replayed_once(
    replays: list[list[tuple[int, str, str]]], faults: list[str], bytes_max: int
) -> None:
    """Of all replays of one dead letter at most one is stored, in one topic, with one receipt. Every event is there once, and
    says `replayed` only where the dead letter is stored."""

    async def run(directory: Path) -> None:
        store = FakeStore(faults=faults)
        async with world(directory, store) as w:
            names: dict[int, list[str]] = {}
            number = 0
            for message in replays:
                events = []
                for letter, topic, kind in message:
                    name = f"{kind}-{letter}-{number}"
                    number += 1
                    names.setdefault(letter, []).append(name)
                    events.append(replay(letter, name, topic))
                await w.log.append(event_messages(events, MESSAGE_BYTES_MAX))
            await w.drain(bytes_max)
        for attempts in names.values():
            stored = [name for name in attempts if store.rows[name]]
            assert len(stored) <= 1
            assert all(store.rows[name] == store.rows[f"receipt of {name}"] == 1 for name in stored)
            said = [store.rows[REPLAYED + name] for name in attempts]
            assert [1] * len(attempts) == [
                replayed_ + store.rows[REJECTED_AGAIN + name] for replayed_, name in zip(said, attempts, strict=True)
            ]
            assert bool(stored) == any(said)
        assert w.observed.lost == 0

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place) / "log"))


async def test_a_replay_of_version_1_is_stored_once(tmp_path: Path) -> None:
    """It was appended before an upgrade; and once more after it, in today's form."""
    batch_id = replay_batch_id(b"d" * 16)
    version_1 = TelemetryBatchV1()
    for name, items in (("a", 1), ("receipt of a", 0)):
        one = version_1.records.add(service_id=name, source=SOURCE_OTLP, item_count=items, batch_id=batch_id)
    one.receipt.received = 1
    async with world(tmp_path) as w:
        for payload in (version_1.SerializeToString(), replayed("a", batch_id)):
            event = DeadLetterEvent(action=DEAD_LETTER_ACTION_REPLAYED, batch_id=batch_id, topic=METRICS_TOPIC, payload=payload)
            await w.log.append(event_messages([event], MESSAGE_BYTES_MAX))
            await w.drain()
        assert {"a": 1, "receipt of a": 1, REPLAYED: 2} == w.store.rows
