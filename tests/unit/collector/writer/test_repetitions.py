"""Requests that are sent again, and a writer over a real local log that crashes anywhere: each is stored once."""

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, Receipt
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from support.examples import examples
from support.fakes.stores import Crash, FakeStore
from support.fakes.writing import CRASHES, TOPIC, World, world
from support.records import encoded

from collector.broker.contract import Message
from collector.broker.left_out import LEFT_OUT_INDEX_MAX

WINDOW_S = 900
START_NS = 1_790_000_000 * 10**9


class Attempt(NamedTuple):
    """A request as a gateway appends it. `parts`: how many of its messages come before the attempt breaks off."""

    tenant: str
    request: int
    parts: int = 9
    after_s: int = 0  # seconds since the first attempt
    version_1: bool = False


def items_of(request: int) -> list[list[str]]:
    """The names of a request's items, by message: some requests have one message, some have three."""
    return [[f"{request}.{part}.{n}" for n in range(1 + (request + part) % 3)] for part in range(1 + request % 3)]


def message(attempt: Attempt, part: int, number: int) -> bytes:
    """`number`: of the attempt, so that copies of an item differ."""
    names = items_of(attempt.request)

    def record(name: str, items: int) -> TelemetryRecordV1:
        return TelemetryRecordV1(
            source=SOURCE_OTLP,
            service_id=f"{name}@{number}",
            item_count=items,
            tenant_id=attempt.tenant,
            received_time_unix_nano=START_NS + attempt.after_s * 10**9,
            batch_id=number.to_bytes(16, "big"),
            batch_part=part,
        )

    records = [record(name, 1) for name in names[part]]
    end = record(f"end of {part}", 0)
    end.fingerprint = fingerprint(attempt.request, part)
    if part == len(names) - 1:
        end.receipt.CopyFrom(Receipt(received=sum(map(len, names))))
    made = TelemetryBatchV1(records=[*records, end])
    return made.SerializeToString() if attempt.version_1 else encoded(made)


def fingerprint(request: int, part: int) -> bytes:
    """The same for each tenant: the writer distinguishes tenants."""
    return bytes([request, part]) * 8


async def append(w: World, attempt: Attempt, number: int) -> None:
    for part in range(min(attempt.parts, len(items_of(attempt.request)))):
        await w.log.append([Message(TOPIC, message(attempt, part, number))])


def stored_items(store: FakeStore) -> Counter[str]:
    """How often each item is stored, by its name, whatever attempt brought it."""
    found: Counter[str] = Counter()
    for name, times in store.rows.items():
        if not name.startswith("end of"):
            found[name.partition("@")[0]] += times
    return found


def balance(store: FakeStore, attempts: list[Attempt]) -> dict[tuple[int, int], int]:
    """Of each message that came: its items, less those stored, less those counted as left out."""
    left: dict[tuple[int, int], int] = {}
    for number, attempt in enumerate(attempts):
        for part, names in list(enumerate(items_of(attempt.request)))[: attempt.parts]:
            stored = sum(store.rows[f"{name}@{number}"] for name in names)
            left[number, part] = len(names) - stored - store.repeated[number.to_bytes(16, "big"), part]
    return left


