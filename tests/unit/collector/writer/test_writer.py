"""The writer over a real local log and a store that fails wherever one can: every record once, whatever happens."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.examples import examples
from support.fakes.brokers import TOPICS
from support.fakes.stores import Crash, FakeStore, batch, batch_v1
from support.fakes.writing import CRASHES, TOPIC, CrashingConsumer, world
from support.waiting import eventually

from adapters.codec.wire import length_of
from collector.broker.contract import BrokerDown, Message, Partition, Range
from collector.broker.range_digest import with_digest
from collector.store.contract import NOTHING, Completed
from collector.writer.piece import Piece
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

# All goes well.


async def test_everything_appended_is_stored_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for topic in TOPICS:
            for number in range(10):
                await w.append(topic, *(f"{topic}-{number}-{n}" for n in range(number + 1)))
        await w.drain(w.writer(bytes_max=500))
        expected = {f"{topic}-{number}-{n}" for topic in TOPICS for number in range(10) for n in range(number + 1)}
        assert dict.fromkeys(expected, 1) == w.store.rows
        assert dict.fromkeys(TOPICS, 10) == w.observed.stored
        assert w.store.inserts > 3


async def test_the_token_is_the_range(tmp_path: Path) -> None:
    """log/topic/partition/start-end: the same at each repetition."""
    async with world(tmp_path) as w:
        await w.append(TOPIC, "a")
        await w.append(TOPIC, "b")
        writer = w.writer(bytes_max=1)
        await w.drain(writer)
        tokens = [token for token, _ in w.store.blocks]
        assert [f"{TOPIC}/0/0-1", f"{TOPIC}/0/1-2"] == [token.partition("/")[2] for token in tokens]
        assert {w.log.identity} == {token.partition(".")[0] for token in tokens}


async def test_a_record_is_stored_at_once_and_then_they_gather(tmp_path: Path) -> None:
    """The first insert waits for nothing; the next of its topic begins no sooner than linger_ms later, unless it is full."""
    async with world(tmp_path) as w:
        writer = w.writer(linger_ms=100, bytes_max=10_000)
        running = asyncio.create_task(writer.run())
        began = []
        for names in (["a"], ["b"], ["c" * 9_000], ["d"]):
            await w.append(TOPIC, *names)
            assert await writer.drained(60)
            began.append(round(w.time.now, 3))
        await w.append(TOPICS[1], "other")
        assert await writer.drained(60)
        began.append(round(w.time.now, 3))
        writer.stop()
        await running
    assert [0, 0.1, 0.1, 0.2, 0.2] == began


# Crashes.


@pytest.mark.parametrize("crash_at", CRASHES)
async def test_a_crash_anywhere_loses_and_repeats_nothing(tmp_path: Path, crash_at: str) -> None:
    """The writer dies at one step; another, after a restart, goes on: every record is there once."""
    store = FakeStore(crash_at=crash_at)
    names = [f"{topic}{n}" for topic in TOPICS for n in range(6)]
    async with world(tmp_path, store) as w:
        for number, name in enumerate(names):
            await w.append(TOPICS[number // 6], name, f"{name}+")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer(crash_at).run(), 30)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "later")
        await w.drain(w.writer())
    assert dict.fromkeys(["later", *names, *(f"{name}+" for name in names)], 1) == store.rows


@pytest.mark.parametrize("crash_at", ["after the intent", "insert begun", "insert half done", "inserted", "before the commit"])
async def test_a_lost_deduplication_log_is_no_loss(tmp_path: Path, crash_at: str) -> None:
    """After a power cut the store may have forgotten its tokens: a range in doubt is looked up before it is repeated."""
    store = FakeStore(crash_at=crash_at)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer(crash_at).run(), 30)
        store.blocks.clear()
    async with world(tmp_path, store) as w:
        await w.drain(w.writer())
    assert {"a": 1, "b": 1, "c": 1} == store.rows


@examples(40)
@given(
    appends=st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(1, 4), st.booleans()), min_size=1, max_size=12),
    faults=st.lists(
        st.sampled_from(
            [
                "",
                "",
                "down",
                "answer lost",
                "insert half done",
                "half done, then down",
                "token without rows",
                "rows without token",
                "inserted",
            ]
        ),
        max_size=30,
    ),
    crashes=st.lists(st.sampled_from([None, *CRASHES]), max_size=10),
    bytes_max=st.sampled_from([1, 60, 1000]),
)
def test_any_sequence_of_faults_ends_with_every_record_once(
    appends: list[tuple[str, int, bool]], faults: list[str], crashes: list[str | None], bytes_max: int
) -> None:
    """Whatever the store does and wherever writers die, good records are stored once and bad ones are dead letters."""

    async def run(directory: Path) -> None:
        store = FakeStore(faults=faults)
        async with world(directory, store) as w:
            good: list[str] = []
            bad: list[str] = []
            for number, (topic, records, spoilt) in enumerate(appends):
                names = [f"{number}-{n}" for n in range(records)]
                if spoilt:
                    names[records // 2] = f"bad-{number}"
                good += [name for name in names if not name.startswith("bad")]
                bad += [name for name in names if name.startswith("bad")]
                await w.append(topic, *names)
            coming = iter(crashes)
            await w.drain_through_crashes(lambda: w.writer(next(coming, None), bytes_max))
            assert dict.fromkeys(good, 1) == store.rows
            # At least once: a crash between keeping and committing keeps it again.
            assert {batch(name) for name in bad} == {letter.payload for letter in w.letters}
            assert len(bad) == len({entry.id for entry in w.entries})

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place) / "log"))


# A log that begins anew.


async def test_a_log_that_was_removed_loses_nothing_of_the_next(tmp_path: Path) -> None:
    """Offsets repeat, and so would tokens without the log's identity: the store would take new records for repetitions."""
    store = FakeStore()
    for life in ("first", "second"):
        async with world(tmp_path, store) as w:
            for number in range(3):
                await w.append(TOPIC, f"{life}-{number}")
            await w.drain(w.writer(bytes_max=1))
        shutil.rmtree(tmp_path)
    assert {f"{life}-{number}": 1 for life in ("first", "second") for number in range(3)} == store.rows