ATTEMPTS = st.builds(
    Attempt,
    tenant=st.sampled_from(["a", "b"]),
    request=st.integers(0, 5),
    parts=st.integers(1, 4),
    after_s=st.integers(0, WINDOW_S // 2),
    version_1=st.booleans(),
)


@examples(60)
@given(
    rounds=st.lists(st.lists(ATTEMPTS, min_size=1, max_size=8), min_size=1, max_size=4),
    faults=st.lists(
        st.sampled_from(["", "", "down", "answer lost", "insert half done", "half done, then down", "inserted"]), max_size=20
    ),
    crashes=st.lists(st.sampled_from([None, *CRASHES]), max_size=10),
    bytes_max=st.sampled_from([1, 300, 100_000]),
    keys_max=st.sampled_from([4, 1000]),
)
def test_each_request_is_stored_once(
    rounds: list[list[Attempt]], faults: list[str], crashes: list[str | None], bytes_max: int, keys_max: int
) -> None:
    """Of each message that came at least once, each item is stored once; what was left out is counted; tenants are apart. A
    repetition is one across an upgrade, too."""

    async def run(directory: Path) -> None:
        store = FakeStore(faults=faults)
        coming = iter(crashes)
        attempts = [attempt for each in rounds for attempt in each]
        number = 0
        for each in rounds:  # a new process each
            async with world(directory, store) as w:
                for attempt in each:
                    await append(w, attempt, number)
                    number += 1
                await w.drain_through_crashes(
                    lambda: w.writer(next(coming, None), bytes_max, window_s=WINDOW_S, keys_max=keys_max)
                )
        came = {
            (attempt.tenant, name)
            for attempt in attempts
            for names in items_of(attempt.request)[: attempt.parts]
            for name in names
        }
        assert Counter(name for _, name in came) == stored_items(store)
        assert {0} == set(balance(store, attempts).values())

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place) / "log"))


@pytest.mark.parametrize("crash_at", CRASHES)
async def test_a_crash_changes_nothing_of_what_is_left_out(tmp_path: Path, crash_at: str) -> None:
    """The insert under one token has the same bytes, though the store knows more at the second attempt."""
    store = FakeStore(crash_at=crash_at)
    attempts = [Attempt("a", 2), Attempt("a", 0, version_1=True), Attempt("a", 2, version_1=True), Attempt("a", 2)]
    async with world(tmp_path, store) as w:
        for number, attempt in enumerate(attempts):
            await append(w, attempt, number)
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer(crash_at, window_s=WINDOW_S).run(), 30)
        await w.drain(w.writer(window_s=WINDOW_S))
    assert {0} == set(balance(store, attempts).values())
    assert {1} == set(stored_items(store).values())


async def test_after_the_window_it_is_another_request(tmp_path: Path) -> None:
    """A key may be used again; and what was repeated lately is still a repetition."""
    attempts = [Attempt("a", 0), Attempt("a", 0, after_s=WINDOW_S - 10), Attempt("a", 0, after_s=3 * WINDOW_S)]
    async with world(tmp_path) as w:
        for number, attempt in enumerate(attempts):
            await append(w, attempt, number)
        await w.drain(w.writer(bytes_max=1, window_s=WINDOW_S))
        assert {"0.0.0": 2} == stored_items(w.store)
        assert {TOPIC: 1} == w.observed.repeated


async def test_without_a_window_nothing_is_left_out(tmp_path: Path) -> None:
    """The off switch of the writer."""
    async with world(tmp_path) as w:
        for number in range(2):
            await append(w, Attempt("a", 0), number)
        await w.drain(w.writer(window_s=0))
        assert {"0.0.0": 2} == stored_items(w.store)


async def test_memory_only_saves_look_ups(tmp_path: Path) -> None:
    """A new writer asks the store; the same one knows, once its memory reaches back through two windows; a full memory asks."""
    store = FakeStore()
    for keys_max, expected in ((1000, False), (4, True)):
        shutil.rmtree(tmp_path)
        async with world(tmp_path, store) as w:
            writer = w.writer(bytes_max=1, window_s=WINDOW_S, keys_max=keys_max)
            running = asyncio.create_task(writer.run())
            for after_s in range(0, 5 * WINDOW_S, WINDOW_S // 8):
                asked = store.looked_up
                # Requests 0 and 3 have one message each.
                await append(w, Attempt(f"{keys_max} {after_s}", 0, after_s=after_s), after_s)
                await append(w, Attempt(f"{keys_max} {after_s}", 3, after_s=after_s), after_s + 1)
                assert await writer.drained(60)
                if after_s == 0:
                    assert store.looked_up > asked
            assert expected == (store.looked_up > asked)
            writer.stop()
            await running


async def test_more_than_an_intent_can_name_is_cut(tmp_path: Path) -> None:
    """The range ends before the first repetition that the intent has no bit for; the next begins there."""
    count = LEFT_OUT_INDEX_MAX + 10
    async with world(tmp_path) as w:
        await append(w, Attempt("a", 0), 0)
        await w.drain(w.writer(window_s=WINDOW_S))
        await w.log.append([Message(TOPIC, message(Attempt("a", 0), 0, number)) for number in range(1, count + 1)])
        await w.drain(w.writer(window_s=WINDOW_S))
        assert {"0.0.0": 1} == stored_items(w.store)
        assert {TOPIC: count} == w.observed.repeated


async def test_refused_neighbours_of_what_is_left_out_keep_their_places(tmp_path: Path) -> None:
    """A dead letter's offset is that of its message, whatever was left out before it."""
    async with world(tmp_path) as w:
        await append(w, Attempt("a", 0), 0)
        await append(w, Attempt("a", 0), 1)
        await w.append(TOPIC, "good", "bad")
        await w.drain(w.writer(window_s=WINDOW_S))
        assert [(2, 1)] == [(entry.offset, entry.record_index) for entry in w.entries]
        assert {"0.0.0": 1, "good": 1} == stored_items(w.store)


@pytest.mark.parametrize("outlives_s", [0.0, 40.0], ids=["embedded", "a server"])
@pytest.mark.parametrize("crash_at", ["insert begun", "receipts without items", "inserted"])
async def test_what_was_left_out_for_a_message_that_is_lost_is_stored(tmp_path: Path, crash_at: str, outlives_s: float) -> None:
    """The first copy is damaged while the range is in doubt. If it was stored before, its copies stay left out; if not, or
    without its items, the next one is stored, once."""
    store = FakeStore(crash_at=crash_at, outlives_s=outlives_s)
    async with world(tmp_path, store) as w:
        for number, request in enumerate((0, 3, 0, 0)):
            await append(w, Attempt("a", request, after_s=number), number)
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer(crash_at, window_s=WINDOW_S).run(), 30)
    damage_first(tmp_path)
    async with world(tmp_path, store) as w:
        await w.drain(w.writer(window_s=WINDOW_S))
    kept = 0 if crash_at == "inserted" else 2
    assert {f"0.0.0@{kept}": 1, "3.0.0@1": 1} == {name: times for name, times in store.rows.items() if "end of" not in name}


async def test_a_row_whose_items_are_lost_makes_nothing_a_repetition(tmp_path: Path) -> None:
    """An insert broke off between the tables, and the message was damaged after that: its row is stored, and its items never
    are. What is sent again is stored."""
    store = FakeStore(crash_at="receipts without items")
    async with world(tmp_path, store) as w:
        for number, request in enumerate((0, 3)):
            await append(w, Attempt("a", request, after_s=number), number)
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer(window_s=WINDOW_S).run(), 30)
    damage_first(tmp_path)
    async with world(tmp_path, store) as w:
        await w.drain(w.writer(window_s=WINDOW_S))
        assert {"3.0.0": 1} == stored_items(store)
        for number, request in enumerate((0, 3, 0), 2):
            await append(w, Attempt("a", request, after_s=number), number)
        await w.drain(w.writer(window_s=WINDOW_S))
    assert {"3.0.0@1": 1, "0.0.0@2": 1} == {name: times for name, times in store.rows.items() if "end of" not in name}


def damage_first(log_dir: Path) -> None:
    """Change a byte of the first request's message 0, in every file of a log that is closed."""
    found = 0
    for file in log_dir.glob("messages.sqlite*"):
        written = file.read_bytes()
        found += written.count(b"0.0.0@0")
        file.write_bytes(written.replace(b"0.0.0@0", b"0.0.0@9"))
    assert found