async def test_a_copy_of_the_log_that_was_put_back_loses_nothing(tmp_path: Path) -> None:
    """The file is the same as some time before, and so is its identity; what is appended then has offsets that were used."""
    store = FakeStore()
    log, copy = tmp_path / "log", tmp_path / "copy"
    async with world(log, store) as w:
        await w.append(TOPIC, "before")
        await w.drain(w.writer())
    shutil.copytree(log, copy)
    for life in ("first", "second"):
        async with world(log, store) as w:
            await w.append(TOPIC, f"after, {life}")
            await w.drain(w.writer())
        shutil.rmtree(log)
        shutil.copytree(copy, log)
    assert {"before": 1, "after, first": 1, "after, second": 1} == store.rows


@pytest.mark.parametrize("crash_at", ["insert half done", "inserted"])
async def test_what_a_version_without_identities_had_in_doubt_is_stored_once(tmp_path: Path, crash_at: str) -> None:
    """It had inserted under a token without the log's identity. The range is repeated under the same token."""
    store = FakeStore(crash_at=crash_at)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c", "d")
        writer = w.writer()
        poll = writer._consumer.poll

        async def without_identity(bytes_max: int, wait_s: float) -> Range | None:
            messages = await poll(bytes_max, wait_s)
            return messages and messages._replace(log="")

        writer._consumer.poll = without_identity  # type: ignore[method-assign]
        with pytest.raises(Crash):
            await asyncio.wait_for(writer.run(), 30)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "e")
        await w.drain(w.writer())
    assert dict.fromkeys("abcde", 1) == store.rows
    assert {f"{TOPIC}/0/0-1"} == {token for token, _ in store.blocks if token.startswith(TOPIC)}


# A store that fails.


async def test_an_insert_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    """The store had stored it, but said that it failed, and has even forgotten the token: it is found there."""
    async with world(tmp_path, FakeStore(faults=["answer lost"], forgets=True)) as w:
        await w.append(TOPIC, "a", "b")
        await w.drain(w.writer())
        assert {"a": 1, "b": 1} == w.store.rows
        assert {"unavailable": 1} == w.observed.failed


async def test_an_insert_on_a_low_disk_is_looked_up(tmp_path: Path) -> None:
    """An insert that succeeded while the disk was full left rows that can't be read: the range is repeated."""
    async with world(tmp_path, FakeStore(faults=["part damaged"], forgets=True)) as w:
        w.is_disk_low = True
        await w.append(TOPIC, "a", "b")
        await w.drain(w.writer())
        assert {"a": 1, "b": 1} == w.store.rows
        assert {"unavailable": 1} == w.observed.failed


async def test_a_token_without_rows_loses_nothing(tmp_path: Path) -> None:
    """The store knows the token and lacks the rows, so it drops the repeated insert: they are completed, counted and logged."""
    store = FakeStore(crash_at="token without rows")
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer().run(), 30)
    async with world(tmp_path, store) as w:
        with capture_logs() as logs:
            await w.drain(w.writer())
        assert {"a": 1, "b": 1, "c": 1} == store.rows
        assert 2 == store.inserts
        assert {TOPIC: 2} == w.observed.completed_rows
        (line,) = [entry for entry in logs if entry["log_level"] == "warning"]
        assert (TOPIC, 0, 0, {"rows": 2}) == tuple(line[key] for key in ("topic", "partition", "offset", "rows"))


async def test_rows_are_not_completed_while_an_insert_may_be_going_on(tmp_path: Path) -> None:
    """A server goes on with an insert whose connection broke: until that has ended, only tokens keep rows single."""
    store = FakeStore(crash_at="token without rows", outlives_s=60)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer().run(), 30)
    async with world(tmp_path, store) as w:
        await w.drain(w.writer())
        assert {"a": 1, "b": 1, "c": 1} == store.rows
        assert 1 == store.completions
        assert 60 <= w.time.now < 120


async def test_rows_are_not_completed_long_after_the_intent(tmp_path: Path) -> None:
    """The partition may have gone to another writer meanwhile, which waits for our inserts only so long: an intent tells."""

    class Slow(FakeStore):
        polls: Callable[[], int]
        advance: Callable[[float], None]
        may_complete: Callable[[], bool]
        slow_at: int | None = None
        completed_at: int | None = None

        def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
            if self.slow_at is None and self.may_complete():
                self.slow_at = self.polls()
                self.advance(31)
            return super().untouched(topic, payload, besides)

        def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
            self.completed_at = self.polls()
            return super().complete(topic, payload, token, earlier)

    store = Slow(crash_at="token without rows", outlives_s=60)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer().run(), 30)
    async with world(tmp_path, store) as w:
        writer = w.writer()
        consumer = writer._consumer
        assert isinstance(consumer, CrashingConsumer)
        store.polls = lambda: consumer.polls

        def advance(seconds: float) -> None:
            w.time.now += seconds

        store.advance = advance
        store.may_complete = lambda: writer._memory.is_quiet(Partition(TOPIC, 0))
        await w.drain(writer)
        assert {"a": 1, "b": 1, "c": 1} == store.rows
        assert store.slow_at is not None
        assert store.slow_at + 1 == store.completed_at


async def test_a_store_whose_tokens_are_sure_is_not_looked_up_again(tmp_path: Path) -> None:
    """A cluster commits token and rows together, and a replica that is behind would deny rows that are there."""
    store = FakeStore(crash_at="insert half done", completes=False)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        with pytest.raises(Crash):
            await asyncio.wait_for(w.writer().run(), 30)
        await w.drain(w.writer())
    assert {"a": 1, "b": 1, "c": 1} == store.rows
    assert 0 == store.completions


async def test_a_look_up_that_never_finds_does_not_hold_up_the_topic(tmp_path: Path) -> None:
    """Rows that retention removes at once are not found however often they are inserted: the writer goes on in the end."""
    async with world(tmp_path, FakeStore(faults=["part damaged"] * 100, forgets=True)) as w:
        w.is_disk_low = True
        await w.append(TOPIC, "a")
        await w.drain(w.writer())
        assert {"unavailable": 8} == w.observed.failed


async def test_one_topic_is_waited_for_alone(tmp_path: Path) -> None:
    """Other topics may take as long as they like."""
    async with world(tmp_path) as w:
        await w.append(TOPICS[0], "waits")
        writer = w.writer()
        assert await writer.drained(60, TOPICS[1])
        assert not await writer.drained(0, TOPICS[0])


async def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """It tries for ever, less and less often, says that it is degraded, takes turns, and then stores everything once."""
    async with world(tmp_path, FakeStore(faults=["down"] * 200)) as w:
        for topic in TOPICS:
            await w.append(topic, topic)
        writer = w.writer()
        states: list[str] = [writer.state]
        running = asyncio.create_task(writer.run())
        while not w.time.slept:
            await asyncio.sleep(0)
        states.append(writer.state)
        assert not await writer.drained(0)
        assert await writer.drained(60)
        states.append(writer.state)
        assert ["ok", "degraded", "ok"] == states
        writer.stop()
        await running
        waits = w.time.slept
        assert 200 == len(waits)
        assert [0.1, 0.2, 0.4, 0.8] == pytest.approx(waits[:4])
        assert {30} == set(waits[9:])
        assert dict.fromkeys(TOPICS, 1) == w.store.rows


async def test_a_broker_that_is_away_is_asked_again_within_a_second(tmp_path: Path) -> None:
    """It is, however long it is away: writing goes on as soon as Kafka has a new leader."""
    async with world(tmp_path, FakeStore()) as w:
        await w.append(TOPIC, "a")
        writer = w.writer()
        poll = writer._consumer.poll
        failures = 20

        async def away(bytes_max: int, wait_s: float) -> Range | None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise BrokerDown("away")
            return await poll(bytes_max, wait_s)

        writer._consumer.poll = away  # type: ignore[method-assign]
        await w.drain(writer)
        assert [0.1, 0.2, 0.4, 0.8] == pytest.approx(w.time.slept[:4])
        assert [1.0] * 16 == w.time.slept[4:]
        assert {"a": 1} == w.store.rows


async def test_a_long_outage_is_logged_at_least_once_a_minute(tmp_path: Path) -> None:
    """An hour and a half of it: each line is at most a minute after the one before, and none is without need."""
    async with world(tmp_path, FakeStore(faults=["down"] * 200)) as w:

        def at(_logger: object, _method: str, event: EventDict) -> EventDict:
            return {**event, "at_s": w.time.now}

        await w.append(TOPICS[0], "a")
        with capture_logs(processors=[at]) as logs:
            await w.drain(w.writer())
        said = [entry["at_s"] for entry in logs if entry["event"] == "cannot write"]
        gaps = [later - earlier for earlier, later in pairwise(said)]
        assert w.time.now > 5000
        assert max(gaps) <= 60
        assert min(gaps) >= 30
        assert w.time.now - said[-1] <= 60
        assert ["writing again"] == [entry["event"] for entry in logs if entry["event"] != "cannot write"]


async def test_one_topic_that_cannot_be_stored_does_not_stop_the_others(tmp_path: Path) -> None:
    """Ranges of other topics are stored between the attempts."""
    async with world(tmp_path, FakeStore(down_for=TOPICS[1])) as w:
        for topic in TOPICS:
            for number in range(3):
                await w.append(topic, f"{topic}{number}")
        writer = w.writer(bytes_max=1)
        running = asyncio.create_task(writer.run())
        await eventually(lambda: len(w.store.rows) == 6)
        states: list[str] = [writer.state]
        for owned in (TOPICS[1], TOPICS[0]):  # gone to another writer, it is that one's trouble
            writer.owns([Partition(owned, 0)])
            states.append(writer.state)
        assert ["degraded", "degraded", "ok"] == states
        writer.stop()
        await running
        assert {f"{topic}{number}": 1 for topic in (TOPICS[0], TOPICS[2]) for number in range(3)} == w.store.rows


async def test_a_defect_of_the_store_does_not_end_the_writer(tmp_path: Path) -> None:
    """Even an error that no contract names does not."""
    async with world(tmp_path, FakeStore(faults=["defect"] * 3)) as w:
        await w.append(TOPIC, "a")
        await w.drain(w.writer())
        assert {"a": 1} == w.store.rows


# Messages that version 1 wrote.


@pytest.mark.parametrize("crash_at", [None, *CRASHES])
async def test_messages_of_version_1_are_stored_as_those_of_today(tmp_path: Path, crash_at: str | None) -> None:
    """They are in one range with others, each stored once, whatever happens. A refused record is kept in today's form."""
    store = FakeStore(crash_at=crash_at)
    async with world(tmp_path, store) as w:
        for payload in (batch_v1("a", "b"), batch("c"), batch_v1("d", "bad", "e"), batch("f", "g"), b"", batch_v1("h")):
            await w.log.append([Message(TOPIC, payload)])
        left = [crash_at]
        await w.drain_through_crashes(lambda: w.writer(left.pop() if left else None))
        assert dict.fromkeys("abcdefgh", 1) == store.rows
        refused = [TelemetryBatch.FromString(letter.payload).records for letter in w.letters]
        assert {("bad", 2)} == {(record.service_id, record.version) for records in refused for record in records}
        assert {1} == {entry.record_index for entry in w.entries}
        assert 1 == len({entry.id for entry in w.entries})


@pytest.mark.parametrize("stored", ["insert half done", "token without rows", "rows without token", "inserted"])
async def test_what_version_1_left_in_doubt_is_completed(tmp_path: Path, stored: str) -> None:
    """It intended a range with the digest of its bytes, and died somewhere in the insert: the token is the same, and what is
    there already is not stored again."""
    store = FakeStore()
    async with world(tmp_path, store) as w:
        for names in ("ab", "cde", "f"):
            await w.log.append([Message(TOPIC, batch_v1(*names))])
        polled = await w.log.poll(1 << 20, 0)
        assert polled is not None
        intended = with_digest(polled)
        await w.log.intend(intended)
        token = Piece.whole(intended).token
        # The engine reads the former form with the former schema: the fake store reads today's alone.
        store.fail_next(stored)
        with pytest.raises(Crash):
            store.insert(TOPIC, [batch(*names) for names in ("ab", "cde", "f")], token)
    async with world(tmp_path, store) as w:
        await w.drain(w.writer())
        assert dict.fromkeys("abcdef", 1) == store.rows
        assert {token} >= set(store.asked)


# Data that the store refuses.


@pytest.mark.parametrize("bytes_max", [1, 200, 1_000_000])
async def test_a_refused_record_takes_no_other_down(tmp_path: Path, bytes_max: int) -> None:
    """Records at fault are found, wherever they are, and kept; each of their neighbours is stored once."""
    messages = [["a"], ["b", "bad-1", "c", "d"], ["bad-2"], ["e", "f"], ["bad-3", "bad-4", "g"], ["h"]]
    async with world(tmp_path) as w:
        for names in messages:
            await w.append(TOPIC, *names)
        await w.drain(w.writer(bytes_max=bytes_max))
        assert dict.fromkeys("abcdefgh", 1) == w.store.rows
        where = [(letter.offset, letter.payload) for letter in w.letters]
        assert [(1, batch("bad-1")), (2, batch("bad-2")), (4, batch("bad-3")), (4, batch("bad-4"))] == where
        assert {Partition(TOPIC, 0)} == {letter.partition for letter in w.letters}
        assert "cannot read bad-1" == w.letters[0].error
        assert [(1, 1), (2, 0), (4, 0), (4, 1)] == [(entry.offset, entry.record_index) for entry in w.entries]
        assert 4 == len({entry.id for entry in w.entries}) == w.observed.dead_letters[TOPIC]
        assert 0 == w.log.depth(TOPIC)


async def test_the_search_for_what_is_refused_ends(tmp_path: Path) -> None:
    """A message that is refused entirely takes a bounded number of inserts: the rest is kept, record by record."""
    async with world(tmp_path) as w:
        await w.append(TOPIC, *(f"bad-{n}" for n in range(64)))
        await w.append(TOPIC, "a")
        await w.drain(w.writer(refusals_max=20, bytes_max=1))
        assert {"a": 1} == w.store.rows
        assert w.observed.failed["refused"] <= 20 + 7
        kept = [record.service_id for letter in w.letters for record in TelemetryBatch.FromString(letter.payload).records]
        assert [f"bad-{n}" for n in range(64)] == kept
        assert len(w.letters) == 64 == len({entry.id for entry in w.entries})


@pytest.mark.parametrize("crash_at", [None, "insert begun", "inserted"])
async def test_a_message_that_is_cut_takes_no_other_along(tmp_path: Path, crash_at: str | None) -> None:
    """Another producer's, with an unknown field that is longer than the message, by just what follows it: the store reads the
    messages of an insert as one. In doubt, too."""
    store = FakeStore(crash_at=crash_at)
    async with world(tmp_path, store) as w:
        follower = batch("b")
        unknown = b"\xfa\x06" + length_of(len(follower))
        cut = b"\x0a" + length_of(len(unknown) + len(follower)) + unknown
        joined = TelemetryBatch.FromString(batch("a") + cut + follower + batch("c"))
        assert ["a", "", "c"] == [record.service_id for record in joined.records]
        for payload in (batch("a"), cut, follower, batch("c")):
            await w.log.append([Message(TOPIC, payload)])
        if crash_at is not None:
            with pytest.raises(Crash):
                await asyncio.wait_for(w.writer(crash_at).run(), 30)
    async with world(tmp_path, store) as w:
        await w.drain(w.writer())
        assert {"a": 1, "b": 1, "c": 1} == store.rows
        assert [cut] == [letter.payload for letter in w.letters]


async def test_a_message_that_is_no_batch_is_a_dead_letter(tmp_path: Path) -> None:
    """It can't be divided into records, and is kept as it is."""
    async with world(tmp_path) as w:
        await w.append(TOPIC, "a")
        await w.log.append([Message(TOPIC, b"\x0a\xff")])
        await w.append(TOPIC, "b")
        await w.drain(w.writer())
        assert {"a": 1, "b": 1} == w.store.rows
        assert [(1, b"\x0a\xff")] == [(letter.offset, letter.payload) for letter in w.letters]


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("fault", ["inserted", "insert half done", "answer lost", "down"])
async def test_a_failure_amid_the_search_repeats_nothing(tmp_path: Path, fault: str, at: int) -> None:
    """While a bad record is searched for, the store fails or the process dies: the pieces that were stored stay single."""
    store = FakeStore(faults=[""] * at + [fault])
    async with world(tmp_path, store) as w:
        for number in range(8):
            await w.append(TOPIC, f"{number}", "bad" if number == 5 else f"{number}+")
        await w.drain_through_crashes(w.writer)
        good = [f"{number}" for number in range(8)] + [f"{number}+" for number in range(8) if number != 5]
        assert dict.fromkeys(good, 1) == store.rows
        assert [batch("bad")] == [letter.payload for letter in w.letters]


async def test_dead_letters_that_cannot_be_kept_are_not_committed(tmp_path: Path) -> None:
    """Until a dead letter is durable, its range is tried again."""
    async with world(tmp_path) as w:
        await w.append(TOPIC, "a", "bad")
        keep, failures = w.keep, 3

        async def failing(letters: Sequence[RefusedItem]) -> Mapping[str, int]:
            nonlocal failures
            assert 1 == w.log.depth(TOPIC)
            failures -= 1
            if failures >= 0:
                raise BrokerDown("not now")
            return await keep(letters)

        w.keep = failing  # type: ignore[method-assign]
        await w.drain(w.writer())
        assert {"a": 1} == w.store.rows
        assert [batch("bad")] == [letter.payload for letter in w.letters]


# Waiting and stopping.


async def test_drained_waits_for_what_was_appended_before(tmp_path: Path) -> None:
    """It does not wait for what comes after, and not longer than it may."""
    async with world(tmp_path) as w:
        writer = w.writer(bytes_max=1)
        assert await writer.drained(0)
        await w.append(TOPIC, "before")
        assert not await writer.drained(0.01)
        running = asyncio.create_task(writer.run())
        for number in range(200):  # the log is never empty for long
            await w.append(TOPIC, f"{number}")
            if number % 20 == 0:
                assert await writer.drained(60)
                assert {f"{n}" for n in range(number + 1)} <= set(w.store.rows)
        writer.stop()
        await running


async def test_stop_ends_between_ranges(tmp_path: Path) -> None:
    """The range in hand is finished and committed; the rest stays for the next writer."""
    async with world(tmp_path, FakeStore(slow_s=0.05)) as w:
        for number in range(3):
            await w.append(TOPIC, f"{number}")
        writer = w.writer(bytes_max=1)
        running = asyncio.create_task(writer.run())
        await eventually(lambda: w.store.inserting)
        writer.stop()
        await running
        assert {"0": 1} == w.store.rows
        assert 2 == w.log.depth(TOPIC)
        await w.drain(w.writer())
        assert {"0": 1, "1": 1, "2": 1} == w.store.rows


@pytest.mark.parametrize("faults", [[], ["down"] * 10_000])
async def test_stop_does_not_wait_for_what_may_never_come(tmp_path: Path, faults: list[str]) -> None:
    """Neither for an append nor for a store that is away."""
    async with world(tmp_path, FakeStore(faults=faults)) as w:
        if faults:
            await w.append(TOPIC, "a")
        limits = WriterLimits(
            bytes_max=1000, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=600, retry_max_s=600
        )
        writer = Writer(w.log, w.store, w.keep, limits, w.observed)
        running = asyncio.create_task(writer.run())
        if faults:
            await eventually(lambda: writer.state == "degraded")
        await asyncio.sleep(0.01)
        writer.stop()
        await running
        assert len(faults[:1]) == w.log.depth(TOPIC)


async def test_a_cancelled_writer_leaves_the_store_alone(tmp_path: Path) -> None:
    """When `run` has ended, cancelled or not, the insert that was under way has too; and it is not repeated."""
    async with world(tmp_path, FakeStore(slow_s=0.05)) as w:
        await w.append(TOPIC, "a")
        running = asyncio.create_task(w.writer().run())
        await eventually(lambda: w.store.inserting)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not w.store.inserting
        await w.drain(w.writer())
        assert {"a": 1} == w.store.rows
